//! Access to the `f32` slices behind contiguous CPU tensors.

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// The elements of a contiguous `f32` operand.
pub fn slice<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op })?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Calls `f` with the elements of a CPU tensor, made contiguous where it is not.
pub fn with_slice<R>(op: &'static str, tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(slice(op, cpu, layout)?),
        _ => Err(Error::Msg(format!("{op}: expected a tensor on the CPU"))),
    }
}
