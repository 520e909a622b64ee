//! Choosing the next token from logits: temperature → `top_k` → `top_p` → `min_p` → draw. Each of the last three sees
//! only what the one before it left, renormalised. What changes the logits before is a [chain of stages](crate::logits).

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::logits::{Bans, Bias, LogitsStage, Penalties};

/// How to choose tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits, 0 to 100; 0 takes the best token always (the lowest id among equals).
    pub temperature: f32,
    /// Keeps this many best tokens, at least 1; `None` keeps all.
    pub top_k: Option<usize>,
    /// Keeps the fewest best tokens whose probabilities reach this sum, above 0 and up to 1; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this share of the best one's probability, 0 to 1; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the generated text (CTRL, section 4.1);
    /// above 0, 1 is off.
    pub repetition_penalty: f32,
    /// Taken from the logits of generated tokens, once, -2 to 2.
    pub presence_penalty: f32,
    /// Taken from the logits of generated tokens, once for each occurrence, -2 to 2.
    pub frequency_penalty: f32,
    /// Added to these tokens' logits, -100 to 100: the ends as good as ban and force. Biases of one token add up.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same tokens for the same logits; `None` draws one from the operating system.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    /// Temperature 1, all else off.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// Parameters out of range, or logits that nothing can be drawn from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A parameter is out of range.
    #[error("{param} must be {expected}, not {value}")]
    OutOfRange {
        /// The parameter's name in requests.
        param: &'static str,
        /// The allowed range.
        expected: &'static str,
        /// What was given.
        value: f32,
    },
    /// `top_k` is 0.
    #[error("top_k must be at least 1; leave it out to keep all tokens")]
    TopKZero,
    /// A bias names no token.
    #[error("logit_bias names token {token}, but the vocabulary has {vocab_size} tokens")]
    BiasOutsideVocabulary {
        /// The token named.
        token: u32,
        /// The number of logits.
        vocab_size: usize,
    },
    /// The model gave NaN or +∞.
    #[error("the logit of token {token} is {value}; the model's output must be finite or -inf")]
    InvalidLogit {
        /// The first such token.
        token: usize,
        /// NaN or +∞.
        value: f32,
    },
    /// Every token is banned or has logit -∞.
    #[error("no token is left to choose from: all {vocab_size} are banned")]
    AllBanned {
        /// The number of logits.
        vocab_size: usize,
    },
}

impl SamplingError {
    /// The request parameter at fault; `"logits"` where it is the model's output.
    pub fn param(&self) -> &'static str {
        match self {
            Self::OutOfRange { param, .. } => param,
            Self::TopKZero => "top_k",
            Self::BiasOutsideVocabulary { .. } => "logit_bias",
            Self::InvalidLogit { .. } | Self::AllBanned { .. } => "logits",
        }
    }
}

impl SamplingParams {
    /// Checks every range, and that `logit_bias` names tokens of the vocabulary.
    ///
    /// # Errors
    /// The first parameter that is out of range, by name.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let check = |param, value: f32, is_in_range: bool, expected| match is_in_range {
            true => Ok(()),
            false => Err(SamplingError::OutOfRange { param, expected, value }),
        };
        let within = |value: f32, low: f32, high: f32| (low..=high).contains(&value);
        check("temperature", self.temperature, within(self.temperature, 0.0, 100.0), "between 0 and 100")?;
        if self.top_k == Some(0) {
            return Err(SamplingError::TopKZero);
        }
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        check("min_p", self.min_p, within(self.min_p, 0.0, 1.0), "between 0 and 1")?;
        let repetition = self.repetition_penalty;
        check("repetition_penalty", repetition, repetition > 0.0 && repetition.is_finite(), "above 0 and finite")?;
        check("presence_penalty", self.presence_penalty, within(self.presence_penalty, -2.0, 2.0), "between -2 and 2")?;
        let frequency = self.frequency_penalty;
        check("frequency_penalty", frequency, within(frequency, -2.0, 2.0), "between -2 and 2")?;
        for &(token, bias) in &self.logit_bias {
            check("logit_bias", bias, within(bias, -100.0, 100.0), "between -100 and 100")?;
            if token as usize >= vocab_size {
                return Err(SamplingError::BiasOutsideVocabulary { token, vocab_size });
            }
        }
        Ok(())
    }

    /// What these parameters do to the logits before the draw; `banned` is never chosen.
    pub fn stages(&self, banned: Arc<[u32]>) -> Vec<Box<dyn LogitsStage>> {
        let mut stages: Vec<Box<dyn LogitsStage>> = Vec::new();
        if !self.logit_bias.is_empty() {
            stages.push(Box::new(Bias(self.logit_bias.clone())));
        }
        if let Some(penalties) = Penalties::new(self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        {
            stages.push(Box::new(penalties));
        }
        stages.push(Box::new(Bans(banned)));
        stages
    }
}

