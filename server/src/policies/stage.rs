//! Policies in the logits chain.

use safelmm_model::{History, LogitsStage, StageError};
use safelmm_plugins::Answer;

/// Has the policies of one answer change the logits. Where one of them fails and its operator blocks then, the answer ends:
/// nothing but the end of the text can be drawn.
pub struct PolicyStage {
    answer: Answer,
    /// What ends a text.
    eos: Vec<u32>,
    blocked: bool,
}

impl PolicyStage {
    /// For one answer; `eos` are the tokens that end one.
    pub fn new(answer: Answer, eos: &[u32]) -> Self {
        PolicyStage { answer, eos: eos.to_vec(), blocked: false }
    }
}

impl LogitsStage for PolicyStage {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        self.blocked = self.blocked || self.answer.adjust(history.generated.last().copied(), logits).is_err();
        if self.blocked {
            logits.fill(f32::NEG_INFINITY);
            for eos in &self.eos {
                if let Some(logit) = logits.get_mut(*eos as usize) {
                    *logit = 0.0;
                }
            }
        }
        Ok(())
    }
}
