//! What a generation brings, step by step.

use crate::kernels::log_sum_exp;

/// A token of the prompt or the answer with its probability under the model: after rating guidance and what the request
/// adds to the distribution, before bias, penalties, bans, temperature and truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Its natural log-probability.
    pub logprob: f32,
    /// The most probable tokens in its place with theirs, best first, as many as `top_logprobs` asked for. Where the
    /// token itself is among them it has the same float.
    pub top: Vec<(u32, f32)>,
}

/// What one step brought one sequence. A step that ran a part of a long prompt brings nothing, or scores.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Tokens of the prompt that were scored, in order; the first token of a sequence has no score. A rated model's
    /// rating token is not among the tokens of the prompt.
    pub scored: Vec<TokenLogprob>,
    /// The token drawn.
    pub step: Option<Step>,
    /// The embedding of the sequence, [hidden_size], where it was asked for.
    pub embedding: Option<Vec<f32>>,
    /// Set with the last step.
    pub finish: Option<FinishReason>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// The limit on tokens.
    Length,
}

impl FinishReason {
    /// The name in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// A token drawn.
#[derive(Clone, Debug)]
pub struct Step {
    /// The token and its log-probability.
    pub token: TokenLogprob,
    /// Text that became certain with it: whole characters, and nothing that may turn out to begin a stop string.
    pub text: String,
}

impl TokenLogprob {
    /// The probability of a token under `logits`, [vocab_size], and its `top` rivals.
    pub(super) fn of(logits: &[f32], token: u32, top: usize) -> TokenLogprob {
        let sum = log_sum_exp(logits);
        let mut best: Vec<(u32, f32)> = Vec::new();
        if top > 0 {
            let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            best = (0u32..).zip(logits.iter().copied()).collect();
            if top < best.len() {
                best.select_nth_unstable_by(top, order);
                best.truncate(top);
            }
            best.sort_unstable_by(order);
            best.iter_mut().for_each(|(_, logprob)| *logprob -= sum);
        }
        let logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - sum);
        TokenLogprob { token, logprob, top: best }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_same_float_beside_its_rivals() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        let found = TokenLogprob::of(&logits, 3, 2);
        assert_eq!((found.top[0].0, found.top[1]), (1, (3, found.logprob)));
        assert_eq!(TokenLogprob::of(&logits, 0, 9).top.len(), 4);
        assert!(TokenLogprob::of(&logits, 0, 0).top.is_empty());
    }
}
