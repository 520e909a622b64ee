//! `[policy]`: what the built-in policies say, which plugins there are, and for whom each of them holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safelmm_plugins::host::SandboxLimits;
use safelmm_plugins::{PerKey, Selection, Verdict};
use serde::Deserialize;

use super::plugin::{PluginConfig, PluginSection};
use super::{ConfigError, KeysConfig};

/// `[policy]`, as the user wrote it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Section {
    control_tokens: Option<Verdict>,
    keys: BTreeMap<String, KeyPolicyConfig>,
    routes: BTreeMap<String, RoutePolicyConfig>,
    plugin: Vec<PluginSection>,
    sandbox: SandboxSection,
}

/// What holds for policies.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// `control_tokens`: what happens to a prompt that spells a control token of the model: `"allow"`, `"flag"` (the
    /// answer says so; the default) or `"deny"` (the request is refused). The spelling is ordinary text in any case.
    pub control_tokens: Verdict,
    /// `[policy.keys."KEY"]`: what holds for a key instead, by its id or by its name; where both have a section, that of
    /// the id holds.
    pub keys: BTreeMap<String, KeyPolicyConfig>,
    /// `[policy.routes."/PATH"]`: what holds on a route.
    pub routes: BTreeMap<String, RoutePolicyConfig>,
    /// `[[policy.plugin]]`: the plugins, in the order in which they are asked.
    pub plugins: Vec<PluginConfig>,
    /// `[policy.sandbox]`: what all plugins together may take.
    pub sandbox: SandboxConfig,
    /// The file that this was read from: it is read again when it changes.
    pub file: Option<PathBuf>,
}

/// What holds for one key; what is left out is as it is for everyone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPolicyConfig {
    /// `control_tokens`: as in `[policy]`.
    pub control_tokens: Option<Verdict>,
    /// `plugins`: the names of those that hold; all of them where it is left out.
    pub plugins: Option<Vec<String>>,
}

/// What holds on one route.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePolicyConfig {
    /// `plugins`: the names of those that hold.
    pub plugins: Vec<String>,
}

/// `[policy.sandbox]`, as the user wrote it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SandboxSection {
    file_mib: Option<u64>,
    instances: Option<u32>,
    memory_mib: Option<usize>,
    stack_kib: Option<usize>,
    cache: Option<PathBuf>,
    watch_s: Option<u64>,
}

/// What all plugins together may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// `file_mib`, `instances`, `memory_mib` and `stack_kib`: the largest file, the most instances at once of all plugins,
    /// the most memory of one, and the stack of a call.
    pub limits: SandboxLimits,
    /// `cache`: a folder for compiled code, relative to the file; none compiles at each start.
    pub cache: Option<PathBuf>,
    /// `watch_s`: after how many seconds the files are looked at again; 0 never. SIGHUP looks at once.
    pub watch_s: u64,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        SandboxConfig { limits: SandboxLimits::default(), cache: None, watch_s: 2 }
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig {
            control_tokens: Verdict::Flag,
            keys: BTreeMap::new(),
            routes: BTreeMap::new(),
            plugins: Vec::new(),
            sandbox: SandboxConfig::default(),
            file: None,
        }
    }
}

/// Where plugins are asked.
pub const ROUTES: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/attributions",
    "/v1/stores/{store}/search",
    "/tokenize",
];

impl PolicyConfig {
    /// What is said to a prompt that spells a control token, for each key.
    pub fn control_tokens(&self) -> PerKey<Verdict> {
        let of_key =
            |(key, own): (&String, &KeyPolicyConfig)| (key.clone(), own.control_tokens.unwrap_or(self.control_tokens));
        PerKey::new(self.control_tokens, self.keys.iter().map(of_key).collect())
    }

    /// Which plugins hold for which requests.
    pub fn selection(&self) -> Selection {
        let of_route = |(route, own): (&String, &RoutePolicyConfig)| (route.clone(), own.plugins.clone());
        let of_key = |(key, own): (&String, &KeyPolicyConfig)| (key.clone(), own.plugins.clone());
        Selection {
            routes: self.routes.iter().map(of_route).collect(),
            keys: PerKey::new(None, self.keys.iter().map(of_key).collect()),
        }
    }

