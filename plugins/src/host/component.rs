//! A component from its bytes to the point where instances can be made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{HasSelf, Linker};

use super::bindings::PolicyWithVocabularyPre;
use super::bindings::safelmm::policy as contract;
use super::bindings::safelmm::policy::types as wit;
use super::description::{Description, DescriptionError, SECTION};
use super::failure::Failure;
use super::instance::Instance;
use super::limits::Limits;
use super::sandbox::Sandbox;
use super::settings::{Problem, Schema, SettingsError};
use super::state::{LogBudget, State, Vocabulary};
use super::vectors::VectorsFailed;
use crate::hook::{Hook, Hooks};

/// The package of the contract, and the version that this host speaks.
const PACKAGE: &str = "safelmm:policy/";
const MAJOR: &str = "1.";
/// The longest name of a policy, a category, a version or a language.
const MAX_NAME: usize = 128;
const MAX_NAMES: usize = 4096;

/// Why a component cannot be a policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is too large.
    #[error("it has {found} bytes: at most {most} are possible. Allow more with [policy.sandbox] file_mib")]
    TooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// It is not the component that the configuration names.
    #[error("its digest is {found}, expected {expected}: it is another file than the one that was configured")]
    Digest {
        /// As configured.
        expected: String,
        /// As it is.
        found: String,
    },
    /// It is no component, or a damaged one.
    #[error("it is no WebAssembly component that can run here: {0}")]
    NotAComponent(String),
    /// It asks for what no policy gets.
    #[error(
        "it asks for {0}, which policies do not get: a policy sees neither the network nor the file system nor the clock. \
         Build it without WASI"
    )]
    Import(String),
    /// It asks for what it was not granted.
    #[error(
        "it asks for '{0}', which it was not granted: add grants = [\"{0}\"] to its configuration, if it may have it"
    )]
    NotGranted(&'static str),
    /// It does not export what a policy does.
    #[error("it is not a policy of the world safelmm:policy/policy@1: {0}")]
    World(String),
    /// It cannot be started or asked what it is.
    #[error("it cannot be started: {0}")]
    Start(Failure),
    /// What it says of itself is wrong.
    #[error("its description is wrong: {0}")]
    Description(String),
    /// Its section cannot be read.
    #[error(transparent)]
    Section(#[from] DescriptionError),
    /// Its settings are wrong.
    #[error("its settings are wrong: {0}")]
    Settings(SettingsError),
    /// It fails its own examples.
    #[error(transparent)]
    Vectors(VectorsFailed),
    /// It is to be asked at a hook at which it says nothing.
    #[error("it is to be asked at '{}', which its description does not name", .0.as_str())]
    Hook(Hook),
}

/// A component that is a policy, compiled; as it describes itself.
pub struct Component {
    pre: PolicyWithVocabularyPre<State>,
    sandbox: Sandbox,
    plugin: Arc<str>,
    vocabulary: Option<Arc<dyn Vocabulary>>,
    log: Arc<LogBudget>,
    limits: Limits,
    schema: Schema,
    /// What it calls itself.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// SHA-256 of its bytes, as `sha256:HEX`.
    pub digest: String,
    /// Where it can be asked.
    pub hooks: Hooks,
    /// What it can find.
    pub categories: Vec<String>,
    /// Languages that it judges; empty for any.
    pub languages: Vec<String>,
    /// Whether it asks for the vocabulary.
    pub wants_vocabulary: bool,
    /// The JSON Schema of its settings.
    pub settings_schema: String,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

impl Component {
    /// Checks and compiles a component, and asks it what it is. `plugin` is what the log calls it; the vocabulary is linked
    /// where it is asked for.
    ///
    /// # Errors
    /// All of [`LoadError`] but those of settings, vectors and hooks.
    pub fn load(
        sandbox: &Sandbox,
        plugin: &str,
        bytes: &[u8],
        digest: Option<&str>,
        limits: &Limits,
        vocabulary: Option<Arc<dyn Vocabulary>>,
    ) -> Result<Component, LoadError> {
        let (found, most) = (bytes.len() as u64, sandbox.limits.file_bytes);
        if found > most {
            return Err(LoadError::TooLarge { found, most });
        }
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
        let found = format!("sha256:{sha256}");
        if let Some(expected) = digest.filter(|expected| *expected != found) {
            return Err(LoadError::Digest { expected: expected.to_owned(), found });
        }
        let component = compile(sandbox, bytes, &sha256)?;
        let engine = &sandbox.engine;
        let names = |items: &mut dyn Iterator<Item = (&str, _)>| items.map(|(name, _)| name.to_owned()).collect();
        let types = component.component_type();
        let imports: Vec<String> = names(&mut types.imports(engine).map(|(name, _)| (name, ())));
        let exports: Vec<String> = names(&mut types.exports(engine).map(|(name, _)| (name, ())));
        let wants_vocabulary = check_imports(&imports)?;
        if wants_vocabulary && vocabulary.is_none() {
            return Err(LoadError::NotGranted("vocabulary"));
        }
        let vocabulary = vocabulary.filter(|_| wants_vocabulary);
        let mut linker: Linker<State> = Linker::new(engine);
        let linked = contract::types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)
            .and_then(|()| contract::log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state))
            .and_then(|()| match wants_vocabulary {
                true => contract::vocabulary::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state),
                false => Ok(()),
            });
        let world = |error: wasmtime::Error| LoadError::World(format!("{error:#}"));
        linked.map_err(world)?;
        let pre = linker.instantiate_pre(&component).and_then(PolicyWithVocabularyPre::new).map_err(world)?;
        let plugin: Arc<str> = plugin.into();
        let log = Arc::new(LogBudget::new());
        let mut instance = instantiate(&pre, sandbox, &plugin, limits, (vocabulary.clone(), Arc::clone(&log)))?;
        let described = instance
            .call(limits, limits.startup_fuel, |policy, store| policy.safelmm_policy_meta().call_describe(store));
        let described = described.answer.map_err(LoadError::Start)?;
        let schema = check_description(&described).map_err(LoadError::Description)?;
        let wit::Description { name, version, summary, hooks, categories, languages, capabilities, settings_schema } =
            described;
        if wants_vocabulary != capabilities.contains(&wit::Capability::Vocabulary) {
            let message = "its capabilities and what it imports differ: 'vocabulary' must be in both or in neither";
            return Err(LoadError::Description(message.to_owned()));
        }
        let section = Description::read(bytes)?;
        let component = Component {
            pre,
            sandbox: sandbox.clone(),
            plugin,
            vocabulary,
            log,
            limits: *limits,
            schema,
            name,
            version,
            summary,
            digest: found,
            hooks: hooks.into_iter().map(hook).collect(),
            categories,
            languages,
            wants_vocabulary,
            settings_schema,
            imports,
            exports,
        };
        if section.is_some_and(|section| section != Description::of(&component)) {
            let message = format!(
                "its section '{SECTION}' says something else than the component: write it anew with `safelmm plugin \
                 describe FILE --write`"
            );
            return Err(LoadError::Description(message));
        }
        Ok(component)
    }

    /// What it may take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Holds settings against the schema, then against the policy itself.
    ///
    /// # Errors
    /// [`LoadError::Settings`], [`LoadError::Start`].
    pub fn check_settings(&self, settings: &serde_json::Value) -> Result<(), LoadError> {
        self.schema.check(settings).map_err(LoadError::Settings)?;
        self.configured(&settings.to_string()).map(drop)
    }

    /// A new instance with these settings, as JSON.
    pub(crate) fn configured(&self, settings: &str) -> Result<Instance, LoadError> {
        let limits = &self.limits;
        let of_host = (self.vocabulary.clone(), Arc::clone(&self.log));
        let mut instance = instantiate(&self.pre, &self.sandbox, &self.plugin, limits, of_host)?;
        let configured = instance.call(limits, limits.startup_fuel, |policy, store| {
            policy.safelmm_policy_meta().call_configure(store, settings)
        });
        match configured.answer {
            Ok(Ok(())) => Ok(instance),
            Ok(Err(problems)) => {
                let problem = |wit::SettingError { pointer, message }| Problem { pointer, message };
                Err(LoadError::Settings(SettingsError(problems.into_iter().map(problem).collect())))
            }
            Err(failure) => Err(LoadError::Start(failure)),
        }
    }
}

