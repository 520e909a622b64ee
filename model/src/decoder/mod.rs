//! The decoder: one definition for training and for inference, for every family of [`Config`].
//!
//! Sequences of a batch are packed: their tokens lie one after another in one [rows, hidden] tensor, without padding,
//! and only attention knows where one ends and the next begins.

mod cache;
mod layer;
mod positions;

use candle_core::{Device, Tensor};

pub use cache::KvCache;
use layer::{Context, Layer};

use crate::config::Config;
use crate::ops::{Span, project_rows, rms_norm};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Where a decoder's parameters come from: a checkpoint folder, or a trainer's variables.
pub trait ParameterSource {
    /// Why a parameter cannot be had.
    type Error;

    /// The parameter of this name (as in the Hugging Face checkpoints), of this shape, in f32.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Self::Error>;
}

/// One sequence of a batch: its new tokens, and its past where it has one.
pub struct Segment<'a> {
    /// The tokens to run, at least one.
    pub tokens: &'a [u32],
    /// The past, which the new tokens are added to; without it, the tokens are the whole sequence.
    pub cache: Option<&'a mut KvCache>,
}

/// How the rows of a pass are projected: what makes a row's result the same bit for bit in any company.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Projection {
    /// Sequences that go on by one token: a product of its own for each row.
    Rows,
    /// Whole sequences, prompts and training: the matrix library. It sums in another order where the result has at most
    /// 256 elements; fewer rows than that are filled up with zeros.
    Matrix,
}

impl Projection {
    /// x · Wᵀ: [rows, in] → [rows, out].
    fn apply(self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        const SMALL: usize = 16 * 16;
        let (rows, least) = (x.dim(0)?, (SMALL / weight.dim(0)? + 1).max(2));
        match self {
            Projection::Rows => project_rows(x, weight),
            Projection::Matrix if rows < least => {
                x.pad_with_zeros(0, 0, least - rows)?.matmul(&weight.t()?)?.narrow(0, 0, rows)
            }
            Projection::Matrix => x.matmul(&weight.t()?),
        }
    }
}

/// A decoder-only transformer with its output projection.
pub struct Decoder {
    config: Config,
    embedding: Tensor, // [vocab, hidden]
    layers: Vec<Layer>,
    norm: Tensor,         // [hidden]
    head: Option<Tensor>, // [vocab, hidden]; none when tied
}

impl Decoder {
    /// Takes every parameter of the configuration from `source`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn new<S: ParameterSource>(config: Config, source: &mut S) -> Result<Decoder, S::Error> {
        let shape = [config.vocab_size, config.hidden_size];
        let embedding = source.get("model.embed_tokens.weight", &shape)?;
        let layers = (0..config.n_layers).map(|i| Layer::new(source, &config, i)).collect::<Result<_, _>>()?;
        let norm = source.get("model.norm.weight", &[config.hidden_size])?;
        let head = if config.tie_word_embeddings { None } else { Some(source.get("lm_head.weight", &shape)?) };
        Ok(Decoder { config, embedding, layers, norm, head })
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the parameters are.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The output projection, [vocab, hidden].
    pub fn head(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Hidden states after the last norm, [rows, hidden], where rows counts the tokens of all segments in order.
    ///
    /// # Errors
    /// An empty segment, a token outside the vocabulary, or a cache without room for the new tokens.
    pub fn forward(&self, segments: &mut [Segment<'_>]) -> Result<Tensor> {
        for segment in segments.iter() {
            self.check(segment)?;
        }
        // Sequences that go on by one token, and the others, are two passes: see `Projection`.
        let goes_on = |segment: &Segment<'_>| segment.tokens.len() == 1 && segment.cache.is_some();
        let mut row = 0;
        let mut passes = [(Projection::Rows, Vec::new(), Vec::new()), (Projection::Matrix, Vec::new(), Vec::new())];
        for segment in segments {
            let (_, members, rows) = &mut passes[usize::from(!goes_on(segment))];
            rows.extend(row..row + segment.tokens.len() as u32);
            row += segment.tokens.len() as u32;
            members.push(segment);
        }
        let mut results = Vec::new();
        let mut order = vec![0_u32; row as usize];
        let mut place = 0;
        for (projection, mut members, rows) in passes.into_iter().filter(|(_, members, _)| !members.is_empty()) {
            results.push(self.pass(&mut members, projection)?);
            for row in rows {
                order[row as usize] = place;
                place += 1;
            }
        }
        match &results[..] {
            [one] => Ok(one.clone()),
            both => Tensor::cat(both, 0)?.index_select(&Tensor::from_vec(order, row as usize, self.device())?, 0),
        }
    }

    /// One pass over segments of one kind, which have been checked.
    fn pass(&self, segments: &mut [&mut Segment<'_>], projection: Projection) -> Result<Tensor> {
        let mut tokens = Vec::new();
        let mut spans = Vec::with_capacity(segments.len());
        let mut sequences = Vec::with_capacity(segments.len());
        for segment in segments.iter() {
            let rows = tokens.len()..tokens.len() + segment.tokens.len();
            tokens.extend_from_slice(segment.tokens);
            sequences.push((segment.cache.as_ref().map_or(0, |c| c.len()), segment.tokens.len()));
            spans.push(Span { queries: rows.clone(), keys: rows });
        }
        let rotation = positions::rotation(&self.config.rope, self.config.head_dim, &sequences);
        let context = Context { config: &self.config, rotation: &rotation, spans: &spans, projection };
        let mut caches: Vec<_> = segments.iter_mut().map(|s| s.cache.as_deref_mut()).collect();
        let rows = tokens.len();
        let mut x = self.embedding.index_select(&Tensor::from_vec(tokens, rows, self.device())?, 0)?; // [rows, hidden]
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, index, &context, &mut caches)?;
        }
        for (cache, (_, tokens)) in caches.into_iter().zip(sequences) {
            if let Some(cache) = cache {
                cache.advance(tokens);
            }
        }
        rms_norm(&x, &self.norm, self.config.rms_norm_eps)
    }

    /// Logits of hidden states: [rows, hidden] → [rows, vocab]. No gradient goes through; training has
    /// [`cross_entropy`](crate::ops::cross_entropy).
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Projection::Rows.apply(hidden, self.head())
    }

    fn check(&self, segment: &Segment<'_>) -> Result<()> {
        let vocab = self.config.vocab_size;
        if segment.tokens.is_empty() {
            candle_core::bail!("a sequence of the batch has no tokens");
        }
        if let Some(bad) = segment.tokens.iter().find(|&&t| t as usize >= vocab) {
            candle_core::bail!("token {bad} is outside the vocabulary of {vocab}");
        }
        if let Some(cache) = &segment.cache {
            let (len, new, capacity) = (cache.len(), segment.tokens.len(), cache.capacity());
            if len + new > capacity {
                candle_core::bail!("the cache holds {len} of {capacity} tokens: no room for {new} more");
            }
        }
        Ok(())
    }
}
