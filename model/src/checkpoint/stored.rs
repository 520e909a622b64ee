//! A tensor as it lies in a file.

use candle_core::Result;
use candle_core::quantized::GgmlDType;
use safetensors::tensor::TensorView;

use super::gguf::GgufTensor;
use crate::widen::{widen, widen_into};

/// A tensor of a safetensors or a GGUF file.
pub(super) enum Stored<'a> {
    Safetensors(TensorView<'a>),
    Gguf(GgufTensor<'a>),
}

impl Stored<'_> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Stored::Safetensors(view) => view.shape(),
            Stored::Gguf(tensor) => tensor.shape(),
        }
    }

    /// The type of its elements, for messages.
    pub fn type_name(&self) -> String {
        match self {
            Stored::Safetensors(view) => format!("{:?}", view.dtype()),
            Stored::Gguf(tensor) => format!("{:?}", tensor.dtype()),
        }
    }

    /// Whether its elements are of a type that is read.
    pub fn readable(&self) -> bool {
        match self {
            Stored::Safetensors(view) => widen_into(view, 0, &mut []),
            // Blocks of activations, which no file holds.
            Stored::Gguf(tensor) => !matches!(tensor.dtype(), GgmlDType::Q8_1 | GgmlDType::Q8K),
        }
    }

    /// All elements in f32, of a type that is [`readable`](Self::readable).
    pub fn values(&self) -> Result<Vec<f32>> {
        match self {
            Stored::Safetensors(view) => Ok(widen(view).unwrap_or_default()),
            Stored::Gguf(tensor) => tensor.values(),
        }
    }

    /// Writes row `index`, of as many elements as `into` has; of a type that is [`readable`](Self::readable).
    pub fn row(&self, index: usize, into: &mut [f32]) -> Result<()> {
        match self {
            Stored::Safetensors(view) => {
                widen_into(view, index * into.len(), into);
                Ok(())
            }
            Stored::Gguf(tensor) => tensor.row(index, into),
        }
    }
}
