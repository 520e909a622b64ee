//! In how many bits weights are held.

use std::fmt;

use serde::Deserialize;

use crate::kernels::Format;

/// In how many bits the weights of a checkpoint are held, whatever its files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// f32: nothing is lost.
    #[default]
    None,
    /// 8 bits, and a scale for every 32 weights.
    Q8,
    /// 4 bits, and a scale for every 16 weights; embeddings, output projection and first layer in 8 bits.
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

    /// How the matrix of this name is held; `None` in f32.
    pub(super) fn format(self, matrix: &str) -> Option<Format> {
        match self {
            Quantize::None => None,
            Quantize::Q8 => Some(Format::Q8),
            // Rows of embedding and output projection are looked up one by one, or decide between tokens; what the first
            // layer loses goes through all others.
            Quantize::Q4 if !matrix.starts_with("model.layers.") || matrix.starts_with("model.layers.0.") => {
                Some(Format::Q8)
            }
            Quantize::Q4 => Some(Format::Q4),
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
