//! Checkpoint folders in the Hugging Face layout: opened, checked, and turned into a [`Decoder`] with its tokenizer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fmt, fs, io};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::adapter::{Adapter, AdapterError};
use crate::card::{Card, FORMAT_VERSION};
use crate::config::{Config, ConfigError, TokenIds};
use crate::decoder::{Decoder, LowRank, ParameterSource};
use crate::mapping::Bytes;
use crate::tokenizer::{Tokenizer, TokenizerError, TokenizerParts};
use crate::widen::widen;

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
        check_folder(folder)?;
        let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        open(&Source::Folder(folder), name.as_deref().unwrap_or("model"))
    }

    /// As [`open`](Self::open), with a low-rank adapter merged into the weights.
    ///
    /// # Errors
    /// Those of `open`, and an adapter that is damaged, of another kind, or made for another model.
    pub fn open_with_adapter(folder: &Path, adapter: &Path) -> Result<Checkpoint, CheckpointError> {
        let mut merging = Merging(Adapter::open(adapter)?);
        check_folder(folder)?;
        let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let checkpoint = open_with(&Source::Folder(folder), name.as_deref().unwrap_or("model"), &mut merging)?;
        merging.0.finish()?;
        Ok(checkpoint)
    }

    /// Opens the files of a checkpoint that are part of the program, as pairs of file name and contents.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_embedded(
        files: &'static [(&'static str, &'static [u8])],
        name: &str,
    ) -> Result<Checkpoint, CheckpointError> {
        open(&Source::Embedded { name, files }, name)
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
    open_decoder_with(folder, &mut AsTheyAre)
}

/// As [`open_decoder`], with weights as `prepare` hands them on: as variables, where they are trained.
///
/// # Errors
/// As [`Checkpoint::open`], and those of `prepare`.
pub fn open_decoder_with(folder: &Path, prepare: &mut dyn Prepare) -> Result<Decoder, CheckpointError> {
    check_folder(folder)?;
    let source = Source::Folder(folder);
    Ok(decoder(&source, config(&source)?, prepare)?.0)
}

/// What is done to the weights of a folder before a decoder takes them.
pub trait Prepare {
    /// The parameter of this name, as the decoder shall have it.
    ///
    /// # Errors
    /// Those of whoever prepares.
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError>;

    /// What is trained beside the weight [out, in] of this linear layer.
    ///
    /// # Errors
    /// Those of whoever prepares.
    fn low_rank(&mut self, _name: &str, _out: usize, _input: usize) -> Result<Option<LowRank>, CheckpointError> {
        Ok(None)
    }
}

struct AsTheyAre;

impl Prepare for AsTheyAre {
    fn parameter(&mut self, _: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        Ok(tensor)
    }
}

struct Merging(Adapter);

impl Prepare for Merging {
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        Ok(self.0.merge(name, tensor)?)
    }
}

/// The weights of a folder, prepared.
struct Prepared<'a, 's> {
    weights: Weights<'s>,
    prepare: &'a mut dyn Prepare,
}

impl ParameterSource for Prepared<'_, '_> {
    type Error = CheckpointError;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let tensor = self.weights.get(name, shape)?;
        self.prepare.parameter(name, tensor)
    }

    fn low_rank(&mut self, name: &str, out: usize, input: usize) -> Result<Option<LowRank>, CheckpointError> {
        self.prepare.low_rank(name, out, input)
    }
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

/// The decoder and the number of its parameters.
fn decoder(
    source: &Source<'_>,
    config: Config,
    prepare: &mut dyn Prepare,
) -> Result<(Decoder, usize), CheckpointError> {
    let mut prepared = Prepared { weights: Weights::open(source)?, prepare };
    let decoder = Decoder::new(config, &mut prepared)?;
    let parameters = prepared.weights.finish(decoder.config())?;
    Ok((decoder, parameters))
}

fn open(source: &Source<'_>, name: &str) -> Result<Checkpoint, CheckpointError> {
    open_with(source, name, &mut AsTheyAre)
}

fn open_with(source: &Source<'_>, name: &str, prepare: &mut dyn Prepare) -> Result<Checkpoint, CheckpointError> {
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
    let (mut decoder, parameters) = decoder(source, config, prepare)?;
    let packed =
        |e| CheckpointError::Tensor { file: source.file("config.json"), tensor: "(all)".into(), source: Box::new(e) };
    decoder.pack().map_err(packed)?;
    let digest = |file: &str| Ok::<[u8; 32], CheckpointError>(Sha256::digest(&*source.required(file)?).into());
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

/// The weight files of a checkpoint, and which of their tensors have been used.
struct Weights<'s> {
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
    fn open(source: &'s Source<'s>) -> Result<Self, CheckpointError> {
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
    fn finish(self, config: &Config) -> Result<usize, CheckpointError> {
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

impl ParameterSource for Weights<'_> {
    type Error = CheckpointError;

    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let tensor = || name.to_owned();
        let Some(&place) = self.place.get(name) else {
            let file = self.source.file(self.files.first().map_or("model.safetensors", |(name, _)| name));
            return Err(CheckpointError::MissingTensor { file, tensor: tensor(), expected: shape.to_vec() });
        };
        let (file_name, bytes) = &self.files[place];
        let file = || self.source.file(file_name);
        let tensors = parse(self.source, file_name, bytes)?;
        let view = tensors.tensor(name).map_err(|e| CheckpointError::Safetensors { file: file(), source: e })?;
        if view.shape() != shape {
            let (got, expected) = (view.shape().to_vec(), shape.to_vec());
            return Err(CheckpointError::WrongShape { file: file(), tensor: tensor(), got, expected });
        }
        let wrong_type =
            || CheckpointError::WrongType { file: file(), tensor: tensor(), got: format!("{:?}", view.dtype()) };
        let values = widen(&view).ok_or_else(wrong_type)?;
        if let Some(element) = values.iter().position(|v| !v.is_finite()) {
            let got = values[element];
            return Err(CheckpointError::NotFinite { file: file(), tensor: tensor(), got, element });
        }
        self.parameters += values.len();
        self.used.insert(tensor());
        Tensor::from_vec(values, shape, &Device::Cpu).map_err(|e| CheckpointError::Tensor {
            file: file(),
            tensor: tensor(),
            source: Box::new(e),
        })
    }
}
