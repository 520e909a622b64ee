//! Two n-gram models held against each other.

use crate::language_model::{LanguageModel, tokens};

/// What is added to the length of a sentence: evidence of a few letters weighs little.
pub const SMOOTHING: f32 = 16.0;

/// By how many bits per character `harmful` likes the sentence better than `clean`; `None` where it has no word.
pub fn difference(harmful: &LanguageModel, clean: &LanguageModel, sentence: &str) -> Option<f32> {
    let tokens = tokens(sentence);
    (!tokens.is_empty()).then(|| (clean.bits(&tokens) - harmful.bits(&tokens)) / (tokens.len() as f32 + SMOOTHING))
}
