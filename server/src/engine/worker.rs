//! The loop of the engine thread: continuous batching.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use safelmm_model::Step;
use tokio::sync::mpsc::UnboundedSender;

use super::queue::{Phase, Queue};
use super::{Backend, EngineError, Event};

/// A request as it waits in the queue.
pub(super) struct Job<S> {
    pub(super) sequences: Vec<S>,
    pub(super) events: Events,
}

type Events = UnboundedSender<Result<Event, EngineError>>;

/// One sequence on its way through the batch.
struct Slot<S> {
    sequence: S,
    index: usize,
    events: Events,
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

/// Runs until the queue is closed and everything is finished, or until it is aborted.
pub(super) fn run<B: Backend>(backend: &B, queue: &Queue<Job<B::Sequence>>, gauge: &AtomicUsize, max_batch: usize) {
    let _closing = CloseOnExit(queue);
    let mut batch: Vec<Slot<B::Sequence>> = Vec::with_capacity(max_batch);
    // Requests that have left the queue, with those of their sequences that have found no place yet.
    let mut pending: VecDeque<VecDeque<Slot<B::Sequence>>> = VecDeque::new();
    loop {
        batch.retain(|slot| !slot.client_left());
        pending.retain(|request| !request.iter().any(Slot::client_left));
        if queue.phase() == Phase::Aborted {
            batch.iter().chain(pending.iter().flatten()).for_each(|slot| slot.fail(EngineError::Stopped));
            return;
        }
        while batch.len() < max_batch {
            if pending.len() < max_batch
                && let Some(job) = queue.try_pop()
            {
                admit(job, &mut pending);
            }
            // In turn, so that a request of many sequences does not keep a small one waiting.
            let Some(mut request) = pending.pop_front() else { break };
            batch.extend(request.pop_front());
            if !request.is_empty() {
                pending.push_back(request);
            }
        }
        gauge.store(batch.len(), Ordering::Relaxed);
        if !batch.is_empty() {
            advance(backend, &mut batch);
            gauge.store(batch.len(), Ordering::Relaxed);
        } else if let Some(job) = queue.pop() {
            admit(job, &mut pending);
        } else if queue.phase() == Phase::Closed {
            return;
        }
    }
}

/// A new request is the next to get a place.
fn admit<S>(job: Job<S>, pending: &mut VecDeque<VecDeque<Slot<S>>>) {
    if job.events.send(Ok(Event::Started)).is_err() {
        return;
    }
    let slot = |(index, sequence)| Slot { sequence, index, events: job.events.clone() };
    pending.push_front(job.sequences.into_iter().enumerate().map(slot).collect());
}

/// One step of the whole batch; what finished leaves it. A failed step ends every request that took part, because the
/// states of its sequences can no longer be trusted.
fn advance<B: Backend>(backend: &B, batch: &mut Vec<Slot<B::Sequence>>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut sequences: Vec<_> = batch.iter_mut().map(|slot| &mut slot.sequence).collect();
        backend.step(&mut sequences)
    }));
    match outcome {
        Ok(Ok(steps)) if steps.len() == batch.len() => deliver(batch, steps),
        Ok(Ok(steps)) => {
            let (found, expected) = (steps.len(), batch.len());
            drop_batch(batch, &format!("{found} results for {expected} sequences"));
        }
        Ok(Err(error)) => drop_batch(batch, &error.to_string()),
        Err(panic) => drop_batch(batch, &format!("panic: {}", panic_message(panic.as_ref()))),
    }
}

fn deliver<S>(batch: &mut Vec<Slot<S>>, steps: Vec<Step>) {
    let mut steps = steps.into_iter();
    batch.retain(|slot| {
        let Some(step) = steps.next() else { return true };
        let unfinished = step.finish.is_none();
        let received = slot.events.send(Ok(Event::Token { index: slot.index, step })).is_ok();
        received && unfinished
    });
}

fn drop_batch<S>(batch: &mut Vec<Slot<S>>, cause: &str) {
    tracing::error!(sequences = batch.len(), cause, "a decoding step failed; its requests are answered with an error");
    for slot in batch.drain(..) {
        slot.fail(EngineError::StepFailed);
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
struct CloseOnExit<'a, S>(&'a Queue<Job<S>>);

impl<S> Drop for CloseOnExit<'_, S> {
    fn drop(&mut self) {
        self.0.advance(Phase::Aborted);
        for job in self.0.drain() {
            let _ = job.events.send(Err(EngineError::Stopped));
        }
    }
}
