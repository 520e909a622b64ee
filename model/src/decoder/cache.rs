//! Keys and values of the past.

use candle_core::{DType, Device, Result, Tensor};

use crate::config::Config;

/// The keys and values of one sequence, for every layer, up to a fixed number of tokens.
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>, // [capacity, kv_heads, head_dim] each
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// Room for `capacity` tokens, 2 · layers · kv_heads · head_dim · 4 bytes each.
    pub fn new(config: &Config, capacity: usize, device: &Device) -> Result<KvCache> {
        let shape = (capacity, config.n_kv_heads, config.head_dim);
        let zeros = || Tensor::zeros(shape, DType::F32, device);
        let layers = (0..config.n_layers).map(|_| Ok((zeros()?, zeros()?))).collect::<Result<_>>()?;
        Ok(KvCache { layers, len: 0, capacity })
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes the keys and values of new tokens, [tokens, kv_heads, head_dim], and returns those of the whole sequence.
    /// The new tokens count once [`advance`](Self::advance) is called, after the last layer.
    pub(super) fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (keys, values) = &self.layers[layer];
        let total = self.len + k.dim(0)?;
        keys.slice_set(&k.contiguous()?, 0, self.len)?;
        values.slice_set(&v.contiguous()?, 0, self.len)?;
        Ok((keys.narrow(0, 0, total)?, values.narrow(0, 0, total)?))
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
