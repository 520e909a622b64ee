//! Keys and values of the past, in blocks of [`BLOCK_TOKENS`] tokens (PagedAttention, Kwon et al. 2023, section 4.1).
//!
//! A full block never changes again and may be shared by any number of sequences that begin alike; the last, unfinished
//! block of a sequence belongs to it alone. Memory comes from a [`KvPool`] with a budget: a sequence reserves what it can
//! come to need before it starts, so that none is ever stopped half-way for want of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::config::Config;
use crate::kernels::{KeyValueBlock, PANEL, TokenAttention};
use crate::ops::{Span, Spans, attention, with_slice};

/// Tokens of a block.
pub const BLOCK_TOKENS: usize = PANEL;

/// Multiplications below which attention is not worth handing to other threads.
const SERIAL: usize = 1 << 16;

/// The sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Shape {
    /// Rows of [`PANEL`] floats for the keys and the values of one head: see [`KeyValueBlock`].
    fn head_rows(&self) -> usize {
        self.head_dim + self.head_dim.next_multiple_of(PANEL)
    }

    fn rows(&self) -> usize {
        self.layers * self.kv_heads * self.head_rows()
    }
}

/// A budget of blocks. Cheap to clone: all clones are one pool.
#[derive(Clone, Debug)]
pub struct KvPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    shape: Shape,
    capacity: usize,
    /// Blocks that exist or are promised.
    taken: AtomicUsize,
}

impl KvPool {
    /// A pool of at most `capacity` blocks for a model of this shape; memory is taken block by block.
    pub fn new(config: &Config, capacity: usize) -> Self {
        let shape = Shape { layers: config.n_layers, kv_heads: config.n_kv_heads, head_dim: config.head_dim };
        KvPool(Arc::new(Pool { shape, capacity, taken: AtomicUsize::new(0) }))
    }

    /// Bytes of one block for a model of this shape.
    pub fn block_bytes(config: &Config) -> usize {
        KvPool::new(config, 0).0.shape.rows() * PANEL * size_of::<f32>()
    }

    /// Blocks that sequences, and what keeps finished blocks, can have in all.
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Blocks that exist or are promised.
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Promises blocks, or says how many are missing.
    ///
    /// # Errors
    /// The number of blocks by which the request goes beyond the capacity.
    pub fn reserve(&self, blocks: usize) -> std::result::Result<Reservation, usize> {
        let fits = |taken: usize| taken.checked_add(blocks).filter(|sum| *sum <= self.0.capacity);
        match self.0.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Reservation { pool: Arc::clone(&self.0), left: blocks }),
            Err(taken) => Err(taken.saturating_add(blocks) - self.0.capacity),
        }
    }
}

/// Blocks that are promised and do not exist yet. What is left of it is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    left: usize,
}

impl Reservation {
    fn block(&mut self) -> Result<KvBlock> {
        if self.left == 0 {
            candle_core::bail!("the sequence has used all the cache blocks that were reserved for it");
        }
        self.left -= 1;
        Ok(KvBlock { rows: vec![[0.0; PANEL]; self.pool.shape.rows()], pool: Arc::clone(&self.pool) })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.taken.fetch_sub(self.left, Ordering::AcqRel);
    }
}

/// Keys and values of [`BLOCK_TOKENS`] consecutive tokens, for all layers. Its memory is given back when the last holder
/// drops it.
#[derive(Debug)]
pub struct KvBlock {
    rows: Vec<[f32; PANEL]>, // [layers, kv_heads, head_rows]
    pool: Arc<Pool>,
}

impl Drop for KvBlock {
    fn drop(&mut self) {
        self.pool.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl KvBlock {
    /// Where the rows of a head begin.
    fn head(shape: &Shape, layer: usize, head: usize) -> usize {
        (layer * shape.kv_heads + head) * shape.head_rows()
    }

    fn of_head(&self, layer: usize, head: usize) -> Head<'_> {
        let shape = &self.pool.shape;
        let rows = &self.rows[KvBlock::head(shape, layer, head)..][..shape.head_rows()];
        Head { rows, head_dim: shape.head_dim }
    }

    /// Writes one token's key and value of one head.
    fn write(&mut self, shape: &Shape, layer: usize, head: usize, token: usize, k: &[f32], v: &[f32]) {
        let rows = &mut self.rows[KvBlock::head(shape, layer, head)..][..shape.head_rows()];
        let (keys, values) = rows.split_at_mut(shape.head_dim);
        for (row, k) in keys.iter_mut().zip(k) {
            row[token] = *k;
        }
        for (panel, v) in v.chunks(PANEL).enumerate() {
            values[panel * PANEL + token][..v.len()].copy_from_slice(v);
        }
    }
}

/// One head of a block, as the kernel reads it.
struct Head<'a> {
    rows: &'a [[f32; PANEL]],
    head_dim: usize,
}

