//! What the log is told about each generation request, tokens in and out and where the time went; and what its key is
//! charged for.

use std::time::Instant;

use tracing::Span;

use crate::engine::EngineError;
use crate::keys::Charge;

/// Written to the log when it is dropped, however the request ended.
pub struct Journal {
    span: Span,
    submitted: Instant,
    started_ms: Option<u64>,
    first_token_ms: Option<u64>,
    prompt_tokens: usize,
    completion_tokens: usize,
    outcome: String,
    charge: Charge,
}

impl Journal {
    /// Begins with the submission; belongs to the current span. What is not used of the charge is given back at the end.
    pub fn new(prompt_tokens: usize, charge: Charge) -> Self {
        Journal {
            span: Span::current(),
            submitted: Instant::now(),
            started_ms: None,
            first_token_ms: None,
            prompt_tokens,
            completion_tokens: 0,
            outcome: "client left".into(),
            charge,
        }
    }

    /// The request has left the queue.
    pub fn started(&mut self) {
        self.started_ms = Some(self.elapsed_ms());
    }

    /// A token has come.
    pub fn token(&mut self) {
        self.completion_tokens += 1;
        if self.first_token_ms.is_none() {
            self.first_token_ms = Some(self.elapsed_ms());
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

    /// Prompt tokens and completion tokens up to now.
    pub fn tokens(&self) -> (usize, usize) {
        (self.prompt_tokens, self.completion_tokens)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.submitted.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // A request that never left the queue has used nothing.
        let used = self.started_ms.map_or(0, |_| self.prompt_tokens + self.completion_tokens);
        self.charge.settle(used);
        self.span.in_scope(|| {
            tracing::info!(
                outcome = self.outcome,
                prompt_tokens = self.prompt_tokens,
                completion_tokens = self.completion_tokens,
                queued_ms = self.started_ms,
                first_token_ms = self.first_token_ms,
                total_ms = self.elapsed_ms(),
                "generation"
            );
        });
    }
}
