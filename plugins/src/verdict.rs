//! What a policy says of a text.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The name of a decision, as answers and metrics have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The text passes.
    Allow,
    /// The text passes, and the answer says what was found.
    Flag,
    /// Another text stands in for it. No setting of the built-in policies.
    #[serde(skip_deserializing)]
    Rewrite,
    /// The text does not pass.
    Deny,
    /// The policy cannot judge it. No setting of the built-in policies.
    #[serde(skip_deserializing)]
    Abstain,
}

impl Verdict {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Flag => "flag",
            Verdict::Rewrite => "rewrite",
            Verdict::Deny => "deny",
            Verdict::Abstain => "abstain",
        }
    }
}

/// One thing that a policy found in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What kind of thing, such as `prompt-injection`.
    pub category: String,
    /// How sure the policy is, from 0 to 1.
    pub score: f32,
    /// For people: what was found and what to do about it.
    pub reason: String,
    /// Where it stands, in bytes of the text, if it stands in one place.
    pub span: Option<Range<usize>>,
}

/// A policy's decision on a text, with its reasons.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// The text passes.
    Allow,
    /// The text passes, and the answer says what was found.
    Flag(Vec<Finding>),
    /// Another text stands in for it.
    Rewrite {
        /// The other text.
        text: String,
        /// What was found in the one before.
        findings: Vec<Finding>,
    },
    /// The text does not pass, for at least one reason.
    Deny(Vec<Finding>),
    /// The policy cannot judge it, for instance for its language.
    Abstain,
}

impl Judgement {
    /// The name of the decision.
    pub fn verdict(&self) -> Verdict {
        match self {
            Judgement::Allow => Verdict::Allow,
            Judgement::Flag(_) => Verdict::Flag,
            Judgement::Rewrite { .. } => Verdict::Rewrite,
            Judgement::Deny(_) => Verdict::Deny,
            Judgement::Abstain => Verdict::Abstain,
        }
    }

    /// What was found.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Judgement::Allow | Judgement::Abstain => &[],
            Judgement::Flag(findings) | Judgement::Rewrite { findings, .. } | Judgement::Deny(findings) => findings,
        }
    }
}
