//! Checkpoint folders in the Hugging Face layout: opened, checked, and turned into a [`Decoder`] with its tokenizer.

mod weights;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fmt, fs, io};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::card::{Card, FORMAT_VERSION};
use crate::config::{Config, ConfigError, TokenIds};
use crate::decoder::Decoder;
use crate::kernels::QuantizeError;
use crate::mapping::Bytes;
use crate::tokenizer::{Tokenizer, TokenizerError, TokenizerParts};
use weights::Weights;

/// A model ready to run.
pub struct Checkpoint {
    name: String,
    /// The decoder with its parameters.
    pub decoder: Decoder,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// What `generation_config.json` proposes.
    pub generation: GenerationDefaults,
    card: Option<Card>,
    provenance: Option<Value>,
    parameters: usize,
    /// Of `config.json` and `tokenizer.json`.
    files: [[u8; 32]; 2],
    fingerprint: OnceLock<String>,
}

/// In how many bits the weights of a checkpoint are held, whatever its files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// f32: nothing is lost.
    #[default]
    None,
    /// 8 bits, and a scale for every 32 weights.
    Q8,
    /// 4 bits, and a scale for every 32 weights; embeddings and output projection in 8 bits.
    Q4,
}

impl Quantize {
    /// All of them.
    pub const ALL: [Quantize; 3] = [Quantize::None, Quantize::Q8, Quantize::Q4];

    /// As it is written in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Quantize::None => "none",
            Quantize::Q8 => "q8",
            Quantize::Q4 => "q4",
        }
    }
}

impl fmt::Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Quantize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Quantize::ALL.into_iter().find(|quantize| quantize.name() == name);
        known.ok_or_else(|| format!("{name:?} is no way to hold weights: expected none, q8 or q4"))
    }
}

/// Sampling settings that a checkpoint proposes for requests that name none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct GenerationDefaults {
    /// Temperature.
    pub temperature: Option<f32>,
    /// Candidates kept by rank; 0 and below mean all of them, as `None` does.
    #[serde(default, deserialize_with = "positive")]
    pub top_k: Option<usize>,
    /// Candidates kept by probability mass.
    pub top_p: Option<f32>,
    /// Candidates kept by probability relative to the best.
    pub min_p: Option<f32>,
    /// CTRL's repetition penalty.
    pub repetition_penalty: Option<f32>,
}

/// Reads 0 and negative numbers, with which other programs switch a setting off, as absent.
fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = Option::<i64>::deserialize(deserializer)?;
    Ok(number.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0))
}

/// Why a checkpoint cannot be opened: the file, the tensor where there is one, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The folder does not exist or is no folder.
    #[error("no checkpoint folder at {0}: expected a folder with config.json, model.safetensors and tokenizer.json")]
    NoFolder(PathBuf),
    /// A file is missing.
    #[error("{0}: the file is missing from the checkpoint folder")]
    Missing(File),
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
    #[error("{file}: tensor {tensor} is of type {got}: expected F32, F16 or BF16")]
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
pub struct File(String);

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The files of a checkpoint: a folder, or a table inside the program.
enum Source<'a> {
    Folder(&'a Path),
    Embedded { name: &'a str, files: &'static [(&'static str, &'static [u8])] },
}

impl Source<'_> {
    fn file(&self, name: &str) -> File {
        match self {
            Source::Folder(folder) => File(folder.join(name).display().to_string()),
            Source::Embedded { name: model, .. } => File(format!("{model}:{name}")),
        }
    }

    /// The bytes of a file, or `None` where there is none of that name.
    fn optional(&self, name: &str) -> Result<Option<Bytes>, CheckpointError> {
        match self {
            Source::Folder(folder) => match Bytes::map(&folder.join(name)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CheckpointError::Read { file: self.file(name), source }),
            },
            Source::Embedded { files, .. } => {
                Ok(files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| Bytes::Static(bytes)))
            }
        }
    }

    fn required(&self, name: &str) -> Result<Bytes, CheckpointError> {
        self.optional(name)?.ok_or_else(|| CheckpointError::Missing(self.file(name)))
    }

    fn json<T: for<'d> Deserialize<'d>>(&self, name: &str) -> Result<Option<T>, CheckpointError> {
        let Some(bytes) = self.optional(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| CheckpointError::Json { file: self.file(name), reason: e.to_string() })
    }
}

