//! x · Wᵀ for inference: a row's result does not depend on the rows beside it.
//!
//! Matrix libraries choose their order of summation by the shape of the whole product, so that an answer would change
//! with the requests that happen to be in the batch.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::slice;
use crate::kernels::products;

/// x: [rows, in], weight: [out, in] → [rows, out]. Made for few rows; it has no backward.
pub fn project_rows(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.matmul(&weight.t()?);
    }
    x.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &ProjectRows)
}

struct ProjectRows;

const NAME: &str = "project-rows";

/// Multiplications below which one thread is faster than handing work over.
const SERIAL: usize = 1 << 20;

/// Outputs handed to one parallel task.
const TASK: usize = 256;

impl CustomOp2 for ProjectRows {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (outputs, w_width)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if width != w_width || rows == 0 || width == 0 {
            candle_core::bail!("{NAME}: x is {:?}, the weight is {:?}", lx.shape(), lw.shape());
        }
        let (x, w) = (slice(NAME, x, lx)?, slice(NAME, w, lw)?);
        let mut by_output = vec![0.0_f32; outputs * rows]; // [out, rows]
        if rows * width * outputs < SERIAL {
            products(&mut by_output, x, w, width);
        } else {
            by_output
                .par_chunks_mut(TASK * rows)
                .zip(w.par_chunks(TASK * width))
                .for_each(|(out, w)| products(out, x, w, width));
        }
        if rows == 1 {
            return Ok((CpuStorage::F32(by_output), Shape::from((rows, outputs))));
        }
        let mut y = vec![0.0_f32; outputs * rows]; // [rows, out]
        for (o, products) in by_output.chunks_exact(rows).enumerate() {
            for (r, product) in products.iter().enumerate() {
                y[r * outputs + o] = *product;
            }
        }
        Ok((CpuStorage::F32(y), Shape::from((rows, outputs))))
    }
}
