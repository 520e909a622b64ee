//! `[[policy.plugin]]`: one policy that is a WebAssembly component.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use safelmm_plugins::Hook;
use safelmm_plugins::host::{Limits, OnError};
use serde::Deserialize;

use super::ConfigError;
use super::policy::{policy, within};

/// What stands before the name of a bundled plugin.
const BUNDLED: &str = "bundled:";

/// One plugin, as the user wrote it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginSection {
    name: String,
    source: String,
    digest: Option<String>,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default, alias = "on-error")]
    on_error: OnErrorSection,
    hooks: Option<Vec<Hook>>,
    #[serde(default)]
    grants: Vec<Grant>,
    fuel: Option<u64>,
    fuel_per_byte: Option<u64>,
    startup_fuel: Option<u64>,
    deadline_ms: Option<u64>,
    memory_mib: Option<usize>,
    instances: Option<u32>,
}

/// One choice for all hooks, or one for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"block\", \"allow\", or a table from hooks to these")]
enum OnErrorSection {
    All(OnError),
    Each(BTreeMap<Hook, OnError>),
}

impl Default for OnErrorSection {
    fn default() -> Self {
        OnErrorSection::All(OnError::default())
    }
}

/// What a plugin may have beside the texts that it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// What the ids of tokens stand for.
    Vocabulary,
}

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One that came with the server.
    Bundled(String),
    /// A file.
    File(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Bundled(name) => write!(f, "{BUNDLED}{name}"),
            Source::File(path) => path.display().fmt(f),
        }
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        match text.strip_prefix(BUNDLED) {
            Some(name) => Source::Bundled(name.to_owned()),
            None => Source::File(text.into()),
        }
    }
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// `name`: what answers, logs and metrics call it.
    pub name: String,
    /// `source`: `bundled:NAME`, or a file, relative to the configuration file.
    pub source: Source,
    /// `digest`: what the SHA-256 of the file must be, as `sha256:HEX`. Bundled ones are always checked.
    pub digest: Option<String>,
    /// `settings`: its own, as its schema says.
    pub settings: serde_json::Value,
    /// `on_error`: what happens to a text that it fails to judge: `"block"` (the default) or `"allow"`.
    pub on_error: OnError,
    /// The same as a table, such as `{ inspect-stream = "allow" }`: for hooks; the others block.
    pub on_error_at: Vec<(Hook, OnError)>,
    /// `hooks`: where it is asked; at all hooks that it describes, where this is left out.
    pub hooks: Option<Vec<Hook>>,
    /// `grants`: what it may have beside texts.
    pub grants: Vec<Grant>,
    /// `fuel`, `fuel_per_byte`, `startup_fuel`, `deadline_ms`, `memory_mib`, `instances`: what it may take.
    pub limits: Limits,
}

impl PluginConfig {
    /// A plugin with its own defaults.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        PluginConfig {
            name: name.into(),
            source,
            digest: None,
            settings: serde_json::Value::Object(serde_json::Map::new()),
            on_error: OnError::default(),
            on_error_at: Vec::new(),
            hooks: None,
            grants: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl PluginSection {
    pub(super) fn resolve(self, folder_of_file: &Path) -> Result<PluginConfig, ConfigError> {
        let place = |key: &str| format!("[[policy.plugin]] {:?}, {key}", self.name);
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(fits) {
            let message = "must be up to 64 letters, digits, '-' and '_'".to_owned();
            return Err(policy(&format!("[[policy.plugin]] name {:?}", self.name), message));
        }
        let source = match Source::from(&self.source[..]) {
            Source::File(path) => Source::File(folder_of_file.join(path)),
            bundled => bundled,
        };
        if let Some(digest) = &self.digest {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                let message = format!("must be \"sha256:\" and 64 lower-case hexadecimal digits, found {digest:?}");
                return Err(policy(&place("digest"), message));
            }
        }
        let settings = serde_json::to_value(&self.settings)
            .map_err(|error| policy(&place("settings"), format!("cannot be written as JSON: {error}")))?;
        let (on_error, on_error_at) = match self.on_error {
            OnErrorSection::All(choice) => (choice, Vec::new()),
            OnErrorSection::Each(choices) => (OnError::default(), choices.into_iter().collect()),
        };
        if self.hooks.as_ref().is_some_and(Vec::is_empty) {
            let message = "names none: expected at least one, or leave it out".to_owned();
            return Err(policy(&place("hooks"), message));
        }
        let default = Limits::default();
        let mut numbers = Vec::new();
        let mut number = |key: &'static str, found: Option<u64>, default: u64, lowest: u64, highest: u64| {
            let value = found.unwrap_or(default);
            numbers.push((key, value, lowest, highest));
            value
        };
        let limits = Limits {
            fuel: number("fuel", self.fuel, default.fuel, 10_000, 1 << 40),
            fuel_per_byte: number("fuel_per_byte", self.fuel_per_byte, default.fuel_per_byte, 0, 1 << 24),
            startup_fuel: number("startup_fuel", self.startup_fuel, default.startup_fuel, 10_000, 1 << 40),
            deadline: Duration::from_millis(number(
                "deadline_ms",
                self.deadline_ms,
                default.deadline.as_millis() as u64,
                10,
                60_000,
            )),
            memory_bytes: (number(
                "memory_mib",
                self.memory_mib.map(|mib| mib as u64),
                default.memory_bytes as u64 >> 20,
                1,
                1 << 12,
            ) as usize)
                << 20,
            instances: number("instances", self.instances.map(u64::from), default.instances.into(), 1, 1 << 12) as u32,
        };
        for (key, found, lowest, highest) in numbers {
            within(&place(key), found, lowest, highest)?;
        }
        Ok(PluginConfig {
            name: self.name,
            source,
            digest: self.digest,
            settings,
            on_error,
            on_error_at,
            hooks: self.hooks,
            grants: self.grants,
            limits,
        })
    }
}
