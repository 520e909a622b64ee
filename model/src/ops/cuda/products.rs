//! Matrix products of activations with weights that are held in f32.

use candle_core::{DType, Result, Tensor};

use super::{recorded, takes};
use crate::kernels::cuda::{Arg, Factor, Fresh, Grid, Module, device, launch, product};

/// A matrix as it stands.
pub fn plain(matrix: &Tensor) -> Factor<'_> {
    Factor { matrix, transposed: false }
}

/// Its transpose.
pub fn turned(matrix: &Tensor) -> Factor<'_> {
    Factor { matrix, transposed: true }
}

/// A weight in the type of activations: itself in f32, or rounded to bf16.
pub fn rounded(weight: &Tensor, dtype: DType) -> Result<Tensor> {
    let weight = weight.detach().contiguous()?;
    match device(&weight) {
        Some(of) if weight.dtype() == DType::F32 && dtype == DType::BF16 => {
            let (out, count) = (Fresh::new(of, weight.shape(), dtype)?, weight.elem_count());
            let own = [Arg::Out(&out), Arg::At(&weight), Arg::U64(count)];
            launch(of, &Module::rows(), "narrow_all", Grid::of(count.div_ceil(8)), &own)?;
            out.tensor(&weight)
        }
        _ => weight.to_dtype(dtype),
    }
}

/// See [`linear`](crate::ops::linear). With bf16, the gradient of the weight is summed and left in f32.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
    let Some(device) = takes(&[x, weight], 8) else { return Ok(None) };
    let ((rows, _), (outputs, _)) = (x.dims2()?, weight.dims2()?);
    if weight.dtype() != DType::F32 {
        return Ok(None);
    }
    let (inputs, x, used) = ([x, weight], x.contiguous()?, rounded(weight, x.dtype())?);
    let y = Fresh::new(device, (rows, outputs), x.dtype())?;
    product(device, plain(&x), turned(&used), &y, false)?;
    let (of, trained) = (device.clone(), weight.track_op());
    let backward = move |dy: &Tensor| {
        let dx = Fresh::new(&of, x.shape(), x.dtype())?;
        product(&of, plain(dy), plain(&used), &dx, false)?; // dx = dy · W
        if !trained {
            return Ok([Some(dx.tensor(dy)?), None]);
        }
        let dw = Fresh::new(&of, used.shape(), DType::F32)?;
        product(&of, turned(dy), plain(&x), &dw, false)?; // dW = dyᵀ · x
        Ok([Some(dx.tensor(dy)?), Some(dw.tensor(dy)?)])
    };
    recorded(y, inputs, backward).map(Some)
}
