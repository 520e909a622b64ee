//! What a policy says while an answer is written.

use crate::document::Document;
use crate::verdict::Finding;

/// The candidates for the next token, the most probable first: two lists of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidates {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
}

/// How many candidates policies see.
const CANDIDATES: usize = 256;

impl Candidates {
    /// The 256 most probable tokens of all, without those that cannot be drawn.
    pub fn of(logits: &[f32]) -> Candidates {
        let possible = (0u32..).zip(logits.iter().copied()).filter(|(_, logit)| *logit > f32::NEG_INFINITY);
        let mut best: Vec<(u32, f32)> = possible.collect();
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if best.len() > CANDIDATES {
            best.select_nth_unstable_by(CANDIDATES, order);
            best.truncate(CANDIDATES);
        }
        best.sort_unstable_by(order);
        let (ids, logits) = best.into_iter().unzip();
        Candidates { ids, logits }
    }
}

/// What becomes of the text that is pending.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// All of it may leave.
    Pass,
    /// All but the last so many bytes may leave; these come again with what follows.
    Hold(usize),
    /// Another text stands in for it.
    Replace {
        /// The other text.
        text: String,
        /// The last so many bytes of it stay pending.
        hold: usize,
        /// What was found.
        findings: Vec<Finding>,
    },
    /// The answer ends.
    Stop {
        /// What the reader gets in place of what was pending.
        message: String,
        /// What was found, at least one thing.
        findings: Vec<Finding>,
    },
}

/// What a session says: its action, or, of a policy that failed and whose operator lets answers pass then, what failed.
/// Such a session is not asked again.
#[derive(Clone, Debug, PartialEq)]
pub enum Inspection {
    /// The policy's decision.
    Act(Action),
    /// The policy failed, and this is to be told; the text passes.
    Failed(Finding),
}

/// A policy's view of one answer.
pub trait Session: Send {
    /// What is added to logits, finite or −∞, given the token drawn before (none at the beginning) and the candidates.
    ///
    /// # Errors
    /// The policy failed, and its operator blocks then: no token may be drawn.
    fn adjust_logits(&mut self, drawn: Option<u32>, candidates: &Candidates) -> Result<Vec<(u32, f32)>, Finding>;

    /// What becomes of `pending`, all text that this policy has not let pass. The last call has the documents that had a
    /// part in the answer: then nothing can be held.
    fn inspect_stream(&mut self, pending: &str, sources: Option<&[Document]>) -> Inspection;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_the_most_probable_tokens_that_can_be_drawn() {
        let few = Candidates::of(&[0.5, f32::NEG_INFINITY, 2.0, 2.0, f32::NAN]);
        assert_eq!((few.ids, few.logits), (vec![2, 3, 0], vec![2.0, 2.0, 0.5]));
        let logits: Vec<f32> = (0..1000).map(|id| ((id * 7919) % 1000) as f32).collect();
        let many = Candidates::of(&logits);
        assert_eq!(many.ids.len(), CANDIDATES);
        assert!(many.logits.is_sorted_by(|a, b| a > b) && many.logits[0] == 999.0);
        assert!(many.ids.iter().zip(&many.logits).all(|(id, logit)| logits[*id as usize] == *logit));
    }
}
