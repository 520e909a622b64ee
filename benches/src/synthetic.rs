//! Stores of keys that no model made: those of a few thousand real contexts, each time with noise, so that queries of the
//! model find neighbours where those of real stores lie.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safelmm_datastore::{Document, EncodeError, StoreEncoder, Tokenized};
use safelmm_model::Checkpoint;

/// The length of the noise, as a share of the distance between a key and its nearest among the real ones.
const NOISE: f32 = 0.5;
/// Keys from which that distance is taken.
const SAMPLE: usize = 256;
/// Tokens of a document of letters.
const DOCUMENT: usize = 1000;

/// The encoder of such a store.
pub struct NearReal {
    checkpoint: Arc<Checkpoint>,
    fingerprint: String,
    /// [n, dim]
    real: Vec<f32>,
    dim: usize,
    /// Of each number of the noise, at most.
    noise: f32,
    /// Whether each letter is a token, drawn by Zipf's law from its last three letters.
    letters: bool,
    seed: u64,
}

impl NearReal {
    /// For documents that the model's tokenizer reads.
    ///
    /// # Errors
    /// Parameters that cannot be read, or no keys.
    pub fn of_texts(checkpoint: &Arc<Checkpoint>, real: Vec<f32>, seed: u64) -> Result<NearReal> {
        NearReal::new(checkpoint, real, seed, false)
    }

    /// For [`documents`].
    ///
    /// # Errors
    /// Parameters that cannot be read, or no keys.
    pub fn of_letters(checkpoint: &Arc<Checkpoint>, real: Vec<f32>, seed: u64) -> Result<NearReal> {
        NearReal::new(checkpoint, real, seed, true)
    }

    fn new(checkpoint: &Arc<Checkpoint>, real: Vec<f32>, seed: u64, letters: bool) -> Result<NearReal> {
        let dim = checkpoint.config().hidden_size;
        ensure!(real.len() >= 2 * dim, "two keys are needed at least");
        let fingerprint = checkpoint.fingerprint()?.to_owned();
        let noise = NOISE * nearest(&real, dim) / (dim as f32 / 3.0).sqrt();
        Ok(NearReal { checkpoint: Arc::clone(checkpoint), fingerprint, real, dim, noise, letters, seed })
    }
}

/// The mean distance of a key to the nearest other one.
fn nearest(keys: &[f32], dim: usize) -> f32 {
    let rows: Vec<&[f32]> = keys.chunks_exact(dim).collect();
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    let sampled = rows.len().min(SAMPLE);
    let of = |i: usize| {
        let others = rows.iter().enumerate().filter(|(j, _)| *j != i);
        others.map(|(_, row)| distance(rows[i], row)).fold(f32::INFINITY, f32::min).sqrt()
    };
    (0..sampled).map(of).sum::<f32>() / sampled as f32
}

impl StoreEncoder for NearReal {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn vocab_size(&self) -> usize {
        self.checkpoint.config().vocab_size
    }

    fn tokenize(&self, text: &str) -> Result<Tokenized, EncodeError> {
        if !self.letters {
            return self.checkpoint.tokenizer.encode_with_offsets(text).map_err(|error| EncodeError(error.to_string()));
        }
        let bytes = text.as_bytes();
        let vocab = self.vocab_size() as f64;
        let token = |end: usize| {
            let hash =
                bytes[end.saturating_sub(2)..=end].iter().fold(self.seed, |hash, byte| mix(hash ^ u64::from(*byte)));
            // The rank of a share of the mass under Zipf's law with exponent 1, but for a constant.
            let rank = vocab.powf((hash >> 11) as f64 / (1u64 << 53) as f64);
            (rank as u32).min(vocab as u32 - 1)
        };
        let ranges: Vec<Range<usize>> = (0..bytes.len()).map(|at| at..at + 1).collect();
        Ok(((0..bytes.len()).map(token).collect(), ranges))
    }

    fn keys(&self, documents: &[&[u32]]) -> Result<Vec<f32>, EncodeError> {
        let rows = self.real.len() / self.dim;
        let mut keys = Vec::with_capacity(documents.iter().map(|tokens| tokens.len() * self.dim).sum());
        for tokens in documents {
            // What a document gets depends on it alone.
            let seed = tokens.iter().fold(self.seed, |hash, token| mix(hash ^ u64::from(*token)));
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for _ in 0..tokens.len() {
                let row = random.next_u64() as usize % rows;
                let real = &self.real[row * self.dim..(row + 1) * self.dim];
                keys.extend(real.iter().map(|x| x + self.noise * uniform(random.next_u32())));
            }
        }
        Ok(keys)
    }

    fn embed(&self, _texts: &[&str]) -> Result<Option<Vec<Vec<f32>>>, EncodeError> {
        Ok(None)
    }
}

/// Between −1 and 1.
fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
}

/// SplitMix64.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Documents of drawn letters with so many tokens in all.
pub fn documents(tokens: usize, seed: u64) -> impl Iterator<Item = Document> {
    (0..tokens.div_ceil(DOCUMENT)).filter_map(move |number| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number as u64);
        let letter = |draw: u32| if draw % 32 < 26 { char::from(b'a' + (draw % 32) as u8) } else { ' ' };
        let length = DOCUMENT.min(tokens - number * DOCUMENT);
        let text: String = (0..length).map(|_| letter(random.next_u32())).collect();
        Some(Document {
            id: format!("synthetic/{number}"),
            text,
            lang: String::new(),
            license: "CC0-1.0".parse().ok()?,
            source: "drawn".into(),
            title: format!("Synthetic document {number}"),
            author: String::new(),
            url: String::new(),
            rights_holder: String::new(),
            rating: None,
            permissions: None,
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_document_has_as_many_tokens_as_letters_and_keys_that_depend_on_it_alone() {
        let checkpoint = Arc::new(safelmm_server::demo::open().unwrap());
        let dim = checkpoint.config().hidden_size;
        let real: Vec<f32> = (0..8 * dim).map(|i| (i % 7) as f32).collect();
        let encoder = NearReal::of_letters(&checkpoint, real, 1).unwrap();
        let documents: Vec<Document> = documents(2500, 1).collect();
        assert_eq!(documents.iter().map(|d| d.text.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
        let tokens: Vec<Vec<u32>> = documents.iter().map(|d| encoder.tokenize(&d.text).unwrap().0).collect();
        assert!(tokens.iter().flatten().all(|token| (*token as usize) < encoder.vocab_size()));
        let together = encoder.keys(&[&tokens[0], &tokens[2]]).unwrap();
        assert_eq!(together[1000 * dim..], encoder.keys(&[&tokens[2]]).unwrap()[..]);
    }
}
