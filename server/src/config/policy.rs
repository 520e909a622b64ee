//! `[policy]`: what the built-in policies say.

use safelmm_plugins::Verdict;
use serde::Deserialize;

/// What the built-in policies say; as the user wrote it and as it is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `control_tokens`: what happens to a prompt that spells a control token of the model: `"allow"`, `"flag"` (the
    /// answer says so; the default) or `"deny"` (the request is refused). The spelling is ordinary text in any case.
    pub control_tokens: Verdict,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig { control_tokens: Verdict::Flag }
    }
}
