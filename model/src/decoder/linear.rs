//! Weight matrices: as tensors for training, packed for inference.

use candle_core::{DType, Device, Error, Tensor, bail};

use super::Result;
use crate::kernels::{PackedMatrix, Pool, Product, QuantizedMatrix, QuantizedRows, products};
use crate::ops::{add, add_bias, embedding, linear, scaled, with_slice};

/// A matrix of parameters, [out, in].
pub enum Weight {
    /// Takes part in gradients, where it is a variable.
    Tensor(Tensor),
    /// For inference on the CPU: a row's product has the same bits in any company. The tensor is gone.
    Packed(PackedMatrix),
    /// Likewise, in fewer bits.
    Quantized(QuantizedMatrix),
}

impl Weight {
    /// Packs a weight that lies on the CPU.
    pub(super) fn pack(&mut self) -> Result<()> {
        if let Weight::Tensor(tensor) = self {
            *self = Weight::packed(tensor)?;
        }
        Ok(())
    }

    /// A tensor on the CPU, packed.
    pub(crate) fn packed(tensor: &Tensor) -> Result<Weight> {
        let (outputs, width) = tensor.dims2()?;
        Ok(Weight::Packed(with_slice("pack", tensor, |w| Ok(PackedMatrix::new(w, outputs, width)))?))
    }

    /// x · Wᵀ: [rows, in] → [rows, out].
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Weight::Tensor(weight) => linear(x, weight),
            Weight::Packed(weight) => {
                let (rows, width) = x.dims2()?;
                if width != weight.width() {
                    bail!("a row of {width} elements meets a weight of {}", weight.width());
                }
                let y = with_slice("packed-product", x, |x| Ok(weight.product(x)))?;
                Tensor::from_vec(y, (rows, weight.outputs()), x.device())
            }
            Weight::Quantized(weight) => match quantized_products(&[weight], x)?.pop() {
                Some(y) => Ok(y),
                None => bail!("a product is missing"),
            },
        }
    }

    /// Rows of the matrix, of a tensor in the type of activations: [ids, in].
    pub(super) fn rows(&self, ids: &[u32], dtype: DType) -> Result<Tensor> {
        if let Weight::Tensor(weight) = self {
            return embedding(weight, ids, dtype);
        }
        let width = self.shape()?.1;
        let mut x = vec![0.0; ids.len() * width];
        for (id, row) in ids.iter().zip(x.chunks_exact_mut(width.max(1))) {
            self.copy_row(*id as usize, row);
        }
        Tensor::from_vec(x, (ids.len(), width), &Device::Cpu)
    }

    /// Copies one row of a packed matrix; nothing of a tensor.
    pub(super) fn copy_row(&self, row: usize, into: &mut [f32]) {
        match self {
            Weight::Tensor(_) => {}
            Weight::Packed(weight) => weight.copy_row(row, into),
            Weight::Quantized(weight) => weight.copy_row(row, into),
        }
    }

    /// (rows, elements of a row).
    pub(super) fn shape(&self) -> Result<(usize, usize)> {
        match self {
            Weight::Tensor(weight) => weight.dims2(),
            Weight::Packed(weight) => Ok((weight.outputs(), weight.width())),
            Weight::Quantized(weight) => Ok((weight.outputs(), weight.width())),
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Weight::Tensor(weight) => weight.elem_count() * size_of::<f32>(),
            Weight::Packed(weight) => weight.bytes(),
            Weight::Quantized(weight) => weight.bytes(),
        }
    }

    /// The tensor, while there is one.
    pub(super) fn tensor(&self) -> Result<&Tensor> {
        match self {
            Weight::Tensor(tensor) => Ok(tensor),
            Weight::Packed(_) | Weight::Quantized(_) => {
                bail!("the weights are packed for inference: open the decoder without packing it")
            }
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
        self.finished(self.weight.product(x)?, x)
    }

    /// Without the bias.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        self.with_low_rank(self.weight.product(x)?, x)
    }

    /// What is added to the product of the weight with `x`.
    fn finished(&self, y: Tensor, x: &Tensor) -> Result<Tensor> {
        self.add_bias(self.with_low_rank(y, x)?)
    }

    fn with_low_rank(&self, y: Tensor, x: &Tensor) -> Result<Tensor> {
        match &self.low_rank {
            // [rows, in] → [rows, rank] → [rows, out]
            Some(LowRank { a, b, scale }) => add(&y, &scaled(&linear(&linear(x, a)?, b)?, *scale)?),
            None => Ok(y),
        }
    }

    /// Adds the bias to a product.
    pub fn add_bias(&self, y: Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => add_bias(&y, bias),
            None => Ok(y),
        }
    }
}

/// What each of them makes of the same rows, [rows, in]: quantised weights share one quantisation of the rows, and one
/// round of the threads.
pub(super) fn forward_all<const N: usize>(linears: [&Linear; N], x: &Tensor) -> Result<[Tensor; N]> {
    let quantized = linears.iter().map(|linear| match &linear.weight {
        Weight::Quantized(weight) => Some(weight),
        _ => None,
    });
    let products = match quantized.collect::<Option<Vec<_>>>() {
        Some(weights) => quantized_products(&weights, x)?,
        None => linears.iter().map(|linear| linear.weight.product(x)).collect::<Result<_>>()?,
    };
    let finished = products.into_iter().zip(linears).map(|(y, linear)| linear.finished(y, x));
    finished.collect::<Result<Vec<_>>>()?.try_into().map_err(|_| Error::Msg(format!("there are not {N} products")))
}

/// The products of the same rows, [rows, in], with each of the weights.
fn quantized_products(weights: &[&QuantizedMatrix], x: &Tensor) -> Result<Vec<Tensor>> {
    let (rows, width) = x.dims2()?;
    if let Some(weight) = weights.iter().find(|weight| weight.width() != width) {
        bail!("a row of {width} elements meets a weight of {}", weight.width());
    }
    let mut outputs: Vec<Vec<f32>> = weights.iter().map(|weight| vec![0.0; rows * weight.outputs()]).collect();
    with_slice("quantized-product", x, |x| {
        let mut quantized = QuantizedRows::default();
        quantized.quantize(x, width);
        let each: Vec<_> = weights.iter().zip(&mut outputs).map(|(weight, out)| Product::new(weight, out)).collect();
        products(Pool::global(), &quantized, &each);
        Ok(())
    })?;
    let shaped = outputs.into_iter().zip(weights).map(|(y, weight)| {
        let shape = (rows, weight.outputs());
        Tensor::from_vec(y, shape, x.device())
    });
    shaped.collect()
}