impl KeyValueBlock for Head<'_> {
    fn keys(&self) -> &[[f32; PANEL]] {
        &self.rows[..self.head_dim]
    }

    fn values(&self) -> &[[f32; PANEL]] {
        &self.rows[self.head_dim..]
    }
}

/// The keys and values of one sequence.
#[derive(Debug)]
pub struct KvCache {
    blocks: Vec<Arc<KvBlock>>,
    len: usize,
    reservation: Reservation,
    /// On another device than the CPU: keys and values of each layer, [capacity, kv_heads, head_dim]. They are the
    /// sequence's own, and the reservation bounds them alone.
    on_device: Vec<(Tensor, Tensor)>,
}

impl KvCache {
    /// A sequence that begins with finished blocks of another one, and has room in its reservation for what comes.
    pub fn new(reservation: Reservation, beginning: Vec<Arc<KvBlock>>) -> Self {
        KvCache { len: beginning.len() * BLOCK_TOKENS, blocks: beginning, reservation, on_device: Vec::new() }
    }

    /// A sequence with room for `tokens` tokens outside any budget.
    pub fn unpooled(config: &Config, tokens: usize) -> Self {
        let blocks = tokens.div_ceil(BLOCK_TOKENS);
        let pool = KvPool::new(config, blocks).0;
        pool.taken.store(blocks, Ordering::Relaxed);
        KvCache::new(Reservation { pool, left: blocks }, Vec::new())
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
        (self.blocks.len() + self.reservation.left) * BLOCK_TOKENS
    }

    /// The blocks that are full and never change again.
    pub fn full_blocks(&self) -> &[Arc<KvBlock>] {
        &self.blocks[..(self.len / BLOCK_TOKENS).min(self.blocks.len())]
    }

