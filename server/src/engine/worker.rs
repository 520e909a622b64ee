//! The loop of the engine thread: continuous batching with chunked prefill (Agrawal et al. 2023, Sarathi).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use safelmm_model::{GenerateError, Progress};
use tokio::sync::mpsc::UnboundedSender;
use tracing::Span;

use super::backend::{Backend, Pending, Started};
use super::gauges::Gauges;
use super::queue::{Phase, Queue};
use super::{EngineConfig, EngineError, Event};

/// A request as it waits in the queue.
pub(super) struct Job<S> {
    pub(super) sequences: Vec<S>,
    pub(super) events: Events,
    /// Those of its prompts and its longest answers.
    pub(super) tokens: usize,
    /// The request's span, for what the engine says of it.
    pub(super) span: Span,
}

type Events = UnboundedSender<Result<Event, EngineError>>;

/// One sequence on its way through the batch.
struct Slot<S> {
    sequence: S,
    index: usize,
    events: Events,
    /// Its part of the request's tokens.
    tokens: usize,
    span: Span,
}

impl<S> Slot<S> {
    fn client_left(&self) -> bool {
        self.events.is_closed()
    }

    // A send fails only when the client has left; the slot is then dropped before the next step.
    fn fail(&self, error: EngineError) {
        let _ = self.events.send(Err(error));
    }
}

/// The sequences of a request that have found no place yet.
type Waiting<S> = VecDeque<Slot<S>>;

/// What the engine thread holds.
pub(super) struct Worker<B: Backend> {
    backend: B,
    queue: Arc<Queue<Job<B::Sequence>>>,
    gauges: Arc<Gauges>,
    config: EngineConfig,
    batch: Vec<Slot<B::Sequence>>,
    /// Requests that have left the queue, the next one to get a place first.
    pending: VecDeque<Waiting<B::Sequence>>,
}

impl<B: Backend> Worker<B> {
    pub(super) fn new(
        backend: B,
        queue: Arc<Queue<Job<B::Sequence>>>,
        gauges: Arc<Gauges>,
        config: EngineConfig,
    ) -> Self {
        Worker { backend, queue, gauges, config, batch: Vec::new(), pending: VecDeque::new() }
    }

    /// Runs until the queue is closed and everything is finished, or until it is aborted.
    pub(super) fn run(mut self) {
        let _closing = CloseOnExit(Arc::clone(&self.queue));
        loop {
            self.batch.retain(|slot| !slot.client_left());
            self.pending.retain(|request| !request.iter().any(Slot::client_left));
            if self.queue.phase() == Phase::Aborted {
                let all = self.batch.iter().chain(self.pending.iter().flatten());
                all.for_each(|slot| slot.fail(EngineError::Stopped));
                return;
            }
            self.fill();
            self.report();
            if !self.batch.is_empty() {
                self.advance();
            } else if let Some(job) = self.queue.pop() {
                self.admit(job);
            } else if self.queue.phase() == Phase::Closed {
                return;
            }
        }
    }

    /// Gives the free places of the batch away.
    fn fill(&mut self) {
        // Requests that could have had a place and wait for another one's work, or for memory.
        let mut passed_over = 0;
        while self.batch.len() < self.config.max_batch {
            // Those that wait for another one's work keep nobody from leaving the queue, within reason.
            let looked_at = self.config.max_batch + passed_over.min(3 * self.config.max_batch);
            if self.pending.len() < looked_at
                && let Some(job) = self.queue.try_pop()
            {
                self.admit(job);
            }
            if passed_over >= self.pending.len() {
                return;
            }
            // In turn, so that a request of many sequences does not keep a small one waiting.
            let Some(mut request) = self.pending.pop_front() else { return };
            let Some(mut slot) = request.pop_front() else { continue };
            let started = slot.span.in_scope(|| self.backend.start(&mut slot.sequence));
            match started {
                Started::Running { cached_tokens } => {
                    self.gauges.started(cached_tokens);
                    let _ = slot.events.send(Ok(Event::Started { index: slot.index, cached_tokens }));
                    self.batch.push(slot);
                    passed_over = 0;
                    if !request.is_empty() {
                        self.pending.push_back(request);
                    }
                }
                Started::Later => {
                    request.push_front(slot);
                    self.pending.push_back(request);
                    passed_over += 1;
                }
                Started::NoRoom if self.batch.is_empty() => slot.fail(EngineError::TooLarge),
                // Whoever has waited longest gets the memory that becomes free.
                Started::NoRoom => {
                    request.push_front(slot);
                    self.pending.push_front(request);
                    return;
                }
            }
        }
    }

