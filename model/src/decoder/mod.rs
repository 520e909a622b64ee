//! The decoder: one definition for training and for inference, for every family of [`Config`].
//!
//! Sequences of a batch are packed: their tokens lie one after another in one [rows, hidden] tensor, without padding,
//! and only attention knows where one ends and the next begins.

mod cache;
mod fingerprint;
mod keys;
mod layer;
mod linear;
mod part;
mod positions;
mod stages;

use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};

pub use cache::{BLOCK_TOKENS, KvBlock, KvCache, KvPool, Reservation};
use layer::{Layer, Pasts};
pub use linear::{LowRank, Weight};
pub use part::{Part, PartError, Slice};
pub use stages::Batch;

use crate::config::Config;
use crate::device::Precision;
use crate::kernels::log_sum_exp;
use crate::ops::{Angles, IGNORE, token_log_probs};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Where a decoder's parameters come from: a checkpoint folder, or a trainer's variables.
pub trait ParameterSource {
    /// Why a parameter cannot be had.
    type Error;

    /// The parameter of this name (as in the Hugging Face checkpoints), of this shape, in f32.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Self::Error>;

    /// The matrix of this name, of this shape. A source that packs it for inference as it is read spares the memory of the
    /// tensor.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, Self::Error> {
        self.get(name, &shape).map(Weight::Tensor)
    }

    /// The values of `slice` of the parameter of this name, whose whole shape is `shape`. A source that only knows
    /// whole parameters is asked for one of the slice's shape, which it refuses.
    ///
    /// # Errors
    /// Those of the source.
    fn slice(&mut self, name: &str, shape: &[usize], slice: Slice) -> Result<Tensor, Self::Error> {
        self.get(name, &slice.shape(shape))
    }

    /// What is added to the weight [out, in] of the linear layer of this name, where a low-rank addition is trained.
    ///
    /// # Errors
    /// Those of the source.
    fn low_rank(&mut self, _name: &str, _out: usize, _input: usize) -> Result<Option<LowRank>, Self::Error> {
        Ok(None)
    }
}

/// One sequence of a batch whose past is kept.
pub struct Segment<'a> {
    /// The tokens to run, at least one.
    pub tokens: &'a [u32],
    /// The past, which the new tokens are added to.
    pub cache: &'a mut KvCache,
    /// Tokens of the whole sequence as far as it is known now, at least those of the past and the new ones. RoPE
    /// scalings that look at the length (dynamic NTK, LongRoPE) see this one, so that a prompt gets the same positions
    /// in one piece and in many.
    pub total: usize,
}

/// A decoder-only transformer with its output projection.
pub struct Decoder {
    config: Config,
    device: Device,
    embedding: Option<Weight>, // [vocab, hidden]
    first: usize,              // the number of the first layer
    layers: Vec<Layer>,
    norm: Option<Tensor>, // [hidden]
    head: Option<Weight>, // [vocab, hidden]; none when tied
    precision: Precision,
    angles: OnceLock<Angles>, // of all positions, on another device than the CPU
}

