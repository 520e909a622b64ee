//! Training of the two models of `perplexity`, and of how their difference is read.

use std::collections::BTreeMap;

use rayon::prelude::*;
use safelmm_learned::LanguageModel;
use safelmm_learned::contrast::difference;
use safelmm_learned::language_model::tokens;
use safelmm_model::Rating;

use super::PolicyModelError;
use super::examples::{Example, Part, Source};
use super::ngrams::{self, NgramSettings};
use crate::report::Report;

/// Written sentences are few and say most: they count this often.
const REPEAT_SENTENCES: usize = 3;
/// In each language there is at most this much clean text for harmful text.
const CLEAN_FOR_HARMFUL: f64 = 1.5;
/// Of clean sentences, how many in a thousand may be above the threshold.
const FALSE_ALARMS: f64 = 10.0;

/// A sentence of one of two kinds.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// The text.
    pub text: String,
    /// Its language, or anything that is to be balanced.
    pub language: String,
    /// Which kind.
    pub harmful: bool,
    /// How often it counts.
    pub weight: usize,
    /// What it is for.
    pub part: Part,
}

impl From<&Example> for Labelled {
    /// What is rated R or X is harmful.
    fn from(example: &Example) -> Self {
        Labelled {
            text: example.text.clone(),
            language: example.language.to_owned(),
            harmful: example.rating >= Rating::R,
            weight: if example.source == Source::Sentences { REPEAT_SENTENCES } else { 1 },
            part: example.part,
        }
    }
}

/// Two models and their calibration.
#[derive(Clone, Debug)]
pub struct Contrast {
    /// The model of harmful text.
    pub harmful: Vec<u8>,
    /// The model of clean text.
    pub clean: Vec<u8>,
    /// How their difference is read.
    pub calibration: Calibration,
}

/// How differences, in bits per character, become probabilities: `σ(slope · (Δ − threshold))`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// One in a hundred clean sentences is above it.
    pub threshold: f32,
    /// By logistic regression.
    pub slope: f32,
}

/// Trains on the part for it and calibrates on the other.
///
/// # Errors
/// When one kind of text is missing.
pub fn train(texts: &[Labelled], settings: &NgramSettings, report: &mut Report) -> Result<Contrast, PolicyModelError> {
    let training: Vec<&Labelled> = texts.iter().filter(|t| t.part == Part::Train).collect();
    let mut sizes: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for text in &training {
        *sizes.entry((&text.language, text.harmful)).or_default() += text.text.len() * text.weight;
    }
    // Every so many bytes of clean text one is taken, spread evenly over the files.
    let mut shares: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let (mut harmful, mut clean) = (Vec::new(), Vec::new());
    for text in &training {
        let tokens = tokens(&text.text);
        if text.harmful {
            harmful.extend(std::iter::repeat_n(tokens, text.weight));
            continue;
        }
        let size = |harmful| sizes.get(&(text.language.as_str(), harmful)).copied().unwrap_or(0) as f64;
        let wanted = (size(true) * CLEAN_FOR_HARMFUL / size(false).max(1.0)).min(1.0);
        let (met, taken) = shares.entry(&text.language).or_default();
        *met += text.text.len() as f64;
        if text.weight > 1 || size(true) == 0.0 || *taken < *met * wanted {
            *taken += text.text.len() as f64;
            clean.extend(std::iter::repeat_n(tokens, text.weight));
        }
    }
    for (name, texts) in [("harmful", &harmful), ("clean", &clean)] {
        let characters: usize = texts.iter().map(Vec::len).sum();
        if characters == 0 {
            return Err(PolicyModelError::Data(format!("there is no {name} text to learn from")));
        }
        report.line(&format!("{name}: {} texts, {:.2} M characters", texts.len(), characters as f64 / 1e6));
    }
    let (harmful, clean) = rayon::join(|| ngrams::train(&harmful, settings), || ngrams::train(&clean, settings));
    let (harmful, clean) = (harmful?, clean?);
    let models = (LanguageModel::read(harmful.clone())?, LanguageModel::read(clean.clone())?);
    let calibration = calibrate(texts, &models)?;
    Ok(Contrast { harmful, clean, calibration })
}

