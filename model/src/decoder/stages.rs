//! The forward pass in stages, for who trains: embedding, one layer after another, last norm. Between two stages a
//! trainer may look at the hidden states, or keep nothing but them and run a layer again in the backward pass
//! (Chen et al. 2016).

use candle_core::Tensor;

use super::layer::{Context, Layer};
use super::{Decoder, Result, positions};
use crate::ops::{Angles, Rotation, Span, Spans, rms_norm};

/// Packed sequences, as every stage needs them.
pub struct Batch {
    tokens: Vec<u32>, // [rows]
    spans: Spans,
    rotation: Rotation,
}

impl Decoder {
    /// Packs whole sequences.
    ///
    /// # Errors
    /// A sequence without tokens, or a token outside the vocabulary.
    pub fn batch(&self, sequences: &[&[u32]]) -> Result<Batch> {
        let lengths: Vec<_> = sequences.iter().map(|tokens| (0, tokens.len(), tokens.len())).collect();
        self.packed(sequences, &lengths)
    }

    /// `lengths`: for each sequence its first position, its new tokens and its total length.
    pub(super) fn packed(&self, sequences: &[&[u32]], lengths: &[(usize, usize, usize)]) -> Result<Batch> {
        self.check(sequences)?;
        let mut spans = Vec::with_capacity(sequences.len());
        let mut rows = 0;
        for tokens in sequences {
            let span = rows..rows + tokens.len();
            spans.push(Span { queries: span.clone(), keys: span });
            rows += tokens.len();
        }
        let within = lengths.iter().all(|(first, tokens, _)| first + tokens <= self.config.max_position_embeddings);
        let rotation = match self.angles()? {
            Some(angles) if within => {
                let places: Vec<u32> =
                    lengths.iter().flat_map(|(first, tokens, _)| *first as u32..(first + tokens) as u32).collect();
                let places = Tensor::from_vec(places, rows, self.device())?;
                Rotation::on_device(Angles { places, ..angles.clone() }, self.config.head_dim / 2)
            }
            _ => positions::rotation(&self.config.rope, self.config.head_dim, lengths),
        };
        Ok(Batch { tokens: sequences.concat(), spans: spans.into(), rotation })
    }

    /// On another device than the CPU: the angles of all positions, made once, where they do not depend on the length of
    /// a sequence.
    fn angles(&self) -> Result<Option<&Angles>> {
        let (rope, context) = (&self.config.rope, self.config.max_position_embeddings);
        if self.device().is_cpu() || positions::looks_at_length(rope) {
            return Ok(None);
        }
        if let Some(angles) = self.angles.get() {
            return Ok(Some(angles));
        }
        let table = positions::rotation(rope, self.config.head_dim, &[(0, context, context)]);
        let angles = table.on(self.device())?;
        Ok(Some(self.angles.get_or_init(|| angles)))
    }

    pub(super) fn context<'a>(&'a self, batch: &'a Batch) -> Context<'a> {
        Context { config: &self.config, rotation: &batch.rotation, spans: &batch.spans }
    }

    /// The embeddings, [rows, hidden]: what enters the first layer.
    ///
    /// # Errors
    /// Those of candle, or a part without the embedding.
    pub fn embed(&self, batch: &Batch) -> Result<Tensor> {
        match &self.embedding {
            Some(embedding) => embedding.rows(&batch.tokens, self.precision.dtype()),
            None => candle_core::bail!("this part of the decoder has no embedding"),
        }
    }

    /// One layer: [rows, hidden] → [rows, hidden].
    ///
    /// # Errors
    /// A layer that there is not, or hidden states of another shape.
    pub fn layer(&self, index: usize, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let layer = self.stage(index)?;
        let (attended, input) = layer.attended(x, index, &self.context(batch), None)?;
        layer.fed_forward(&attended, &input, &self.config)
    }

    /// The last norm: [rows, hidden], as [`forward`](Self::forward) returns it.
    ///
    /// # Errors
    /// Hidden states of another width, or a part without the last norm.
    pub fn last_norm(&self, x: &Tensor) -> Result<Tensor> {
        match &self.norm {
            Some(norm) => rms_norm(x, norm, self.config.rms_norm_eps),
            None => candle_core::bail!("this part of the decoder has no last norm"),
        }
    }

    /// The largest attention score, before the softmax, in layer `index` of hidden states that enter it.
    ///
    /// # Errors
    /// A layer that there is not, or parameters on another device than the CPU.
    pub fn largest_attention_logit(&self, index: usize, x: &Tensor, batch: &Batch) -> Result<f32> {
        self.stage(index)?.largest_attention_logit(x, index, &self.context(batch))
    }

    fn stage(&self, index: usize) -> Result<&Layer> {
        match index.checked_sub(self.first).and_then(|place| self.layers.get(place)) {
            Some(layer) => Ok(layer),
            None => candle_core::bail!("layer {index} of a decoder with {:?}", self.layers()),
        }
    }
}
