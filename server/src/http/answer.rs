//! From engine events to the answer: one JSON body, or a stream of server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use safelmm_model::{FinishReason, Progress};
use serde::Serialize;

use super::error::ApiError;
use super::extension::Report;
use super::fields::Fields;
use super::journal::Journal;
use crate::engine::{EngineError, Event, Ticket};

/// Between two comments that keep an idle stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What distinguishes the answers of the two endpoints.
pub trait Shape: Send + 'static {
    /// `object` of a complete answer.
    const OBJECT: &'static str;
    /// `object` of a chunk.
    const CHUNK_OBJECT: &'static str;
    /// How ids of answers begin.
    const ID_PREFIX: &'static str;
    /// One complete choice.
    type Choice: Serialize + Send;
    /// One choice in a chunk.
    type Delta: Serialize + Send;

    /// A complete choice.
    fn choice(index: usize, text: String, finish: FinishReason) -> Self::Choice;
    /// The chunk with which a choice begins, where there is one.
    fn opening(index: usize) -> Option<Self::Delta>;
    /// A piece of a choice.
    fn delta(index: usize, text: String, finish: Option<FinishReason>) -> Self::Delta;
}

/// Whether and how an answer is streamed.
#[derive(Clone, Copy, Debug)]
pub struct Streaming {
    /// Server-sent events instead of one body.
    pub stream: bool,
    /// A last chunk with the token counts.
    pub include_usage: bool,
}

impl Streaming {
    /// Takes `stream` and `stream_options` out of a body.
    pub fn take(body: &mut Fields) -> Result<Self, ApiError> {
        let stream = body.boolean("stream")?.unwrap_or(false);
        let Some(mut options) = body.object("stream_options")? else {
            return Ok(Streaming { stream, include_usage: false });
        };
        if !stream {
            return Err(body.error("stream_options", "needs 'stream' to be true"));
        }
        let include_usage = options.boolean("include_usage")?.unwrap_or(false);
        options.finish()?;
        Ok(Streaming { stream, include_usage })
    }
}

/// What all chunks of an answer, or the one body, have in common.
pub struct Head {
    /// The answer's id.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's id.
    pub model: String,
    /// What is said under `safelmm`.
    pub report: Report,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct Body<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<C>,
    /// Absent, `null`, or the counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safelmm: Option<&'a Report>,
}

/// A request that the engine has accepted.
pub struct Running {
    /// Dropping it cancels the request.
    ticket: Ticket,
    journal: Journal,
    choices: usize,
}

impl Running {
    /// What the engine said to the submission. A refusal goes into the journal too.
    pub fn new(submitted: Result<Ticket, EngineError>, mut journal: Journal, choices: usize) -> Result<Self, ApiError> {
        match submitted {
            Ok(ticket) => Ok(Running { ticket, journal, choices }),
            Err(error) => {
                journal.failed(&error);
                Err(error.into())
            }
        }
    }

    /// The next token of any choice.
    async fn next(&mut self) -> Result<(usize, Progress), ApiError> {
        loop {
            match self.ticket.next().await {
                Ok(Event::Started { .. }) => self.journal.started(),
                Ok(Event::Progress { index, progress }) => {
                    if progress.step.is_some() {
                        self.journal.token();
                    }
                    return Ok((index, progress));
                }
                Err(error) => {
                    self.journal.failed(&error);
                    return Err(error.into());
                }
            }
        }
    }

    fn usage(&self) -> Usage {
        let (prompt_tokens, completion_tokens) = self.journal.tokens();
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// The answer in one of its two forms.
pub async fn answer<S: Shape>(head: Head, running: Running, streaming: Streaming) -> Result<Response, ApiError> {
    if streaming.stream {
        Ok(stream::<S>(head, running, streaming.include_usage))
    } else {
        whole::<S>(head, running).await
    }
}

async fn whole<S: Shape>(head: Head, mut running: Running) -> Result<Response, ApiError> {
    let mut texts = vec![String::new(); running.choices];
    let mut choices: Vec<Option<S::Choice>> = texts.iter().map(|_| None).collect();
    while choices.iter().any(Option::is_none) {
        let (index, progress) = running.next().await?;
        texts[index].extend(progress.step.map(|step| step.text));
        if let Some(finish) = progress.finish {
            choices[index] = Some(S::choice(index, std::mem::take(&mut texts[index]), finish));
        }
    }
    running.journal.finished();
    let body = Body {
        id: &head.id,
        object: S::OBJECT,
        created: head.created,
        model: &head.model,
        choices: choices.into_iter().flatten().collect(),
        usage: Some(Some(running.usage())),
        safelmm: Some(&head.report),
    };
    Ok(Json(body).into_response())
}

fn stream<S: Shape>(head: Head, running: Running, include_usage: bool) -> Response {
    let mut frames =
        Frames { head, unfinished: running.choices, running, include_usage, ready: VecDeque::new(), over: false };
    for delta in (0..frames.running.choices).filter_map(S::opening) {
        frames.chunk(vec![delta], S::CHUNK_OBJECT, false);
    }
    let events = futures::stream::unfold(frames, |mut frames| async move {
        let data = frames.next::<S>().await?;
        Some((Ok::<_, Infallible>(SseEvent::default().data(data)), frames))
    });
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Tells nginx and its like not to collect the stream.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    (unbuffered, sse).into_response()
}

/// The data of the stream's events, made one after another as the client takes them.
struct Frames {
    head: Head,
    running: Running,
    unfinished: usize,
    include_usage: bool,
    ready: VecDeque<String>,
    over: bool,
}

impl Frames {
    async fn next<S: Shape>(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            match self.running.next().await {
                Ok((index, progress)) => self.progress::<S>(index, progress),
                Err(error) => {
                    // No `[DONE]` behind it: the answer is not done.
                    error.log();
                    self.push(&error.body());
                    self.over = true;
                }
            }
        }
    }

    fn progress<S: Shape>(&mut self, index: usize, progress: Progress) {
        let last = progress.finish.is_some();
        let text = progress.step.map(|step| step.text).unwrap_or_default();
        if last || !text.is_empty() {
            self.chunk(vec![S::delta(index, text, progress.finish)], S::CHUNK_OBJECT, last);
        }
        self.unfinished -= usize::from(last);
        if self.unfinished == 0 {
            if self.include_usage {
                let usage = Some(Some(self.running.usage()));
                self.body::<S::Delta>(vec![], S::CHUNK_OBJECT, usage, false);
            }
            self.ready.push_back("[DONE]".into());
            self.over = true;
            self.running.journal.finished();
        }
    }

    fn chunk<C: Serialize>(&mut self, choices: Vec<C>, object: &'static str, with_report: bool) {
        let usage = self.include_usage.then_some(None);
        self.body(choices, object, usage, with_report);
    }

    fn body<C: Serialize>(
        &mut self,
        choices: Vec<C>,
        object: &'static str,
        usage: Option<Option<Usage>>,
        with_report: bool,
    ) {
        let Head { id, created, model, report } = &self.head;
        let safelmm = with_report.then_some(report);
        let body = Body { id, object, created: *created, model, choices, usage, safelmm };
        // Plain structs of strings and numbers always serialise; an impossible failure becomes an error frame.
        match serde_json::to_string(&body) {
            Ok(frame) => self.ready.push_back(frame),
            Err(error) => {
                let error = ApiError::Internal(error.to_string());
                error.log();
                self.push(&error.body());
            }
        }
    }

    fn push(&mut self, body: &impl Serialize) {
        self.ready.extend(serde_json::to_string(body));
    }
}