impl Checkpoint {
    /// Opens a folder. Weights may be f32, f16 or bf16, in one safetensors file or in shards with an index; they are
    /// memory-mapped, checked, and widened to f32 one tensor at a time.
    ///
    /// # Errors
    /// Names the file, the tensor and what was expected.
    pub fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_quantized(folder, Quantize::None)
    }

    /// As [`open`](Self::open), with weights of fewer bits: each matrix is quantised as it is read, and the rows of one
    /// alone are widened at a time, so that memory never holds much more than the quantised weights.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and weights beyond what can be quantised.
    pub fn open_quantized(folder: &Path, quantize: Quantize) -> Result<Checkpoint, CheckpointError> {
        check_folder(folder)?;
        let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        open(&Source::Folder(folder), name.as_deref().unwrap_or("model"), quantize)
    }

    /// Opens the files of a checkpoint that are part of the program, as pairs of file name and contents.
    ///
    /// # Errors
    /// As [`open_quantized`](Self::open_quantized).
    pub fn from_embedded(
        files: &'static [(&'static str, &'static [u8])],
        name: &str,
        quantize: Quantize,
    ) -> Result<Checkpoint, CheckpointError> {
        open(&Source::Embedded { name, files }, name, quantize)
    }

    /// The name under which it is served: that of `safelmm.json`, or of the folder.
    pub fn name(&self) -> &str {
        self.card.as_ref().map_or(&self.name, |card| &card.name)
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        self.decoder.config()
    }

    /// The longest sequence in tokens, prompt and answer together.
    pub fn context_length(&self) -> usize {
        self.config().context_length()
    }

    /// Parameters, the tied ones counted once.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Whether the model was trained with rating tokens.
    pub fn rated(&self) -> bool {
        self.card.is_some()
    }

    /// The token that stands before a text of which nothing is said: that of sequences without a rating, where the model
    /// has ratings, else the beginning-of-sequence token of the tokenizer, else its first end-of-sequence token.
    pub fn neutral_start(&self) -> Option<u32> {
        self.tokenizer.bos_id().or_else(|| self.tokenizer.eos_ids().first().copied())
    }

    /// SHA-256 over configuration, tokenizer and parameters, in hexadecimal digits: what must be equal where numbers of the
    /// model are kept, such as keys. Computed by the first call.
    ///
    /// # Errors
    /// Parameters that are not on the CPU.
    pub fn fingerprint(&self) -> Result<&str, candle_core::Error> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known);
        }
        let mut hasher = Sha256::new_with_prefix(b"safelmm checkpoint 1");
        self.files.iter().for_each(|file| hasher.update(file));
        // Not part of those files, and the first key of every text depends on it.
        hasher.update(self.neutral_start().map_or(u64::MAX, u64::from).to_le_bytes());
        hasher.update(self.decoder.digest()?);
        let digest: [u8; 32] = hasher.finalize().into();
        Ok(self.fingerprint.get_or_init(|| digest.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// `safelmm.json`.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// `provenance.json`: every training source with its license.
    pub fn provenance(&self) -> Option<&Value> {
        self.provenance.as_ref()
    }
}

/// Opens the configuration and the weights of a folder, without a tokenizer.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn open_decoder(folder: &Path) -> Result<Decoder, CheckpointError> {
    check_folder(folder)?;
    let source = Source::Folder(folder);
    Ok(decoder(&source, config(&source)?, None)?.0)
}

/// As [`open_decoder`], packed for inference.
///
/// # Errors
/// As [`Checkpoint::open_quantized`].
pub fn open_decoder_quantized(folder: &Path, quantize: Quantize) -> Result<Decoder, CheckpointError> {
    check_folder(folder)?;
    let source = Source::Folder(folder);
    Ok(decoder(&source, config(&source)?, Some(quantize))?.0)
}

fn check_folder(folder: &Path) -> Result<(), CheckpointError> {
    match fs::metadata(folder).is_ok_and(|m| m.is_dir()) {
        true => Ok(()),
        false => Err(CheckpointError::NoFolder(folder.to_owned())),
    }
}

