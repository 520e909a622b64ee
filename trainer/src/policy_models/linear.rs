//! Training of the rating model: an all-threshold ordinal loss, adaptive gradient steps, 8-bit weights, calibrated scores.
//!
//! A text of rating *y* on the scale 0 to 3 costs `Σ_k log(1 + exp(∓(s − θ_k)))` over the three thresholds, minus where *y* ≥ *k*
//! (the all-threshold loss of Rennie & Srebro 2005, "Loss Functions for Preference Levels"). Weights move by AdaGrad (Duchi et
//! al. 2011) over shuffled texts and shrink by an L2 penalty in proportion to their steps. Texts are weighted so that no
//! source or rating drowns the others, and English counts two fifths of everything.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use safelmm_learned::RatingModel;
use safelmm_learned::features::features;
use safelmm_learned::rating_model::{Head, LEVELS, norm, sigmoid};
use safelmm_model::Rating;

use super::PolicyModelError;
use super::examples::{Example, Part, Source};
use crate::report::Report;

/// How the model is trained.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LinearSettings {
    /// Number of weights; one byte each in the file.
    pub buckets: u32,
    /// The power of the number of words that a sum is divided by.
    pub exponent: f32,
    /// Passes over the texts.
    pub epochs: usize,
    /// Length of the first step.
    pub learning_rate: f32,
    /// L2 penalty.
    pub penalty: f32,
    /// Share of all weight that English texts have.
    pub english: f32,
    /// How much more a written sentence weighs than another text.
    pub written: f32,
    /// What the sum of squared gradients begins with: how much evidence a weight needs before it moves by whole steps.
    pub damping: f32,
    /// Seed of the order of the texts.
    pub seed: u64,
}

impl Default for LinearSettings {
    fn default() -> Self {
        LinearSettings {
            buckets: 1 << 18,
            exponent: 0.25,
            epochs: 30,
            learning_rate: 0.3,
            penalty: 1e-6,
            english: 0.4,
            written: 5.0,
            damping: 1000.0,
            seed: 1,
        }
    }
}

/// A text as numbers.
struct Row {
    features: Vec<u32>,
    norm: f32,
    level: usize,
    weight: f32,
}

/// Trains on the part for it and calibrates on the other.
///
/// # Errors
/// When a part has no text of some rating.
pub fn train(
    examples: &[Example],
    settings: &LinearSettings,
    report: &mut Report,
) -> Result<Vec<u8>, PolicyModelError> {
    let rows = rows(examples, Part::Train, settings)?;
    let calibration = rows_of(examples, Part::Calibrate, settings);
    let (mut weights, mut thresholds) = (vec![0_f32; settings.buckets as usize], [-1.0, 0.0, 1.0]);
    let mut squares = vec![settings.damping; weights.len()];
    let mut threshold_squares = [settings.damping; LEVELS];
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    for epoch in 0..settings.epochs {
        shuffle(&mut order, &mut random);
        let mut loss = 0.0_f64;
        for &at in &order {
            let row = &rows[at];
            let score = row.features.iter().map(|f| weights[*f as usize]).sum::<f32>() / row.norm;
            let mut gradient = 0.0;
            for (k, threshold) in thresholds.iter_mut().enumerate() {
                let above = f32::from(row.level > k);
                let p = sigmoid(score - *threshold);
                loss -= f64::from(row.weight * (if row.level > k { p } else { 1.0 - p }).max(1e-12).ln());
                let g = row.weight * (p - above);
                gradient += g;
                threshold_squares[k] += g * g;
                *threshold += settings.learning_rate * g / threshold_squares[k].sqrt();
            }
            gradient /= row.norm;
            for f in &row.features {
                let f = *f as usize;
                let g = gradient + settings.penalty * weights[f];
                squares[f] += g * g;
                weights[f] -= settings.learning_rate * g / squares[f].sqrt();
            }
        }
        report.progress(epoch + 1, settings.epochs, &format!("passes, loss {:.4}", loss / rows.len() as f64));
    }
    let (scale, quantised) = quantise(&weights);
    let head = Head { buckets: settings.buckets, exponent: settings.exponent, scale, thresholds };
    Ok(RatingModel::write(&calibrate(head, &quantised, &calibration), &quantised))
}

/// The rows of a part, which must have every rating.
fn rows(examples: &[Example], part: Part, settings: &LinearSettings) -> Result<Vec<Row>, PolicyModelError> {
    let rows = rows_of(examples, part, settings);
    for (level, rating) in Rating::ALL.iter().enumerate() {
        if !rows.iter().any(|row| row.level == level) {
            return Err(PolicyModelError::Data(format!("there is no text rated {rating} to learn from")));
        }
    }
    Ok(rows)
}