/// The state of drawing the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    top_k: Option<usize>,
    top_p: f32,
    min_p: f32,
    rng: ChaCha12Rng,
    /// Kept between calls for its capacity.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
}

impl Candidate {
    /// Best first, the lowest id among equals.
    fn best_first(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// A sampler with these parameters.
    ///
    /// # Errors
    /// A parameter out of range. That `logit_bias` names existing tokens is for [`SamplingParams::validate`].
    pub fn new(params: &SamplingParams) -> Result<Self, SamplingError> {
        params.validate(usize::MAX)?;
        let rng = match params.seed {
            Some(seed) => ChaCha12Rng::seed_from_u64(seed),
            None => ChaCha12Rng::from_seed(entropy()),
        };
        let SamplingParams { temperature, top_k, top_p, min_p, .. } = *params;
        Ok(Self { temperature, top_k, top_p, min_p, rng, candidates: Vec::new() })
    }

    /// Chooses the next token from `logits`, `[vocab_size]`, where −∞ stands for a forbidden token.
    ///
    /// # Errors
    /// NaN or +∞ among the logits, or every token forbidden.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        if let Some(token) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(SamplingError::InvalidLogit { token, value: logits[token] });
        }
        let (best, max) = argmax(logits).ok_or(SamplingError::AllBanned { vocab_size: logits.len() })?;
        Ok(if self.temperature == 0.0 { best } else { self.draw(logits, max) })
    }

    /// Temperature, truncation, draw. `max`: the greatest logit, finite.
    fn draw(&mut self, logits: &[f32], max: f32) -> u32 {
        let Sampler { temperature, top_k, top_p, min_p, .. } = *self;
        let weight = |c: &Candidate| ((c.logit - max) / temperature).exp(); // 1 for the best
        let candidates = &mut self.candidates;
        candidates.clear();
        let all = (0u32..).zip(logits).map(|(token, &logit)| Candidate { token, logit });
        candidates.extend(all.filter(|c| c.logit > f32::NEG_INFINITY));
        if let Some(k) = top_k.filter(|&k| k < candidates.len()) {
            candidates.select_nth_unstable_by(k, Candidate::best_first);
            candidates.truncate(k);
            candidates.sort_unstable_by(Candidate::best_first); // also fixes the order in which the draw walks
        }
        if top_p < 1.0 {
            keep_top_p(candidates, top_p, weight);
        }
        if min_p > 0.0 {
            candidates.retain(|c| weight(c) >= min_p);
        }
        let total: f64 = candidates.iter().map(|c| f64::from(weight(c))).sum();
        // 53 random bits: uniform in [0, 1).
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        let mut chosen = 0;
        for c in candidates.iter() {
            let share = f64::from(weight(c));
            if share > 0.0 {
                chosen = c.token; // rounding may leave a crumb after the last one: that one it is
                left -= share;
                if left < 0.0 {
                    break;
                }
            }
        }
        chosen
    }
}

