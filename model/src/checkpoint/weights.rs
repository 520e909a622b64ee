//! The weight files of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use super::{CheckpointError, Quantize, Source};
use crate::config::Config;
use crate::decoder::{ParameterSource, Weight};
use crate::kernels::{Format, QuantizeError, QuantizedMatrix};
use crate::mapping::Bytes;
use crate::widen::{widen, widen_into};

/// The weight files of a checkpoint, and which of their tensors have been used.
pub(super) struct Weights<'s> {
    source: &'s Source<'s>,
    files: Vec<(String, Bytes)>,
    /// Tensor name → index into `files`.
    place: BTreeMap<String, usize>,
    used: BTreeSet<String>,
    parameters: usize,
    /// Whether matrices are packed for inference, and in which precision.
    packed: Option<Quantize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'s> Weights<'s> {
    pub fn open(source: &'s Source<'s>, packed: Option<Quantize>) -> Result<Self, CheckpointError> {
        const INDEX: &str = "model.safetensors.index.json";
        let mut weights =
            Weights { source, files: Vec::new(), place: BTreeMap::new(), used: BTreeSet::new(), parameters: 0, packed };
        let index = source.json::<Index>(INDEX)?.map(|index| index.weight_map);
        let names: BTreeSet<String> = match &index {
            Some(index) => index.values().cloned().collect(),
            None => BTreeSet::from(["model.safetensors".to_owned()]),
        };
        for name in names {
            if name.contains(['/', '\\']) || name == ".." {
                let reason = format!("the shard {name:?} is not a plain file name");
                return Err(CheckpointError::Json { file: source.file(INDEX), reason });
            }
            let bytes = source.required(&name)?;
            let tensors = parse(source, &name, &bytes)?;
            for tensor in tensors.names() {
                // Where there is an index, it says which shard a tensor is read from.
                if index.as_ref().is_none_or(|index| index.get(tensor).is_none_or(|shard| *shard == name)) {
                    weights.place.insert(tensor.to_owned(), weights.files.len());
                }
            }
            weights.files.push((name, bytes));
        }
        Ok(weights)
    }

    /// The number of parameters, once every tensor that is left over is one that may be.
    pub fn finish(self, config: &Config) -> Result<usize, CheckpointError> {
        let harmless = |name: &str| {
            name.ends_with("rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight")
        };
        match self.place.iter().find(|(name, _)| !self.used.contains(*name) && !harmless(name)) {
            Some((tensor, &file)) => Err(CheckpointError::UnexpectedTensor {
                file: self.source.file(&self.files[file].0),
                tensor: tensor.clone(),
            }),
            None => Ok(self.parameters),
        }
    }
}

fn parse<'b>(source: &Source<'_>, name: &str, bytes: &'b Bytes) -> Result<SafeTensors<'b>, CheckpointError> {
    SafeTensors::deserialize(bytes).map_err(|e| CheckpointError::Safetensors { file: source.file(name), source: e })
}

impl Weights<'_> {
    /// Calls `f` with a tensor of the shape that is asked for, and counts it. Its pages are given back afterwards.
    fn read<R>(
        &mut self,
        name: &str,
        shape: &[usize],
        f: impl FnOnce(&TensorView<'_>, &Place<'_>) -> Result<R, CheckpointError>,
    ) -> Result<R, CheckpointError> {
        let Some(&place) = self.place.get(name) else {
            let file = self.source.file(self.files.first().map_or("model.safetensors", |(name, _)| name));
            return Err(CheckpointError::MissingTensor { file, tensor: name.to_owned(), expected: shape.to_vec() });
        };
        let (file_name, bytes) = &self.files[place];
        let place = Place { source: self.source, file: file_name, tensor: name };
        let tensors = parse(self.source, file_name, bytes)?;
        let view = tensors
            .tensor(name)
            .map_err(|source| CheckpointError::Safetensors { file: self.source.file(file_name), source })?;
        if view.shape() != shape {
            let (got, expected) = (view.shape().to_vec(), shape.to_vec());
            let (file, tensor) = place.names();
            return Err(CheckpointError::WrongShape { file, tensor, got, expected });
        }
        let result = f(&view, &place)?;
        bytes.release(view.data());
        self.parameters += shape.iter().product::<usize>();
        self.used.insert(name.to_owned());
        Ok(result)
    }
}

/// What an error message names.
struct Place<'a> {
    source: &'a Source<'a>,
    file: &'a str,
    tensor: &'a str,
}

impl Place<'_> {
    fn names(&self) -> (super::File, String) {
        (self.source.file(self.file), self.tensor.to_owned())
    }

    fn wrong_type(&self, view: &TensorView<'_>) -> CheckpointError {
        let (file, tensor) = self.names();
        CheckpointError::WrongType { file, tensor, got: format!("{:?}", view.dtype()) }
    }

    fn failed(&self, source: candle_core::Error) -> CheckpointError {
        let (file, tensor) = self.names();
        CheckpointError::Tensor { file, tensor, source: Box::new(source) }
    }
}

impl ParameterSource for Weights<'_> {
    type Error = CheckpointError;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        self.read(name, shape, |view, place| {
            let values = widen(view).ok_or_else(|| place.wrong_type(view))?;
            if let Some(element) = values.iter().position(|v| !v.is_finite()) {
                let (file, tensor) = place.names();
                return Err(CheckpointError::NotFinite { file, tensor, got: values[element], element });
            }
            Tensor::from_vec(values, shape, &Device::Cpu).map_err(|e| place.failed(e))
        })
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight, CheckpointError> {
        let format = match self.packed {
            None => return Ok(Weight::Tensor(self.get(name, &shape)?)),
            Some(Quantize::None) => {
                let mut weight = Weight::Tensor(self.get(name, &shape)?);
                let (file, tensor) = (self.source.file("config.json"), name.to_owned());
                weight.pack().map_err(|e| CheckpointError::Tensor { file, tensor, source: Box::new(e) })?;
                return Ok(weight);
            }
            Some(Quantize::Q8) => Format::Q8,
            // Rows of these are looked up one by one, or decide between tokens.
            Some(Quantize::Q4) if !name.starts_with("model.layers.") => Format::Q8,
            Some(Quantize::Q4) => Format::Q4,
        };
        self.read(name, &shape, |view, place| {
            let [outputs, width] = shape;
            if !widen_into(view, 0, &mut []) {
                return Err(place.wrong_type(view));
            }
            let row = |index: usize, into: &mut [f32]| _ = widen_into(view, index * width, into);
            let packed = QuantizedMatrix::new(format, outputs, width, row).map_err(|source| {
                let (file, tensor) = place.names();
                match source {
                    QuantizeError::TooLarge { value: got, element } if !got.is_finite() => {
                        CheckpointError::NotFinite { file, tensor, got, element }
                    }
                    source => CheckpointError::Quantize { file, tensor, source },
                }
            })?;
            Ok(Weight::Quantized(packed))
        })
    }
}
