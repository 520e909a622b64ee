//! The gated activation of the feed-forward layer (Shazeer 2020).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::storage::{slice, with_slice};
use super::tape::composed;
use super::{ROWS_PER_TASK, reference};
use crate::kernels::{swiglu_row, swiglu_row_grad};

/// `silu(gate) · up`, elementwise. Both operands: [.., d]; returns their shape.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !gate.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(y) = super::cuda::swiglu(gate, up)? {
            return Ok(y);
        }
        return composed([gate, up], |[gate, up]| reference::swiglu(gate, up));
    }
    gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu)
}

struct SwiGlu;

const NAME: &str = "swiglu";

/// Elements handed to one parallel task.
const TASK: usize = ROWS_PER_TASK * 256;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, gate: &CpuStorage, lg: &Layout, up: &CpuStorage, lu: &Layout) -> Result<(CpuStorage, Shape)> {
        if lg.shape() != lu.shape() {
            candle_core::bail!("{NAME}: gate is {:?}, up is {:?}", lg.shape(), lu.shape());
        }
        let (gate, up) = (slice(NAME, gate, lg)?, slice(NAME, up, lu)?);
        let mut y = vec![0.0_f32; gate.len()];
        if y.len() <= TASK {
            swiglu_row(&mut y, gate, up);
        } else {
            y.par_chunks_mut(TASK)
                .zip(gate.par_chunks(TASK))
                .zip(up.par_chunks(TASK))
                .for_each(|((y, g), u)| swiglu_row(y, g, u));
        }
        Ok((CpuStorage::F32(y), lg.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dgate, dup) = with_slice(NAME, gate, |gs| {
            with_slice(NAME, up, |us| {
                with_slice(NAME, dy, |dys| {
                    let (mut dgate, mut dup) = (vec![0.0_f32; gs.len()], vec![0.0_f32; gs.len()]);
                    dgate
                        .par_chunks_mut(TASK)
                        .zip(dup.par_chunks_mut(TASK))
                        .zip(gs.par_chunks(TASK).zip(us.par_chunks(TASK)).zip(dys.par_chunks(TASK)))
                        .for_each(|((dg, du), ((g, u), dy))| swiglu_row_grad(dg, du, g, u, dy));
                    Ok((dgate, dup))
                })
            })
        })?;
        Ok((
            Some(Tensor::from_vec(dgate, gate.shape(), gate.device())?),
            Some(Tensor::from_vec(dup, up.shape(), up.device())?),
        ))
    }
}
