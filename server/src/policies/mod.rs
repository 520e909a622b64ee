//! The policies of the server: loaded when it starts, and again when their files or their configuration change.
//!
//! A new version is loaded and checked beside the old one, and takes its place between two requests; those that were begun
//! go on with the one that they met. What cannot be loaded leaves the old one in its place, and is told by the log, by
//! `GET /v1/plugins` and by the metrics.

mod documents;
mod stage;
mod vocabulary;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;
use std::{fs, io};

use safelmm_plugins::bundled::bundled;
use safelmm_plugins::host::{LoadError, Observer, Sandbox, SandboxError, Vocabulary, WasmPolicy, WasmSettings};
use safelmm_plugins::{About, ControlTokens, Pipeline, Policy};

pub use documents::{document, obligation, rating};
pub use stage::PolicyStage;
pub use vocabulary::ModelVocabulary;

use crate::config::{Grant, KeysConfig, PluginConfig, PolicyConfig, Source, reread_policy};
use crate::metrics::Metrics;

/// Why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Its file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: std::path::PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// There is no such bundled plugin.
    #[error("there is no bundled plugin {0:?}; `safelmm plugin list` names them")]
    NotBundled(String),
    /// It is not one, or its settings are wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Why the policies cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// No component can run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A plugin cannot be used.
    #[error("the plugin {plugin:?} ({origin}): {error}")]
    Plugin {
        /// Its name in the configuration.
        plugin: String,
        /// Where it comes from.
        origin: Source,
        /// Why.
        error: PluginError,
    },
}

/// What a file was like when it was looked at; a changed one is read again.
type Stamp = Option<(SystemTime, u64)>;

/// A plugin that serves.
#[derive(Clone)]
struct Loaded {
    config: PluginConfig,
    stamp: Stamp,
    policy: WasmPolicy,
    /// Why the newest version of it does not serve.
    error: Option<String>,
}

/// A policy, and how it stands.
pub struct Standing {
    /// What it is.
    pub about: About,
    /// Why a newer version of it does not serve, where there is one.
    pub error: Option<String>,
}

/// What policies are made with.
struct Maker {
    /// Made with the first plugin.
    sandbox: Mutex<Option<Sandbox>>,
    vocabulary: Arc<dyn Vocabulary>,
    observer: Arc<dyn Observer>,
    /// Spellings of the model's control tokens.
    spellings: Vec<String>,
}

/// The policies of the server.
pub struct Policies {
    pipeline: RwLock<Arc<Pipeline>>,
    state: Mutex<State>,
    maker: Maker,
    metrics: Metrics,
    keys: KeysConfig,
}

struct State {
    config: PolicyConfig,
    /// Of the configuration file.
    stamp: Stamp,
    loaded: Vec<Loaded>,
}

impl Policies {
    /// Loads all of them. Takes seconds for large ones.
    ///
    /// # Errors
    /// The first one that cannot be used.
    pub fn load(
        config: &PolicyConfig,
        keys: &KeysConfig,
        spellings: Vec<String>,
        vocabulary: Arc<dyn Vocabulary>,
        metrics: Metrics,
    ) -> Result<Policies, PoliciesError> {
        let observer = Arc::new(metrics.clone());
        let maker = Maker { sandbox: Mutex::new(None), vocabulary, observer, spellings };
        let stamp = config.file.as_deref().and_then(stamp);
        let mut loaded = Vec::with_capacity(config.plugins.len());
        for plugin in &config.plugins {
            let made = maker.load(config, plugin);
            let failed = |error| {
                let (plugin, origin) = (plugin.name.clone(), plugin.source.clone());
                PoliciesError::Plugin { plugin, origin, error }
            };
            loaded.push(made.map_err(|error| match error {
                MakeError::Sandbox(error) => PoliciesError::Sandbox(error),
                MakeError::Plugin(error) => failed(error),
            })?);
        }
        let pipeline = RwLock::new(Arc::new(maker.pipeline(config, &loaded)));
        let state = Mutex::new(State { config: config.clone(), stamp, loaded });
        Ok(Policies { pipeline, state, maker, metrics, keys: keys.clone() })
    }

