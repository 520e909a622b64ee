//! One decoder layer: attention and feed-forward, each with its residual.

use std::sync::Arc;

use candle_core::Tensor;

use super::cache::{self, KvCache};
use super::linear::{Linear, Parameter, Weight, forward_all};
use super::{ParameterSource, Part, Result};
use crate::config::{Config, QkNorm};
use crate::ops::{
    Rotation, Spans, TensorGroup, add, attention, from_divided, largest_attention_logit, norm_rope, reshape, rms_norm,
    rope, swiglu, to_divided,
};

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
    /// Heads, and key and value heads, of this worker.
    heads: (usize, usize),
    /// Those that share the layer.
    tensor: Option<Arc<dyn TensorGroup>>,
}

/// What a layer needs to know about the batch beside the hidden states.
pub(super) struct Context<'a> {
    pub config: &'a Config,
    pub rotation: &'a Rotation,
    /// Sequences inside the packed rows.
    pub spans: &'a Spans,
}

/// The sequences' pasts, with the number of new tokens of each; none where every sequence is whole.
pub(super) type Pasts<'a, 'c> = Option<&'a mut [(&'c mut KvCache, usize)]>;

impl Layer {
    pub fn new<S: ParameterSource>(s: &mut S, config: &Config, index: usize, part: &Part) -> Result<Self, S::Error> {
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
        const OUTPUTS: usize = 0;
        const INPUTS: usize = 1;
        // Blocks begin with matrices divided by rows, their outputs, and end with one divided by columns, its inputs.
        let mut linear = |name: String, [out, input]: [usize; 2], bias: bool, divided: usize| {
            let slice = part.slice(divided);
            let weight = match slice {
                Some(slice) => Weight::Tensor(s.slice(&format!("{name}.weight"), &[out, input], slice)?),
                None => s.matrix(&format!("{name}.weight"), [out, input])?,
            };
            // The bias has outputs alone.
            let bias = match (bias, slice.filter(|slice| slice.dim == OUTPUTS)) {
                (false, _) => None,
                (true, Some(slice)) => Some(s.slice(&format!("{name}.bias"), &[out], slice)?),
                (true, None) => Some(s.get(&format!("{name}.bias"), &[out])?),
            };
            Ok(Linear { weight, bias, low_rank: s.low_rank(&name, out, input)? })
        };
        let (q, k, v) = (
            linear(format!("{attn}.q_proj"), [q_width, dim], config.qkv_bias, OUTPUTS)?,
            linear(format!("{attn}.k_proj"), [kv_width, dim], config.qkv_bias, OUTPUTS)?,
            linear(format!("{attn}.v_proj"), [kv_width, dim], config.qkv_bias, OUTPUTS)?,
        );
        let o = linear(format!("{attn}.o_proj"), [dim, q_width], config.o_bias, INPUTS)?;
        let (gate, up, down) = (
            linear(format!("{mlp}.gate_proj"), [wide, dim], config.mlp_bias, OUTPUTS)?,
            linear(format!("{mlp}.up_proj"), [wide, dim], config.mlp_bias, OUTPUTS)?,
            linear(format!("{mlp}.down_proj"), [dim, wide], config.mlp_bias, INPUTS)?,
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
            heads: (config.n_heads / part.workers(), config.n_kv_heads / part.workers()),
            tensor: part.tensor.clone(),
        })
    }

    /// One of the parameters.
    pub fn any(&self) -> &Tensor {
        &self.attention_norm
    }

    /// What is whole at each worker, on its way into what is divided.
    fn divide(&self, x: &Tensor) -> Result<Tensor> {
        match &self.tensor {
            Some(group) => to_divided(x, group),
            None => Ok(x.clone()),
        }
    }

    /// The last product of a block: the sum of those of all workers, and its bias once.
    fn join(&self, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        match &self.tensor {
            Some(group) => linear.add_bias(from_divided(&linear.product(x)?, group)?),
            None => linear.forward(x),
        }
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
            let x = add(x, &rms_norm(&self.attention(x, index, context, pasts)?, &self.attention_norm, eps)?)?;
            Ok((x.clone(), x))
        } else {
            let h = rms_norm(x, &self.attention_norm, eps)?;
            let x = add(x, &self.attention(&h, index, context, pasts)?)?;
            let h = rms_norm(&x, &self.mlp_norm, eps)?;
            Ok((x, h))
        }
    }

    /// The second half, of what [`attended`](Self::attended) gives: the feed-forward with its residual, [rows, hidden].
    pub fn fed_forward(&self, x: &Tensor, input: &Tensor, config: &Config) -> Result<Tensor> {
        let [gate, up] = forward_all([&self.gate, &self.up], &self.divide(input)?)?;
        let out = self.join(&self.down, &swiglu(&gate, &up)?)?;
        match config.post_norm() {
            true => add(x, &rms_norm(&out, &self.mlp_norm, config.rms_norm_eps)?),
            false => add(x, &out),
        }
    }

    /// The parameters, in a fixed order.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        let Layer { q, k, v, o, q_norm, k_norm, gate, up, down, attention_norm, mlp_norm, .. } = self;
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
        let (heads, kv_heads) = self.heads;
        let q = self.placed(&q, self.q_norm.as_ref(), heads, context)?;
        let k = self.placed(&k, self.k_norm.as_ref(), kv_heads, context)?;
        Ok((q, k))
    }

    fn attention(&self, x: &Tensor, index: usize, context: &Context<'_>, pasts: Pasts<'_, '_>) -> Result<Tensor> {
        let ((heads, kv_heads), d) = (self.heads, context.config.head_dim);
        let rows = x.dim(0)?;
        let [q, k, v] = forward_all([&self.q, &self.k, &self.v], &self.divide(x)?)?;
        let (q, k) = self.rotated(q, k, context)?;
        let v = reshape(&v, (rows, kv_heads, d))?; // [rows, kv, d]
        let window = context.config.windows[index];
        let out = match pasts {
            Some(pasts) => cache::attend(pasts, index, &q, &k, &v, window)?,
            None => attention(&q, &k, &v, context.spans, window)?,
        };
        self.join(&self.o, &reshape(&out, (rows, heads * d))?)
    }

    /// Normalises a projection as the family does, splits it into heads and rotates them: [rows, heads · d] → [rows,
    /// heads, d].
    fn placed(&self, x: &Tensor, weight: Option<&Tensor>, heads: usize, context: &Context<'_>) -> Result<Tensor> {
        let (config, eps) = (context.config, context.config.rms_norm_eps);
        let split = |x: &Tensor| reshape(x, (x.dim(0)?, heads, config.head_dim));
        match (config.qk_norm, weight) {
            // Each worker norms its own heads with the same weight.
            (QkNorm::PerHead, Some(weight)) => norm_rope(&split(x)?, &self.divide(weight)?, eps, context.rotation),
            (_, Some(weight)) => rope(&split(&rms_norm(x, weight, eps)?)?, context.rotation),
            (_, None) => rope(&split(x)?, context.rotation),
        }
    }
}
