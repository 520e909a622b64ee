//! What a trainer does with gradients that stay on the device.

use candle_core::{DType, Result, Tensor};

use crate::kernels::cuda::{Arg, Fresh, Grid, Module, device, launch};
use crate::ops::optimizer::Update;

/// Blocks of a kernel whose threads each go over many values.
const BLOCKS: usize = 1024;

/// Blocks whose sums of squares are added up at the end.
const SUMS: usize = 256;

fn is_f32(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32 && tensor.is_contiguous())
}

/// As many threads as values, up to [`BLOCKS`] blocks of them.
fn grid(count: usize) -> Grid {
    Grid { blocks: (count.div_ceil(256).clamp(1, BLOCKS), 1), threads: (256, 1) }
}

/// See [`add_to`](crate::ops::add_to); whether it was done.
pub fn add_to(sum: &Tensor, values: &Tensor) -> Result<bool> {
    let Some(device) = device(sum).filter(|_| is_f32(&[sum, values])) else { return Ok(false) };
    let count = sum.elem_count();
    launch(device, &Module::rows(), "add_to", grid(count), &[Arg::At(sum), Arg::At(values), Arg::U64(count)])?;
    Ok(true)
}

/// See [`squares`](crate::ops::squares).
pub fn squares(tensors: &[&Tensor]) -> Result<Option<Vec<f64>>> {
    let Some(first) = tensors.first() else { return Ok(None) };
    let Some(device) = device(first).filter(|_| is_f32(tensors)) else { return Ok(None) };
    let sums = Fresh::new(device, (tensors.len(), SUMS), DType::F64)?.tensor(first)?;
    for (number, tensor) in tensors.iter().enumerate() {
        let own = [Arg::At(&sums.get(number)?), Arg::At(tensor), Arg::U64(tensor.elem_count())];
        launch(device, &Module::rows(), "squares", Grid { blocks: (SUMS, 1), threads: (256, 1) }, &own)?;
    }
    Ok(Some(sums.to_vec2::<f64>()?.iter().map(|sums| sums.iter().sum()).collect()))
}

/// See [`adamw`](crate::ops::adamw); whether it was done.
pub fn adamw(weight: &Tensor, moments: (&Tensor, &Tensor), gradient: &Tensor, update: &Update) -> Result<bool> {
    let (first, second) = moments;
    let tensors = [weight, first, second, gradient];
    let Some(device) = device(weight).filter(|_| is_f32(&tensors)) else { return Ok(false) };
    let count = weight.elem_count();
    if tensors.iter().any(|tensor| tensor.elem_count() != count) {
        candle_core::bail!("adamw: {:?} against {:?}", weight.shape(), gradient.shape());
    }
    let Update { gradient_scale, beta1, beta2, step_size, second_correction, keep, epsilon } = *update;
    let numbers = [gradient_scale, beta1, beta2, step_size, second_correction, keep, epsilon].map(Arg::F32);
    let own = tensors.map(Arg::At).into_iter().chain(numbers).chain([Arg::U64(count)]);
    launch(device, &Module::rows(), "adamw", grid(count), &own.collect::<Vec<_>>())?;
    Ok(true)
}
