//! One decoder layer: attention and feed-forward, each with its residual.

use candle_core::Tensor;

use super::cache::{self, KvCache};
use super::linear::{Linear, Parameter, forward_all};
use super::{ParameterSource, Result};
use crate::config::{Config, QkNorm};
use crate::ops::{Rotation, Span, attention, largest_attention_logit, rms_norm, rope, swiglu};

/// The parameters of one layer.
pub(super) struct Layer {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: Option<Tensor>, // [head_dim] or [heads · head_dim]
    k_norm: Option<Tensor>, // [head_dim] or [kv_heads · head_dim]
    gate: Linear,
    up: Linear,
    down: Linear,
    attention_norm: Tensor, // [hidden]
    mlp_norm: Tensor,       // [hidden]
}

/// What a layer needs to know about the batch beside the hidden states.
pub(super) struct Context<'a> {
    pub config: &'a Config,
    pub rotation: &'a Rotation,
    /// Sequences inside the packed rows.
    pub spans: &'a [Span],
}

/// The sequences' pasts, with the number of new tokens of each; none where every sequence is whole.
pub(super) type Pasts<'a, 'c> = Option<&'a mut [(&'c mut KvCache, usize)]>;

impl Layer {
    pub fn new<S: ParameterSource>(s: &mut S, config: &Config, index: usize) -> Result<Self, S::Error> {
        let Config { hidden_size: dim, intermediate_size: wide, head_dim: d, .. } = *config;
        let (q_width, kv_width) = (config.n_heads * d, config.n_kv_heads * d);
        let layer = format!("model.layers.{index}");
        let (attn, mlp) = (format!("{layer}.self_attn"), format!("{layer}.mlp"));
        let (q_norm, k_norm) = match config.qk_norm {
            QkNorm::None => (None, None),
            QkNorm::PerHead => (Some(d), Some(d)),
            QkNorm::WholeProjection => (Some(q_width), Some(kv_width)),
        };
        let mut norm = |name: &str, width: Option<usize>| match width {
            Some(width) => s.get(&format!("{attn}.{name}.weight"), &[width]).map(Some),
            None => Ok(None),
        };
        let (q_norm, k_norm) = (norm("q_norm", q_norm)?, norm("k_norm", k_norm)?);
        let mut linear = |name: String, out: usize, input: usize, bias: bool| {
            let weight = s.matrix(&format!("{name}.weight"), [out, input])?;
            let bias = if bias { Some(s.get(&format!("{name}.bias"), &[out])?) } else { None };
            Ok(Linear { weight, bias, low_rank: s.low_rank(&name, out, input)? })
        };
        let (q, k, v) = (
            linear(format!("{attn}.q_proj"), q_width, dim, config.qkv_bias)?,
            linear(format!("{attn}.k_proj"), kv_width, dim, config.qkv_bias)?,
            linear(format!("{attn}.v_proj"), kv_width, dim, config.qkv_bias)?,
        );
        let o = linear(format!("{attn}.o_proj"), dim, q_width, config.o_bias)?;
        let (gate, up, down) = (
            linear(format!("{mlp}.gate_proj"), wide, dim, config.mlp_bias)?,
            linear(format!("{mlp}.up_proj"), wide, dim, config.mlp_bias)?,
            linear(format!("{mlp}.down_proj"), dim, wide, config.mlp_bias)?,
        );
        let (attention_norm, mlp_norm) = match config.post_norm() {
            false => ("input_layernorm", "post_attention_layernorm"),
            true => ("post_attention_layernorm", "post_feedforward_layernorm"),
        };
        Ok(Layer {
            q,
            k,
            v,
            o,
            q_norm,
            k_norm,
            gate,
            up,
            down,
            attention_norm: s.get(&format!("{layer}.{attention_norm}.weight"), &[dim])?,
            mlp_norm: s.get(&format!("{layer}.{mlp_norm}.weight"), &[dim])?,
        })
    }

    /// Packs the weights for inference.
    pub fn pack(&mut self) -> Result<()> {
        let Layer { q, k, v, o, gate, up, down, .. } = self;
        [q, k, v, o, gate, up, down].into_iter().try_for_each(|linear| match linear.low_rank {
            None => linear.weight.pack(),
            Some(_) => {
                candle_core::bail!("a low-rank addition is being trained: merge it before the weights are packed")
            }
        })
    }

