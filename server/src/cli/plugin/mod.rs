//! `safelmm plugin`: begin, check, try and list plugins.

mod args;
mod check;
mod describe;
mod new;
mod run;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use safelmm_plugins::bundled::{all, bundled};
use safelmm_plugins::host::{
    Component, Limits, LoadError, Observer, Reported, SECTION, Sandbox, SandboxError, SandboxLimits, Vocabulary,
    WasmSettings,
};
use safelmm_plugins::{Hook, RequestContext};

pub use args::{CheckArgs, ComponentArgs, DescribeArgs, Language, NewArgs, PluginCommand, RunArgs};

use crate::config::{PluginConfig, Source};
use crate::demo;
use crate::policies::{ModelVocabulary, PluginError, read};

/// Why a plugin was not begun, checked, tried or listed.
#[derive(Debug, thiserror::Error)]
pub enum PluginFailure {
    /// No component can run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The component cannot be used.
    #[error("{0}: {1}")]
    Plugin(Source, PluginError),
    /// The settings cannot be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The settings are not JSON.
    #[error("--settings is not JSON: {0}")]
    SettingsJson(serde_json::Error),
    /// A component that says nothing of itself without being asked.
    #[error("{0}: it has no section '{SECTION}': `safelmm plugin describe FILE --write` asks it and writes one")]
    NoSection(Source),
    /// A component that cannot be written.
    #[error("{0} is a part of this program: only a file can be written")]
    NoFile(Source),
    /// A check went wrong; what, was told.
    #[error("{0} of the checks failed")]
    Checks(usize),
    /// A plugin's name that cannot be one.
    #[error(
        "the name {0:?} cannot be a plugin's: expected up to 64 lower-case letters, digits and '-', a letter first"
    )]
    Name(String),
    /// The folder of a new plugin is there already.
    #[error("{} is there already: choose another name, or remove it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What was found cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Begins, checks, tries or lists plugins. Errors: [`PluginFailure`].
pub fn plugin(command: PluginCommand) -> Result<(), PluginFailure> {
    match command {
        PluginCommand::New(args) => new::new(&args),
        PluginCommand::Check(args) => check::check(&args),
        PluginCommand::Describe(args) => describe::describe(&args),
        PluginCommand::Run(args) => run::run(&args),
        PluginCommand::List => list(),
    }
}

fn list() -> Result<(), PluginFailure> {
    let sandbox = sandbox()?;
    let mut out = io::stdout().lock();
    for bundled in all() {
        let source = Source::Bundled(bundled.name.to_owned());
        let component = Opened { sandbox: sandbox.clone(), source, limits: Limits::default() }.component()?;
        let hooks: Vec<&str> = component.hooks.iter().map(Hook::as_str).collect();
        writeln!(out, "bundled:{} {} ({})", bundled.name, component.version, hooks.join(", "))?;
        writeln!(out, "    {}", component.summary)?;
        writeln!(out, "    {}", component.digest)?;
    }
    Ok(())
}

/// Room for the instances of one plugin, which may be large: it is the user's own.
fn sandbox() -> Result<Sandbox, SandboxError> {
    let default = SandboxLimits::default();
    Sandbox::new(SandboxLimits { instances: 16, file_bytes: 128 << 20, memory_bytes: 256 << 20, ..default }, None)
}

/// A component that was named on the command line.
struct Opened {
    sandbox: Sandbox,
    source: Source,
    limits: Limits,
}

impl Opened {
    fn new(args: &ComponentArgs) -> Result<Self, PluginFailure> {
        let opened = Opened::of(&args.source)?;
        let limits = Limits { fuel: args.fuel.unwrap_or(opened.limits.fuel), ..opened.limits };
        Ok(Opened { limits, ..opened })
    }

    fn of(source: &str) -> Result<Self, PluginFailure> {
        let limits = Limits { memory_bytes: 256 << 20, ..Limits::default() };
        Ok(Opened { sandbox: sandbox()?, source: Source::from(source), limits })
    }

    fn bytes(&self) -> Result<Vec<u8>, PluginFailure> {
        let failed = |error| PluginFailure::Plugin(self.source.clone(), error);
        match &self.source {
            Source::File(path) => read(&self.sandbox, path).map_err(failed),
            Source::Bundled(name) => match bundled(name) {
                Some(found) => Ok(found.bytes.to_vec()),
                None => Err(failed(PluginError::NotBundled(name.clone()))),
            },
        }
    }

    /// The component, which gets whatever it asks for.
    fn component(&self) -> Result<Component, PluginFailure> {
        self.component_of(&self.bytes()?)
    }

    fn component_of(&self, bytes: &[u8]) -> Result<Component, PluginFailure> {
        let loaded = Component::load(&self.sandbox, "plugin", bytes, None, &self.limits, Some(vocabulary()));
        loaded.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: LoadError) -> PluginFailure {
        PluginFailure::Plugin(self.source.clone(), error.into())
    }

    fn settings(&self, settings: serde_json::Value, observer: Arc<dyn Observer>) -> WasmSettings {
        let plugin = PluginConfig { settings, limits: self.limits, ..PluginConfig::new("plugin", self.source.clone()) };
        WasmSettings {
            vocabulary: Some(vocabulary()),
            observer: Some(observer),
            ..crate::policies::wasm_settings(&plugin)
        }
    }
}

/// Settings as they stand on the command line.
fn settings(args: &ComponentArgs) -> Result<serde_json::Value, PluginFailure> {
    let Some(given) = &args.settings else { return Ok(serde_json::json!({})) };
    let text = args::settings_text(given).map_err(|(path, source)| PluginFailure::Settings { path, source })?;
    serde_json::from_str(&text).map_err(PluginFailure::SettingsJson)
}

fn request(rating: Option<safelmm_plugins::Rating>) -> RequestContext {
    RequestContext {
        id: "1".to_owned(),
        model: "safelmm-demo".to_owned(),
        caller: None,
        rating,
        declared_use: None,
        route: "/v1/chat/completions",
        language: None,
    }
}

/// The embedded demo's vocabulary, opened when it is first asked for.
#[derive(Default)]
struct DemoVocabulary(OnceLock<Option<ModelVocabulary>>);

fn vocabulary() -> Arc<dyn Vocabulary> {
    Arc::new(DemoVocabulary::default())
}

impl DemoVocabulary {
    fn model(&self) -> Option<&ModelVocabulary> {
        let open = || demo::open().ok().map(|checkpoint| ModelVocabulary::new(Arc::new(checkpoint)));
        self.0.get_or_init(open).as_ref()
    }
}

impl Vocabulary for DemoVocabulary {
    fn len(&self) -> u32 {
        self.model().map_or(0, Vocabulary::len)
    }

    fn piece(&self, id: u32) -> Option<Vec<u8>> {
        self.model()?.piece(id)
    }

    fn tokenize(&self, text: &str) -> Vec<u32> {
        self.model().map(|model| model.tokenize(text)).unwrap_or_default()
    }
}

/// Adds up what calls cost.
#[derive(Default)]
struct Costs(Mutex<Vec<(Hook, u64, Option<&'static str>)>>);

impl Costs {
    fn take(&self) -> Vec<(Hook, u64, Option<&'static str>)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Costs {
    fn called(&self, call: &Reported<'_>) {
        let failed = call.outcome.err();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((call.hook, call.fuel, failed));
    }
}
