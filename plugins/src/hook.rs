//! Where a policy is asked.

use serde::{Deserialize, Serialize};

/// Where a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Each text of a request, before the model sees it.
    ScreenPrompt,
    /// Passages of stores, before they stand in the context.
    FilterPassages,
    /// The candidates for the next token, before one is drawn.
    AdjustLogits,
    /// The answer while it is written, before any of it leaves.
    InspectStream,
    /// The whole answer, before it leaves.
    ReviewResponse,
}

impl Hook {
    /// All of them, in the order in which a request meets them.
    pub const ALL: [Hook; 5] =
        [Hook::ScreenPrompt, Hook::FilterPassages, Hook::AdjustLogits, Hook::InspectStream, Hook::ReviewResponse];

    /// The name, as in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Hook::ScreenPrompt => "screen-prompt",
            Hook::FilterPassages => "filter-passages",
            Hook::AdjustLogits => "adjust-logits",
            Hook::InspectStream => "inspect-stream",
            Hook::ReviewResponse => "review-response",
        }
    }
}

/// A set of hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    /// Whether this hook is among them.
    pub fn has(self, hook: Hook) -> bool {
        self.0 & (1 << hook as u8) != 0
    }

    /// Those that are in both sets.
    pub fn and(self, other: Hooks) -> Hooks {
        Hooks(self.0 & other.0)
    }

    /// Each of them, in the order in which a request meets them.
    pub fn iter(self) -> impl Iterator<Item = Hook> {
        Hook::ALL.into_iter().filter(move |hook| self.has(*hook))
    }

    /// Whether answers are looked at while they are written: such policies have sessions.
    pub fn in_sessions(self) -> bool {
        self.has(Hook::AdjustLogits) || self.has(Hook::InspectStream)
    }
}

impl FromIterator<Hook> for Hooks {
    fn from_iter<I: IntoIterator<Item = Hook>>(hooks: I) -> Self {
        Hooks(hooks.into_iter().fold(0, |set, hook| set | 1 << hook as u8))
    }
}