    /// The first half, attention with its residual: the hidden states, and the feed-forward's input behind its norm
    /// (families that norm behind the blocks feed the hidden states themselves), [rows, hidden] each.
    pub fn attended(
        &self,
        x: &Tensor,
        index: usize,
        context: &Context<'_>,
        pasts: Pasts<'_, '_>,
    ) -> Result<(Tensor, Tensor)> {
        let eps = context.config.rms_norm_eps;
        if context.config.post_norm() {
            let x = (x + rms_norm(&self.attention(x, index, context, pasts)?, &self.attention_norm, eps)?)?;
            Ok((x.clone(), x))
        } else {
            let h = rms_norm(x, &self.attention_norm, eps)?;
            let x = (x + self.attention(&h, index, context, pasts)?)?;
            let h = rms_norm(&x, &self.mlp_norm, eps)?;
            Ok((x, h))
        }
    }

    /// The second half, of what [`attended`](Self::attended) gives: the feed-forward with its residual, [rows, hidden].
    pub fn fed_forward(&self, x: &Tensor, input: &Tensor, config: &Config) -> Result<Tensor> {
        let [gate, up] = forward_all([&self.gate, &self.up], input)?;
        let out = self.down.forward(&swiglu(&gate, &up)?)?;
        match config.post_norm() {
            true => x + rms_norm(&out, &self.mlp_norm, config.rms_norm_eps)?,
            false => x + out,
        }
    }

    /// The parameters, in a fixed order.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        let Layer { q, k, v, o, q_norm, k_norm, gate, up, down, attention_norm, mlp_norm } = self;
        let linear = [q, k, v, o, gate, up, down]
            .into_iter()
            .flat_map(|linear| [Some(Parameter::Matrix(&linear.weight)), linear.bias.as_ref().map(Parameter::Vector)]);
        let norms = [q_norm.as_ref(), k_norm.as_ref(), Some(attention_norm), Some(mlp_norm)];
        linear.chain(norms.map(|norm| norm.map(Parameter::Vector))).flatten()
    }

    /// The largest attention score of the hidden states `x`, [rows, hidden], which enter layer `index`.
    pub fn largest_attention_logit(&self, x: &Tensor, index: usize, context: &Context<'_>) -> Result<f32> {
        let h = match context.config.post_norm() {
            true => x.clone(),
            false => rms_norm(x, &self.attention_norm, context.config.rms_norm_eps)?,
        };
        let [q, k] = forward_all([&self.q, &self.k], &h)?;
        let (q, k) = self.rotated(q, k, context)?;
        largest_attention_logit(&q, &k, context.spans, context.config.windows[index])
    }

    /// Projections normed and rotated: [rows, heads · d] and [rows, kv · d] → [rows, heads, d] and [rows, kv, d].
    fn rotated(&self, q: Tensor, k: Tensor, context: &Context<'_>) -> Result<(Tensor, Tensor)> {
        let Config { n_heads, n_kv_heads, .. } = *context.config;
        let q = self.normed(q, self.q_norm.as_ref(), n_heads, context.config)?;
        let k = self.normed(k, self.k_norm.as_ref(), n_kv_heads, context.config)?;
        Ok((rope(&q, context.rotation)?, rope(&k, context.rotation)?))
    }

    fn attention(&self, x: &Tensor, index: usize, context: &Context<'_>, pasts: Pasts<'_, '_>) -> Result<Tensor> {
        let Config { n_heads, n_kv_heads, head_dim: d, .. } = *context.config;
        let rows = x.dim(0)?;
        let [q, k, v] = forward_all([&self.q, &self.k, &self.v], x)?;
        let (q, k) = self.rotated(q, k, context)?;
        let v = v.reshape((rows, n_kv_heads, d))?; // [rows, kv, d]
        let window = context.config.windows[index];
        let out = match pasts {
            Some(pasts) => cache::attend(pasts, index, &q, &k, &v, window)?,
            None => attention(&q, &k, &v, context.spans, window)?,
        };
        self.o.forward(&out.reshape((rows, n_heads * d))?)
    }

    /// Normalises a projection as the family does and splits it into heads: [rows, heads · d] → [rows, heads, d].
    fn normed(&self, x: Tensor, weight: Option<&Tensor>, heads: usize, config: &Config) -> Result<Tensor> {
        let split = |x: Tensor| {
            let rows = x.dim(0)?;
            x.reshape((rows, heads, config.head_dim))
        };
        match (config.qk_norm, weight) {
            (QkNorm::PerHead, Some(weight)) => rms_norm(&split(x)?, weight, config.rms_norm_eps),
            (_, Some(weight)) => split(rms_norm(&x, weight, config.rms_norm_eps)?),
            (_, None) => split(x),
        }
    }
}
