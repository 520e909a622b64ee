//! The sizes of SafeLMM: shapes of the decoder by name.

use crate::config::ModelSection;

/// A size with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// As the command line calls it.
    pub name: &'static str,
    /// The shape of the decoder.
    pub model: ModelSection,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
}

/// Tokens of a vocabulary for 31 languages.
const VOCABULARY: usize = 65_536;

/// The sizes, the smallest first. 1b to 13b have the proportions of Llama (Touvron et al. 2023, table 2), 34b those of
/// Code Llama (Rozière et al. 2023).
pub fn presets() -> Vec<Preset> {
    let preset =
        |name, vocab_size, [hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, context]: [usize; 7]| {
            let rope_theta = 10_000.0;
            let model =
                ModelSection { hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, context, rope_theta };
            Preset { name, model, vocab_size }
        };
    vec![
        preset("demo", 8192, [256, 704, 6, 4, 2, 64, 512]),
        preset("160m", VOCABULARY, [768, 3072, 12, 12, 12, 64, 2048]),
        preset("1b", VOCABULARY, [2048, 5632, 16, 16, 16, 128, 2048]),
        preset("7b", VOCABULARY, [4096, 11_008, 32, 32, 32, 128, 2048]),
        preset("13b", VOCABULARY, [5120, 13_824, 40, 40, 40, 128, 2048]),
        preset("34b", VOCABULARY, [8192, 22_016, 48, 64, 8, 128, 4096]),
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