    /// Forgets what lies behind the first `len` tokens. The memory stays with the sequence.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for new tokens. They count once [`advance`](Self::advance) is called, after the last layer.
    pub(super) fn prepare(&mut self, tokens: usize, device: &Device) -> Result<()> {
        let (len, capacity) = (self.len, self.capacity());
        if len + tokens > capacity {
            candle_core::bail!("the cache holds {len} of {capacity} tokens: no room for {tokens} more");
        }
        if !device.is_cpu() {
            if !self.blocks.is_empty() {
                candle_core::bail!("the past lies in blocks on the CPU, and the decoder on a GPU");
            }
            return Ok(());
        }
        while self.blocks.len() * BLOCK_TOKENS < self.len + tokens {
            self.blocks.push(Arc::new(self.reservation.block()?));
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Adds keys and values of new tokens, [tokens, kv_heads, head_dim] each, for one layer on a device; returns those of
    /// the whole sequence.
    fn extend(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (tokens, kv_heads, head_dim) = k.dims3()?;
        while self.on_device.len() <= layer {
            let room = || Tensor::zeros((self.capacity(), kv_heads, head_dim), k.dtype(), k.device());
            self.on_device.push((room()?, room()?));
        }
        let (keys, values) = &self.on_device[layer];
        keys.slice_set(&k.contiguous()?, 0, self.len)?;
        values.slice_set(&v.contiguous()?, 0, self.len)?;
        let len = self.len + tokens;
        Ok((keys.narrow(0, 0, len)?, values.narrow(0, 0, len)?))
    }

    /// Writes keys and values of new tokens, [tokens, kv_heads, head_dim] each, for one layer.
    fn write(&mut self, layer: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let shape = self.reservation.pool.shape;
        let (d, width) = (shape.head_dim, shape.kv_heads * shape.head_dim);
        for (t, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
            let position = self.len + t;
            let block = self.blocks.get_mut(position / BLOCK_TOKENS).and_then(Arc::get_mut);
            let Some(block) = block else {
                candle_core::bail!("the cache block of position {position} is missing or shared");
            };
            for (head, (k, v)) in k.chunks_exact(d).zip(v.chunks_exact(d)).enumerate() {
                block.write(&shape, layer, head, position % BLOCK_TOKENS, k, v);
            }
        }
        Ok(())
    }
}

/// Attention of new tokens over the past of their sequences and over themselves, causal: adds the keys and values to the
/// caches and returns [rows, heads, head_dim]. `sequences` holds the caches with the number of new tokens of each, whose
/// rows follow one another in `q`, [rows, heads, head_dim], and in `k` and `v`, [rows, kv_heads, head_dim].
pub(super) fn attend(
    sequences: &mut [(&mut KvCache, usize)],
    layer: usize,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    window: Option<usize>,
) -> Result<Tensor> {
    const OP: &str = "cached-attention";
    if !q.device().is_cpu() {
        return attend_on_device(sequences, layer, q, k, v, window);
    }
    let ((rows, heads, d), (_, kv_heads, _)) = (q.dims3()?, k.dims3()?);
    with_slice(OP, k, |k| {
        with_slice(OP, v, |v| {
            let mut row = 0;
            sequences.iter_mut().try_for_each(|(cache, tokens)| {
                let own = row * kv_heads * d..(row + *tokens) * kv_heads * d;
                row += *tokens;
                cache.write(layer, &k[own.clone()], &v[own])
            })
        })
    })?;
    // The heads of every sequence's blocks: [sequence][kv head][block].
    let blocks: Vec<Vec<Vec<Head<'_>>>> = sequences
        .iter()
        .map(|(cache, _)| {
            (0..kv_heads).map(|head| cache.blocks.iter().map(|b| b.of_head(layer, head)).collect()).collect()
        })
        .collect();
    // For each row: its sequence and its position.
    let places: Vec<(usize, usize)> = sequences
        .iter()
        .enumerate()
        .flat_map(|(s, (cache, tokens))| (cache.len..cache.len + tokens).map(move |position| (s, position)))
        .collect();
    let width = heads / kv_heads * d;
    let mut out = vec![0.0_f32; rows * heads * d];
    with_slice(OP, q, |q| {
        let one = |scores: &mut Vec<f32>, (index, (out, q)): (usize, (&mut [f32], &[f32]))| {
            let (sequence, position) = places[index / kv_heads];
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            TokenAttention {
                out,
                q,
                blocks: &blocks[sequence][index % kv_heads],
                visible: first..position + 1,
                head_dim: d,
                scale: 1.0 / (d as f32).sqrt(),
                scores,
            }
            .run();
        };
        let work: usize = places.iter().map(|(_, position)| position * heads * d).sum();
        if work < SERIAL {
            let mut scores = Vec::new();
            out.chunks_exact_mut(width).zip(q.chunks_exact(width)).enumerate().for_each(|job| one(&mut scores, job));
        } else {
            let jobs = out.par_chunks_exact_mut(width).zip(q.par_chunks_exact(width)).enumerate();
            jobs.for_each_init(Vec::new, one);
        }
        Ok(())
    })?;
    Tensor::from_vec(out, (rows, heads, d), q.device())
}

/// [`attend`], one sequence after another, on another device than the CPU.
fn attend_on_device(
    sequences: &mut [(&mut KvCache, usize)],
    layer: usize,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    window: Option<usize>,
) -> Result<Tensor> {
    let (mut row, mut outputs) = (0, Vec::with_capacity(sequences.len()));
    for (cache, tokens) in sequences {
        let own = |x: &Tensor| x.narrow(0, row, *tokens);
        let (keys, values) = cache.extend(layer, &own(k)?, &own(v)?)?;
        let span = Span { queries: 0..*tokens, keys: 0..keys.dim(0)? };
        outputs.push(attention(&own(q)?, &keys, &values, &Spans::from(vec![span]), window)?);
        row += *tokens;
    }
    Tensor::cat(&outputs, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let json = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 0,
            "eos_token_id": 1, "tie_word_embeddings": true, "hidden_act": "silu"}"#;
        Config::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_pool_promises_no_more_than_it_has_and_gets_everything_back() {
        let pool = KvPool::new(&config(), 4);
        let mut first = pool.reserve(3).unwrap();
        assert_eq!(pool.reserve(3).unwrap_err(), 2);
        let block = Arc::new(first.block().unwrap());
        assert_eq!(pool.taken(), 3);
        drop(first);
        assert_eq!(pool.taken(), 1, "the block is still held");
        let second = pool.reserve(3).unwrap();
        assert!(pool.reserve(usize::MAX).is_err());
        drop((block, second));
        assert_eq!(pool.taken(), 0);
    }

    #[test]
    fn a_shared_block_is_never_written() {
        let pool = KvPool::new(&config(), 4);
        let mut cache = KvCache::new(pool.reserve(2).unwrap(), Vec::new());
        cache.prepare(1, &Device::Cpu).unwrap();
        let shared = Arc::clone(&cache.blocks[0]);
        assert!(cache.write(0, &[1.0; 4], &[1.0; 4]).is_err());
        drop(shared);
        assert!(cache.write(0, &[1.0; 4], &[1.0; 4]).is_ok());
        assert!(cache.prepare(65, &Device::Cpu).is_err(), "two blocks hold 64 tokens");
    }
}