/// Keeps the fewest best candidates whose weights reach `top_p` of the total, sorted best first. Sorts only as many as
/// needed: most often a few hundred hold the mass.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32, weight: impl Fn(&Candidate) -> f32) {
    let total: f64 = candidates.iter().map(|c| f64::from(weight(c))).sum();
    let wanted = total * f64::from(top_p);
    let (mut sum, mut sorted, mut block) = (0.0, 0, 256);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        if block < rest.len() {
            rest.select_nth_unstable_by(block, Candidate::best_first);
        }
        let head_length = block.min(rest.len());
        let head = &mut rest[..head_length];
        head.sort_unstable_by(Candidate::best_first);
        for c in head.iter() {
            sum += f64::from(weight(c));
            sorted += 1;
            if sum >= wanted {
                candidates.truncate(sorted);
                return;
            }
        }
        block *= 8;
    }
}

/// The greatest logit and the lowest token that has it; `None` if all are -∞.
fn argmax(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best = None;
    let mut max = f32::NEG_INFINITY;
    for (token, &logit) in (0u32..).zip(logits) {
        if logit > max {
            max = logit;
            best = Some((token, logit));
        }
    }
    best
}

/// Natural-log probabilities of all tokens, for tests.
#[cfg(test)]
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    logits.iter().map(|&logit| (f64::from(logit) - sum.ln()) as f32).collect()
}