fn rows_of(examples: &[Example], part: Part, settings: &LinearSettings) -> Vec<Row> {
    let of_part: Vec<&Example> = examples.iter().filter(|e| e.part == part).collect();
    let mut counts: BTreeMap<(&str, Source, Rating), usize> = BTreeMap::new();
    for example in &of_part {
        *counts.entry((example.language, example.source, example.rating)).or_default() += 1;
    }
    // A group of n texts weighs √n: large ones more than small ones, but not as their number says.
    let weight_of = |example: &Example| {
        let count = counts.get(&(example.language, example.source, example.rating)).copied().unwrap_or(1) as f32;
        let written = if example.source == Source::Sentences { settings.written } else { 1.0 };
        written / count.sqrt()
    };
    let (mut english, mut others) = (f32::MIN_POSITIVE, f32::MIN_POSITIVE);
    for example in &of_part {
        *(if example.language == "en" { &mut english } else { &mut others }) += weight_of(example);
    }
    of_part
        .par_iter()
        .map(|example| {
            let mut found = Vec::new();
            let words = features(&example.text, settings.buckets, |f| found.push(f));
            let share = match example.language {
                "en" => settings.english / english,
                _ => (1.0 - settings.english) / others,
            };
            Row {
                features: found,
                norm: norm(words, settings.exponent),
                level: example.rating as usize,
                weight: share * weight_of(example) * of_part.len() as f32,
            }
        })
        .collect()
}

fn shuffle(order: &mut [usize], random: &mut ChaCha8Rng) {
    for i in (1..order.len()).rev() {
        order.swap(i, random.random_range(0..=i));
    }
}

/// Weights as integers. The few greatest are cut off, so that the many small ones keep their differences.
fn quantise(weights: &[f32]) -> (f32, Vec<i8>) {
    let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).filter(|w| *w > 0.0).collect();
    sizes.sort_by(f32::total_cmp);
    let greatest = sizes.get(sizes.len().saturating_sub(1 + sizes.len() / 5000)).copied().unwrap_or(1.0);
    let scale = greatest / 127.0;
    #[allow(clippy::cast_possible_truncation)] // clamped
    let quantised = weights.iter().map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8).collect();
    (scale, quantised)
}

/// Platt's scaling with one slope for all thresholds: `P(y ≥ k) = σ(a · s − b_k)` fits the texts best.
fn calibrate(head: Head, weights: &[i8], rows: &[Row]) -> Head {
    let scores: Vec<f32> = rows
        .iter()
        .map(|row| {
            let sum: i32 = row.features.iter().map(|f| i32::from(weights[*f as usize])).sum();
            head.scale * sum as f32 / row.norm
        })
        .collect();
    let (mut slope, mut thresholds) = (1.0_f64, head.thresholds.map(f64::from));
    let total: f64 = rows.iter().map(|row| f64::from(row.weight)).sum::<f64>().max(1.0);
    for step in 0..2000 {
        let (mut slope_gradient, mut gradients) = (0.0, [0.0; LEVELS]);
        for (row, score) in rows.iter().zip(&scores) {
            for k in 0..LEVELS {
                let p = 1.0 / (1.0 + (thresholds[k] - slope * f64::from(*score)).exp());
                let g = f64::from(row.weight) * (p - f64::from(u8::from(row.level > k))) / total;
                slope_gradient += g * f64::from(*score);
                gradients[k] -= g;
            }
        }
        let rate = 0.5 / (1.0 + f64::from(step) / 500.0);
        slope = (slope - 0.05 * rate * slope_gradient).max(1e-3);
        for (threshold, gradient) in thresholds.iter_mut().zip(gradients) {
            *threshold -= rate * gradient;
        }
    }
    thresholds.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation)]
    Head { scale: (f64::from(head.scale) * slope) as f32, thresholds: thresholds.map(|t| t as f32), ..head }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        let words = [(Rating::G, "tulip"), (Rating::PG, "sword"), (Rating::R, "murder"), (Rating::X, "entrails")];
        let fill = ["house", "garden", "river", "street", "morning", "bread"];
        let mut out = Vec::new();
        for i in 0..400_usize {
            let (rating, word) = words[i % 4];
            let text = format!("{} {word} {} {i}", fill[i % 5], fill[(i / 4) % 6]);
            let part = if i % 10 == 0 { Part::Calibrate } else { Part::Train };
            out.push(Example { text, language: "en", rating, source: Source::Sentences, part });
        }
        // The calibrating part needs all ratings too.
        for (i, example) in out.iter_mut().enumerate().filter(|(i, _)| i % 10 == 1) {
            example.part = if i % 20 == 1 { Part::Calibrate } else { Part::Train };
        }
        out
    }

    #[test]
    fn what_separates_is_learned_and_the_same_bytes_come_again() {
        let settings = LinearSettings { buckets: 4096, ..LinearSettings::default() };
        let bytes = train(&examples(), &settings, &mut Report::new()).unwrap();
        assert_eq!(bytes, train(&examples(), &settings, &mut Report::new()).unwrap());
        let model = RatingModel::read(bytes).unwrap();
        for (text, level) in [("a tulip there", 0), ("one sword here", 1), ("the murder", 2), ("the entrails", 3)] {
            let p = model.probabilities(text).unwrap();
            assert_eq!(p.iter().filter(|p| **p > 0.5).count(), level, "{text}: {p:?}");
        }
    }

    #[test]
    fn a_missing_rating_is_named() {
        let some: Vec<Example> = examples().into_iter().filter(|e| e.rating != Rating::X).collect();
        let error = train(&some, &LinearSettings::default(), &mut Report::new()).unwrap_err();
        assert_eq!(error.to_string(), "there is no text rated X to learn from");
    }
}