    /// A new request has its turn after those that came before it.
    fn admit(&mut self, job: Job<B::Sequence>) {
        let Job { sequences, events, tokens, span } = job;
        if events.is_closed() {
            return;
        }
        let tokens = tokens / sequences.len().max(1);
        let slot = |(index, sequence)| Slot { sequence, index, events: events.clone(), tokens, span: span.clone() };
        self.pending.push_back(sequences.into_iter().enumerate().map(slot).collect());
    }

    /// How many tokens of each sequence the next step runs: the next one of those whose prompt is through, and equal
    /// parts of the prompts, so that a short one is not held up by a long one and none holds up the others' next tokens.
    fn portions(&self) -> Vec<usize> {
        let pending: Vec<Pending> = self.batch.iter().map(|slot| self.backend.pending(&slot.sequence)).collect();
        let mut prompts: Vec<(usize, usize)> = pending
            .iter()
            .enumerate()
            .filter_map(|(i, pending)| match pending {
                Pending::Prompt(tokens) => Some((*tokens, i)),
                Pending::Token => None,
            })
            .collect();
        prompts.sort_unstable();
        let mut portions = vec![1; pending.len()];
        let mut budget = self.config.prefill_chunk;
        let mut left = prompts.len();
        // What a short prompt leaves of its part goes to the longer ones.
        for (tokens, i) in prompts {
            let part = (budget / left).clamp(1, tokens);
            portions[i] = part;
            budget = budget.saturating_sub(part);
            left -= 1;
        }
        portions
    }

    /// One step of the whole batch; what finished leaves it. A failed step ends every request that took part, because the
    /// states of its sequences can no longer be trusted.
    fn advance(&mut self) {
        let portions = self.portions();
        let tokens: usize = portions.iter().sum();
        let begun = Instant::now();
        let (backend, batch) = (&mut self.backend, &mut self.batch);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut work: Vec<_> = batch.iter_mut().map(|slot| &mut slot.sequence).zip(portions).collect();
            backend.step(&mut work)
        }));
        self.gauges.step(self.batch.len(), tokens, begun.elapsed());
        match outcome {
            Ok(Ok(progress)) if progress.len() == self.batch.len() => self.deliver(progress),
            Ok(Ok(progress)) => {
                let (found, expected) = (progress.len(), self.batch.len());
                self.drop_batch(&format!("{found} results for {expected} sequences"));
            }
            Ok(Err(error)) => self.drop_batch(&error.to_string()),
            Err(panic) => self.drop_batch(&format!("panic: {}", panic_message(panic.as_ref()))),
        }
    }

    fn deliver(&mut self, progress: Vec<Result<Progress, GenerateError>>) {
        let mut progress = progress.into_iter();
        self.batch.retain(|slot| {
            let progress = match progress.next() {
                None => return true,
                Some(Ok(progress)) => progress,
                Some(Err(error)) => {
                    slot.span.in_scope(|| tracing::warn!(cause = error.to_string(), "an answer cannot go on"));
                    slot.fail(EngineError::of(&error));
                    return false;
                }
            };
            let Progress { scored, step, embedding, finish } = &progress;
            if scored.is_empty() && step.is_none() && embedding.is_none() && finish.is_none() {
                return true;
            }
            let unfinished = finish.is_none();
            let received = slot.events.send(Ok(Event::Progress { index: slot.index, progress })).is_ok();
            received && unfinished
        });
    }

    fn drop_batch(&mut self, cause: &str) {
        tracing::error!(
            sequences = self.batch.len(),
            cause,
            "a decoding step failed; its requests are answered with an error"
        );
        for slot in self.batch.drain(..) {
            slot.fail(EngineError::StepFailed);
        }
    }

    /// Tells the gauges how things stand.
    fn report(&self) {
        let pending = self.pending.iter().map(VecDeque::len).sum();
        let tokens = self.pending.iter().flatten().map(|slot| slot.tokens).sum();
        self.gauges.stand(self.batch.len(), pending, tokens, self.backend.memory());
    }
}

/// The text of a panic, where it has one.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// However the thread ends, requests are refused afterwards and none waits for ever.
struct CloseOnExit<S>(Arc<Queue<Job<S>>>);

impl<S> Drop for CloseOnExit<S> {
    fn drop(&mut self) {
        self.0.advance(Phase::Aborted);
        for job in self.0.drain() {
            let _ = job.events.send(Err(EngineError::Stopped));
        }
    }
}