impl Decoder {
    /// Takes every parameter of the configuration from `source`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn new<S: ParameterSource>(config: Config, source: &mut S) -> Result<Decoder, S::Error> {
        let whole = Part::whole(&config);
        Decoder::part(config, source, &whole)
    }

    /// Takes the parameters of a part of the configuration from `source`. It runs in stages alone:
    /// [`batch`](Self::batch), [`embed`](Self::embed), [`layer`](Self::layer), [`last_norm`](Self::last_norm). What
    /// [`Part::check`] refuses must not be asked for.
    ///
    /// # Errors
    /// Those of the source.
    pub fn part<S: ParameterSource>(config: Config, source: &mut S, part: &Part) -> Result<Decoder, S::Error> {
        let shape = [config.vocab_size, config.hidden_size];
        let (is_first, is_last) = (part.layers.start == 0, part.layers.end == config.n_layers);
        let embeds = is_first || (is_last && config.tie_word_embeddings);
        let embedding = if embeds { Some(source.matrix("model.embed_tokens.weight", shape)?) } else { None };
        let layers =
            part.layers.clone().map(|i| Layer::new(source, &config, i, part)).collect::<Result<Vec<Layer>, _>>()?;
        let norm = if is_last { Some(source.get("model.norm.weight", &[config.hidden_size])?) } else { None };
        let has_head = is_last && !config.tie_word_embeddings;
        let head = if has_head { Some(source.matrix("lm_head.weight", shape)?) } else { None };
        let any = norm.as_ref().or(layers.first().map(Layer::any));
        let device = any.map_or(Device::Cpu, |tensor| tensor.device().clone());
        let (first, precision, angles) = (part.layers.start, Precision::F32, OnceLock::new());
        Ok(Decoder { config, device, embedding, first, layers, norm, head, precision, angles })
    }

    /// Takes matrix products and activations in another precision from now on.
    ///
    /// # Errors
    /// bf16 on the CPU, which has no kernels for it.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        if precision == Precision::Bf16 && self.device.is_cpu() {
            candle_core::bail!("bf16 is computed with on a GPU alone: expected f32 on the CPU");
        }
        self.precision = precision;
        Ok(())
    }

    /// Packs the weights for inference: products are faster, a row has the same bits in any company, and gradients are
    /// over. The parameters must lie on the CPU.
    ///
    /// # Errors
    /// Parameters on another device.
    pub fn pack(&mut self) -> Result<()> {
        self.embedding.as_mut().map_or(Ok(()), Weight::pack)?;
        self.head.as_mut().map_or(Ok(()), Weight::pack)?;
        self.layers.iter_mut().try_for_each(Layer::pack)
    }

    /// Bytes of all matrices in memory; vectors, which are few, are not counted.
    pub fn matrix_bytes(&self) -> usize {
        let own = [self.embedding.as_ref(), self.head.as_ref()].into_iter().flatten();
        let layers = self.layers.iter().flat_map(|layer| layer.parameters()).filter_map(|parameter| match parameter {
            linear::Parameter::Matrix(weight) => Some(weight),
            linear::Parameter::Vector(_) => None,
        });
        own.chain(layers).map(Weight::bytes).sum()
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the parameters are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The output projection, [vocab, hidden], for the loss.
    ///
    /// # Errors
    /// The weights are packed.
    pub fn head(&self) -> Result<&Tensor> {
        self.projection()?.tensor()
    }

    /// The numbers of the layers.
    pub fn layers(&self) -> Range<usize> {
        self.first..self.first + self.layers.len()
    }

    fn projection(&self) -> Result<&Weight> {
        match self.head.as_ref().or(self.embedding.as_ref()) {
            Some(projection) => Ok(projection),
            None => candle_core::bail!("this part of the decoder has no output projection"),
        }
    }

    /// Hidden states after the last norm, [rows, hidden], of whole sequences, where rows counts the tokens of all
    /// sequences in order. Gradients go through.
    ///
    /// # Errors
    /// A sequence without tokens, or a token outside the vocabulary.
    pub fn forward(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let lengths: Vec<_> = sequences.iter().map(|tokens| (0, tokens.len(), tokens.len())).collect();
        let (last, x, input) = self.run(sequences, &lengths, None)?;
        self.finish(last, &x, &input)
    }

    /// Hidden states after the last norm, [rows, hidden], of sequences that go on from their pasts.
    ///
    /// # Errors
    /// A segment without tokens, a token outside the vocabulary, or a cache without room for the new tokens.
    pub fn forward_cached(&self, segments: &mut [Segment<'_>]) -> Result<Tensor> {
        let (last, x, input) = self.attended_cached(segments)?;
        self.finish(last, &x, &input)
    }

    /// What [`run`](Self::run) gives, of sequences that go on from their pasts.
    fn attended_cached(&self, segments: &mut [Segment<'_>]) -> Result<(&Layer, Tensor, Tensor)> {
        for segment in segments.iter_mut() {
            segment.cache.prepare(segment.tokens.len(), &self.device)?;
        }
        let tokens: Vec<&[u32]> = segments.iter().map(|s| s.tokens).collect();
        let lengths: Vec<_> = segments.iter().map(|s| (s.cache.len(), s.tokens.len(), s.total)).collect();
        let mut pasts: Vec<_> = segments.iter_mut().map(|s| (&mut *s.cache, s.tokens.len())).collect();
        let states = self.run(&tokens, &lengths, Some(&mut pasts))?;
        pasts.into_iter().for_each(|(cache, tokens)| cache.advance(tokens));
        Ok(states)
    }

    /// Everything before the last feed-forward: the last layer, its hidden states, and the input of its feed-forward,
    /// [rows, hidden] each. `lengths`: for each sequence its first position, its new tokens and its total length.
    fn run(
        &self,
        sequences: &[&[u32]],
        lengths: &[(usize, usize, usize)],
        mut pasts: Pasts<'_, '_>,
    ) -> Result<(&Layer, Tensor, Tensor)> {
        let batch = self.packed(sequences, lengths)?;
        let context = self.context(&batch);
        let mut x = self.embed(&batch)?;
        let Some((last, layers)) = self.layers.split_last().filter(|_| self.layers.len() == self.config.n_layers)
        else {
            candle_core::bail!("a decoder with {} of {} layers", self.layers.len(), self.config.n_layers)
        };
        for (index, layer) in layers.iter().enumerate() {
            let (attended, input) = layer.attended(&x, index, &context, pasts.as_deref_mut())?;
            x = layer.fed_forward(&attended, &input, &self.config)?;
        }
        let (x, input) = last.attended(&x, layers.len(), &context, pasts)?;
        Ok((last, x, input))
    }

    /// The last feed-forward and the last norm, of what [`run`](Self::run) gives: [rows, hidden].
    fn finish(&self, last: &Layer, x: &Tensor, input: &Tensor) -> Result<Tensor> {
        self.last_norm(&last.fed_forward(x, input, &self.config)?)
    }

    /// Logits of hidden states: [rows, hidden] → [rows, vocab].
    ///
    /// # Errors
    /// Hidden states of another width.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.projection()?.product(hidden)
    }

    /// Natural log-probability of the target behind each row, [rows]; 0 where the target is
    /// [`IGNORE`](crate::ops::IGNORE). No gradient goes through.
    ///
    /// # Errors
    /// Another number of targets than rows, or a target outside the vocabulary.
    pub fn token_log_probs(&self, hidden: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
        const ROWS: usize = 256; // whose logits exist at once
        if let Weight::Tensor(head) = self.projection()? {
            return token_log_probs(hidden, head, targets);
        }
        if hidden.dim(0)? != targets.len() {
            candle_core::bail!("{} targets for {} rows", targets.len(), hidden.dim(0)?);
        }
        let mut result = Vec::with_capacity(targets.len());
        for (chunk, targets) in targets.chunks(ROWS).enumerate() {
            let logits = self.logits(&hidden.narrow(0, chunk * ROWS, targets.len())?)?.to_vec2::<f32>()?;
            for (row, &target) in logits.iter().zip(targets) {
                result.push(match row.get(target as usize) {
                    Some(logit) => logit - log_sum_exp(row),
                    None if target == IGNORE => 0.0,
                    None => candle_core::bail!("target {target} is outside the vocabulary"),
                });
            }
        }
        Ok(result)
    }

    fn check(&self, sequences: &[&[u32]]) -> Result<()> {
        let vocab = self.config.vocab_size;
        for tokens in sequences {
            if tokens.is_empty() {
                candle_core::bail!("a sequence of the batch has no tokens");
            }
            if let Some(bad) = tokens.iter().find(|&&t| t as usize >= vocab) {
                candle_core::bail!("token {bad} is outside the vocabulary of {vocab}");
            }
        }
        Ok(())
    }
}
