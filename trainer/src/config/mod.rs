//! The configuration of a run: one TOML file, checked before anything is read or allocated.

mod overlay;
mod parallel;
mod train;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

pub use overlay::{Overlay, apply, read_table};
pub use parallel::{Backend, ParallelSection};
use safelmm_model::config::{Config, Family, QkNorm, Rope, RopeScaling};
use serde::{Deserialize, Serialize};
pub use train::{CheckpointSection, GroupSection, Schedule, SpikeSection, TrainSection};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The name of the model.
    pub name: String,
    /// The seed of everything random.
    pub seed: u64,
    /// The shape of the decoder.
    pub model: ModelSection,
    /// The tokenizer.
    pub tokenizer: TokenizerSection,
    /// The training text.
    pub data: DataSection,
    /// The optimisation.
    pub train: TrainSection,
    /// How it lies on processes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parallel: ParallelSection,
}

/// The shape of the decoder: the Qwen 3 layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the matrices are initialised.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initialisation: Initialisation,
}

/// How the matrices, embeddings included, are initialised: normally, projections into the residual stream with the
/// deviation over √(2 · layers) (Radford et al. 2019, section 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initialisation {
    /// Deviation 0.02, as in GPT-2.
    #[default]
    Fixed,
    /// Deviation √(1 / (3 · hidden_size)), with which the 176B run of BLOOM was stable (Le Scao et al. 2022, after Smith
    /// et al. 2022): smaller the wider the model is.
    Width,
}

impl Initialisation {
    /// The deviation for a residual stream of this width.
    pub fn deviation(self, hidden_size: usize) -> f64 {
        match self {
            Initialisation::Fixed => 0.02,
            Initialisation::Width => (1.0 / (3.0 * hidden_size as f64)).sqrt(),
        }
    }
}

/// The byte-level BPE tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSection {
    /// Tokens, control tokens included.
    pub vocab_size: usize,
    /// Bytes of each language that the merges are learnt from, at most.
    pub bytes_per_language: usize,
    /// The same for English.
    pub english_bytes: usize,
}

/// The training text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Share of the documents kept out of training.
    pub heldout: f64,
    /// Share of the passages that go without a rating token, which gives guidance its unconditioned branch.
    pub untagged: f64,
    /// The sources.
    pub source: Vec<SourceSection>,
    /// Rated stories made by the generator.
    pub stories: StoriesSection,
}

/// One collection of documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// The file inside the folder of corpora: JSON lines, `.gz` or plain.
    pub file: PathBuf,
    /// Documents of these languages alone; all when empty.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Times that each passage is seen in an epoch; a fraction takes that share of the passages.
    #[serde(default = "one")]
    pub repeat: f64,
    /// Share of its documents kept out of training, where it is not `data.heldout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout: Option<f64>,
}

/// Generated stories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoriesSection {
    /// Stories for each of the four ratings.
    pub per_rating: usize,
    /// Conversations for each rating, in the chat template.
    pub dialogues_per_rating: usize,
}

fn one() -> f64 {
    1.0
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum RunConfigError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not such a configuration.
    #[error("{file}: {source}")]
    Toml {
        /// The file.
        file: PathBuf,
        /// Why, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A value is impossible.
    #[error("{key} is {got}: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What stands there.
        got: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A setting given beside the file cannot be understood.
    #[error("--set {given}: {reason}: expected KEY=VALUE, such as train.learning_rate=1e-3")]
    Set {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no preset of this name.
    #[error("{0}")]
    Preset(String),
    /// The settings together are no configuration.
    #[error("the configuration with its preset and settings: {0}")]
    Merged(Box<toml::de::Error>),
    /// The decoder cannot have this shape.
    #[error("[model]: {0}")]
    Model(#[from] safelmm_model::ConfigError),
}

impl RunConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file or the key, and what was expected.
    pub fn read(file: &Path) -> Result<RunConfig, RunConfigError> {
        let text = fs::read_to_string(file).map_err(|source| RunConfigError::Read { file: file.to_owned(), source })?;
        let config: RunConfig =
            toml::from_str(&text).map_err(|e| RunConfigError::Toml { file: file.to_owned(), source: Box::new(e) })?;
        config.validate()?;
        Ok(config)
    }

    /// Refuses what no run can have.
    ///
    /// # Errors
    /// Names the first such key.
    pub fn validate(&self) -> Result<(), RunConfigError> {
        let refuse = |key, got: String, expected| Err(RunConfigError::Value { key, got, expected });
        let share = |key, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => refuse(key, value.to_string(), "a share from 0 up to 1"),
        };
        share("data.heldout", self.data.heldout)?;
        share("data.untagged", self.data.untagged)?;
        if self.tokenizer.bytes_per_language == 0 {
            return refuse("tokenizer.bytes_per_language", "0".to_owned(), "at least 1");
        }
        self.train.validate(self.model.context)?;
        self.parallel.validate()?;
        if self.model.context < 32 {
            return refuse("model.context", self.model.context.to_string(), "at least 32, to hold a passage");
        }
        // The source of a passage is stored in 8 bits, the stories take one.
        if self.data.source.len() > 255 {
            return refuse("data.source", format!("{} entries", self.data.source.len()), "at most 255");
        }
        // 256 bytes, the control tokens, and room for merges; ids are stored in 16 bits.
        if !(512..=65_536).contains(&self.tokenizer.vocab_size) {
            return refuse("tokenizer.vocab_size", self.tokenizer.vocab_size.to_string(), "from 512 to 65536");
        }
        let mut files = BTreeSet::new();
        for source in &self.data.source {
            if !(0.0..=1000.0).contains(&source.repeat) {
                return refuse("data.source.repeat", source.repeat.to_string(), "from 0 to 1000");
            }
            if let Some(heldout) = source.heldout {
                share("data.source.heldout", heldout)?;
            }
            if !files.insert(&source.file) {
                return refuse("data.source.file", source.file.display().to_string(), "each file once");
            }
        }
        self.decoder().validate()?;
        Ok(())
    }

    /// The decoder's configuration: the Qwen 3 layout with tied embeddings.
    pub fn decoder(&self) -> Config {
        let model = &self.model;
        Config {
            family: Family::Qwen3,
            vocab_size: self.tokenizer.vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            n_layers: model.layers,
            n_heads: model.heads,
            n_kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            rms_norm_eps: 1e-6,
            rope: Rope { theta: model.rope_theta, scaling: RopeScaling::None },
            max_position_embeddings: model.context,
            tie_word_embeddings: true,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: QkNorm::PerHead,
            windows: vec![None; model.layers.min(1 << 16)],
            bos_token_id: None,
            eos_token_ids: Vec::new(),
        }
    }
}
