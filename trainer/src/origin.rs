//! The checkpoint that a run begins with: the weights of a checkpoint folder instead of fresh ones.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{DType, Device, Tensor};
use safelmm_model::config::Config;
use safelmm_model::{ConfigError, card::Card};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::data::hex;
use crate::parameters::{Parameters, shapes};

/// What the record of a run says of the checkpoint that it began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The checkpoint's name.
    pub model: String,
    /// SHA-256 of its `model.safetensors`.
    pub sha256: String,
    /// Its `provenance.json`: what it was trained on, this run's model was trained on too.
    pub provenance: Value,
}

/// Why a run cannot begin with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// A file is missing or cannot be read.
    #[error("{file}: {source}: a run begins with a checkpoint folder as `safelmm-train export` writes it")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A JSON file does not say what it must.
    #[error("{file}: {source}")]
    Json {
        /// The file.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// `config.json` was refused.
    #[error("{file}: {source}")]
    Config {
        /// The file.
        file: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// The weight file is damaged.
    #[error("{file}: {source}: it may be cut short: copy it again")]
    Tensors {
        /// The file.
        file: PathBuf,
        /// Why.
        source: candle_core::Error,
    },
    /// The run's decoder has another shape.
    #[error("{folder}: its {key} is {theirs}, the run's configuration says {ours}: the shapes must be equal")]
    OtherShape {
        /// The checkpoint folder.
        folder: PathBuf,
        /// The key.
        key: &'static str,
        /// The checkpoint's value.
        theirs: String,
        /// The run's value.
        ours: String,
    },
    /// A parameter is missing or of another shape.
    #[error("{file}: the tensor {name} is {got}: expected shape {expected:?}")]
    OtherTensor {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// What is there.
        got: String,
        /// What the decoder asks for.
        expected: Vec<usize>,
    },
    /// The file holds a tensor that the run's decoder has no place for.
    #[error("{file}: the tensor {name} has no place in the run's decoder: the shapes must be equal")]
    UnexpectedTensor {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The data's ids mean other tokens.
    #[error(
        "{folder}: its tokenizer.json is not that of the prepared data in {data}: prepare the data by \
         `safelmm-train data --tokenizer {folder}`"
    )]
    OtherTokenizer {
        /// The checkpoint folder.
        folder: PathBuf,
        /// The prepared data.
        data: PathBuf,
    },
}

/// A checkpoint that fits a run.
pub struct Start {
    /// What is recorded of it.
    pub origin: Origin,
    file: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl Start {
    /// Reads a checkpoint folder whose decoder must be shaped like `decoder` and whose tokenizer must be that of the
    /// prepared data. A folder without a provenance is refused: what it was trained on is not known.
    ///
    /// # Errors
    /// Names the file or the key, and what was expected.
    pub fn read(folder: &Path, decoder: &Config, data: &Path) -> Result<Start, OriginError> {
        check_shape(folder, decoder)?;
        if read(&folder.join("tokenizer.json"))? != read(&data.join("tokenizer.json"))? {
            return Err(OriginError::OtherTokenizer { folder: folder.to_owned(), data: data.to_owned() });
        }
        let file = folder.join("model.safetensors");
        let bytes = read(&file)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|source| OriginError::Tensors { file: file.clone(), source })?;
        let origin = Origin {
            model: json::<Card>(&folder.join("safelmm.json"))?.name,
            sha256: hex(&Sha256::digest(&bytes)),
            provenance: json(&folder.join("provenance.json"))?,
        };
        Ok(Start { origin, file, tensors })
    }

    /// Writes the weights, widened to f32, into the parameters of a decoder of the same shape, or of a part of it.
    ///
    /// # Errors
    /// Names a tensor that is missing, of another shape, or has no place.
    pub fn load(&self, parameters: &Parameters, decoder: &Config) -> Result<(), OriginError> {
        let failed = |source| OriginError::Tensors { file: self.file.clone(), source };
        let shapes = shapes(decoder).map_err(failed)?;
        for (name, expected) in &shapes {
            let other = |got: String| OriginError::OtherTensor {
                file: self.file.clone(),
                name: name.to_owned(),
                got,
                expected: expected.clone(),
            };
            let tensor = self.tensors.get(name).ok_or_else(|| other("missing".to_owned()))?;
            if tensor.dims() != expected {
                return Err(other(format!("of shape {:?}", tensor.dims())));
            }
            if let Some(var) = parameters.get(name) {
                let own = parameters.own(name, tensor).and_then(|own| own.to_dtype(DType::F32));
                own.and_then(|widened| var.set(&widened.to_device(var.device())?)).map_err(failed)?;
            }
        }
        match self.tensors.keys().filter(|name| !shapes.contains_key(*name)).min() {
            Some(name) => Err(OriginError::UnexpectedTensor { file: self.file.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Refuses a checkpoint whose decoder differs; the ids that begin and end a text are no part of its shape.
fn check_shape(folder: &Path, ours: &Config) -> Result<(), OriginError> {
    let file = folder.join("config.json");
    let theirs =
        Config::from_json(&read(&file)?).map_err(|source| OriginError::Config { file: file.clone(), source })?;
    let values = |c: &Config| {
        [
            ("model_type", format!("{:?}", c.family)),
            ("vocab_size", c.vocab_size.to_string()),
            ("hidden_size", c.hidden_size.to_string()),
            ("intermediate_size", c.intermediate_size.to_string()),
            ("num_hidden_layers", c.n_layers.to_string()),
            ("num_attention_heads", c.n_heads.to_string()),
            ("num_key_value_heads", c.n_kv_heads.to_string()),
            ("head_dim", c.head_dim.to_string()),
            ("rms_norm_eps", c.rms_norm_eps.to_string()),
            ("rope", format!("{:?}", c.rope)),
            ("max_position_embeddings", c.max_position_embeddings.to_string()),
            ("tie_word_embeddings", c.tie_word_embeddings.to_string()),
            ("biases", format!("{:?}", (c.qkv_bias, c.o_bias, c.mlp_bias))),
            ("normalisation of queries and keys", format!("{:?}", c.qk_norm)),
            ("sliding windows", format!("{:?}", c.windows)),
        ]
    };
    match values(&theirs).into_iter().zip(values(ours)).find(|(theirs, ours)| theirs != ours) {
        Some(((key, theirs), (_, ours))) => {
            Err(OriginError::OtherShape { folder: folder.to_owned(), key, theirs, ours })
        }
        None => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, OriginError> {
    fs::read(file).map_err(|source| OriginError::File { file: file.to_owned(), source })
}

fn json<T: for<'d> Deserialize<'d>>(file: &Path) -> Result<T, OriginError> {
    serde_json::from_slice(&read(file)?).map_err(|source| OriginError::Json { file: file.to_owned(), source })
}