fn config(source: &Source<'_>) -> Result<Config, CheckpointError> {
    Config::from_json(&source.required("config.json")?)
        .map_err(|e| CheckpointError::Config { file: source.file("config.json"), source: e })
}

/// The decoder and the number of its parameters. `packed`: for inference, and in which precision.
fn decoder(source: &Source<'_>, config: Config, packed: Option<Quantize>) -> Result<(Decoder, usize), CheckpointError> {
    let mut weights = Weights::open(source, packed)?;
    let decoder = Decoder::new(config, &mut weights)?;
    let parameters = weights.finish(decoder.config())?;
    Ok((decoder, parameters))
}

fn open(source: &Source<'_>, name: &str, quantize: Quantize) -> Result<Checkpoint, CheckpointError> {
    let config = config(source)?;
    #[derive(Default, Deserialize)]
    struct Generation {
        #[serde(flatten)]
        defaults: GenerationDefaults,
        eos_token_id: Option<TokenIds>,
    }
    let generation: Generation = source.json("generation_config.json")?.unwrap_or_default();
    let eos_token_ids = generation.eos_token_id.map_or_else(|| config.eos_token_ids.clone(), Vec::from);
    let card = card(source)?;
    let tokenizer = tokenizer(source, eos_token_ids)?;
    check_vocabulary(source, &config, &tokenizer, card.as_ref())?;
    let (decoder, parameters) = decoder(source, config, Some(quantize))?;
    let digest = |file: &str| Ok(Sha256::digest(&*source.required(file)?).into());
    Ok(Checkpoint {
        name: name.to_owned(),
        decoder,
        tokenizer: Arc::new(tokenizer),
        generation: generation.defaults,
        card,
        provenance: source.json("provenance.json")?,
        parameters,
        files: [digest("config.json")?, digest("tokenizer.json")?],
        fingerprint: OnceLock::new(),
    })
}

fn card(source: &Source<'_>) -> Result<Option<Card>, CheckpointError> {
    let card: Option<Card> = source.json("safelmm.json")?;
    match card {
        Some(card) if card.format_version != FORMAT_VERSION => Err(CheckpointError::Json {
            file: source.file("safelmm.json"),
            reason: format!("format_version is {}: this program reads {FORMAT_VERSION}", card.format_version),
        }),
        card => Ok(card),
    }
}

fn tokenizer(source: &Source<'_>, eos_token_ids: Vec<u32>) -> Result<Tokenizer, CheckpointError> {
    let json = source.required("tokenizer.json")?;
    let config = source.optional("tokenizer_config.json")?;
    let template = source.optional("chat_template.jinja")?;
    let template = template.as_deref().map(String::from_utf8_lossy);
    Tokenizer::from_parts(TokenizerParts {
        tokenizer_json: &json,
        tokenizer_config: config.as_deref(),
        chat_template: template.as_deref(),
        eos_token_ids,
    })
    .map_err(|e| CheckpointError::Tokenizer { folder: source.file("tokenizer.json"), source: e })
}

/// A tokenizer must not produce ids that the embedding has no row for, and a rated model must have its rating tokens.
fn check_vocabulary(
    source: &Source<'_>,
    config: &Config,
    tokenizer: &Tokenizer,
    card: Option<&Card>,
) -> Result<(), CheckpointError> {
    let refuse = |file: &str, reason: String| Err(CheckpointError::Json { file: source.file(file), reason });
    if tokenizer.vocab_size() > config.vocab_size {
        return refuse(
            "tokenizer.json",
            format!("{} tokens, but config.json has vocab_size {}", tokenizer.vocab_size(), config.vocab_size),
        );
    }
    if card.is_some() && tokenizer.bos_id().is_none() {
        return refuse(
            "tokenizer_config.json",
            "names no bos_token: a model with ratings needs one, to begin a text without a rating".to_owned(),
        );
    }
    let missing = crate::Rating::ALL.into_iter().find(|r| card.is_some() && tokenizer.rating_id(*r).is_none());
    match missing {
        Some(rating) => refuse("tokenizer.json", format!("safelmm.json asks for the token {}", rating.token())),
        None => Ok(()),
    }
}
