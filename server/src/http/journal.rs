//! What the log, the metrics and the traces are told about each generation request: tokens in and out, and where the time
//! went; and what its key is charged for.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{Span, info_span};

use crate::engine::EngineError;
use crate::keys::Charge;
use crate::metrics::Metrics;

/// Written to the log when it is dropped, however the request ended.
pub struct Journal {
    span: Span,
    /// The part of the request that is under way: `queue`, `prefill` or `decode`, a child of the request's span.
    phase: Span,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Duration>,
    /// When each sequence drew its last token.
    last_tokens: HashMap<usize, Instant>,
    prompt_tokens: usize,
    completion_tokens: usize,
    outcome: String,
    charge: Charge,
    metrics: Metrics,
}

impl Journal {
    /// Begins with the submission; belongs to the current span. What is not used of the charge is given back at the end.
    pub fn new(prompt_tokens: usize, charge: Charge, metrics: Metrics) -> Self {
        let span = Span::current();
        Journal {
            phase: info_span!(parent: &span, "queue"),
            span,
            submitted: Instant::now(),
            started: None,
            first_token: None,
            last_tokens: HashMap::new(),
            prompt_tokens,
            completion_tokens: 0,
            outcome: "client left".into(),
            charge,
            metrics,
        }
    }

    /// One of its sequences has left the queue.
    pub fn started(&mut self) {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.metrics.queued(self.submitted.elapsed());
            self.phase = info_span!(parent: &self.span, "prefill", prompt_tokens = self.prompt_tokens);
        }
    }

    /// A sequence has drawn a token.
    pub fn token(&mut self, sequence: usize) {
        let now = Instant::now();
        self.completion_tokens += 1;
        self.metrics.token(self.last_tokens.insert(sequence, now).map(|last| now - last));
        if self.first_token.is_none() {
            self.first_token = Some(now - self.submitted);
            self.phase = info_span!(parent: &self.span, "decode");
            self.metrics.first_token(now - self.submitted, now - self.started.unwrap_or(self.submitted));
        }
    }

    /// The answer is complete.
    pub fn finished(&mut self) {
        self.outcome = "finished".into();
    }

    /// The answer will not be completed.
    pub fn failed(&mut self, error: &EngineError) {
        self.outcome = error.to_string();
    }

    /// A stream that was begun ends with an error of this code.
    pub fn broken_off(&self, code: &str) {
        self.metrics.refused(code);
    }

    /// Prompt tokens and completion tokens up to now.
    pub fn tokens(&self) -> (usize, usize) {
        (self.prompt_tokens, self.completion_tokens)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Journal {
    fn drop(&mut self) {
        // A request that never left the queue has used nothing.
        let used = self.started.map_or(0, |_| self.prompt_tokens + self.completion_tokens);
        self.charge.settle(used);
        self.span.in_scope(|| {
            tracing::info!(
                outcome = self.outcome,
                prompt_tokens = self.prompt_tokens,
                completion_tokens = self.completion_tokens,
                queued_ms = self.started.map(|started| ms(started - self.submitted)),
                first_token_ms = self.first_token.map(ms),
                total_ms = ms(self.submitted.elapsed()),
                "generation"
            );
        });
    }
}
