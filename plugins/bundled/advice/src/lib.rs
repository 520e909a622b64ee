//! Refuses individual legal and medical advice and the rating of job candidates; general information passes.

#![warn(missing_docs)]

use safelmm_intent::{DataError, Judge};

/// The terms of all languages.
const TERMS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/terms.bin"));

/// The judge of prompts.
///
/// # Errors
/// Data that no build should have.
pub fn judge() -> Result<Judge, DataError> {
    Judge::new(TERMS, include_str!("rules.txt"))
}
