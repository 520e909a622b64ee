//! A model for tests: deterministic, without weights.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::document::Document;
use crate::encoder::{EncodeError, StoreEncoder, Tokenized};
use crate::store::StoreSettings;

/// Bytes are tokens; a key is drawn from the hash of the three tokens before; a passage's vector counts its bytes.
#[derive(Debug)]
pub struct FakeEncoder {
    /// Numbers in a key.
    pub dim: usize,
    /// Numbers in a passage's vector, 0 for none.
    pub passage_dim: usize,
    /// Tokens whose keys were asked for.
    pub encoded: AtomicUsize,
}

impl FakeEncoder {
    /// Keys and vectors of eight numbers.
    pub fn new() -> FakeEncoder {
        FakeEncoder { dim: 8, passage_dim: 8, encoded: AtomicUsize::new(0) }
    }

    /// Settings of a store for it, with small passages.
    pub fn settings(&self, name: &str) -> StoreSettings {
        let mut settings = StoreSettings::new(name, self.fingerprint(), 1, self.dim, self.vocab_size());
        (settings.passage_tokens, settings.passage_stride) = (64, 32);
        settings
    }

    /// The key after some tokens.
    pub fn key(&self, before: &[u32]) -> Vec<f32> {
        let last = &before[before.len().saturating_sub(3)..];
        (0..self.dim as u64).map(|i| unit(last.iter().fold(i + 1, |h, t| mix(h ^ u64::from(*t))))).collect()
    }
}

impl Default for FakeEncoder {
    fn default() -> FakeEncoder {
        FakeEncoder::new()
    }
}

impl StoreEncoder for FakeEncoder {
    fn fingerprint(&self) -> &str {
        "fake"
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn vocab_size(&self) -> usize {
        256
    }

    fn tokenize(&self, text: &str) -> Result<Tokenized, EncodeError> {
        let ranges: Vec<Range<usize>> = (0..text.len()).map(|i| i..i + 1).collect();
        Ok((text.bytes().map(u32::from).collect(), ranges))
    }

    fn keys(&self, documents: &[&[u32]]) -> Result<Vec<f32>, EncodeError> {
        self.encoded.fetch_add(documents.iter().map(|d| d.len()).sum(), Ordering::SeqCst);
        Ok(documents.iter().flat_map(|d| (0..d.len()).flat_map(|p| self.key(&d[..p]))).collect())
    }

    fn embed(&self, texts: &[&str]) -> Result<Option<Vec<Vec<f32>>>, EncodeError> {
        let vector = |text: &&str| {
            let mut vector = vec![0.0; self.passage_dim];
            text.bytes().for_each(|b| vector[b as usize % self.passage_dim] += 1.0);
            vector
        };
        Ok((self.passage_dim > 0).then(|| texts.iter().map(vector).collect()))
    }
}

/// The next number of a sequence that looks random (SplitMix64).
pub fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn unit(hash: u64) -> f32 {
    (hash >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// A text of some words, the same for the same seed.
pub fn words(seed: u64, count: usize) -> String {
    const WORDS: [&str; 24] = [
        "river", "stone", "light", "the", "a", "walks", "over", "under", "house", "and", "night", "morning", "tells",
        "of", "green", "old", "bridge", "sings", "to", "child", "letter", "opens", "every", "door",
    ];
    let mut text = String::new();
    let mut state = mix(seed);
    for number in 0..count {
        state = mix(state);
        text.push_str(WORDS[(state % 24) as usize]);
        text.push_str(if number % 9 == 8 { ". " } else { " " });
    }
    text.trim_end().to_owned()
}

/// A document of some words.
///
/// # Panics
/// When `license` is no license.
#[allow(clippy::expect_used)] // tests name licenses that exist
pub fn document(id: &str, text: &str, license: &str) -> Document {
    Document {
        id: id.to_owned(),
        text: text.to_owned(),
        lang: "en".to_owned(),
        license: license.parse().expect("a license"),
        source: "tests".to_owned(),
        title: format!("Title of {id}"),
        author: format!("Author of {id}"),
        url: format!("https://example.org/{id}"),
        rights_holder: String::new(),
        rating: Some(crate::rating::Rating::G),
        permissions: None,
    }
}