    /// Those that serve now.
    pub fn pipeline(&self) -> Arc<Pipeline> {
        Arc::clone(&self.pipeline.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All policies, in the order in which they are asked.
    pub fn standings(&self) -> Vec<Standing> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let error = |name: &str| state.loaded.iter().find(|loaded| loaded.config.name == name)?.error.clone();
        let pipeline = self.pipeline();
        let standing = |policy: &Arc<dyn Policy>| Standing { about: policy.about(), error: error(policy.name()) };
        pipeline.policies().map(standing).collect()
    }

    /// Looks at the files again, the configuration's too, and takes over what changed. `all` loads again what failed
    /// before, even if it did not change. Blocks, and takes seconds where there is something to load.
    pub fn refresh(&self, all: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp_now = state.config.file.as_deref().and_then(stamp);
        if all || stamp_now != state.stamp {
            state.stamp = stamp_now;
            match reread_policy(&state.config, &self.keys) {
                Ok(config) => {
                    if config.sandbox != state.config.sandbox {
                        tracing::warn!("[policy.sandbox] has changed: it holds from the next start on");
                    }
                    let sandbox = state.config.sandbox.clone();
                    self.take_over(&mut state, PolicyConfig { sandbox, ..config }, all);
                }
                Err(error) => {
                    self.metrics.policy_reloaded("", false);
                    tracing::error!(%error, "the configuration has changed and is of no use: policies stay as they were");
                }
            }
        } else if state.loaded.iter().any(Loaded::has_changed) {
            let config = state.config.clone();
            self.take_over(&mut state, config, all);
        }
    }

    /// Loads what is new or has changed, and has it serve. A new plugin that cannot be loaded leaves everything as it was.
    fn take_over(&self, state: &mut State, config: PolicyConfig, all: bool) {
        let mut loaded = Vec::with_capacity(config.plugins.len());
        for plugin in &config.plugins {
            let before = state.loaded.iter().find(|loaded| loaded.config.name == plugin.name);
            let same = before.filter(|loaded| loaded.config == *plugin && !loaded.has_changed());
            if let Some(same) = same.filter(|loaded| !all || loaded.error.is_none()) {
                loaded.push(same.clone());
                continue;
            }
            let made = self.maker.load(&config, plugin);
            self.metrics.policy_reloaded(&plugin.name, made.is_ok());
            match (made, before) {
                (Ok(new), _) => {
                    let About { version, digest, .. } = new.policy.about();
                    tracing::info!(plugin = plugin.name, version, digest, "a plugin has changed");
                    loaded.push(new);
                }
                (Err(error), Some(old)) => {
                    let error = error.to_string();
                    tracing::error!(plugin = plugin.name, error, "a changed plugin is of no use: the old one stays");
                    // Its stamp is the new file's, so that it is not tried again until it changes.
                    let stamp = plugin.file().and_then(stamp);
                    let config = plugin.clone();
                    loaded.push(Loaded { config, stamp, error: Some(error), policy: old.policy.clone() });
                }
                (Err(error), None) => {
                    let error = error.to_string();
                    tracing::error!(plugin = plugin.name, error, "a new plugin is of no use: all stay as they were");
                    return;
                }
            }
        }
        let pipeline = Arc::new(self.maker.pipeline(&config, &loaded));
        *self.pipeline.write().unwrap_or_else(PoisonError::into_inner) = pipeline;
        (state.config, state.loaded) = (config, loaded);
    }
}

enum MakeError {
    Sandbox(SandboxError),
    Plugin(PluginError),
}

impl std::fmt::Display for MakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MakeError::Sandbox(error) => error.fmt(f),
            MakeError::Plugin(error) => error.fmt(f),
        }
    }
}

impl Maker {
    fn sandbox(&self, config: &PolicyConfig) -> Result<Sandbox, SandboxError> {
        let mut made = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = &*made {
            return Ok(sandbox.clone());
        }
        let sandbox = Sandbox::new(config.sandbox.limits, config.sandbox.cache.clone())?;
        Ok(made.insert(sandbox).clone())
    }

    fn load(&self, config: &PolicyConfig, plugin: &PluginConfig) -> Result<Loaded, MakeError> {
        let sandbox = self.sandbox(config).map_err(MakeError::Sandbox)?;
        // Before reading, so that a change in between is seen at the next look.
        let stamp = plugin.file().and_then(stamp);
        let granted = plugin.grants.contains(&Grant::Vocabulary);
        let settings = WasmSettings {
            vocabulary: granted.then(|| Arc::clone(&self.vocabulary)),
            observer: Some(Arc::clone(&self.observer)),
            ..wasm_settings(plugin)
        };
        let policy = load(&sandbox, plugin, settings).map_err(MakeError::Plugin)?;
        Ok(Loaded { config: plugin.clone(), stamp, policy, error: None })
    }

    fn pipeline(&self, config: &PolicyConfig, loaded: &[Loaded]) -> Pipeline {
        let control_tokens = ControlTokens::new(self.spellings.iter().cloned(), config.control_tokens());
        let plugins = loaded.iter().map(|loaded| Arc::new(loaded.policy.clone()) as Arc<dyn Policy>).collect();
        Pipeline::new(vec![Arc::new(control_tokens)], plugins, config.selection())
    }
}

/// A plugin's configuration as the host takes it, with nothing granted and nobody who counts.
pub fn wasm_settings(plugin: &PluginConfig) -> WasmSettings {
    WasmSettings {
        digest: plugin.digest.clone(),
        settings: plugin.settings.clone(),
        on_error: plugin.on_error,
        on_error_at: plugin.on_error_at.clone(),
        hooks: plugin.hooks.clone(),
        limits: plugin.limits,
        ..WasmSettings::new(&plugin.name, plugin.source.to_string())
    }
}

/// Reads a plugin's component and makes a policy of it.
///
/// # Errors
/// [`PluginError`].
pub fn load(sandbox: &Sandbox, plugin: &PluginConfig, settings: WasmSettings) -> Result<WasmPolicy, PluginError> {
    match &plugin.source {
        Source::Bundled(name) => {
            let found = bundled(name).ok_or_else(|| PluginError::NotBundled(name.clone()))?;
            // Always checked, even where the configuration names no digest.
            let digest = settings.digest.clone().or_else(|| Some(found.digest.to_owned()));
            Ok(WasmPolicy::load(sandbox, found.bytes, WasmSettings { digest, ..settings })?)
        }
        Source::File(path) => Ok(WasmPolicy::load(sandbox, &read(sandbox, path)?, settings)?),
    }
}

/// The bytes of a file, unless it is too large.
pub fn read(sandbox: &Sandbox, path: &Path) -> Result<Vec<u8>, PluginError> {
    let unreadable = |source| PluginError::Unreadable { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(unreadable)?.len();
    let most = sandbox.limits().file_bytes;
    if found > most {
        return Err(LoadError::TooLarge { found, most }.into());
    }
    fs::read(path).map_err(unreadable)
}

impl PluginConfig {
    fn file(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) => Some(path),
            Source::Bundled(_) => None,
        }
    }
}

impl Loaded {
    fn has_changed(&self) -> bool {
        self.config.file().is_some_and(|path| stamp(path) != self.stamp)
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