    /// Refuses what cannot hold: sections for keys on a server that knows none, routes and plugins that there are not.
    pub(super) fn resolve(
        section: Section,
        keys: &KeysConfig,
        file: Option<&Path>,
        folder_of_file: &Path,
    ) -> Result<Self, ConfigError> {
        let Section { control_tokens, keys: of_keys, routes, plugin, sandbox } = section;
        if let (Some(key), None) = (of_keys.keys().next(), &keys.file) {
            return Err(ConfigError::PolicyWithoutKeys(key.clone()));
        }
        let plugins: Vec<PluginConfig> =
            plugin.into_iter().map(|plugin| plugin.resolve(folder_of_file)).collect::<Result<_, _>>()?;
        let names: BTreeSet<&str> = plugins.iter().map(|plugin| &plugin.name[..]).collect();
        if names.len() != plugins.len() {
            return Err(policy("[[policy.plugin]]", "two plugins have one name: give each its own".to_owned()));
        }
        if let Some(route) = routes.keys().find(|route| !ROUTES.contains(&&route[..])) {
            let message = format!("no plugin is asked on this route: expected one of {}", ROUTES.join(", "));
            return Err(policy(&format!("[policy.routes.{route:?}]"), message));
        }
        let lists = routes.iter().map(|(route, own)| (format!("[policy.routes.{route:?}]"), &own.plugins));
        let of_key = |(key, own): (&String, _)| Some((format!("[policy.keys.{key:?}]"), Option::as_ref(own)?));
        let key_lists = of_keys.iter().map(|(key, own)| (key, &own.plugins)).filter_map(of_key);
        for (place, list) in lists.chain(key_lists) {
            if let Some(name) = list.iter().find(|name| !names.contains(&name[..])) {
                let message = format!("there is no plugin {name:?}: expected names of [[policy.plugin]]");
                return Err(policy(&format!("{place} plugins"), message));
            }
        }
        Ok(PolicyConfig {
            control_tokens: control_tokens.unwrap_or(Verdict::Flag),
            keys: of_keys,
            routes,
            plugins,
            sandbox: sandbox.resolve(folder_of_file)?,
            file: file.map(Path::to_owned),
        })
    }
}

impl SandboxSection {
    fn resolve(self, folder_of_file: &Path) -> Result<SandboxConfig, ConfigError> {
        let default = SandboxConfig::default();
        let file_mib = self.file_mib.unwrap_or(default.limits.file_bytes >> 20);
        let instances = self.instances.unwrap_or(default.limits.instances);
        let memory_mib = self.memory_mib.unwrap_or(default.limits.memory_bytes >> 20);
        let stack_kib = self.stack_kib.unwrap_or(default.limits.stack_bytes >> 10);
        let watch_s = self.watch_s.unwrap_or(default.watch_s);
        within("[policy.sandbox] file_mib", file_mib, 1, 1 << 10)?;
        within("[policy.sandbox] instances", instances.into(), 1, 1 << 12)?;
        within("[policy.sandbox] memory_mib", memory_mib as u64, 1, 1 << 12)?;
        within("[policy.sandbox] stack_kib", stack_kib as u64, 64, 1 << 10)?;
        within("[policy.sandbox] watch_s", watch_s, 0, 86_400)?;
        let limits = SandboxLimits {
            file_bytes: file_mib << 20,
            instances,
            memory_bytes: memory_mib << 20,
            stack_bytes: stack_kib << 10,
        };
        Ok(SandboxConfig { limits, cache: self.cache.map(|folder| folder_of_file.join(folder)), watch_s })
    }
}

/// A setting of `[policy]` that cannot be used.
pub(super) fn policy(place: &str, message: String) -> ConfigError {
    ConfigError::Policy { place: place.to_owned(), message }
}

pub(super) fn within(place: &str, found: u64, lowest: u64, highest: u64) -> Result<(), ConfigError> {
    match (lowest..=highest).contains(&found) {
        true => Ok(()),
        false => Err(policy(place, format!("must be between {lowest} and {highest}, found {found}"))),
    }
}