fn compile(sandbox: &Sandbox, bytes: &[u8], sha256: &str) -> Result<wasmtime::component::Component, LoadError> {
    if bytes.starts_with(b"\0asm\x01\0\0\0") {
        let message = "it is a core module; wasm-component-ld or `wasm-tools component new` makes a component of it";
        return Err(LoadError::NotAComponent(message.to_owned()));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotAComponent("it does not begin as a WebAssembly file does".to_owned()));
    }
    if let Some(component) = sandbox.cache.as_ref().and_then(|cache| cache.get(&sandbox.engine, sha256)) {
        return Ok(component);
    }
    let component = wasmtime::component::Component::from_binary(&sandbox.engine, bytes)
        .map_err(|error| LoadError::NotAComponent(format!("{error:#}")))?;
    if let Some(cache) = &sandbox.cache {
        cache.put(sha256, &component);
    }
    Ok(component)
}

/// Whether the vocabulary is asked for. Refuses what no policy gets.
fn check_imports(imports: &[String]) -> Result<bool, LoadError> {
    let mut vocabulary = false;
    for import in imports {
        let interface = import.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@'));
        match interface {
            Some(("types" | "log", version)) if version.starts_with(MAJOR) => {}
            Some(("vocabulary", version)) if version.starts_with(MAJOR) => vocabulary = true,
            _ => return Err(LoadError::Import(import.clone())),
        }
    }
    Ok(vocabulary)
}

