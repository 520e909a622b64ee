//! Products with weights.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::reference;
use super::storage::{slice, with_slice};
use super::tape::composed;
use crate::kernels::{Matrix, MatrixMut, Threads, matmul};

/// `x · weightᵀ`: [rows, in], [out, in] → [rows, out], in the type of `x`. Gradients reach `x`, and the weight where it
/// is trained.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        return if weight.track_op() { x.matmul(&weight.t()?) } else { frozen_linear(x, weight) };
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = super::cuda::linear(x, weight)? {
        return Ok(y);
    }
    composed([x, weight], |[x, weight]| reference::linear(x, weight))
}

/// `x · weightᵀ` whose gradient reaches `x` alone: [rows, in], [out, in] → [rows, out]. candle's product would make a
/// gradient as large as the weight, and keep it to the end of the backward pass, though nobody asks for it.
pub fn frozen_linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return linear(x, &weight.detach());
    }
    x.contiguous()?.apply_op1(FrozenLinear { weight: weight.detach() })
}

struct FrozenLinear {
    weight: Tensor, // [out, in]
}

const NAME: &str = "frozen-linear";

impl CustomOp1 for FrozenLinear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (outputs, inputs)) = (layout.shape().dims2()?, self.weight.dims2()?);
        if width != inputs {
            candle_core::bail!("{NAME}: a row of {width} elements meets a weight of {inputs}");
        }
        let x = Matrix::new(slice(NAME, x, layout)?, rows, width, width);
        let mut y = vec![0.0_f32; rows * outputs];
        with_slice(NAME, &self.weight, |w| {
            let out = MatrixMut::new(&mut y, rows, outputs, outputs);
            matmul(out, false, x, Matrix::new(w, outputs, width, width).t(), 1.0, Threads::All);
            Ok(())
        })?;
        Ok((CpuStorage::F32(y), Shape::from((rows, outputs))))
    }

    /// dx = dy · W
    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let ((rows, width), (outputs, _)) = (x.dims2()?, self.weight.dims2()?);
        let mut dx = vec![0.0_f32; rows * width];
        with_slice(NAME, dy, |dy| {
            with_slice(NAME, &self.weight, |w| {
                let dy = Matrix::new(dy, rows, outputs, outputs);
                let out = MatrixMut::new(&mut dx, rows, width, width);
                matmul(out, false, dy, Matrix::new(w, outputs, width, width), 1.0, Threads::All);
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
