//! One sequence under a grammar.

use llguidance::Matcher;
use llguidance::api::StopReason;

use crate::logits::{History, LogitsStage, StageError};

/// The grammar's state after the tokens seen so far.
pub(super) struct GrammarStage {
    matcher: Matcher,
    vocab_size: usize,
    /// Tokens of `history.generated` that the matcher has taken.
    seen: usize,
}

impl GrammarStage {
    pub fn new(matcher: Matcher, vocab_size: usize) -> Self {
        Self { matcher, vocab_size, seen: 0 }
    }
}

impl LogitsStage for GrammarStage {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        if logits.len() != self.vocab_size {
            let (got, expected) = (logits.len(), self.vocab_size);
            return Err(StageError::Failed(format!(
                "grammar: {got} logits, expected {expected}, the vocabulary's size"
            )));
        }
        let Some(new) = history.generated.get(self.seen..) else {
            return Err(StageError::Failed("grammar: the sequence became shorter".into()));
        };
        for &token in new {
            // Behind the end there is nothing to match.
            if self.matcher.stop_reason() == StopReason::NotStopped {
                self.matcher.consume_token(token).map_err(|e| failed(&e))?;
            }
        }
        self.seen = history.generated.len();
        let mask = self.matcher.compute_mask_or_eos().map_err(|e| failed(&e))?;
        for (chunk, &allowed) in logits.chunks_mut(u32::BITS as usize).zip(mask.as_slice()) {
            if allowed == u32::MAX {
                continue;
            }
            for (bit, logit) in chunk.iter_mut().enumerate() {
                if allowed >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }
}

fn failed(error: &anyhow::Error) -> StageError {
    StageError::Constraint(format!("grammar: {}", super::one_line(error)))
}
