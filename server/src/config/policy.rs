//! `[policy]`: what the built-in policies say, to everyone and to the holders of certain keys.

use std::collections::BTreeMap;

use safelmm_plugins::{PerKey, Verdict};
use serde::Deserialize;

use super::{ConfigError, KeysConfig};

/// What the built-in policies say; as the user wrote it and as it is used.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `control_tokens`: what happens to a prompt that spells a control token of the model: `"allow"`, `"flag"` (the
    /// answer says so; the default) or `"deny"` (the request is refused). The spelling is ordinary text in any case.
    pub control_tokens: Verdict,
    /// `[policy.keys."KEY"]`: what holds for a key instead, by its id or by its name; where both have a section, that of
    /// the id holds.
    pub keys: BTreeMap<String, KeyPolicyConfig>,
}

/// What holds for one key; what is left out is as it is for everyone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPolicyConfig {
    /// `control_tokens`: as in `[policy]`.
    pub control_tokens: Option<Verdict>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig { control_tokens: Verdict::Flag, keys: BTreeMap::new() }
    }
}

impl PolicyConfig {
    /// What is said to a prompt that spells a control token, for each key.
    pub fn control_tokens(&self) -> PerKey<Verdict> {
        let of_key =
            |(key, own): (&String, &KeyPolicyConfig)| (key.clone(), own.control_tokens.unwrap_or(self.control_tokens));
        PerKey::new(self.control_tokens, self.keys.iter().map(of_key).collect())
    }

    /// Refuses sections for keys on a server that knows none.
    pub(super) fn resolve(self, keys: &KeysConfig) -> Result<Self, ConfigError> {
        match self.keys.keys().next() {
            Some(key) if keys.file.is_none() => Err(ConfigError::PolicyWithoutKeys(key.clone())),
            _ => Ok(self),
        }
    }
}
