//! Grouped-query attention (Ainslie et al. 2023): softmax with a causal mask, over sequences packed without padding.
//!
//! Scores exist one block of query rows at a time and are recomputed in the backward pass, as in FlashAttention
//! (Dao et al. 2022, algorithm 4), so memory grows with the sequence and not with its square.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::reference;
use super::storage::{slice, with_slice};
use super::tape::composed;
use super::types::{Span, Spans};
use crate::kernels::{Matrix, MatrixMut, Threads, dot, matmul, softmax_row, softmax_row_grad};

/// Causal attention. `q`: [rows, heads, d]; `k`, `v`: [key rows, kv_heads, d] with heads a multiple of kv_heads.
/// Returns [rows, heads, d]. Scores are scaled by 1/√d. With a `window`, a query sees the last `window` positions
/// alone, its own included (Mistral's sliding window).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spans: &Spans, window: Option<usize>) -> Result<Tensor> {
    if !q.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(y) = super::cuda::attention(q, k, v, spans, window)? {
            return Ok(y);
        }
        return composed([q, k, v], |[q, k, v]| reference::attention(q, k, v, spans, window));
    }
    let op = Attention { spans: spans.to_vec(), window };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// The largest score, q · k / √d, that any query has with a key that it sees: what grows before training diverges
/// (Dehghani et al. 2023, section 3.2; Wortsman et al. 2023). Shapes as in [`attention`]; no gradient.
pub fn largest_attention_logit(q: &Tensor, k: &Tensor, spans: &[Span], window: Option<usize>) -> Result<f32> {
    // Seldom asked for: the host works it out for every device.
    let here = |x: &Tensor| x.detach().to_dtype(DType::F32)?.to_device(&Device::Cpu);
    let (q, k) = (&here(q)?, &here(k)?);
    let op = Attention { spans: spans.to_vec(), window };
    let dims = op.dims(q.shape(), k.shape(), k.shape())?;
    with_slice(NAME, q, |q| {
        with_slice(NAME, k, |k| {
            let heads = op.for_each_head(dims, |span, kv_head| op.largest_logit(dims, q, k, span, kv_head));
            Ok(heads.into_iter().fold(f32::NEG_INFINITY, f32::max))
        })
    })
}

struct Attention {
    spans: Vec<Span>,
    window: Option<usize>,
}

const NAME: &str = "attention";

/// Query rows whose scores are held at once.
const BLOCK: usize = 64;

/// Below this many score elements one thread is faster than handing work over.
const SERIAL_SCORES: usize = 16 * 1024;

/// The extents of one call.
#[derive(Clone, Copy)]
struct Dims {
    heads: usize,
    kv_heads: usize,
    d: usize,
}

impl Dims {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// A block of query rows of one sequence and the keys that any of them sees.
struct Block {
    rows: Range<usize>,
    keys: Range<usize>,
}

impl Attention {
    fn dims(&self, q: &Shape, k: &Shape, v: &Shape) -> Result<Dims> {
        let ((rows, heads, d), (key_rows, kv_heads, dk)) = (q.dims3()?, k.dims3()?);
        if dk != d || k != v || kv_heads == 0 || heads % kv_heads != 0 {
            candle_core::bail!("{NAME}: q is {q:?}, k is {k:?}, v is {v:?}");
        }
        let mut next = 0;
        for span in &self.spans {
            let ok = span.queries.start == next && span.keys.end <= key_rows && span.keys.len() >= span.queries.len();
            if !ok {
                candle_core::bail!("{NAME}: {span:?} does not fit {rows} query rows and {key_rows} key rows");
            }
            next = span.queries.end;
        }
        if next != rows {
            candle_core::bail!("{NAME}: the spans cover {next} of {rows} query rows");
        }
        Ok(Dims { heads, kv_heads, d })
    }

    /// Runs `f` for each (sequence, kv head), in parallel where that pays; results in that order.
    fn for_each_head<R: Send>(&self, dims: Dims, f: impl Fn(&Span, usize) -> R + Sync + Send) -> Vec<R> {
        let tasks: Vec<(&Span, usize)> =
            self.spans.iter().flat_map(|span| (0..dims.kv_heads).map(move |head| (span, head))).collect();
        let scores: usize = self.spans.iter().map(|s| s.queries.len() * s.keys.len() * dims.heads).sum();
        if scores < SERIAL_SCORES {
            tasks.into_iter().map(|(span, head)| f(span, head)).collect()
        } else {
            tasks.into_par_iter().map(|(span, head)| f(span, head)).collect()
        }
    }