/// 256 bits of the operating system's entropy, by way of the keys the standard library draws for its hash maps.
fn entropy() -> [u8; 32] {
    let mut seed = [0; 32];
    for (i, chunk) in seed.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&RandomState::new().hash_one(i).to_le_bytes());
    }
    seed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logits::{History, apply_all};
    use proptest::prelude::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, 0.0, 3.0, -1.0];

    fn params() -> SamplingParams {
        SamplingParams { seed: Some(7), ..SamplingParams::default() }
    }

    fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..SamplingParams::default() }
    }

    /// The stages of these parameters and the draw, over and over.
    fn chooser(params: SamplingParams, banned: &[u32]) -> impl FnMut(&[f32]) -> Result<u32, SamplingError> {
        let (mut sampler, mut stages) = (Sampler::new(&params).unwrap(), params.stages(banned.into()));
        move |logits| {
            let mut logits = logits.to_vec();
            apply_all(&mut stages, &mut logits, &History::default()).unwrap();
            sampler.sample(&logits)
        }
    }

    /// Shares of the tokens among `n` draws from the same logits.
    fn shares(params: SamplingParams, banned: &[u32], logits: &[f32], n: usize) -> Vec<f64> {
        let mut choose = chooser(params, banned);
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..n {
            counts[choose(logits).unwrap() as usize] += 1;
        }
        counts.into_iter().map(|c| c as f64 / n as f64).collect()
    }

    /// Pearson's statistic against the probabilities; none may be drawn where the probability is 0.
    fn assert_drawn_from(shares: &[f64], probabilities: &[f64], n: usize) {
        let mut chi_square = 0.0;
        for (i, (&share, &p)) in shares.iter().zip(probabilities).enumerate() {
            if p == 0.0 {
                assert_eq!(share, 0.0, "token {i} must not be drawn");
            } else {
                chi_square += (share - p).powi(2) / p * n as f64;
            }
        }
        assert!(chi_square < 30.0, "χ² = {chi_square} for {shares:?}, expected {probabilities:?}"); // 5 df: p < 2e-5
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / sum).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_best() {
        assert_eq!(chooser(greedy(), &[])(&LOGITS), Ok(1));
        assert_eq!(chooser(greedy(), &[1, 99])(&LOGITS), Ok(4));
    }

    #[test]
    fn draws_follow_the_temperature() {
        let n = 20_000;
        for temperature in [0.5, 1.0, 2.0] {
            let params = SamplingParams { temperature, ..params() };
            let scaled = LOGITS.map(|l| f64::from(l / temperature));
            assert_drawn_from(&shares(params, &[], &LOGITS, n), &softmax(&scaled), n);
        }
        let cold = SamplingParams { temperature: 1e-40, ..params() };
        assert_drawn_from(&shares(cold, &[], &LOGITS, n), &[0.0, 0.5, 0.0, 0.0, 0.5, 0.0], n);
    }

    #[test]
    fn truncation_keeps_what_it_should() {
        let n = 20_000;
        let keep = |kept: &[usize]| {
            let mut logits = [f64::NEG_INFINITY; 6];
            kept.iter().for_each(|&i| logits[i] = f64::from(LOGITS[i]));
            softmax(&logits)
        };
        let of = |params| shares(params, &[], &LOGITS, n);
        assert_drawn_from(&of(SamplingParams { top_k: Some(3), ..params() }), &keep(&[1, 2, 4]), n);
        assert_drawn_from(&of(SamplingParams { top_k: Some(1), ..params() }), &keep(&[1]), n);
        assert_drawn_from(&of(SamplingParams { top_k: Some(600), ..params() }), &keep(&[0, 1, 2, 3, 4, 5]), n);
        // Probabilities: 0.389 twice, 0.143, 0.053, 0.019, 0.007.
        assert_drawn_from(&of(SamplingParams { top_p: 0.38, ..params() }), &keep(&[1]), n);
        assert_drawn_from(&of(SamplingParams { top_p: 0.75, ..params() }), &keep(&[1, 4]), n);
        assert_drawn_from(&of(SamplingParams { top_p: 0.8, ..params() }), &keep(&[1, 2, 4]), n);
        assert_drawn_from(&of(SamplingParams { min_p: 0.3, ..params() }), &keep(&[1, 2, 4]), n);
        assert_drawn_from(&of(SamplingParams { min_p: 1.0, ..params() }), &keep(&[1, 4]), n);
        // top_p counts what top_k left: of two equal ones the first holds half.
        assert_drawn_from(&of(SamplingParams { top_k: Some(2), top_p: 0.5, ..params() }), &keep(&[1]), n);
    }

    #[test]
    fn top_p_agrees_with_a_full_sort() {
        let logits: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) % 1000) as f32 / 400.0).collect();
        for top_p in [0.001, 0.3, 0.9, 0.999_99] {
            let all: Vec<Candidate> = (0u32..).zip(&logits).map(|(token, &logit)| Candidate { token, logit }).collect();
            let mut kept = all.clone();
            keep_top_p(&mut kept, top_p, |c| c.logit.exp());
            let mut sorted = all;
            sorted.sort_by(Candidate::best_first);
            let total: f64 = sorted.iter().map(|c| f64::from(c.logit.exp())).sum();
            let mut sum = 0.0;
            let before = sorted.iter().take_while(|c| {
                let is_short = sum < total * f64::from(top_p);
                sum += f64::from(c.logit.exp());
                is_short
            });
            let expected: Vec<u32> = before.map(|c| c.token).collect();
            assert_eq!(kept.iter().map(|c| c.token).collect::<Vec<_>>(), expected, "top_p {top_p}");
        }
    }

    #[test]
    fn bias_forces_and_bans_win() {
        let params = SamplingParams { logit_bias: vec![(5, 100.0), (1, -100.0)], ..params() };
        assert_eq!(shares(params.clone(), &[], &LOGITS, 500)[5], 1.0);
        let banned = shares(params, &[5], &LOGITS, 2000);
        assert_eq!((banned[5], banned[1]), (0.0, 0.0));
        assert_eq!(chooser(greedy(), &[1, 4])(&LOGITS), Ok(2));
    }

    #[test]
    fn a_seed_fixes_the_tokens() {
        let run = |seed| {
            let mut choose = chooser(SamplingParams { seed, top_p: 0.99, ..params() }, &[]);
            (0..40).map(|_| choose(&LOGITS).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(Some(1)), run(Some(1)));
        assert_ne!(run(Some(1)), run(Some(2)));
        assert_ne!(run(None), run(None));
    }

    #[test]
    fn bad_logits_are_errors() {
        let mut sampler = Sampler::new(&params()).unwrap();
        let error = sampler.sample(&[0.0, 1.0, f32::NAN]).unwrap_err();
        assert!(error.to_string().contains("token 2 is NaN"), "{error}");
        assert!(sampler.sample(&[0.0, f32::INFINITY, 0.0]).is_err());
        let forbidden = [f32::NEG_INFINITY; 3];
        assert_eq!(sampler.sample(&forbidden), Err(SamplingError::AllBanned { vocab_size: 3 }));
        assert_eq!(sampler.sample(&forbidden).unwrap_err().param(), "logits");
        assert_eq!(sampler.sample(&[]), Err(SamplingError::AllBanned { vocab_size: 0 }));
    }

    #[test]
    fn parameters_are_checked_by_name() {
        type Change = fn(&mut SamplingParams);
        let wrong: [(&str, Change); 16] = [
            ("temperature", |p| p.temperature = -0.1),
            ("temperature", |p| p.temperature = f32::NAN),
            ("temperature", |p| p.temperature = f32::INFINITY),
            ("top_k", |p| p.top_k = Some(0)),
            ("top_p", |p| p.top_p = 0.0),
            ("top_p", |p| p.top_p = 1.01),
            ("min_p", |p| p.min_p = -0.01),
            ("min_p", |p| p.min_p = f32::NAN),
            ("repetition_penalty", |p| p.repetition_penalty = 0.0),
            ("repetition_penalty", |p| p.repetition_penalty = f32::INFINITY),
            ("presence_penalty", |p| p.presence_penalty = 2.1),
            ("frequency_penalty", |p| p.frequency_penalty = -2.1),
            ("logit_bias", |p| p.logit_bias = vec![(0, 100.5)]),
            ("logit_bias", |p| p.logit_bias = vec![(0, f32::NAN)]),
            ("logit_bias", |p| p.logit_bias = vec![(6, 1.0)]),
            ("top_p", |p| p.top_p = f32::NAN),
        ];
        for (name, change) in wrong {
            let mut params = SamplingParams::default();
            change(&mut params);
            let error = params.validate(6).unwrap_err();
            assert_eq!(error.param(), name);
            assert!(error.to_string().starts_with(name), "{error}");
        }
        assert_eq!(SamplingParams::default().validate(0), Ok(()));
        let edges = SamplingParams {
            temperature: 100.0,
            top_k: Some(1),
            top_p: 1.0,
            min_p: 1.0,
            repetition_penalty: 1e-6,
            presence_penalty: -2.0,
            frequency_penalty: 2.0,
            logit_bias: vec![(5, -100.0)],
            seed: None,
        };
        assert_eq!(edges.validate(6), Ok(()));
    }

    proptest! {
        #[test]
        fn a_banned_token_is_never_chosen(
            logits in prop::collection::vec(-1e4f32..1e4, 2..40), banned in prop::collection::vec(0u32..50, 0..20),
            temperature in 0.0f32..3.0, top_k in prop::option::of(1usize..50), top_p in 0.01f32..1.0, min_p in 0.0f32..1.0,
        ) {
            let params = SamplingParams { temperature, top_k, top_p, min_p, ..params() };
            match chooser(params, &banned)(&logits) {
                Ok(token) => prop_assert!(!banned.contains(&token) && (token as usize) < logits.len()),
                Err(error) => {
                    prop_assert_eq!(error, SamplingError::AllBanned { vocab_size: logits.len() });
                    prop_assert!((0u32..).zip(&logits).all(|(i, _)| banned.contains(&i)));
                }
            }
        }
    }
}
