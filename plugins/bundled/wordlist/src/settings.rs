//! What an operator may set.

use schemars::JsonSchema;
use serde::Deserialize;

/// The settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The lists. Where words of two lists overlap, the stricter action is taken.
    pub lists: Vec<List>,
}

/// A list of words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// What the list is called in findings.
    pub name: String,
    /// Words and phrases in any language. `*` at an end says that further letters may stand
    /// there: `bank*` is found in `banking`.
    pub words: Vec<String>,
    /// What is done with them.
    #[serde(default)]
    pub action: ActionKind,
    /// What stands in the place of a masked word.
    #[serde(default = "mask")]
    pub mask: String,
    /// What the reader of an answer gets when a word of the list ends it.
    #[serde(default = "message")]
    pub message: String,
    /// The category of findings: `wordlist`, or one of those that moderation answers with.
    #[serde(default = "category")]
    pub category: String,
    /// Where the words are looked for.
    #[serde(default = "everywhere")]
    pub hooks: Vec<Place>,
    /// Whether accents do not matter: `e` is found for `é`. In languages where they make other words (Vietnamese, for
    /// one), `false` is better.
    #[serde(default = "yes")]
    pub ignore_accents: bool,
    /// Whether digits and signs are read as the letters that they look like: `b4dw0rd`, `sh!p`.
    #[serde(default = "yes")]
    pub leetspeak: bool,
}

/// What is done with a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// The text passes, and what was found is reported.
    Flag,
    /// Another text stands in its place.
    #[default]
    Mask,
    /// The text does not pass.
    Deny,
}

/// Where a text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Texts of a request.
    Prompts,
    /// Passages of stores.
    Passages,
    /// Answers.
    Answers,
}

/// The categories that a list may have.
pub const CATEGORIES: &[&str] = &[
    "wordlist",
    "hate",
    "hate/threatening",
    "harassment",
    "harassment/threatening",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
    "illicit",
    "illicit/violent",
];

fn mask() -> String {
    "***".into()
}

fn message() -> String {
    "\n\n[This answer was ended because it contained words that are excluded here.]".into()
}

fn category() -> String {
    CATEGORIES[0].into()
}

fn everywhere() -> Vec<Place> {
    vec![Place::Prompts, Place::Passages, Place::Answers]
}

fn yes() -> bool {
    true
}
