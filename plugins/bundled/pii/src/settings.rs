//! What an operator may set.

use safelmm_plugin::SettingError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::kind::Kind;

/// What is done with what is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// `[EMAIL]` stands in its place.
    #[default]
    Redact,
    /// `[EMAIL-4X7QC]` stands in its place, the same for the same address within a request.
    Pseudonymise,
    /// The text passes, and what was found is reported.
    Flag,
    /// The text does not pass.
    Deny,
    /// Nothing is looked for.
    Off,
}

/// The settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is looked for.
    pub kinds: Vec<Kind>,
    /// What is done with it, unless one of the following says otherwise.
    pub mode: Mode,
    /// What is done with it in the texts of a request.
    pub prompts: Option<Mode>,
    /// What is done with it in passages of stores.
    pub passages: Option<Mode>,
    /// What is done with it in answers.
    pub answers: Option<Mode>,
    /// What passes all the same, such as an address of support: whole values, or domains such as `@example.com`. Case,
    /// spaces and hyphens do not matter.
    pub allow: Vec<String>,
    /// How sure a finding must be, from 0 to 1.
    pub threshold: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            kinds: Kind::ALL.to_vec(),
            mode: Mode::Redact,
            prompts: None,
            passages: None,
            answers: None,
            allow: Vec::new(),
            threshold: 0.5,
        }
    }
}

impl Settings {
    /// What is wrong with them.
    pub fn errors(&self) -> Vec<SettingError> {
        let mut errors = Vec::new();
        if self.kinds.is_empty() {
            errors.push(SettingError::new(
                "/kinds",
                "Nothing to look for: name a kind, or leave the setting out for all.",
            ));
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            errors.push(SettingError::new("/threshold", format!("{} is not between 0 and 1.", self.threshold)));
        }
        for (number, value) in self.allow.iter().enumerate() {
            if normalised(value).chars().count() < 3 {
                let message = format!("{value:?} is too short to say what passes: at least three letters or digits.");
                errors.push(SettingError::new(format!("/allow/{number}"), message));
            }
        }
        errors
    }
}

/// A value without case, spaces, hyphens and parentheses.
pub fn normalised(value: &str) -> String {
    let is_kept = |c: &char| !c.is_whitespace() && !matches!(c, '-' | '(' | ')' | '/');
    value.chars().filter(is_kept).flat_map(char::to_lowercase).collect()
}
