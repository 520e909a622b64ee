//! Rotary position embedding (Su et al. 2021), in the half-split layout of the Hugging Face models: element `i` is
//! rotated together with element `i + d/2`.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{slice, with_slice};
use super::tape::composed;
use super::types::Rotation;
use super::{ROWS_PER_TASK, reference, rms_norm};

/// Rotates every head. `x`: [rows, heads, d] with d = 2 · `rotation.half`; row `i` takes the angles of row `i`.
pub fn rope(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    if !x.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(y) = super::cuda::rope(x, rotation)? {
            return Ok(y);
        }
        return composed([x], |[x]| reference::rope(x, rotation));
    }
    x.contiguous()?.apply_op1(Rope { rotation: rotation.clone() })
}

/// [`rms_norm`](super::rms_norm) of every head and its rotation, as queries and keys have them. `x`: [rows, heads, d];
/// `weight`: [d].
pub fn norm_rope(x: &Tensor, weight: &Tensor, eps: f64, rotation: &Rotation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::norm_rope(x, weight, eps, rotation)? {
        return Ok(y);
    }
    rope(&rms_norm(x, weight, eps)?, rotation)
}

struct Rope {
    rotation: Rotation,
}

const NAME: &str = "rope";

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.rotate(slice(NAME, x, layout)?, layout.shape(), 1.0)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    /// A rotation's transpose is the rotation by the opposite angle.
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_slice(NAME, dy, |dys| self.rotate(dys, x.shape(), -1.0))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

impl Rope {
    fn rotate(&self, x: &[f32], shape: &Shape, direction: f32) -> Result<Vec<f32>> {
        let (rows, heads, d) = shape.dims3()?;
        let Rotation { cos, sin, half, .. } = &self.rotation;
        let half = *half;
        if d != 2 * half || cos.len() != rows * half || sin.len() != rows * half {
            candle_core::bail!("{NAME}: x is {shape:?}, the rotation has {} angles of {half} pairs", cos.len());
        }
        let mut y = vec![0.0_f32; x.len()];
        let row = |i: usize, y: &mut [f32], x: &[f32]| {
            let (cos, sin) = (&cos[i * half..][..half], &sin[i * half..][..half]);
            for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                let ((y1, y2), (x1, x2)) = (y.split_at_mut(half), x.split_at(half));
                for j in 0..half {
                    let s = sin[j] * direction;
                    y1[j] = x1[j] * cos[j] - x2[j] * s;
                    y2[j] = x2[j] * cos[j] + x1[j] * s;
                }
            }
        };
        let width = heads * d;
        y.par_chunks_mut(width * ROWS_PER_TASK).zip(x.par_chunks(width * ROWS_PER_TASK)).enumerate().for_each(
            |(task, (y, x))| {
                for (i, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                    row(task * ROWS_PER_TASK + i, y, x);
                }
            },
        );
        Ok(y)
    }
}
