//! Sentences against a ceiling.

use std::ops::Range;

use safelmm_learned::RatingModel;
use safelmm_learned::fold::is_known_script;
use safelmm_learned::sentences::sentences;
use safelmm_plugin::Finding;

use crate::level::Level;

/// A model and how it decides.
pub struct Judge {
    model: RatingModel,
    threshold: f32,
}

/// A sentence above a ceiling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Above {
    /// Its rating.
    pub level: Level,
    /// The probability that it is above the ceiling.
    pub probability: f32,
}

impl Judge {
    /// A sentence counts as of a level where that or more is at least as probable as `threshold`.
    pub fn new(model: RatingModel, threshold: f32) -> Self {
        Judge { model, threshold }
    }

    /// Whether a sentence is above the ceiling.
    pub fn above(&self, sentence: &str, ceiling: Level) -> Option<Above> {
        let probabilities = self.model.probabilities(sentence)?;
        let of = |level: Level| probabilities.get(level as usize - 1).copied().unwrap_or_default();
        let level = Level::ABOVE.into_iter().rev().find(|level| of(*level) >= self.threshold)?;
        let first = Level::ABOVE.into_iter().find(|level| *level > ceiling)?;
        (level > ceiling).then(|| Above { level, probability: of(first) })
    }

    /// The sentence that is most probably above the ceiling.
    pub fn strongest(&self, text: &str, ceiling: Level) -> Option<Finding> {
        let mut strongest: Option<(Above, Range<usize>)> = None;
        sentences(text, |start, sentence| {
            if let Some(above) = self.above(sentence, ceiling) {
                if strongest.as_ref().is_none_or(|(best, _)| above.probability > best.probability) {
                    strongest = Some((above, start..start + sentence.trim_end().len()));
                }
            }
        });
        strongest.map(|(above, range)| finding(above, ceiling).at(range))
    }

    /// The level of the strongest sentence.
    pub fn rate(&self, text: &str) -> Level {
        let mut level = Level::G;
        sentences(text, |_, sentence| {
            if let Some(above) = self.above(sentence, level) {
                level = above.level;
            }
        });
        level
    }
}

/// What is said of a sentence above the ceiling.
pub fn finding(above: Above, ceiling: Level) -> Finding {
    let reason = format!(
        "A sentence reads as {}, above the ceiling of {}: rephrase it, or ask for a higher rating.",
        above.level.name(),
        ceiling.name()
    );
    Finding::new(above.level.category(), above.probability, reason)
}

/// Whether most letters are of scripts that the model knows. A text without letters is.
pub fn is_known(text: &str) -> bool {
    let (mut known, mut unknown) = (0_usize, 0_usize);
    for c in text.chars() {
        if is_known_script(c) {
            known += 1;
        } else if !c.is_ascii() && c.is_alphabetic() {
            unknown += 1;
        }
    }
    unknown <= known
}
