//! Tensors of safetensors files as f32.

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The values of a tensor in f32, row by row; `None` for a type other than F32, F16 and BF16.
pub fn widen(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Dtype::F16 => Some(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        Dtype::BF16 => Some(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        _ => None,
    }
}

/// Writes as many values of a tensor as `into` takes, from its element `first` on; `false` for a type that
/// [`widen`] does not take.
pub fn widen_into(view: &TensorView<'_>, first: usize, into: &mut [f32]) -> bool {
    fn each<const N: usize>(bytes: &[u8], first: usize, into: &mut [f32], widen: impl Fn([u8; N]) -> f32) {
        let values = bytes.as_chunks::<N>().0.iter().skip(first);
        into.iter_mut().zip(values).for_each(|(into, bytes)| *into = widen(*bytes));
    }
    let bytes = view.data();
    match view.dtype() {
        Dtype::F32 => each(bytes, first, into, f32::from_le_bytes),
        Dtype::F16 => each(bytes, first, into, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(bytes, first, into, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => return false,
    }
    true
}
