//! Weight matrices: as tensors for training, packed for inference.

use candle_core::{Tensor, bail};

use super::Result;
use crate::kernels::PackedMatrix;
use crate::ops::{frozen_linear, with_slice};

/// W: [out, in].
pub(super) enum Weight {
    /// Takes part in gradients, where it is a variable.
    Tensor(Tensor),
    /// For inference on the CPU: a row's product has the same bits in any company. The tensor is gone.
    Packed(PackedMatrix),
}

impl Weight {
    /// Packs a weight that lies on the CPU.
    pub fn pack(&mut self) -> Result<()> {
        if let Weight::Tensor(tensor) = self {
            let (outputs, width) = tensor.dims2()?;
            *self = Weight::Packed(with_slice("pack", tensor, |w| Ok(PackedMatrix::new(w, outputs, width)))?);
        }
        Ok(())
    }

    /// x · Wᵀ: [rows, in] → [rows, out].
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Tensor(weight) if weight.track_op() => x.matmul(&weight.t()?),
            Weight::Tensor(weight) => frozen_linear(x, weight),
            Weight::Packed(weight) => {
                let (rows, width) = x.dims2()?;
                if width != weight.width() {
                    bail!("a row of {width} elements meets a weight of {}", weight.width());
                }
                let y = with_slice("packed-product", x, |x| Ok(weight.product(x)))?;
                Tensor::from_vec(y, (rows, weight.outputs()), x.device())
            }
        }
    }

    /// Rows of the matrix: [rows, in].
    pub fn rows(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Tensor(weight) => weight.index_select(rows, 0),
            Weight::Packed(weight) => {
                let ids = rows.to_vec1::<u32>()?;
                let mut x = vec![0.0; ids.len() * weight.width()];
                for (id, row) in ids.iter().zip(x.chunks_exact_mut(weight.width())) {
                    weight.copy_row(*id as usize, row);
                }
                Tensor::from_vec(x, (ids.len(), weight.width()), rows.device())
            }
        }
    }

    /// (rows, elements of a row).
    pub fn shape(&self) -> Result<(usize, usize)> {
        match self {
            Weight::Tensor(weight) => weight.dims2(),
            Weight::Packed(weight) => Ok((weight.outputs(), weight.width())),
        }
    }

    /// The tensor, while there is one.
    pub fn tensor(&self) -> Result<&Tensor> {
        match self {
            Weight::Tensor(tensor) => Ok(tensor),
            Weight::Packed(_) => bail!("the weights are packed for inference: open the decoder without packing it"),
        }
    }
}

/// A parameter as it lies in memory.
#[derive(Clone, Copy)]
pub(super) enum Parameter<'a> {
    Matrix(&'a Weight),
    Vector(&'a Tensor),
}

/// A low-rank addition to a weight that is being trained (Hu et al. 2021): W + scale · B · A.
pub struct LowRank {
    /// A: [rank, in].
    pub a: Tensor,
    /// B: [out, rank].
    pub b: Tensor,
    /// The factor before B · A.
    pub scale: f64,
}

/// y = x · Wᵀ + b, and the low-rank addition where there is one; b: [out].
pub(super) struct Linear {
    pub weight: Weight,
    pub bias: Option<Tensor>,
    pub low_rank: Option<LowRank>,
}

impl Linear {
    /// [rows, in] → [rows, out]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.add_bias(self.product(x)?)
    }

    /// Without the bias.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.product(x)?;
        match &self.low_rank {
            // [rows, in] → [rows, rank] → [rows, out]
            Some(LowRank { a, b, scale }) => y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * *scale)?,
            None => Ok(y),
        }
    }

    /// Adds the bias to a product.
    pub fn add_bias(&self, y: Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
