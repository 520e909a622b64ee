//! Two models and what they say of a text.

use std::ops::Range;

use data_encoding::BASE64;
use safelmm_learned::LanguageModel;
use safelmm_learned::contrast::difference;
use safelmm_learned::rating_model::sigmoid;
use safelmm_learned::sentences::sentences;
use safelmm_plugin::SettingError;
use schemars::JsonSchema;
use serde::Deserialize;

/// The bundled models, as `safelmm-train policy-models perplexity` wrote them.
pub static HARMFUL: &[u8] = include_bytes!("../harmful.model");
/// The one of clean text.
pub static CLEAN: &[u8] = include_bytes!("../clean.model");
const CALIBRATION: &str = include_str!("../calibration.json");

/// How differences become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Calibration {
    /// The difference from which a sentence counts, in bits per character.
    pub threshold: f32,
    /// How fast the probability rises around it.
    pub slope: f32,
}

/// Models of an operator's own, as the command writes them into `settings.json`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnModels {
    /// The model of harmful text, in base64 (RFC 4648, section 4).
    harmful: String,
    /// The model of clean text, in base64.
    clean: String,
    /// The difference from which a sentence counts, in bits per character.
    threshold: f32,
    /// How fast the probability rises around the threshold, above 0.
    slope: f32,
}

/// The sentence that speaks most for harmful text.
#[derive(Clone, Debug, PartialEq)]
pub struct Highest {
    /// In bits per character.
    pub difference: f32,
    /// By the calibration.
    pub probability: f32,
    /// Where it stands.
    pub range: Range<usize>,
}

/// Two models and their calibration.
pub struct Models {
    harmful: LanguageModel,
    clean: LanguageModel,
    calibration: Calibration,
}

impl Models {
    /// The bundled ones.
    pub fn bundled() -> Result<Self, Vec<SettingError>> {
        let damaged = |what: String| vec![SettingError::new("", format!("The bundled models are damaged: {what}"))];
        Ok(Models {
            harmful: LanguageModel::read(HARMFUL).map_err(|e| damaged(e.to_string()))?,
            clean: LanguageModel::read(CLEAN).map_err(|e| damaged(e.to_string()))?,
            calibration: serde_json::from_str(CALIBRATION).map_err(|e| damaged(e.to_string()))?,
        })
    }

    /// Those of an operator.
    pub fn own(own: &OwnModels) -> Result<Self, Vec<SettingError>> {
        let read = |name: &str, base64: &str| {
            let wrong = |what: String| SettingError::new(format!("/models/{name}"), what);
            let bytes =
                BASE64.decode(base64.trim().as_bytes()).map_err(|e| wrong(format!("This is no base64: {e}.")))?;
            LanguageModel::read(bytes).map_err(|e| wrong(format!("This is no model: {e}.")))
        };
        let mut errors = Vec::new();
        if !(own.slope > 0.0 && own.slope < 1e4) {
            errors.push(SettingError::new("/models/slope", format!("{} is no slope: expected above 0.", own.slope)));
        }
        if !(-20.0..=20.0).contains(&own.threshold) {
            let message = format!("{} is no difference: expected -20 to 20 bits per character.", own.threshold);
            errors.push(SettingError::new("/models/threshold", message));
        }
        let (harmful, clean) = (read("harmful", &own.harmful), read("clean", &own.clean));
        match (harmful, clean) {
            (Ok(harmful), Ok(clean)) if errors.is_empty() => {
                Ok(Models { harmful, clean, calibration: Calibration { threshold: own.threshold, slope: own.slope } })
            }
            (harmful, clean) => {
                errors.extend(harmful.err());
                errors.extend(clean.err());
                Err(errors)
            }
        }
    }

    /// With another threshold, if there is one.
    pub fn with_threshold(mut self, threshold: Option<f32>) -> Self {
        self.calibration.threshold = threshold.unwrap_or(self.calibration.threshold);
        self
    }

    /// The difference from which a sentence counts.
    pub fn threshold(&self) -> f32 {
        self.calibration.threshold
    }

    /// The sentence with the highest difference; none where there is no word.
    pub fn highest(&self, text: &str) -> Option<Highest> {
        let mut highest: Option<(f32, Range<usize>)> = None;
        sentences(text, |start, sentence| {
            let Some(found) = difference(&self.harmful, &self.clean, sentence) else { return };
            if highest.as_ref().is_none_or(|(most, _)| found > *most) {
                highest = Some((found, start..start + sentence.trim_end().len()));
            }
        });
        let (difference, range) = highest?;
        let Calibration { threshold, slope } = self.calibration;
        Some(Highest { difference, probability: sigmoid(slope * (difference - threshold)), range })
    }
}
