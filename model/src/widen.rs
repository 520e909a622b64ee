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