    fn blocks<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = Block> + 'a {
        let past = span.keys.len() - span.queries.len();
        (0..span.queries.len()).step_by(BLOCK).map(move |start| {
            let end = (start + BLOCK).min(span.queries.len());
            Block { rows: start..end, keys: self.first_key(past + start)..past + end }
        })
    }

    fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    fn largest_logit(&self, dims: Dims, q: &[f32], k: &[f32], span: &Span, kv_head: usize) -> f32 {
        let Dims { heads, kv_heads, d } = dims;
        let past = span.keys.len() - span.queries.len();
        let mut scores = vec![0.0_f32; span.queries.len().min(BLOCK) * span.keys.len()];
        let mut largest = f32::NEG_INFINITY;
        for block in self.blocks(span) {
            let (rows, n) = (offset(&block.rows, span.queries.start), block.keys.len());
            let k = head_rows(k, offset(&block.keys, span.keys.start), kv_head, kv_heads, d);
            for g in 0..dims.group() {
                let q = head_rows(q, rows.clone(), kv_head * dims.group() + g, heads, d);
                let out = MatrixMut::new(&mut scores, rows.len(), n, n);
                matmul(out, false, q, k.t(), 1.0 / (d as f32).sqrt(), Threads::One);
                for (row, scores) in block.rows.clone().zip(scores.chunks_exact(n)) {
                    let position = past + row;
                    let seen = self.first_key(position) - block.keys.start..position + 1 - block.keys.start;
                    largest = scores[seen].iter().copied().fold(largest, f32::max);
                }
            }
        }
        largest
    }

    /// Attention probabilities of a block, [rows, keys] with the keys' count as stride, into `p`.
    fn probabilities(&self, p: &mut [f32], q: Matrix<'_>, k: Matrix<'_>, block: &Block, past: usize, scale: f32) {
        let n = block.keys.len();
        matmul(MatrixMut::new(p, block.rows.len(), n, n), false, q, k.t(), scale, Threads::One);
        for (row, p) in block.rows.clone().zip(p.chunks_exact_mut(n)) {
            let position = past + row;
            softmax_row(p, self.first_key(position) - block.keys.start..position + 1 - block.keys.start);
        }
    }
}

/// The rows of one head inside [rows, heads, d].
fn head_rows(data: &[f32], rows: Range<usize>, head: usize, heads: usize, d: usize) -> Matrix<'_> {
    Matrix::new(&data[(rows.start * heads + head) * d..], rows.len(), d, heads * d)
}

fn offset(rows: &Range<usize>, by: usize) -> Range<usize> {
    rows.start + by..rows.end + by
}

