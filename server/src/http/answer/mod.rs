//! From engine events to the answer: one JSON body, or a stream of server-sent events.

mod clearing;
mod stream;
mod whole;

use axum::response::Response;
use safelmm_model::Progress;
use serde::Serialize;
use utoipa::ToSchema;

use std::sync::Arc;

pub use clearing::{Finish, Gain};

use clearing::Clearing;
use safelmm_plugins::Guard;

use super::attachment::{Attachment, Traced};
use super::error::ApiError;
use super::extension::Report;
use super::generation::blocking;
use super::inline_moderation::{InlineModeration, Moderated, Moderator};
use super::journal::Journal;
use super::request::{SharedFields, StreamOptions};
use crate::app::App;
use crate::engine::{EngineError, Event, Ticket};
use crate::retrieval::Attribution;

/// What distinguishes the answers of the two endpoints; a value is the state of one choice.
pub trait Shape: Send + 'static {
    /// `object` of a complete answer.
    const OBJECT: &'static str;
    /// `object` of a chunk.
    const CHUNK_OBJECT: &'static str;
    /// How ids of answers begin.
    const ID_PREFIX: &'static str;
    /// What a choice has gained; pieces put together are the whole choice.
    type Piece: Default + Send;
    /// One complete choice.
    type Choice: Serialize + Send;
    /// One choice in a chunk.
    type Delta: Serialize + Send;

    /// Characters of the choice's text that stand before what is generated.
    fn before(&self) -> usize {
        0
    }
    /// What the choice gains by what the policies have let pass.
    fn piece(&mut self, gain: Gain) -> Result<Self::Piece, ApiError>;
    /// Puts a piece behind those before it.
    fn append(whole: &mut Self::Piece, piece: Self::Piece);
    /// A complete choice.
    fn choice(index: usize, whole: Self::Piece) -> Self::Choice;
    /// The chunk with which a choice begins, where there is one.
    fn opening(index: usize) -> Option<Self::Delta>;
    /// A piece of a choice; none where it says nothing.
    fn delta(index: usize, piece: Self::Piece) -> Option<Self::Delta>;
}

/// Whether and how an answer is streamed.
#[derive(Clone, Copy, Debug)]
pub struct Streaming {
    /// Server-sent events instead of one body.
    pub stream: bool,
    /// A last chunk with the token counts.
    include_usage: bool,
}

impl Streaming {
    /// Takes `stream` and `stream_options` out of the shared fields.
    pub fn take(shared: &mut SharedFields) -> Result<Self, ApiError> {
        let stream = shared.stream.unwrap_or(false);
        let Some(options) = shared.stream_options.take() else {
            return Ok(Streaming { stream, include_usage: false });
        };
        if !stream {
            return Err(ApiError::parameter("stream_options", "'stream_options' needs 'stream' to be true"));
        }
        let StreamOptions { include_usage, continuous_usage_stats, include_obfuscation } = options;
        for (name, asked, why) in [
            ("continuous_usage_stats", continuous_usage_stats, "counts come once, with the last chunk"),
            ("include_obfuscation", include_obfuscation, "chunks are not padded"),
        ] {
            if asked == Some(true) {
                let param = format!("stream_options.{name}");
                return Err(ApiError::parameter(&param, format!("'{param}' is not supported: {why}")));
            }
        }
        Ok(Streaming { stream, include_usage: include_usage.unwrap_or(false) })
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
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// The tokens of the prompts, each prompt counted once.
    pub prompt_tokens: usize,
    /// The tokens generated, those of candidates that are not shown among them.
    pub completion_tokens: usize,
    /// Both together.
    pub total_tokens: usize,
}

/// An answer, or a chunk of one.
#[derive(Serialize, ToSchema)]
pub struct Answer<C> {
    /// The answer's id, the same in all chunks.
    id: String,
    /// What this is.
    object: &'static str,
    /// Seconds since 1970, the same in all chunks.
    created: u64,
    /// The model's id.
    model: String,
    /// The answers to the prompts, prompt by prompt.
    choices: Vec<C>,
    /// Token counts. In chunks: absent, unless they were asked for; then null in all but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    usage: Option<Option<Usage>>,
    /// What moderation found, where it was asked for. In chunks: in one of its own behind all choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    moderation: Option<InlineModeration>,
    /// What is SafeLMM's own. In chunks: with the last of each choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    safelmm: Option<Report>,
}

/// Which of the candidates become choices.
#[derive(Clone, Copy, Debug)]
pub struct Ranking {
    /// How many candidates each prompt has.
    pub best_of: usize,
    /// How many of them are shown.
    pub n: usize,
}

/// What belongs to the sequences of a request, one of each for each of them.
pub struct Sequences<S> {
    /// The state of its answer.
    pub shapes: Vec<S>,
    /// What its text goes through before it leaves.
    pub guards: Vec<Guard>,
    /// What is known of it, for those who ask where it comes from.
    pub traced: Vec<Traced>,
}

/// One sequence of a request.
struct Sequence<S> {
    shape: S,
    clearing: Clearing,
    moderated: Moderated,
    traced: Traced,
    /// Nothing more is told of it, though the engine may go on until the others have ended.
    over: bool,
}

/// A request that the engine has accepted.
pub struct Running<S> {
    /// Dropping it cancels the request.
    ticket: Ticket,
    journal: Journal,
    sequences: Vec<Sequence<S>>,
    /// Who can say where a sequence comes from, where someone asks.
    origin: Option<(App, Arc<Attachment>)>,
    /// Who judges the answers, where the client asks.
    moderator: Option<Moderator>,
}

impl<S: Shape> Running<S> {
    /// What the engine said to the submission. A refusal goes into the journal too.
    pub fn new(
        submitted: Result<Ticket, EngineError>,
        mut journal: Journal,
        sequences: Sequences<S>,
        origin: Option<(App, Arc<Attachment>)>,
        moderator: Option<Moderator>,
    ) -> Result<Self, ApiError> {
        let Sequences { shapes, guards, traced } = sequences;
        let all = shapes.into_iter().zip(guards).zip(traced);
        let one = |((shape, guard), traced)| {
            let (clearing, moderated) = (Clearing::new(guard), Moderated::default());
            Sequence { shape, clearing, moderated, traced, over: false }
        };
        match submitted {
            Ok(ticket) => Ok(Running { ticket, journal, sequences: all.map(one).collect(), origin, moderator }),
            Err(error) => {
                journal.failed(&error);
                Err(error.into())
            }
        }
    }

