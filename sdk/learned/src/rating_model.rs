//! An ordinal linear model over hashed features: how mature a text is, on one scale.
//!
//! The score of a sentence is `scale · Σ w(f) / n^exponent` over its features, *n* its number of words, and the probability that it
//! is of rating *k* or above is `σ(score − θ(k))` for PG, R and X: a cumulative link model (McCullagh 1980, "Regression
//! Models for Ordinal Data"). Weights are 8-bit integers; the sum is exact, so that a text has the same score everywhere.

use std::borrow::Cow;

use crate::bytes::{ModelError, Reader};
use crate::features::features;

/// How a file begins: its kind and version.
pub const MAGIC: &[u8; 8] = b"SLMRATE1";
/// Levels above the lowest: PG, R, X.
pub const LEVELS: usize = 3;

/// The model.
#[derive(Clone, Debug)]
pub struct RatingModel {
    bytes: Cow<'static, [u8]>,
    weights: usize,
    head: Head,
}

/// The numbers before the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Number of weights.
    pub buckets: u32,
    /// How the sum is divided by the number of words.
    pub exponent: f32,
    /// What a weight of 1 is worth.
    pub scale: f32,
    /// Scores from which PG, R and X are more likely than not; ascending.
    pub thresholds: [f32; LEVELS],
}

impl RatingModel {
    /// Reads a model.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, ModelError> {
        let bytes = bytes.into();
        let mut reader = Reader::new(&bytes, MAGIC, "rating model")?;
        let buckets = reader.count("the number of weights", 1, 1 << 24, "1 to 16777216")?;
        let exponent = reader.number("the exponent", 0.0, 1.0, "a number from 0 to 1")?;
        let scale = reader.number("the scale", 0.0, 1e6, "a number from 0 to a million")?;
        let mut thresholds = [0.0; LEVELS];
        let mut least = -1e6;
        for threshold in &mut thresholds {
            *threshold = reader.number("a threshold", least, 1e6, "ascending numbers of at most a million")?;
            least = *threshold;
        }
        let weights = reader.end(u64::from(buckets))?;
        Ok(RatingModel { weights, head: Head { buckets, exponent, scale, thresholds }, bytes })
    }

    /// The file of a model.
    pub fn write(head: &Head, weights: &[i8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(head.buckets.to_le_bytes());
        for number in [head.exponent, head.scale].iter().chain(&head.thresholds) {
            out.extend(number.to_le_bytes());
        }
        out.extend(weights.iter().map(|w| *w as u8));
        out
    }

    /// The numbers before the weights.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The score of a sentence; `None` where there is no word in it.
    pub fn score(&self, sentence: &str) -> Option<f32> {
        let weights = self.bytes.get(self.weights..).unwrap_or_default();
        let mut sum = 0_i32;
        let words = features(sentence, self.head.buckets, |bucket| {
            sum += i32::from(weights.get(bucket as usize).copied().unwrap_or_default() as i8);
        });
        (words > 0.0).then(|| self.head.scale * sum as f32 / norm(words, self.head.exponent))
    }

    /// The probabilities that a sentence is PG or above, R or above, X; `None` where there is no word in it.
    pub fn probabilities(&self, sentence: &str) -> Option<[f32; LEVELS]> {
        let score = self.score(sentence)?;
        Some(self.head.thresholds.map(|threshold| sigmoid(score - threshold)))
    }
}

/// What a sum over `words` words is divided by.
pub fn norm(words: f32, exponent: f32) -> f32 {
    words.max(1.0).powf(exponent)
}

/// The logistic function.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Vec<u8> {
        let head = Head { buckets: 1024, exponent: 0.5, scale: 0.1, thresholds: [1.0, 2.0, 3.0] };
        let mut weights = vec![0_i8; 1024];
        features("murder", 1024, |bucket| weights[bucket as usize] = 10);
        RatingModel::write(&head, &weights)
    }

    #[test]
    fn probabilities_fall_with_the_level() {
        let model = RatingModel::read(model()).unwrap();
        let [pg, r, x] = model.probabilities("Murder!").unwrap();
        assert!(pg > r && r > x && r > 0.5, "{pg} {r} {x}");
        assert!(model.score("A murder among many other harmless words").unwrap() < model.score("murder").unwrap());
        assert_eq!(model.score("…"), None);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let good = model();
        assert!(matches!(RatingModel::read(good[..20].to_vec()), Err(ModelError::Length { .. })));
        assert!(matches!(RatingModel::read(good[..good.len() - 1].to_vec()), Err(ModelError::Length { .. })));
        assert!(matches!(RatingModel::read(b"GGUF".to_vec()), Err(ModelError::Kind { .. })));
        for at in 8..32 {
            let mut bad = good.clone();
            bad[at] = 0xff;
            // Either refused, or another number that is still possible.
            let _ = RatingModel::read(bad);
        }
        let mut bad = good.clone();
        bad[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = RatingModel::read(bad).unwrap_err();
        assert!(error.to_string().contains("a threshold is NaN"), "{error}");
    }
}
