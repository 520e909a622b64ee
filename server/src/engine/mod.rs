//! The engine: one thread decodes for all requests, behind a bounded queue.
//!
//! A request is a set of sequences (one for each choice of its answer). It waits in the queue as a whole, its sequences
//! join the running batch as places become free, and every token goes back over the request's own channel. Dropping the
//! [`Ticket`] is how a client leaves: its places are free at the next step.

mod queue;
mod worker;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use safelmm_model::{Checkpoint, GenerateError, Generation, Step};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use queue::{Phase, Queue, Refused};
use worker::Job;
pub(crate) use worker::panic_message;

/// What the engine thread drives: a batch of sequences, one step at a time.
///
/// The one real backend is a [`Checkpoint`]; the scheduler's tests use one that panics and stalls on demand.
pub trait Backend: Send + 'static {
    /// One running sequence and its state.
    type Sequence: Send + 'static;

    /// One decoding step for every sequence; the results are in the order of `sequences`.
    fn step(&self, sequences: &mut [&mut Self::Sequence]) -> Result<Vec<Step>, GenerateError>;
}

impl Backend for Arc<Checkpoint> {
    type Sequence = Generation;

    fn step(&self, sequences: &mut [&mut Generation]) -> Result<Vec<Step>, GenerateError> {
        safelmm_model::step(self, sequences)
    }
}

/// Why a request gets no (further) tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// As many requests wait as the configuration allows.
    #[error("the queue is full: {capacity} requests are waiting already")]
    QueueFull {
        /// The configured number of waiting requests.
        capacity: usize,
    },
    /// The request's time, waiting included, is over.
    #[error("the request was not finished within {} seconds", .limit.as_secs_f32())]
    Timeout {
        /// The configured time for one request.
        limit: Duration,
    },
    /// A step in which this request took part failed or panicked; the log holds the cause.
    #[error("the model failed while it generated this answer")]
    StepFailed,
    /// The server is shutting down, or the engine thread is gone.
    #[error("the engine is shutting down")]
    Stopped,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// Its first sequence has joined the batch.
    Started,
    /// One of its sequences has advanced by one token.
    Token {
        /// Which of the request's sequences, in the order of submission.
        index: usize,
        /// The token, and the text it cleared.
        step: Step,
    },
}

/// The sizes of the engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// How many requests may wait.
    pub queue: usize,
    /// How many sequences are decoded together.
    pub max_batch: usize,
    /// How long a request may take, waiting included.
    pub request_timeout: Duration,
}

/// A handle on the engine thread. Dropping it abandons what runs.
pub struct Engine<S> {
    queue: Arc<Queue<Job<S>>>,
    running: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
    config: EngineConfig,
}

impl<S: Send + 'static> Engine<S> {
    /// Starts the engine thread. Fails when the operating system gives no thread.
    pub fn start<B: Backend<Sequence = S>>(backend: B, config: EngineConfig) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(config.queue));
        let running = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::Builder::new().name("engine".into()).spawn({
            let (queue, running) = (Arc::clone(&queue), Arc::clone(&running));
            move || worker::run(&backend, &queue, &running, config.max_batch)
        })?;
        Ok(Engine { queue, running, thread: Mutex::new(Some(thread)), config })
    }

    /// Puts a request into the queue. Errors: [`EngineError::QueueFull`], [`EngineError::Stopped`].
    pub fn submit(&self, sequences: Vec<S>) -> Result<Ticket, EngineError> {
        let (sender, events) = mpsc::unbounded_channel();
        let job = Job { sequences, events: sender };
        self.queue.push(job, |waiting| waiting.events.is_closed()).map_err(|refused| match refused {
            Refused::Full => EngineError::QueueFull { capacity: self.config.queue },
            Refused::Closed => EngineError::Stopped,
        })?;
        let limit = self.config.request_timeout;
        Ok(Ticket { events, deadline: Instant::now() + limit, limit })
    }

    /// How many sequences are in the batch.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
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
/// Events are not bounded by the speed of the client: what waits here is at most one answer, whose length is bounded by
/// the context.
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