/// Copies [rows, width] into columns `column..column + width` of rows `first..` of a [.., stride] tensor.
fn scatter(out: &mut [f32], part: &[f32], first: usize, column: usize, width: usize, stride: usize) {
    for (i, row) in part.chunks_exact(width).enumerate() {
        out[(first + i) * stride + column..][..width].copy_from_slice(row);
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = self.dims(lq.shape(), lk.shape(), lv.shape())?;
        let (q, k, v) = (slice(NAME, q, lq)?, slice(NAME, k, lk)?, slice(NAME, v, lv)?);
        let Dims { heads, kv_heads, d } = dims;
        let width = dims.group() * d;
        // Each task returns the rows of its group of heads, [queries, group · d].
        let parts = self.for_each_head(dims, |span, kv_head| {
            let past = span.keys.len() - span.queries.len();
            let mut part = vec![0.0_f32; span.queries.len() * width];
            let mut p = vec![0.0_f32; span.queries.len().min(BLOCK) * span.keys.len()];
            for block in self.blocks(span) {
                let keys = offset(&block.keys, span.keys.start);
                let k = head_rows(k, keys.clone(), kv_head, kv_heads, d);
                let v = head_rows(v, keys, kv_head, kv_heads, d);
                for g in 0..dims.group() {
                    let rows = offset(&block.rows, span.queries.start);
                    let q = head_rows(q, rows, kv_head * dims.group() + g, heads, d);
                    self.probabilities(&mut p, q, k, &block, past, 1.0 / (d as f32).sqrt());
                    let (m, n) = (block.rows.len(), block.keys.len());
                    let out = MatrixMut::new(&mut part[block.rows.start * width + g * d..], m, d, width);
                    matmul(out, false, Matrix::new(&p, m, n, n), v, 1.0, Threads::One);
                }
            }
            part
        });
        let mut out = vec![0.0_f32; q.len()];
        for (i, part) in parts.iter().enumerate() {
            let (span, kv_head) = (&self.spans[i / kv_heads], i % kv_heads);
            scatter(&mut out, part, span.queries.start, kv_head * width, width, heads * d);
        }
        Ok((CpuStorage::F32(out), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dims = self.dims(q.shape(), k.shape(), v.shape())?;
        let (dq, dk, dv) = with_slice(NAME, q, |qs| {
            with_slice(NAME, k, |ks| {
                with_slice(NAME, v, |vs| {
                    with_slice(NAME, out, |outs| {
                        with_slice(NAME, dout, |douts| Ok(self.gradients(dims, qs, ks, vs, outs, douts)))
                    })
                })
            })
        })?;
        let tensor = |data: Vec<f32>, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device()).map(Some);
        Ok((tensor(dq, q)?, tensor(dk, k)?, tensor(dv, v)?))
    }
}

impl Attention {
    /// With P = softmax(S), O = P·V: dV = Pᵀ·dO; dS = P ∘ (dO·Vᵀ − rowsum(dO ∘ O)); dQ = dS·K/√d; dK = dSᵀ·Q/√d.
    fn gradients(
        &self,
        dims: Dims,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &[f32],
        dout: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Dims { heads, kv_heads, d } = dims;
        let width = dims.group() * d;
        let scale = 1.0 / (d as f32).sqrt();
        let parts = self.for_each_head(dims, |span, kv_head| {
            let past = span.keys.len() - span.queries.len();
            let mut dq_part = vec![0.0_f32; span.queries.len() * width];
            let (mut dk_part, mut dv_part) = (vec![0.0_f32; span.keys.len() * d], vec![0.0_f32; span.keys.len() * d]);
            let mut p = vec![0.0_f32; span.queries.len().min(BLOCK) * span.keys.len()];
            let mut ds = p.clone();
            for block in self.blocks(span) {
                let (m, n) = (block.rows.len(), block.keys.len());
                let keys = offset(&block.keys, span.keys.start);
                let k = head_rows(k, keys.clone(), kv_head, kv_heads, d);
                let v = head_rows(v, keys, kv_head, kv_heads, d);
                let key_start = block.keys.start * d;
                for g in 0..dims.group() {
                    let head = kv_head * dims.group() + g;
                    let rows = offset(&block.rows, span.queries.start);
                    let q = head_rows(q, rows.clone(), head, heads, d);
                    let dout_rows = head_rows(dout, rows.clone(), head, heads, d);
                    self.probabilities(&mut p, q, k, &block, past, scale);
                    let p_rows = Matrix::new(&p, m, n, n);
                    let dv = MatrixMut::new(&mut dv_part[key_start..], n, d, d);
                    matmul(dv, true, p_rows.t(), dout_rows, 1.0, Threads::One);
                    matmul(MatrixMut::new(&mut ds, m, n, n), false, dout_rows, v.t(), 1.0, Threads::One);
                    for (i, row) in rows.enumerate() {
                        let at = (row * heads + head) * d;
                        let weighted_sum = dot(&dout[at..at + d], &out[at..at + d]);
                        softmax_row_grad(&mut ds[i * n..(i + 1) * n], &p[i * n..(i + 1) * n], weighted_sum, scale);
                    }
                    let ds_rows = Matrix::new(&ds, m, n, n);
                    let dq = MatrixMut::new(&mut dq_part[block.rows.start * width + g * d..], m, d, width);
                    matmul(dq, false, ds_rows, k, 1.0, Threads::One);
                    let dk = MatrixMut::new(&mut dk_part[key_start..], n, d, d);
                    matmul(dk, true, ds_rows.t(), q, 1.0, Threads::One);
                }
            }
            (dq_part, dk_part, dv_part)
        });
        let (mut dq, mut dk, mut dv) = (vec![0.0_f32; q.len()], vec![0.0_f32; k.len()], vec![0.0_f32; v.len()]);
        for (i, (dq_part, dk_part, dv_part)) in parts.iter().enumerate() {
            let (span, kv_head) = (&self.spans[i / kv_heads], i % kv_heads);
            scatter(&mut dq, dq_part, span.queries.start, kv_head * width, width, heads * d);
            scatter(&mut dk, dk_part, span.keys.start, kv_head * d, d, kv_heads * d);
            scatter(&mut dv, dv_part, span.keys.start, kv_head * d, d, kv_heads * d);
        }
        (dq, dk, dv)
    }
}
