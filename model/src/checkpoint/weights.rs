//! The weight files of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use super::error::{CheckpointError, File};
use super::source::Source;
use crate::config::Config;
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
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'s> Weights<'s> {
    /// Maps the files and lists their tensors.
    pub fn open(source: &'s Source<'s>) -> Result<Self, CheckpointError> {
        const INDEX: &str = "model.safetensors.index.json";
        let mut weights =
            Weights { source, files: Vec::new(), place: BTreeMap::new(), used: BTreeSet::new(), parameters: 0 };
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
    /// The tensor of this name, in f32.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        self.read(name, shape, |view, place| {
            let values = widen(view).ok_or_else(|| place.wrong_type(view))?;
            match values.iter().position(|v| !v.is_finite()) {
                Some(element) => Err(place.not_finite(values[element], element)),
                None => Tensor::from_vec(values, shape, &Device::Cpu).map_err(|e| place.failed(e)),
            }
        })
    }

    /// The matrix of this name in few bits, made row by row: it is never in memory as f32.
    pub fn quantized(
        &mut self,
        name: &str,
        [outputs, width]: [usize; 2],
        format: Format,
    ) -> Result<QuantizedMatrix, CheckpointError> {
        self.read(name, &[outputs, width], |view, place| {
            if !widen_into(view, 0, &mut []) {
                return Err(place.wrong_type(view));
            }
            let row = |index: usize, into: &mut [f32]| _ = widen_into(view, index * width, into);
            QuantizedMatrix::new(format, outputs, width, row).map_err(|source| place.unquantizable(source))
        })
    }

    /// Where a tensor stands, for messages; those that are nowhere should have been in the first file.
    pub fn place<'a>(&'a self, tensor: &'a str) -> Place<'a> {
        let file = self.place.get(tensor).map_or(self.files.first(), |&place| self.files.get(place));
        Place { source: self.source, file: file.map_or("model.safetensors", |(name, _)| name), tensor }
    }

    /// Calls `f` with a tensor of the shape that is asked for, and counts it. Its pages are given back afterwards.
    fn read<R>(
        &mut self,
        name: &str,
        shape: &[usize],
        f: impl FnOnce(&TensorView<'_>, &Place<'_>) -> Result<R, CheckpointError>,
    ) -> Result<R, CheckpointError> {
        let place = self.place(name);
        let Some((file_name, bytes)) = self.place.get(name).map(|&place| &self.files[place]) else {
            let (file, tensor) = place.names();
            return Err(CheckpointError::MissingTensor { file, tensor, expected: shape.to_vec() });
        };
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
pub(super) struct Place<'a> {
    source: &'a Source<'a>,
    file: &'a str,
    tensor: &'a str,
}

impl Place<'_> {
    fn names(&self) -> (File, String) {
        (self.source.file(self.file), self.tensor.to_owned())
    }

    fn wrong_type(&self, view: &TensorView<'_>) -> CheckpointError {
        let (file, tensor) = self.names();
        CheckpointError::WrongType { file, tensor, got: format!("{:?}", view.dtype()) }
    }

    fn not_finite(&self, got: f32, element: usize) -> CheckpointError {
        let (file, tensor) = self.names();
        CheckpointError::NotFinite { file, tensor, got, element }
    }

    /// The tensor could not be made.
    pub fn failed(&self, source: candle_core::Error) -> CheckpointError {
        let (file, tensor) = self.names();
        CheckpointError::Tensor { file, tensor, source: Box::new(source) }
    }

    /// The matrix could not be quantised.
    pub fn unquantizable(&self, source: QuantizeError) -> CheckpointError {
        match source {
            QuantizeError::TooLarge { value, element } if !value.is_finite() => self.not_finite(value, element),
            source => {
                let (file, tensor) = self.names();
                CheckpointError::Quantize { file, tensor, source }
            }
        }
    }
}
