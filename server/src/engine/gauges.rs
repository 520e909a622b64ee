//! What the engine thread says of itself while it works, for the scrapers of metrics and for whoever must wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::backend::Memory;
use crate::metrics::Metrics;

/// How much a new step counts in the running mean of the engine's speed.
const RECENT: f64 = 0.05;
/// What a client that met a full queue is told to wait: at least and at most.
const RETRY_AFTER: std::ops::RangeInclusive<f64> = 1.0..=60.0;

/// Numbers of the engine thread, readable from any other.
pub(super) struct Gauges {
    running: AtomicUsize,
    pending: AtomicUsize,
    /// Tokens of the pending sequences.
    pending_tokens: AtomicUsize,
    /// Tokens a second, prompts and answers together; 0 before the first step.
    speed: Mutex<f64>,
    metrics: Metrics,
}

impl Gauges {
    pub(super) fn new(metrics: Metrics) -> Self {
        let (running, pending, pending_tokens) = Default::default();
        Gauges { running, pending, pending_tokens, speed: Mutex::new(0.0), metrics }
    }

    /// A sequence was started, so many tokens of its prompt found in the prefix cache.
    pub(super) fn started(&self, cached_tokens: usize) {
        self.metrics.sequence_started(cached_tokens);
    }

    /// A step is over.
    pub(super) fn step(&self, sequences: usize, tokens: usize, took: Duration) {
        let speed = tokens as f64 / took.as_secs_f64().max(1e-6);
        let mut mean = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        *mean = if *mean == 0.0 { speed } else { *mean + RECENT * (speed - *mean) };
        self.metrics.step(sequences, tokens, took);
    }

    /// How things stand between two steps.
    pub(super) fn stand(&self, running: usize, pending: usize, pending_tokens: usize, memory: Memory) {
        self.running.store(running, Ordering::Relaxed);
        self.pending.store(pending, Ordering::Relaxed);
        self.pending_tokens.store(pending_tokens, Ordering::Relaxed);
        self.metrics.engine(running, pending, memory);
    }

    /// Sequences in the batch.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Sequences that have left the queue and wait for a place in the batch.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// When so many waiting tokens, and those of the pending sequences, will have been run, by the engine's recent speed.
    pub(super) fn retry_after(&self, waiting_tokens: usize) -> Duration {
        let waiting_tokens = waiting_tokens.saturating_add(self.pending_tokens.load(Ordering::Relaxed));
        let speed = *self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = if speed > 0.0 { waiting_tokens as f64 / speed } else { 0.0 };
        Duration::from_secs_f64(seconds.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()).ceil())
    }
}
