//! What a store needs of the served model: tokens with their places, keys, and vectors of passages.

use std::ops::Range;
use std::sync::Arc;

use safelmm_datastore::{EncodeError, StoreEncoder};
use safelmm_model::{Checkpoint, Encoder};

/// The model that serves, as stores see it. A cheap handle.
#[derive(Clone)]
pub struct ModelEncoder {
    checkpoint: Arc<Checkpoint>,
    passages: PassageEncoder,
}

/// Makes the vectors by which passages are found. A cheap handle.
#[derive(Clone)]
pub enum PassageEncoder {
    /// A sentence encoder.
    Sentences(Arc<Encoder>),
    /// The model's own states.
    Own(Arc<Checkpoint>),
}

impl ModelEncoder {
    /// The encoder of a checkpoint; passages get their vectors from the sentence encoder where there is one. The
    /// fingerprint, for which all parameters are read, is made: a server without stores needs none
    /// ([`ModelEncoder::unidentified`]).
    ///
    /// # Errors
    /// Parameters that cannot be read.
    pub fn new(checkpoint: Arc<Checkpoint>, sentences: Option<Arc<Encoder>>) -> Result<Self, EncodeError> {
        let encoder = ModelEncoder::unidentified(checkpoint, sentences);
        encoder.identify()?;
        Ok(encoder)
    }

    /// An encoder that must be [identified](Self::identify) before a store is made or opened with it.
    pub fn unidentified(checkpoint: Arc<Checkpoint>, sentences: Option<Arc<Encoder>>) -> Self {
        let passages =
            sentences.map_or_else(|| PassageEncoder::Own(Arc::clone(&checkpoint)), PassageEncoder::Sentences);
        ModelEncoder { checkpoint, passages }
    }

    /// Makes the fingerprint. The checkpoint keeps it.
    ///
    /// # Errors
    /// Parameters that cannot be read.
    pub fn identify(&self) -> Result<(), EncodeError> {
        self.checkpoint.fingerprint().map(drop).map_err(failed)
    }

    /// The model.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// What makes the vectors of passages.
    pub fn passages(&self) -> &PassageEncoder {
        &self.passages
    }
}

fn failed(error: impl std::fmt::Display) -> EncodeError {
    EncodeError(error.to_string())
}

/// A stretch of a document that is run at once.
struct Window {
    /// The start token, and the tokens of the stretch but the last one, which is predicted and not read.
    inputs: Vec<u32>,
    /// How many of its first rows the window before gives, with more text before them.
    skip: usize,
}

/// A document as overlapping windows of at most `context` inputs, each behind the start token: a token has at least half a
/// window before it, or all that there is.
fn windows(start: u32, tokens: &[u32], context: usize) -> Vec<Window> {
    let half = (context / 2).max(1);
    let mut windows = Vec::new();
    let mut first = 0;
    while first < tokens.len() {
        let end = (first + context).min(tokens.len());
        let inputs = std::iter::once(start).chain(tokens[first..end - 1].iter().copied()).collect();
        windows.push(Window { inputs, skip: if first == 0 { 0 } else { context - half } });
        if end == tokens.len() {
            break;
        }
        first += half;
    }
    windows
}

impl StoreEncoder for ModelEncoder {
    fn fingerprint(&self) -> &str {
        // Known since it was identified; of a model that never was, no store has the empty one.
        self.checkpoint.fingerprint().unwrap_or_default()
    }

    fn dim(&self) -> usize {
        self.checkpoint.config().hidden_size
    }

    fn vocab_size(&self) -> usize {
        self.checkpoint.config().vocab_size
    }

    fn tokenize(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), EncodeError> {
        self.checkpoint.tokenizer.encode_with_offsets(text).map_err(failed)
    }

    fn keys(&self, documents: &[&[u32]]) -> Result<Vec<f32>, EncodeError> {
        let start = self.checkpoint.neutral_start();
        let start = start.ok_or_else(|| EncodeError("the model has no token that begins a text".into()))?;
        let context = self.checkpoint.context_length();
        let windows: Vec<Window> = documents.iter().flat_map(|tokens| windows(start, tokens, context)).collect();
        let sequences: Vec<&[u32]> = windows.iter().map(|window| &window.inputs[..]).collect();
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let decoder = &self.checkpoint.decoder;
        let rows = decoder.device().with_context(|| decoder.keys(&sequences)?.flatten_all()?.to_vec1::<f32>());
        let rows = rows.map_err(failed)?;
        let dim = self.dim();
        let mut keys = Vec::with_capacity(documents.iter().map(|tokens| tokens.len() * dim).sum());
        let mut rest = &rows[..];
        for Window { inputs, skip } in &windows {
            let (own, others) = rest.split_at(inputs.len() * dim);
            keys.extend_from_slice(&own[skip * dim..]);
            rest = others;
        }
        Ok(keys)
    }

    fn embed(&self, texts: &[&str]) -> Result<Option<Vec<Vec<f32>>>, EncodeError> {
        texts.iter().map(|text| self.passages.embed(text)).collect::<Result<_, _>>().map(Some)
    }
}

impl PassageEncoder {
    /// Which vectors these are: a store searches its own kind alone.
    pub fn name(&self) -> String {
        match self {
            PassageEncoder::Sentences(encoder) => format!("encoder {}", encoder.name()),
            PassageEncoder::Own(_) => "the model's own states".into(),
        }
    }

    /// The vector of a text, of length 1.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, EncodeError> {
        match self {
            PassageEncoder::Sentences(encoder) => {
                let mut tokens = encoder.tokenize(text).map_err(failed)?;
                tokens.truncate(encoder.max_tokens());
                let vectors = encoder.embed(&[tokens]).map_err(failed)?;
                vectors.into_iter().next().ok_or_else(|| EncodeError("the encoder gave no vector".into()))
            }
            PassageEncoder::Own(checkpoint) => {
                let start = checkpoint.neutral_start();
                let mut tokens: Vec<u32> = start.into_iter().collect();
                tokens.extend(checkpoint.tokenizer.encode(text, false).map_err(failed)?);
                tokens.truncate(checkpoint.context_length());
                let decoder = &checkpoint.decoder;
                let rows = decoder.device().with_context(|| decoder.keys(&[&tokens])?.to_vec2::<f32>());
                let mut sum = vec![0.0f32; checkpoint.config().hidden_size];
                for row in rows.map_err(failed)? {
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                sum.iter_mut().for_each(|x| *x /= norm);
                Ok(sum)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_predicted_once_with_enough_before_it() {
        for context in [2, 3, 8, 9] {
            for length in 1..60usize {
                let tokens: Vec<u32> = (1..=length as u32).collect();
                let mut predicted = Vec::new();
                for Window { inputs, skip } in windows(0, &tokens, context) {
                    assert!(inputs.len() <= context && inputs[0] == 0);
                    // A document's tokens count from 1: a row predicts the successor of what it reads.
                    let first = inputs.get(1).map_or(tokens.len() as u32, |second| *second);
                    assert!(skip == 0 || skip + 1 >= context / 2, "context {context}, length {length}");
                    predicted.extend((skip..inputs.len()).map(|row| first + row as u32));
                }
                assert_eq!(predicted, tokens, "context {context}");
            }
        }
    }
}
