//! Why a checkpoint cannot be opened.

use std::path::PathBuf;
use std::{fmt, io};

use crate::adapter::AdapterError;
use crate::config::ConfigError;
use crate::kernels::QuantizeError;
use crate::tokenizer::TokenizerError;

/// Why a checkpoint cannot be opened: the file, the tensor where there is one, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder does not exist or is no folder.
    #[error("no checkpoint folder at {0}: expected a folder with config.json, model.safetensors and tokenizer.json")]
    NoFolder(PathBuf),
    /// A file is missing.
    #[error("{0}: the file is missing from the checkpoint folder")]
    Missing(File),
    /// The configuration or the tokenizer is missing beside a GGUF file.
    #[error(
        "{file}: the file is missing: of {gguf} the weights alone are read; put config.json and tokenizer.json of the model \
         that it was made from beside it"
    )]
    MissingBesideGguf {
        /// The file.
        file: File,
        /// The GGUF file's name.
        gguf: String,
    },
    /// A GGUF file cannot be used.
    #[error("{file}: {reason}")]
    Gguf {
        /// The file.
        file: File,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: File,
        /// Why.
        source: io::Error,
    },
    /// `config.json` was refused.
    #[error("{file}: {source}")]
    Config {
        /// The file.
        file: File,
        /// Why.
        source: ConfigError,
    },
    /// The tokenizer was refused.
    #[error("{folder}: tokenizer: {source}")]
    Tokenizer {
        /// The folder.
        folder: File,
        /// Why.
        source: TokenizerError,
    },
    /// A JSON file does not say what it must.
    #[error("{file}: {reason}")]
    Json {
        /// The file.
        file: File,
        /// Why.
        reason: String,
    },
    /// A weight file is not a safetensors file: cut short, damaged or something else.
    #[error("{file}: not a complete safetensors file ({source}); it may be cut short: download or copy it again")]
    Safetensors {
        /// The file.
        file: File,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the configuration asks for is nowhere.
    #[error("{file}: tensor {tensor} is missing: expected shape {expected:?}")]
    MissingTensor {
        /// The file it was looked for in.
        file: File,
        /// Its name.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor that the configuration has no place for.
    #[error(
        "{file}: tensor {tensor} has no place in this architecture: the folder's config.json belongs to another model"
    )]
    UnexpectedTensor {
        /// The file.
        file: File,
        /// Its name.
        tensor: String,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{file}: tensor {tensor} has shape {got:?}: config.json asks for {expected:?}")]
    WrongShape {
        /// The file.
        file: File,
        /// Its name.
        tensor: String,
        /// Its shape in the file.
        got: Vec<usize>,
        /// Its shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor of a type that is not read.
    #[error("{file}: tensor {tensor} is of type {got}: expected F32, F16 or BF16, or a type of weights in a GGUF file")]
    WrongType {
        /// The file.
        file: File,
        /// Its name.
        tensor: String,
        /// Its type in the file.
        got: String,
    },
    /// A tensor with a value that is no finite number.
    #[error(
        "{file}: tensor {tensor} holds {got} at element {element}: expected finite numbers; the file is damaged or the training diverged"
    )]
    NotFinite {
        /// The file.
        file: File,
        /// Its name.
        tensor: String,
        /// The value.
        got: f32,
        /// Its index in row-major order.
        element: usize,
    },
    /// A tensor could not be prepared for training.
    #[error("{tensor}: {source}")]
    Prepared {
        /// Its name.
        tensor: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
    /// The adapter cannot be merged.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A tensor cannot be quantised.
    #[error("{file}: tensor {tensor} {source}; without quantisation the checkpoint may run")]
    Quantize {
        /// The file.
        file: File,
        /// Its name.
        tensor: String,
        /// Why.
        source: QuantizeError,
    },
    /// A tensor could not be made.
    #[error("{file}: tensor {tensor}: {source}")]
    Tensor {
        /// The file.
        file: File,
        /// Its name.
        tensor: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
}

/// A file of a checkpoint, as error messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File(pub(super) String);

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
