//! The engine: one thread decodes for all requests, behind a bounded queue.
//!
//! A request is a set of sequences (one for each choice of its answer). It waits in the queue as a whole; its sequences
//! join the running batch as places and memory become free, long prompts run in pieces beside the others' tokens, and
//! everything goes back over the request's own channel. Dropping the [`Ticket`] is how a client leaves: its places are
//! free at the next step.

mod backend;
mod gauges;
mod prefix;
mod queue;
mod worker;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use safelmm_model::{GenerateError, Progress, StageError};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

pub use backend::{Backend, Decoder, Memory, Pending, Sequence, Started, Stepped};
pub use prefix::CacheDomain;

use crate::metrics::Metrics;
use gauges::Gauges;
use queue::{Capacity, Phase, Queue, Refused};
pub(crate) use worker::panic_message;
use worker::{Job, Worker};

/// Why a request gets no (further) tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// As many requests, or tokens, wait as the configuration allows.
    #[error("the queue is full: try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// When there is likely to be room again.
        retry_after: Duration,
    },
    /// The request needs more memory than there is for all.
    #[error("the request needs more key-value cache than this server has: shorten it, or give the server more")]
    TooLarge,
    /// The request's time, waiting included, is over.
    #[error("the request was not finished within {} seconds", .limit.as_secs_f32())]
    Timeout {
        /// The configured time for one request.
        limit: Duration,
    },
    /// One of its sequences has no token left to choose from, or its grammar costs too much.
    #[error(
        "the answer cannot go on: what the request allows leaves no token to choose from, or its grammar costs too much to \
         follow. Simplify the grammar, or allow more tokens"
    )]
    CannotGoOn,
    /// A step in which this request took part failed or panicked, or a stage of its logits chain or the source of its
    /// passages did; the log holds the cause.
    #[error("the model failed while it generated this answer")]
    StepFailed,
    /// The server is shutting down, or the engine thread is gone.
    #[error("the engine is shutting down")]
    Stopped,
}

impl EngineError {
    /// What a sequence that cannot go on is told.
    fn of(error: &GenerateError) -> EngineError {
        match error {
            GenerateError::Stage(StageError::Failed(_)) | GenerateError::Tokenizer(_) | GenerateError::Decoder(_) => {
                EngineError::StepFailed
            }
            _ => EngineError::CannotGoOn,
        }
    }
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// One of its sequences has joined the batch.
    Started {
        /// Which of the request's sequences, in the order of submission.
        index: usize,
        /// Tokens of its prompt that were found in the prefix cache.
        cached_tokens: usize,
    },
    /// One of its sequences has come further.
    Progress {
        /// Which.
        index: usize,
        /// What the step brought.
        progress: Progress,
    },
}

/// The sizes of the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// How many requests may wait.
    pub queue: usize,
    /// How many tokens, of prompts and of the longest answers, the waiting requests may have together.
    pub queue_tokens: usize,
    /// How many sequences are decoded together.
    pub max_batch: usize,
    /// How many tokens of prompts one step runs.
    pub prefill_chunk: usize,
    /// How long a request may take, waiting included.
    pub request_timeout: Duration,
}

/// A handle on the engine thread. Dropping it abandons what runs.
pub struct Engine<S> {
    queue: Arc<Queue<Job<S>>>,
    gauges: Arc<Gauges>,
    thread: Mutex<Option<JoinHandle<()>>>,
    config: EngineConfig,
}

impl<S: Send + 'static> Engine<S> {
    /// Starts the engine thread. Fails when the operating system gives no thread.
    pub fn start<B: Backend<Sequence = S>>(backend: B, config: EngineConfig, metrics: Metrics) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(Capacity { entries: config.queue, cost: config.queue_tokens }));
        let gauges = Arc::new(Gauges::new(metrics));
        let worker = Worker::new(backend, Arc::clone(&queue), Arc::clone(&gauges), config);
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || worker.run())?;
        Ok(Engine { queue, gauges, thread: Mutex::new(Some(thread)), config })
    }

    /// Puts a request into the queue; `tokens` counts those of its prompts and of its longest answers. It belongs to the
    /// current span.
    ///
    /// # Errors
    /// [`EngineError::QueueFull`], [`EngineError::Stopped`].
    pub fn submit(&self, sequences: Vec<S>, tokens: usize) -> Result<Ticket, EngineError> {
        let (sender, events) = mpsc::unbounded_channel();
        let job = Job { sequences, events: sender, tokens, span: Span::current() };
        self.queue.push(job, tokens, |waiting| waiting.events.is_closed()).map_err(|refused| match refused {
            Refused::Full => EngineError::QueueFull { retry_after: self.gauges.retry_after(self.queue.cost()) },
            Refused::Closed => EngineError::Stopped,
        })?;
        let limit = self.config.request_timeout;
        Ok(Ticket { events, deadline: Instant::now() + limit, limit })
    }

    /// How many sequences are in the batch.
    pub fn running(&self) -> usize {
        self.gauges.running()
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many sequences have left the queue and wait for a place in the batch.
    pub fn pending(&self) -> usize {
        self.gauges.pending()
    }

    /// Whether new requests are taken.
    pub fn is_open(&self) -> bool {
        self.queue.phase() == Phase::Open
    }

    /// Takes no new requests from now on; those that wait or run are finished.
    pub fn close(&self) {
        self.queue.advance(Phase::Closed);
    }

    /// Ends everything at the next step: what waits or runs is answered with [`EngineError::Stopped`].
    pub fn abort(&self) {
        self.queue.advance(Phase::Aborted);
    }

    /// Closes the engine and waits until its thread has ended. Blocks: at most a step after [`Engine::abort`].
    pub fn join(&self) {
        self.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the engine thread ended with a panic");
        }
    }
}

impl<S> Drop for Engine<S> {
    fn drop(&mut self) {
        self.queue.advance(Phase::Aborted);
    }
}

/// The receiving end of one request; dropping it cancels the request.
///
/// Events are not bounded by the speed of the client: what waits here is at most the answers to one request, which the
/// limits on its sequences and the context bound; a client that takes nothing is cut off by the listener.
#[derive(Debug)]
pub struct Ticket {
    events: mpsc::UnboundedReceiver<Result<Event, EngineError>>,
    deadline: Instant,
    limit: Duration,
}

impl Ticket {
    /// The next event. After the last sequence's last token nothing more comes, and [`EngineError::Stopped`] is
    /// returned. Errors: [`EngineError::Timeout`], [`EngineError::StepFailed`], [`EngineError::Stopped`].
    pub async fn next(&mut self) -> Result<Event, EngineError> {
        match timeout_at(self.deadline, self.events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => Err(EngineError::Stopped),
            Err(_) => Err(EngineError::Timeout { limit: self.limit }),
        }
    }
}

#[cfg(test)]
mod tests;
