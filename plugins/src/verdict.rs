//! What a policy says of a text.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A policy's decision on a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The text passes.
    Allow,
    /// The text passes, and the answer says what was found.
    Flag,
    /// The request is refused.
    Deny,
}

/// One thing that a policy found in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What kind of thing, such as `"prompt-injection"`.
    pub category: &'static str,
    /// How sure the policy is, from 0 to 1.
    pub score: f32,
    /// For people: what was found and what to do about it.
    pub reason: String,
    /// Where it stands, in bytes of the text.
    pub span: Range<usize>,
}

/// A policy's verdict with its reasons; a verdict other than [`Verdict::Allow`] has at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Screening {
    /// The decision.
    pub verdict: Verdict,
    /// What it rests on.
    pub findings: Vec<Finding>,
}

impl Screening {
    /// Nothing was found.
    pub fn allow() -> Screening {
        Screening { verdict: Verdict::Allow, findings: Vec::new() }
    }
}