    /// The next progress of any sequence that is not over, as a piece of its choice, and what is known of it besides.
    async fn next(&mut self) -> Result<Advance<S::Piece>, ApiError> {
        loop {
            let (index, progress) = next_progress(&mut self.ticket, &mut self.journal).await?;
            let Some(sequence) = self.sequences.get_mut(index) else {
                let message = format!("the engine tells of sequence {index}, which was not submitted");
                return Err(ApiError::Internal(message));
            };
            if !sequence.over {
                return self.advance(index, progress).await;
            }
        }
    }

    async fn advance(&mut self, index: usize, progress: Progress) -> Result<Advance<S::Piece>, ApiError> {
        let logprob = progress.step.as_ref().map(|step| step.token.logprob);
        let before = self.sequences[index].shape.before();
        if self.origin.is_some() {
            let traced = &mut self.sequences[index].traced;
            traced.before = before;
            traced.follow(&progress);
        }
        let found = if progress.finish.is_some() { self.attribute(index).await? } else { Vec::new() };
        let is_told = self.origin.as_ref().is_some_and(|(_, attachment)| attachment.is_told());
        let sequence = &mut self.sequences[index];
        let mut gain = sequence.clearing.clear(progress, &found).await?;
        let mut is_blocked = false;
        if let Some(moderator) = &self.moderator {
            gain = sequence.moderated.pass(moderator, gain).await?;
            is_blocked = sequence.moderated.is_blocked(moderator);
        }
        let attributions = if is_told && !is_blocked { sequence.clearing.realign(found, before) } else { Vec::new() };
        sequence.over = gain.finish.is_some();
        Ok(Advance { index, logprob, finished: sequence.over, attributions, piece: sequence.shape.piece(gain)? })
    }

    fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Where a finished sequence comes from, away from the threads that serve sockets.
    async fn attribute(&mut self, index: usize) -> Result<Vec<Attribution>, ApiError> {
        let Some((app, attachment)) = &self.origin else { return Ok(Vec::new()) };
        let traced = std::mem::take(&mut self.sequences[index].traced);
        let (app, attachment) = (app.clone(), Arc::clone(attachment));
        let failed = |error| ApiError::Internal(format!("an answer cannot be attributed: {error}"));
        blocking(move || attachment.attribute(traced, &app).map_err(failed)).await
    }

    /// What moderation found, once all sequences have ended.
    fn moderation(&self) -> Option<InlineModeration> {
        let answers = self.sequences.iter().map(|sequence| &sequence.moderated);
        self.moderator.as_ref().map(|moderator| moderator.told(answers))
    }

    fn usage(&self) -> Usage {
        let (prompt_tokens, completion_tokens) = self.journal.tokens();
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// What one event of the engine means for a choice.
struct Advance<P> {
    /// Which sequence.
    index: usize,
    /// The log-probability of the token drawn, where one was.
    logprob: Option<f32>,
    /// Whether the sequence has ended.
    finished: bool,
    /// Where it comes from, once it has.
    attributions: Vec<Attribution>,
    piece: P,
}

/// The next progress of any sequence; the journal counts.
pub async fn next_progress(ticket: &mut Ticket, journal: &mut Journal) -> Result<(usize, Progress), ApiError> {
    loop {
        match ticket.next().await {
            Ok(Event::Started { .. }) => journal.started(),
            Ok(Event::Progress { index, progress }) => {
                if progress.step.is_some() {
                    journal.token(index);
                }
                return Ok((index, progress));
            }
            Err(error) => {
                journal.failed(&error);
                return Err(error.into());
            }
        }
    }
}

/// The answer in one of its two forms. A stream shows all candidates.
pub async fn answer<S: Shape>(
    head: Head,
    running: Running<S>,
    ranking: Ranking,
    streaming: Streaming,
) -> Result<Response, ApiError> {
    if streaming.stream {
        Ok(stream::stream(head, running, streaming.include_usage))
    } else {
        whole::whole(head, running, ranking).await
    }
}
