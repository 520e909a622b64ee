//! The weight files of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::Deserialize;

use super::error::{CheckpointError, File};
use super::gguf::Gguf;
use super::source::Source;
use super::stored::Stored;
use crate::config::Config;
use crate::kernels::{Format, QuantizeError, QuantizedMatrix};
use crate::mapping::Bytes;

/// The list of shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The weights where there are no shards.
pub(super) const SINGLE: &str = "model.safetensors";

/// The weight files of a checkpoint, and which of their tensors have been used.
pub(super) struct Weights<'s> {
    source: &'s Source<'s>,
    files: Vec<WeightFile>,
    /// Tensor name → index into `files`.
    place: BTreeMap<String, usize>,
    used: BTreeSet<String>,
    parameters: usize,
}

struct WeightFile {
    name: String,
    bytes: Bytes,
    /// What a GGUF file holds; a safetensors file says so itself.
    gguf: Option<Gguf>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl<'s> Weights<'s> {
    /// Maps the files and lists their tensors.
    pub fn open(source: &'s Source<'s>, config: &Config) -> Result<Self, CheckpointError> {
        let mut weights =
            Weights { source, files: Vec::new(), place: BTreeMap::new(), used: BTreeSet::new(), parameters: 0 };
        match source.gguf()? {
            Some(name) => weights.add_gguf(name, config)?,
            None => weights.add_safetensors()?,
        }
        Ok(weights)
    }

    fn add_gguf(&mut self, name: String, config: &Config) -> Result<(), CheckpointError> {
        let bytes = self.source.required(&name)?;
        let gguf = Gguf::read(&bytes, config)
            .map_err(|reason| CheckpointError::Gguf { file: self.source.file(&name), reason })?;
        self.place = gguf.names().map(|tensor| (tensor.clone(), 0)).collect();
        self.files = vec![WeightFile { name, bytes, gguf: Some(gguf) }];
        Ok(())
    }

    fn add_safetensors(&mut self) -> Result<(), CheckpointError> {
        let source = self.source;
        let index = source.json::<Index>(INDEX)?.map(|index| index.weight_map);
        let names: BTreeSet<String> = match &index {
            Some(index) => index.values().cloned().collect(),
            None => BTreeSet::from([SINGLE.to_owned()]),
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
                    self.place.insert(tensor.to_owned(), self.files.len());
                }
            }
            self.files.push(WeightFile { name, bytes, gguf: None });
        }
        Ok(())
    }

    /// The number of parameters, once every tensor that is left over is one that may be.
    pub fn finish(self, config: &Config) -> Result<usize, CheckpointError> {
        let harmless = |name: &str| {
            // GGUF files hold the factors of Llama 3's frequencies under the second name.
            name.ends_with("rotary_emb.inv_freq")
                || name == "rope_freqs.weight"
                || (config.tie_word_embeddings && name == "lm_head.weight")
        };
        match self.place.iter().find(|(name, _)| !self.used.contains(*name) && !harmless(name)) {
            Some((tensor, &file)) => Err(CheckpointError::UnexpectedTensor {
                file: self.source.file(&self.files[file].name),
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
        self.read(name, shape, |stored, place| {
            let values = stored.values().map_err(|e| place.failed(e))?;
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
        self.read(name, &[outputs, width], |stored, place| {
            QuantizedMatrix::new(format, outputs, width, |index, into| stored.row(index, into))
                .map_err(|source| place.unquantizable(source))
        })
    }

    /// Where a tensor stands, for messages; those that are nowhere should have been in the first file.
    pub fn place<'a>(&'a self, tensor: &'a str) -> Place<'a> {
        let file = self.place.get(tensor).map_or(self.files.first(), |&place| self.files.get(place));
        Place { source: self.source, file: file.map_or(SINGLE, |file| &file.name), tensor }
    }

    /// Calls `f` with a tensor of the shape that is asked for, and counts it. The file's pages are given back
    /// afterwards.
    fn read<R>(
        &mut self,
        name: &str,
        shape: &[usize],
        f: impl FnOnce(&Stored<'_>, &Place<'_>) -> Result<R, CheckpointError>,
    ) -> Result<R, CheckpointError> {
        let place = self.place(name);
        let Some(file) = self.place.get(name).and_then(|&place| self.files.get(place)) else {
            return Err(place.missing(shape));
        };
        let stored = match &file.gguf {
            Some(gguf) => Stored::Gguf(gguf.tensor(name, &file.bytes).ok_or_else(|| place.missing(shape))?),
            None => {
                let failed = |source| CheckpointError::Safetensors { file: self.source.file(&file.name), source };
                Stored::Safetensors(parse(self.source, &file.name, &file.bytes)?.tensor(name).map_err(failed)?)
            }
        };
        if stored.shape() != shape {
            let ((file, tensor), got, expected) = (place.names(), stored.shape().to_vec(), shape.to_vec());
            return Err(CheckpointError::WrongShape { file, tensor, got, expected });
        }
        if !stored.readable() {
            let (file, tensor) = place.names();
            return Err(CheckpointError::WrongType { file, tensor, got: stored.type_name() });
        }
        let result = f(&stored, &place)?;
        file.bytes.release();
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

    fn missing(&self, shape: &[usize]) -> CheckpointError {
        let (file, tensor) = self.names();
        CheckpointError::MissingTensor { file, tensor, expected: shape.to_vec() }
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
            QuantizeError::Row(source) => self.failed(*source),
            source => {
                let (file, tensor) = self.names();
                CheckpointError::Quantize { file, tensor, source }
            }
        }
    }
}
