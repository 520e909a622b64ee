//! The logits chain: what happens between the decoder's output and the draw, one small stage after another.
//!
//! The first stages make the distribution that the model stands for, and that log-probabilities are taken from: rating
//! guidance, then what the request adds to it (neighbour interpolation). They see scored tokens of prompts too. The others
//! choose from it: a grammar, policies → [`Bias`] → [`Penalties`] → [`Bans`]. Then [`Sampler`](crate::Sampler) draws.

use std::collections::HashMap;
use std::sync::Arc;

pub use crate::kernels::log_sum_exp;

/// What a stage may look at beside the logits.
#[derive(Clone, Copy, Debug, Default)]
pub struct History<'a> {
    /// The prompt, the start of the sequence included (a rating token or beginning-of-sequence token), without passages
    /// that a [`ContextSource`](crate::ContextSource) puts before it. While a prompt is scored, as much of it as precedes
    /// the scored token.
    pub prompt: &'a [u32],
    /// The tokens drawn so far.
    pub generated: &'a [u32],
    /// Logits of the pass without the rating, `[vocab_size]`, where guidance asks for one.
    pub unconditioned: Option<&'a [f32]>,
    /// The state of the decoder that predicts the next token, `[hidden_size]`: the key of
    /// [`Decoder::keys`](crate::Decoder::keys), of the pass with the rating. There when a stage of the sequence
    /// [wants it](LogitsStage::wants_key).
    pub key: Option<&'a [f32]>,
}

/// One stage of the chain.
pub trait LogitsStage: Send {
    /// Changes the logits of the next token, `[vocab_size]`, in place; −∞ forbids a token. Called once for each token
    /// that is drawn, so that `history.generated` is one token longer each time; and before these, where a prompt is scored
    /// and the stage is one of those that make the distribution, once for each scored token, so that `history.prompt` is.
    ///
    /// # Errors
    /// A [`StageError`] ends the sequence with an error; the text is for the log.
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError>;

    /// Whether [`History::key`] is looked at. Asked before the sequence starts.
    fn wants_key(&self) -> bool {
        false
    }

    /// The token that came of the last [`apply`](Self::apply), drawn or scored, and its natural log-probability under the
    /// distribution that all stages made.
    fn drawn(&mut self, token: u32, logprob: f32) {
        let _ = (token, logprob);
    }
}

/// Why a stage cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// What the request asks for cannot be kept to: a grammar leaves no token, or costs too much.
    #[error("{0}")]
    Constraint(String),
    /// The stage itself failed: the request is not at fault.
    #[error("{0}")]
    Failed(String),
}

/// Applies stages in their order.
///
/// # Errors
/// That of the first stage that has one.
pub fn apply_all(
    stages: &mut [Box<dyn LogitsStage>],
    logits: &mut [f32],
    history: &History<'_>,
) -> Result<(), StageError> {
    stages.iter_mut().try_for_each(|stage| stage.apply(logits, history))
}

/// Classifier-free guidance (Sanchez et al. 2023, equation 7), which strengthens the rating:
/// `log p = log p(unconditioned) + γ · (log p(conditioned) − log p(unconditioned))`, unnormalised.
pub struct Guidance {
    /// Strength γ; 1 leaves the conditioned distribution as it is.
    pub gamma: f32,
}

impl LogitsStage for Guidance {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        let unconditioned =
            history.unconditioned.ok_or_else(|| StageError::Failed("guidance without an unconditioned pass".into()))?;
        let (c_sum, u_sum) = (log_sum_exp(logits), log_sum_exp(unconditioned));
        for (logit, u) in logits.iter_mut().zip(unconditioned) {
            let (c, u) = (*logit - c_sum, u - u_sum);
            *logit = u + self.gamma * (c - u);
        }
        Ok(())
    }
}

/// Adds a number to the logits of some tokens.
pub struct Bias(pub Vec<(u32, f32)>);