fn instantiate(
    pre: &PolicyWithVocabularyPre<State>,
    sandbox: &Sandbox,
    plugin: &Arc<str>,
    limits: &Limits,
    (vocabulary, log): (Option<Arc<dyn Vocabulary>>, Arc<LogBudget>),
) -> Result<Instance, LoadError> {
    let failed = |error: wasmtime::Error| LoadError::Start(Failure::of(&error, limits.startup_fuel));
    let state = State::new(Arc::clone(plugin), limits, vocabulary, log);
    let mut store = Instance::store(&sandbox.engine, state, limits).map_err(failed)?;
    let bindings = pre.instantiate(&mut store).map_err(failed)?;
    Ok(Instance::new(store, bindings))
}

pub(super) fn hook(hook: wit::Hook) -> Hook {
    match hook {
        wit::Hook::ScreenPrompt => Hook::ScreenPrompt,
        wit::Hook::FilterPassages => Hook::FilterPassages,
        wit::Hook::AdjustLogits => Hook::AdjustLogits,
        wit::Hook::InspectStream => Hook::InspectStream,
        wit::Hook::ReviewResponse => Hook::ReviewResponse,
    }
}

/// Checks what a policy says of itself; returns the schema of its settings.
fn check_description(described: &wit::Description) -> Result<Schema, String> {
    let visible = |name: &str| !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|b| b.is_ascii_graphic());
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !visible(&described.name) || !described.name.bytes().all(is_name) {
        return Err(format!("the name {:?}: expected lower-case letters, digits and '-'", cut(&described.name)));
    }
    let numbers: Vec<&str> = described.version.split(['-', '+']).next().unwrap_or_default().split('.').collect();
    if numbers.len() != 3 || !numbers.iter().all(|n| n.parse::<u64>().is_ok()) || !visible(&described.version) {
        return Err(format!("the version {:?}: expected one such as 1.2.3", cut(&described.version)));
    }
    if described.hooks.is_empty() {
        return Err("it names no hook: expected at least one".to_owned());
    }
    for (what, names) in [("categories", &described.categories), ("languages", &described.languages)] {
        if names.len() > MAX_NAMES {
            return Err(format!("it names {} {what}: at most {MAX_NAMES} are possible", names.len()));
        }
        if let Some(name) = names.iter().find(|name| !visible(name)) {
            return Err(format!("{:?} among its {what}: expected visible ASCII", cut(name)));
        }
        let distinct: BTreeSet<&String> = names.iter().collect();
        if distinct.len() != names.len() {
            return Err(format!("one of its {what} stands there twice"));
        }
    }
    Schema::new(&described.settings_schema).map_err(|error| format!("the schema of its settings: {error}"))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_NAME).collect()
}
