//! An answer as a stream of server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};

use super::{Advance, Answer, Head, Running, Shape};
use crate::http::error::ApiError;
use crate::http::extension::Report;

/// Between two comments that keep an idle stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(super) fn stream<S: Shape>(head: Head, running: Running<S>, include_usage: bool) -> Response {
    let unfinished = running.len();
    let mut frames = Frames { head, running, unfinished, include_usage, ready: VecDeque::new(), over: false };
    for delta in (0..unfinished).filter_map(S::opening) {
        frames.chunk(delta, None);
    }
    let events = futures::stream::unfold(frames, |mut frames| async move {
        let data = frames.next().await?;
        Some((Ok::<_, Infallible>(SseEvent::default().data(data)), frames))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Tells nginx and its like not to collect the stream.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    (unbuffered, sse).into_response()
}

/// The data of the stream's events, made one after another as the client takes them.
struct Frames<S> {
    head: Head,
    running: Running<S>,
    unfinished: usize,
    include_usage: bool,
    ready: VecDeque<String>,
    over: bool,
}

impl<S: Shape> Frames<S> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            match self.running.next().await {
                Ok(advance) => self.advance(advance),
                Err(error) => self.fail(&error),
            }
        }
    }

    fn advance(&mut self, Advance { index, finished, piece, mut attributions, .. }: Advance<S::Piece>) {
        attributions.iter_mut().for_each(|attribution| attribution.choice = index);
        if let Some(delta) = S::delta(index, piece) {
            self.chunk(delta, finished.then(|| self.head.report.with(attributions)));
        }
        self.unfinished -= usize::from(finished);
        if self.unfinished == 0 {
            if let Some(moderation) = self.running.moderation() {
                self.push(Answer { moderation: Some(moderation), ..self.empty() });
            }
            if self.include_usage {
                self.push(Answer { usage: Some(Some(self.running.usage())), ..self.empty() });
            }
            self.ready.push_back("[DONE]".into());
            self.over = true;
            self.running.journal.finished();
        }
    }

    fn chunk(&mut self, delta: S::Delta, report: Option<Report>) {
        self.push(Answer { choices: vec![delta], safelmm: report, ..self.empty() });
    }

    /// A chunk that says nothing yet.
    fn empty(&self) -> Answer<S::Delta> {
        let Head { id, created, model, report: _ } = &self.head;
        Answer {
            id: id.clone(),
            object: S::CHUNK_OBJECT,
            created: *created,
            model: model.clone(),
            choices: Vec::new(),
            usage: self.include_usage.then_some(None),
            moderation: None,
            safelmm: None,
        }
    }

    fn push(&mut self, chunk: Answer<S::Delta>) {
        // Plain structs of strings and numbers always serialise; an impossible failure becomes an error frame.
        match serde_json::to_string(&chunk) {
            Ok(frame) => self.ready.push_back(frame),
            Err(error) => self.fail(&ApiError::Internal(error.to_string())),
        }
    }

    /// Ends the stream without `[DONE]`: the answer is not done.
    fn fail(&mut self, error: &ApiError) {
        error.log();
        self.running.journal.broken_off(error.reason());
        self.ready.extend(serde_json::to_string(&error.body()));
        self.over = true;
    }
}
