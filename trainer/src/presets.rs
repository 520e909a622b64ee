//! The sizes of SafeLMM: shapes of the decoder by name, and an optimisation to begin with.

use serde::Serialize;
use toml::{Table, Value};

use crate::config::{Initialisation, ModelSection};

/// A size with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// As the command line calls it.
    pub name: &'static str,
    /// The shape of the decoder.
    pub model: ModelSection,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Greatest learning rate: that of Llama at this size (Touvron et al. 2023, table 2), of GPT-3 below it (Brown et al.
    /// 2020, table 2.1), of the demo's run for the demo.
    pub learning_rate: f64,
    /// Tokens of one update.
    pub batch_tokens: usize,
}

/// What a preset says of the optimisation.
#[derive(Serialize)]
struct Train {
    batch_tokens: usize,
    micro_batch_tokens: usize,
    learning_rate: f64,
    final_learning_rate: f64,
    warmup_steps: usize,
    weight_decay: f64,
    beta1: f64,
    beta2: f64,
    clip_norm: f64,
    z_loss: f64,
    checkpoint_steps: usize,
    eval_steps: usize,
}

/// Tokens of a vocabulary for 31 languages.
const VOCABULARY: usize = 65_536;

/// The sizes, the smallest first. 1b to 13b have the proportions of Llama (Touvron et al. 2023, table 2), 34b those of
/// Code Llama (Rozière et al. 2023).
pub fn presets() -> Vec<Preset> {
    let preset = |name, vocab_size, shape: [usize; 7], learning_rate, batch_tokens| {
        let [hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, context] = shape;
        let initialisation = if name == "demo" { Initialisation::Fixed } else { Initialisation::Width };
        let rope_theta = 10_000.0;
        let model = ModelSection {
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim,
            context,
            rope_theta,
            initialisation,
        };
        Preset { name, model, vocab_size, learning_rate, batch_tokens }
    };
    vec![
        preset("demo", 8192, [256, 704, 6, 4, 2, 64, 512], 2e-3, 4096),
        preset("160m", VOCABULARY, [768, 3072, 12, 12, 12, 64, 2048], 6e-4, 1 << 19),
        preset("1b", VOCABULARY, [2048, 5632, 16, 16, 16, 128, 2048], 3e-4, 1 << 20),
        preset("7b", VOCABULARY, [4096, 11_008, 32, 32, 32, 128, 2048], 3e-4, 1 << 22),
        preset("13b", VOCABULARY, [5120, 13_824, 40, 40, 40, 128, 2048], 3e-4, 1 << 22),
        preset("34b", VOCABULARY, [8192, 22_016, 48, 64, 8, 128, 4096], 1.5e-4, 1 << 22),
    ]
}

/// The size of this name.
///
/// # Errors
/// The names that there are.
pub fn preset(name: &str) -> Result<Preset, String> {
    let all = presets();
    let names: Vec<&str> = all.iter().map(|preset| preset.name).collect();
    let unknown = format!("there is no preset '{name}', expected one of {}", names.join(", "));
    all.into_iter().find(|preset| preset.name == name).ok_or(unknown)
}

impl Preset {
    /// The settings as a configuration file would give them: `[model]`, `tokenizer.vocab_size`, and of `[train]` all but
    /// the number of updates.
    pub fn table(&self) -> Table {
        let small = self.name == "demo";
        let train = Train {
            batch_tokens: self.batch_tokens,
            micro_batch_tokens: self.batch_tokens.min(8 * self.model.context),
            learning_rate: self.learning_rate,
            final_learning_rate: 0.1,
            warmup_steps: if small { 100 } else { 2000 },
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            clip_norm: 1.0,
            z_loss: 1e-4,
            checkpoint_steps: if small { 100 } else { 1000 },
            eval_steps: if small { 200 } else { 500 },
        };
        let mut table = Table::new();
        // Structs of numbers always have a table.
        for (section, values) in [("model", Table::try_from(&self.model)), ("train", Table::try_from(train))] {
            table.insert(section.to_owned(), Value::Table(values.unwrap_or_default()));
        }
        let vocabulary = Table::from_iter([("vocab_size".to_owned(), Value::Integer(self.vocab_size as i64))]);
        table.insert("tokenizer".to_owned(), Value::Table(vocabulary));
        table
    }
}
