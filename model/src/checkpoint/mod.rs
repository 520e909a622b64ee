//! Checkpoint folders in the Hugging Face layout: opened, checked, and turned into a [`Decoder`] with its tokenizer.

mod error;
mod gguf;
mod prepare;
mod quantize;
mod source;
mod stored;
mod weights;

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use candle_core::Device;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::adapter::Adapter;
use crate::card::{Card, FORMAT_VERSION};
use crate::config::{Config, TokenIds};
use crate::decoder::Decoder;
use crate::tokenizer::{Tokenizer, TokenizerParts};
pub use error::{CheckpointError, File};
pub use prepare::Prepare;
use prepare::{AsTheyAre, Merging, OnDevice, Prepared};
pub use quantize::Quantize;
use source::Source;
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

/// How a folder is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// The folder of a low-rank adapter that is merged into the weights.
    pub adapter: Option<&'a Path>,
    /// The bits in which matrices are held. Each is quantised as it is read, with the adapter merged into it, and the rows of
    /// one alone are widened at a time, so that memory never holds much more than the quantised weights.
    pub quantize: Quantize,
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

impl Checkpoint {
    /// Opens a folder. Weights may be f32, f16 or bf16, in one safetensors file or in shards with an index; they are
    /// memory-mapped, checked, and widened to f32 one tensor at a time.
    ///
    /// # Errors
    /// Names the file, the tensor and what was expected.
    pub fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_with(folder, Opening::default())
    }

    /// As [`open`](Self::open), with weights of fewer bits or an adapter.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); weights beyond what can be quantised; an adapter that is damaged, of another kind, or
    /// made for another model.
    pub fn open_with(folder: &Path, opening: Opening<'_>) -> Result<Checkpoint, CheckpointError> {
        let adapter = opening.adapter.map(Adapter::open).transpose()?;
        check_folder(folder)?;
        let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let (source, name) = (Source::Folder(folder), name.as_deref().unwrap_or("model"));
        let Some(adapter) = adapter else { return open(&source, name, opening.quantize, &mut AsTheyAre) };
        let mut merging = Merging(adapter);
        let checkpoint = open(&source, name, opening.quantize, &mut merging)?;
        merging.0.finish()?;
        Ok(checkpoint)
    }

    /// As [`open`](Self::open), with the decoder on a device, in f32. What looks at its parameters on the host, such as
    /// [`fingerprint`](Self::fingerprint), is refused there; on the CPU a row has the same bits in any company, on a GPU to
    /// rounding.
    ///
    /// # Errors
    /// As [`open`](Self::open), and no memory on the device.
    pub fn open_on(folder: &Path, device: &Device) -> Result<Checkpoint, CheckpointError> {
        check_folder(folder)?;
        let name = folder.canonicalize().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let mut prepare = OnDevice(device.clone());
        open(&Source::Folder(folder), name.as_deref().unwrap_or("model"), Quantize::None, &mut prepare)
    }

    /// Opens the files of a checkpoint that are part of the program, as pairs of file name and contents.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn from_embedded(
        files: &'static [(&'static str, &'static [u8])],
        name: &str,
        quantize: Quantize,
    ) -> Result<Checkpoint, CheckpointError> {
        open(&Source::Embedded { name, files }, name, quantize, &mut AsTheyAre)
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
    Ok(decoder(&source, config(&source)?, prepare, None)?.0)
}

/// As [`open_decoder`], packed for inference.
///
/// # Errors
/// As [`Checkpoint::open_with`].
pub fn open_decoder_quantized(folder: &Path, quantize: Quantize) -> Result<Decoder, CheckpointError> {
    check_folder(folder)?;
    let source = Source::Folder(folder);
    Ok(decoder(&source, config(&source)?, &mut AsTheyAre, Some(quantize))?.0)
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

/// The decoder and the number of its parameters. `packed`: for inference, and in how many bits.
fn decoder(
    source: &Source<'_>,
    config: Config,
    prepare: &mut dyn Prepare,
    packed: Option<Quantize>,
) -> Result<(Decoder, usize), CheckpointError> {
    let mut prepared = Prepared { weights: Weights::open(source, &config)?, prepare, packed };
    let decoder = Decoder::new(config, &mut prepared)?;
    let parameters = prepared.weights.finish(decoder.config())?;
    Ok((decoder, parameters))
}

fn open(
    source: &Source<'_>,
    name: &str,
    quantize: Quantize,
    prepare: &mut dyn Prepare,
) -> Result<Checkpoint, CheckpointError> {
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
    let (decoder, parameters) = decoder(source, config, prepare, Some(quantize))?;
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