impl LogitsStage for Bias {
    fn apply(&mut self, logits: &mut [f32], _: &History<'_>) -> Result<(), StageError> {
        for &(token, bias) in &self.0 {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        Ok(())
    }
}

/// Penalties on tokens that are there already.
pub struct Penalties {
    /// Divides positive and multiplies negative logits of tokens of the prompt and the answer (CTRL, section 4.1).
    pub repetition: f32,
    /// Taken once from the logits of generated tokens.
    pub presence: f32,
    /// Taken from the logits of generated tokens for each occurrence.
    pub frequency: f32,
    counts: Option<HashMap<u32, u32>>,
    counted: usize,
}

impl Penalties {
    /// Penalties in this order: repetition, presence, frequency; `None` when all of them are off.
    pub fn new(repetition: f32, presence: f32, frequency: f32) -> Option<Self> {
        let off = repetition == 1.0 && presence == 0.0 && frequency == 0.0;
        (!off).then_some(Penalties { repetition, presence, frequency, counts: None, counted: 0 })
    }
}

impl LogitsStage for Penalties {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        // How often each token was generated; 0 for those of the prompt alone, which the repetition penalty counts.
        let prompt = if self.repetition == 1.0 { &[][..] } else { history.prompt };
        let counts = self.counts.get_or_insert_with(|| prompt.iter().map(|&token| (token, 0)).collect());
        for &token in &history.generated[self.counted..] {
            *counts.entry(token).or_insert(0) += 1;
        }
        self.counted = history.generated.len();
        for (&token, &count) in counts.iter() {
            let Some(logit) = logits.get_mut(token as usize).filter(|l| **l > f32::NEG_INFINITY) else { continue };
            match *logit > 0.0 {
                true => *logit /= self.repetition,
                false => *logit *= self.repetition,
            }
            if count > 0 {
                *logit -= self.presence + self.frequency * count as f32;
            }
            *logit = logit.clamp(f32::MIN, f32::MAX); // a tiny or huge penalty must not make an infinity
        }
        Ok(())
    }
}

/// Forbids tokens.
pub struct Bans(pub Arc<[u32]>);

impl LogitsStage for Bans {
    fn apply(&mut self, logits: &mut [f32], _: &History<'_>) -> Result<(), StageError> {
        for &token in self.0.iter() {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::log_softmax;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 0.0, 3.0, -1.0];

    fn after(stage: &mut dyn LogitsStage, logits: &[f32], prompt: &[u32], generated: &[u32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        stage.apply(&mut logits, &History { prompt, generated, ..History::default() }).unwrap();
        logits
    }

    #[test]
    fn guidance_of_one_is_the_conditioned_distribution_and_more_sharpens_it() {
        let (c, u) = ([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]);
        let guided = |gamma| {
            let mut logits = c;
            let history = History { unconditioned: Some(&u), ..History::default() };
            Guidance { gamma }.apply(&mut logits, &history).unwrap();
            log_softmax(&logits)
        };
        let one = guided(1.0);
        for (a, b) in one.iter().zip(log_softmax(&c)) {
            assert!((a - b).abs() < 1e-6);
        }
        let three = guided(3.0);
        assert!(three[0] > one[0] && three[2] < one[2]);
        assert!(Guidance { gamma: 2.0 }.apply(&mut [0.0], &History::default()).is_err());
    }

    #[test]
    fn penalties_count_what_they_should() {
        // Prompt: tokens 1 and 5. Generated afterwards: token 4.
        let mut repetition = Penalties::new(2.0, 0.0, 0.0).unwrap();
        assert_eq!(after(&mut repetition, &LOGITS, &[1, 5, 5], &[]), [1.0, 1.5, 2.0, 0.0, 3.0, -2.0]);
        assert_eq!(after(&mut repetition, &LOGITS, &[1, 5, 5], &[4]), [1.0, 1.5, 2.0, 0.0, 1.5, -2.0]);
        let mut counting = Penalties::new(1.0, 0.5, 0.25).unwrap();
        let penalised = after(&mut counting, &LOGITS, &[0, 0], &[2, 2]);
        assert_eq!(penalised, [1.0, 3.0, 1.0, 0.0, 3.0, -1.0], "the prompt does not count");
        let mut extreme = Penalties::new(f32::MIN_POSITIVE, 0.0, 0.0).unwrap();
        assert!(after(&mut extreme, &LOGITS, &[1], &[]).iter().all(|l| l.is_finite()));
        assert!(Penalties::new(1.0, 0.0, 0.0).is_none());
    }

    #[test]
    fn bias_and_bans_pass_over_ids_beyond_the_vocabulary() {
        assert_eq!(after(&mut Bias(vec![(1, 2.0), (1, 1.0), (99, 1.0)]), &[0.0, 0.0], &[], &[]), [0.0, 3.0]);
        assert_eq!(after(&mut Bans([0, 99].into()), &[0.0, 1.0], &[], &[]), [f32::NEG_INFINITY, 1.0]);
    }
}
