//! `safelmm.json`: what a SafeLMM checkpoint says of itself beside its configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rating::Rating;

/// The version of `safelmm.json` that this program writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The contents of `safelmm.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The name under which the model is served.
    pub name: String,
    /// The control token of each rating.
    pub rating_tokens: BTreeMap<String, String>,
    /// How control tokens are treated.
    pub control_tokens: ControlTokens,
    /// The type of number that the model was trained in: "f32", "bf16".
    pub training_precision: String,
    /// Evaluation figures, with the command that measured them.
    #[serde(default)]
    pub evaluation: Value,
}

/// The control-token policy of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlTokens {
    /// Whether their spellings in text are ordinary text.
    pub never_parsed_from_text: bool,
    /// Whether they are banned from sampling, apart from those that end an answer.
    pub banned_from_sampling: bool,
}

impl Card {
    /// The card of a model with all four ratings, not yet evaluated.
    pub fn new(name: &str, training_precision: &str) -> Card {
        Card {
            format_version: FORMAT_VERSION,
            name: name.to_owned(),
            rating_tokens: Rating::ALL.into_iter().map(|r| (r.to_string(), r.token().to_owned())).collect(),
            control_tokens: ControlTokens { never_parsed_from_text: true, banned_from_sampling: true },
            training_precision: training_precision.to_owned(),
            evaluation: Value::Null,
        }
    }
}
