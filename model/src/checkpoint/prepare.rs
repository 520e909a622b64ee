//! What is done to the weights of a folder on their way into a decoder.

use candle_core::{Device, Tensor};

use super::Quantize;
use super::error::CheckpointError;
use super::weights::Weights;
use crate::adapter::Adapter;
use crate::decoder::{LowRank, ParameterSource, Weight};
use crate::kernels::QuantizedMatrix;
use crate::ops::with_slice;

/// What is done to the weights of a folder before a decoder takes them.
pub trait Prepare {
    /// The parameter of this name, as the decoder shall have it.
    ///
    /// # Errors
    /// Those of whoever prepares.
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError>;

    /// Whether [`parameter`](Self::parameter) hands the parameter of this name on as it is; then it may be quantised row by
    /// row from the file, without a tensor.
    fn leaves(&self, _name: &str) -> bool {
        false
    }

    /// Where the decoder shall lie: on another device than the CPU its matrices are not packed.
    fn device(&self) -> Device {
        Device::Cpu
    }

    /// What is trained beside the weight [out, in] of this linear layer.
    ///
    /// # Errors
    /// Those of whoever prepares.
    fn low_rank(&mut self, _name: &str, _out: usize, _input: usize) -> Result<Option<LowRank>, CheckpointError> {
        Ok(None)
    }
}

/// Hands everything on as it is.
pub(super) struct AsTheyAre;

impl Prepare for AsTheyAre {
    fn parameter(&mut self, _: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        Ok(tensor)
    }

    fn leaves(&self, _: &str) -> bool {
        true
    }
}

/// Brings everything to a device.
pub(super) struct OnDevice(pub Device);

impl Prepare for OnDevice {
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        let failed = |source| CheckpointError::Prepared { tensor: name.to_owned(), source: Box::new(source) };
        tensor.to_device(&self.0).map_err(failed)
    }

    fn device(&self) -> Device {
        self.0.clone()
    }
}

/// Merges an adapter.
pub(super) struct Merging(pub Adapter);

impl Prepare for Merging {
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        Ok(self.0.merge(name, tensor)?)
    }

    fn leaves(&self, name: &str) -> bool {
        !self.0.changes(name)
    }
}

/// The weights of a folder, prepared.
pub(super) struct Prepared<'a, 's> {
    pub weights: Weights<'s>,
    pub prepare: &'a mut dyn Prepare,
    /// Whether matrices are packed for inference, and in how many bits.
    pub packed: Option<Quantize>,
}

impl ParameterSource for Prepared<'_, '_> {
    type Error = CheckpointError;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let tensor = self.weights.tensor(name, shape)?;
        self.prepare.parameter(name, tensor)
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, CheckpointError> {
        let format = self.packed.and_then(|quantize| quantize.format(name));
        if let Some(format) = format.filter(|_| self.prepare.leaves(name)) {
            return self.weights.quantized(name, shape, format).map(Weight::Quantized);
        }
        let tensor = self.get(name, &shape)?;
        if !self.prepare.device().is_cpu() {
            return Ok(Weight::Tensor(tensor));
        }
        let failed = |source| self.weights.place(name).failed(source);
        match (self.packed, format) {
            (None, _) => Ok(Weight::Tensor(tensor)),
            (Some(_), None) => Weight::packed(&tensor).map_err(failed),
            (Some(_), Some(format)) => {
                let [outputs, width] = shape;
                let matrix = with_slice("quantize", &tensor, |values| {
                    let row = |index: usize, into: &mut [f32]| {
                        into.copy_from_slice(&values[index * width..][..width]);
                        Ok(())
                    };
                    Ok(QuantizedMatrix::new(format, outputs, width, row))
                });
                let matrix =
                    matrix.map_err(failed)?.map_err(|source| self.weights.place(name).unquantizable(source))?;
                Ok(Weight::Quantized(matrix))
            }
        }
    }

    fn low_rank(&mut self, name: &str, out: usize, input: usize) -> Result<Option<LowRank>, CheckpointError> {
        self.prepare.low_rank(name, out, input)
    }
}
