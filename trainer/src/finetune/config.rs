//! The configuration of a fine-tuning: one TOML file, checked before anything is read or allocated.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{RunConfigError, TrainSection, apply, is_default, read_table};
use crate::groups::fits;

/// A fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    /// The name of the model that comes of it.
    pub name: String,
    /// The seed of everything random.
    pub seed: u64,
    /// Longest conversation, in tokens; longer ones are left out and counted.
    pub context: usize,
    /// Share of the conversations kept out of training.
    pub heldout: f64,
    /// Share of the conversations that go without their rating token, where the model has ratings.
    #[serde(default, skip_serializing_if = "is_default")]
    pub untagged: f64,
    /// Train low-rank adapters beside frozen weights; without it every weight is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    /// The optimisation.
    pub train: TrainSection,
}

/// Low-rank adapters (Hu et al. 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    /// Rank of the two factors.
    pub rank: usize,
    /// Their product counts alpha / rank times.
    pub alpha: f64,
    /// The linear layers that have one: the last parts of their names, such as `q_proj`; `*` stands for any characters.
    pub target_modules: Vec<String>,
}

/// The linear layers of the decoder, by the last parts of their names.
pub const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

impl LoraSection {
    /// Whether the linear layer of this name has an adapter.
    pub fn targets(&self, module: &str) -> bool {
        let last = module.rsplit('.').next().unwrap_or(module);
        self.target_modules.iter().any(|pattern| fits(pattern, last))
    }

    /// Those of [`MODULES`] that have one.
    pub fn modules(&self) -> Vec<&'static str> {
        MODULES.into_iter().filter(|module| self.targets(module)).collect()
    }
}

impl FinetuneConfig {
    /// Reads a file, puts single settings over it, and checks the whole.
    ///
    /// # Errors
    /// Names the file, the setting or the key, and what was expected.
    pub fn read(file: &Path, settings: &[String]) -> Result<FinetuneConfig, RunConfigError> {
        let config: FinetuneConfig = apply(read_table(file)?, settings)?;
        config.validate()?;
        Ok(config)
    }

    /// Refuses what no fine-tuning can have.
    ///
    /// # Errors
    /// Names the first such key.
    pub fn validate(&self) -> Result<(), RunConfigError> {
        let refuse = |key, got: String, expected| Err(RunConfigError::Value { key, got, expected });
        for (key, value) in [("heldout", self.heldout), ("untagged", self.untagged)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(key, value.to_string(), "a share from 0 up to 1");
            }
        }
        if self.context < 16 {
            return refuse("context", self.context.to_string(), "at least 16, to hold a question and an answer");
        }
        if let Some(lora) = &self.lora {
            if lora.rank == 0 {
                return refuse("lora.rank", "0".to_owned(), "at least 1");
            }
            if !(lora.alpha.is_finite() && lora.alpha > 0.0) {
                return refuse("lora.alpha", lora.alpha.to_string(), "a positive number");
            }
            let unknown =
                lora.target_modules.iter().find(|pattern| !MODULES.iter().any(|module| fits(pattern, module)));
            if let Some(unknown) = unknown {
                let expected = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj";
                return refuse("lora.target_modules", format!("{unknown:?}"), expected);
            }
            if lora.target_modules.is_empty() {
                return refuse("lora.target_modules", "empty".to_owned(), "at least one linear layer");
            }
        }
        self.train.validate(self.context)
    }
}