/// Threshold and slope from the calibrating part.
fn calibrate(
    texts: &[Labelled],
    (harmful, clean): &(LanguageModel, LanguageModel),
) -> Result<Calibration, PolicyModelError> {
    let rows: Vec<(f64, bool)> = texts
        .par_iter()
        .filter(|t| t.part == Part::Calibrate)
        .filter_map(|t| Some((f64::from(difference(harmful, clean, &t.text)?), t.harmful)))
        .collect();
    let mut of_clean: Vec<f64> = rows.iter().filter(|(_, harmful)| !harmful).map(|(d, _)| *d).collect();
    if of_clean.is_empty() || of_clean.len() == rows.len() {
        return Err(PolicyModelError::Data("there is too little text of one kind to calibrate on".into()));
    }
    of_clean.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index below the length
    let place = (of_clean.len() as f64 * (1.0 - FALSE_ALARMS / 1000.0)) as usize;
    let threshold = of_clean.get(place.min(of_clean.len() - 1)).copied().unwrap_or_default();
    // Both kinds weigh alike; Newton steps on slope and midpoint.
    let share = |kind: bool| 0.5 / rows.iter().filter(|(_, harmful)| *harmful == kind).count().max(1) as f64;
    let weights = [share(false), share(true)];
    let (mut slope, mut offset) = (1.0_f64, 0.0_f64);
    for _ in 0..100 {
        let (mut g, mut h) = ([0.0; 2], [[1e-9, 0.0], [0.0, 1e-9]]);
        for (d, harmful) in &rows {
            let w = weights[usize::from(*harmful)];
            let p = 1.0 / (1.0 + (-(slope * d + offset)).exp());
            let (error, curve) = (w * (p - f64::from(u8::from(*harmful))), w * p * (1.0 - p));
            g = [g[0] + error * d, g[1] + error];
            h = [[h[0][0] + curve * d * d, h[0][1] + curve * d], [0.0, h[1][1] + curve]];
        }
        let determinant = h[0][0] * h[1][1] - h[0][1] * h[0][1];
        if determinant.abs() < 1e-15 {
            break;
        }
        let step = [(h[1][1] * g[0] - h[0][1] * g[1]) / determinant, (h[0][0] * g[1] - h[0][1] * g[0]) / determinant];
        slope = (slope - step[0].clamp(-1.0, 1.0)).clamp(0.1, 100.0);
        offset -= step[1].clamp(-1.0, 1.0);
    }
    #[allow(clippy::cast_possible_truncation)]
    Ok(Calibration {
        threshold: (threshold * 1000.0).round() as f32 / 1000.0,
        slope: (slope * 100.0).round() as f32 / 100.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<Labelled> {
        (0..600_usize)
            .map(|i| {
                let harmful = i % 2 == 0;
                let word = if harmful { "qzxq wrong" } else { "good bread" };
                let text = format!("some {word} number {} and {}", i % 7, ["one", "two", "three"][i % 3]);
                let part = if i % 10 < 2 { Part::Calibrate } else { Part::Train };
                Labelled { text, language: "en".into(), harmful, weight: 1, part }
            })
            .collect()
    }

    #[test]
    fn the_harmful_is_told_from_the_clean() {
        let contrast = train(&texts(), &NgramSettings { order: 4, slots: 4000 }, &mut Report::new()).unwrap();
        let models = (
            LanguageModel::read(contrast.harmful.clone()).unwrap(),
            LanguageModel::read(contrast.clean.clone()).unwrap(),
        );
        let of = |text: &str| difference(&models.0, &models.1, text).unwrap();
        assert!(of("another qzxq wrong thing") > contrast.calibration.threshold);
        assert!(of("another good bread thing") < of("another qzxq wrong thing") - 0.5);
        let clean = texts().into_iter().filter(|text| !text.harmful && text.part == Part::Calibrate);
        let differences: Vec<f32> = clean.map(|text| of(&text.text)).collect();
        let flagged = differences.iter().filter(|difference| **difference > contrast.calibration.threshold).count();
        assert!(10 * flagged <= differences.len(), "{flagged} of {} clean texts", differences.len());
        assert!(contrast.calibration.slope > 0.5);
        let again = train(&texts(), &NgramSettings { order: 4, slots: 4000 }, &mut Report::new()).unwrap();
        assert_eq!((again.harmful, again.clean), (contrast.harmful, contrast.clean));
    }

    #[test]
    fn one_kind_alone_is_refused() {
        let clean: Vec<Labelled> = texts().into_iter().filter(|t| !t.harmful).collect();
        let error = train(&clean, &NgramSettings::default(), &mut Report::new()).unwrap_err();
        assert_eq!(error.to_string(), "there is no harmful text to learn from");
    }
}
