//! Root-mean-square normalisation (Zhang and Sennrich 2019).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{slice, with_slice};
use super::tape::composed;
use super::{ROWS_PER_TASK, reference};
use crate::kernels::{rms_norm_row, rms_norm_row_grad};

/// `weight · x / √(mean(x²) + eps)` over the last dimension. `x`: [.., d], `weight`: [d]; returns the shape of `x`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if !x.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(y) = super::cuda::rms_norm(x, weight, eps)? {
            return Ok(y);
        }
        return composed([x, weight], |[x, weight]| reference::rms_norm(x, weight, eps));
    }
    x.contiguous()?.apply_op2(weight, RmsNorm { eps: eps as f32 })
}

struct RmsNorm {
    eps: f32,
}

const NAME: &str = "rms-norm";

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(NAME, x, lx)?, slice(NAME, w, lw)?);
        let d = last_dim(lx.shape(), w.len())?;
        let mut y = vec![0.0_f32; x.len()];
        let task = d * ROWS_PER_TASK;
        let rows = |(y, x): (&mut [f32], &[f32])| {
            for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                rms_norm_row(y, x, w, self.eps);
            }
        };
        if x.len() <= task {
            rows((&mut y, x));
        } else {
            y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(rows);
        }
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = with_slice(NAME, x, |xs| {
            with_slice(NAME, w, |ws| with_slice(NAME, dy, |dys| Ok(self.gradients(xs, ws, dys))))
        })?;
        Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(Tensor::from_vec(dw, w.shape(), w.device())?)))
    }
}

impl RmsNorm {
    fn gradients(&self, x: &[f32], w: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let d = w.len();
        let task = d * ROWS_PER_TASK;
        let mut dx = vec![0.0_f32; x.len()];
        let partial: Vec<Vec<f32>> = dx
            .par_chunks_mut(task)
            .zip(x.par_chunks(task))
            .zip(dy.par_chunks(task))
            .map(|((dx, x), dy)| {
                let (mut dw, mut scratch) = (vec![0.0; d], vec![0.0; d]);
                for ((dx, x), dy) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d)) {
                    rms_norm_row_grad(dx, &mut dw, &mut scratch, x, w, dy, self.eps);
                }
                dw
            })
            .collect();
        let mut dw = vec![0.0_f32; d];
        for part in partial {
            for (total, p) in dw.iter_mut().zip(part) {
                *total += p;
            }
        }
        (dx, dw)
    }
}

fn last_dim(shape: &Shape, weight: usize) -> Result<usize> {
    match shape.dims().last() {
        Some(&d) if d == weight && d > 0 => Ok(d),
        _ => candle_core::bail!("{NAME}: x is {shape:?}, the weight has {weight} elements"),
    }
}
