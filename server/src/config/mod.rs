//! The configuration: what the user wrote on the command line, in the environment and in the file, resolved once into
//! one validated [`Config`] that the rest of the program reads.
//!
//! A flag wins over its environment variable, the variable over the file, the file over the default.

mod embeddings;
mod keys;
mod model;
mod plugin;
mod policy;
mod server;
mod stores;
mod telemetry;

use std::path::{Path, PathBuf};

use safelmm_model::Quantize;
use serde::Deserialize;

pub use embeddings::EmbeddingsConfig;
pub use keys::KeysConfig;
pub use model::{DEFAULT_RATING, ModelConfig};
pub use plugin::{Grant, PluginConfig, Source};
pub use policy::{KeyPolicyConfig, PolicyConfig, ROUTES, RoutePolicyConfig, SandboxConfig};
pub use server::ServerConfig;
pub use stores::StoresConfig;
pub use telemetry::TelemetryConfig;

/// What the command line and the environment say, as the user wrote it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`, `SAFELMM_CONFIG`.
    pub file: Option<PathBuf>,
    /// `--model`, `SAFELMM_MODEL`.
    pub model: Option<PathBuf>,
    /// `--adapter`, `SAFELMM_ADAPTER`.
    pub adapter: Option<PathBuf>,
    /// `--quantize`, `SAFELMM_QUANTIZE`.
    pub quantize: Option<Quantize>,
    /// `--embeddings`, `SAFELMM_EMBEDDINGS`.
    pub embeddings: Option<PathBuf>,
    /// `--listen`, `SAFELMM_LISTEN`.
    pub listen: Option<String>,
    /// `--queue`.
    pub queue: Option<usize>,
    /// `--max-batch`.
    pub max_batch: Option<usize>,
    /// `--keys`, `SAFELMM_KEYS`.
    pub keys: Option<PathBuf>,
    /// `--stores`, `SAFELMM_STORES`.
    pub stores: Option<PathBuf>,
    /// `--otlp-endpoint`, `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<String>,
}

/// The configuration file, as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    server: server::Section,
    #[serde(default)]
    model: model::Section,
    #[serde(default)]
    keys: keys::Section,
    #[serde(default)]
    embeddings: embeddings::Section,
    #[serde(default)]
    policy: policy::Section,
    #[serde(default)]
    stores: stores::Section,
    #[serde(default)]
    telemetry: telemetry::Section,
}

/// The resolved, validated configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[model]`.
    pub model: ModelConfig,
    /// `[keys]`.
    pub keys: KeysConfig,
    /// `[embeddings]`.
    pub embeddings: EmbeddingsConfig,
    /// `[policy]`.
    pub policy: PolicyConfig,
    /// `[stores]`.
    pub stores: StoresConfig,
    /// `[telemetry]`.
    pub telemetry: TelemetryConfig,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML, or has unknown keys or values of the wrong type.
    #[error("in the configuration file {}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("{key} must be {expected}, found {found}")]
    Invalid {
        /// The setting, by its flag and its key in the file.
        key: &'static str,
        /// The range.
        expected: String,
        /// The value.
        found: String,
    },
    /// An address that other machines can reach, and no keys to know who asks.
    #[error(
        "refusing to listen on {listen} without API keys: other machines could reach it, and anyone who can connect could \
         use the model. Make a key with `safelmm key new --keys keys.toml --name NAME` and serve with --keys keys.toml, \
         or listen on 127.0.0.1"
    )]
    Remote {
        /// The address.
        listen: std::net::SocketAddr,
    },
    /// A policy for a key, and no keys to know who asks.
    #[error(
        "[policy.keys.{0:?}] holds for one API key, but the server has no key file and would never know it: name the file \
         with --keys, SAFELMM_KEYS or [keys] file, or remove the section"
    )]
    PolicyWithoutKeys(String),
    /// A setting of the policies that cannot be used.
    #[error("{place}: {message}")]
    Policy {
        /// The section and the key.
        place: String,
        /// What is wrong, and what was expected.
        message: String,
    },
}

/// Reads `[policy]` again from the file from which it was read. Errors: [`ConfigError`].
pub(crate) fn reread_policy(policy: &PolicyConfig, keys: &KeysConfig) -> Result<PolicyConfig, ConfigError> {
    let Some(path) = &policy.file else { return Ok(policy.clone()) };
    let folder = path.parent().unwrap_or(Path::new(""));
    PolicyConfig::resolve(read(path)?.policy, keys, Some(path), folder)
}

impl Config {
    /// Reads the file, if one is named, and resolves every setting. Errors: [`ConfigError`].
    pub fn resolve(overrides: Overrides) -> Result<Config, ConfigError> {
        let file = overrides.file.as_deref().map(read).transpose()?.unwrap_or_default();
        let folder_of_file = overrides.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let keys = KeysConfig::resolve(file.keys, &overrides, folder_of_file);
        let server = ServerConfig::resolve(file.server, &overrides)?;
        if !server.listen.ip().is_loopback() && keys.file.is_none() {
            return Err(ConfigError::Remote { listen: server.listen });
        }
        Ok(Config {
            server,
            policy: PolicyConfig::resolve(file.policy, &keys, overrides.file.as_deref(), folder_of_file)?,
            keys,
            model: ModelConfig::resolve(file.model, &overrides, folder_of_file)?,
            embeddings: EmbeddingsConfig::resolve(file.embeddings, &overrides, folder_of_file),
            stores: StoresConfig::resolve(file.stores, &overrides, folder_of_file),
            telemetry: TelemetryConfig::resolve(file.telemetry, &overrides)?,
        })
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use safelmm_model::Rating;
    use safelmm_plugins::host::OnError;
    use safelmm_plugins::{Hook, PerKey, Verdict};

    use super::*;

    fn resolve(text: &str, overrides: Overrides) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("safelmm.toml");
        std::fs::write(&path, text).unwrap();
        Config::resolve(Overrides { file: Some(path), ..overrides }).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_of_the_file_arrives_and_flags_win() {
        let text = "[server]\nlisten = '127.0.0.1:9000'\nqueue = 3\nmax_batch = 2\nrequest_timeout_s = 7\n\
                    shutdown_grace_s = 1\nmax_body_bytes = 4096\nqueue_tokens = 11\nprefill_chunk = 12\nkv_cache_mib = 13\nmax_connections = 9\n\
                    head_timeout_s = 1\nidle_timeout_s = 2\nbody_timeout_s = 3\nwrite_timeout_s = 4\n[model]\nquantize = 'q4'\nfolder = 'm'\nname = 'n'\nrating_ceiling = 'PG'\n\
                    [keys]\nfile = 'k.toml'\n[telemetry]\notlp_endpoint = 'http://localhost:4318/'\n\
                    [policy]\ncontrol_tokens = 'deny'\n[policy.keys.web]\ncontrol_tokens = 'allow'\n[policy.keys.other]\n";
        let config = resolve(text, Overrides { queue: Some(5), ..Overrides::default() }).unwrap();
        let server = &config.server;
        assert_eq!(server.listen.to_string(), "127.0.0.1:9000");
        assert_eq!((server.queue, server.max_batch, server.max_body_bytes), (5, 2, 4096));
        assert_eq!((server.queue_tokens, server.prefill_chunk, server.kv_cache_bytes), (11, 12, 13 << 20));
        assert_eq!(server.request_timeout, Duration::from_secs(7));
        assert_eq!(server.max_connections, 9);
        let timeouts = [server.head_timeout, server.idle_timeout, server.body_timeout, server.write_timeout];
        assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [1, 2, 3, 4]);
        assert_eq!(server.shutdown_grace, Duration::from_secs(1));
        // A folder in the file is relative to the file, a folder on the command line to the current one.
        assert!(config.model.folder.as_ref().is_some_and(|folder| folder.is_absolute() && folder.ends_with("m")));
        assert!(config.keys.file.as_ref().is_some_and(|file| file.is_absolute() && file.ends_with("k.toml")));
        assert_eq!(config.model.name.as_deref(), Some("n"));
        assert_eq!(config.model.quantize, Quantize::Q4);
        let flag = Overrides { quantize: Some(Quantize::None), ..Overrides::default() };
        assert_eq!(resolve(text, flag).unwrap().model.quantize, Quantize::None);
        let wrong = resolve("[model]\nquantize = 'q5'\n", Overrides::default()).unwrap_err();
        assert!(wrong.contains("q5") && wrong.contains("q4"), "{wrong}");
        assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("http://localhost:4318"));
        assert_eq!(config.model.rating_ceiling, Some(Rating::PG));
        let keys = [("web", Verdict::Allow), ("other", Verdict::Deny)].map(|(key, verdict)| (key.to_owned(), verdict));
        assert_eq!(config.policy.control_tokens(), PerKey::new(Verdict::Deny, keys.into()));
    }

    #[test]
    fn mistakes_are_named_with_file_and_key() {
        for (text, expected) in [
            ("[server]\nport = 1\n", ["safelmm.toml", "unknown field `port`"]),
            ("[sever]\n", ["safelmm.toml", "unknown field `sever`"]),
            ("[server]\nqueue = 'many'\n", ["safelmm.toml", "queue"]),
            ("[server]\nqueue = 0\n", ["queue", "found 0"]),
            ("[server]\nmax_batch = 100000\n", ["max_batch", "found 100000"]),
            ("[server]\nrequest_timeout_s = 0\n", ["request_timeout_s", "found 0"]),
            ("[server]\nmax_connections = 0\n", ["max_connections", "found 0"]),
            ("[server]\nwrite_timeout_s = 0\n", ["write_timeout_s", "found 0"]),
            ("[server]\nlisten = 'here'\n", ["listen", "found \"here\""]),
            ("[server]\nlisten = '0.0.0.0:80'\n", ["0.0.0.0:80", "safelmm key new"]),
            ("[model]\nrating_ceiling = 'PG-13'\n", ["safelmm.toml", "PG-13"]),
            ("[model]\nrating_ceiling = 'PG'\ndefault_rating = 'R'\n", ["default_rating", "PG"]),
            ("[telemetry]\notlp_endpoint = 'https://c:4318'\n", ["otlp_endpoint", "https://c:4318"]),
            ("[telemetry]\notlp_endpoint = 'collector'\n", ["otlp_endpoint", "http://localhost:4318"]),
            ("[telemetry]\notlp_endpoint = 'http://c:4318/?k=v'\n", ["otlp_endpoint", "k=v"]),
            ("[model]\nname = ''\n", ["name", "found \"\""]),
            ("[model]\nadapter = 'a'\n", ["[model] adapter", "--model"]),
            ("[policy.keys.web]\ncontrol_tokens = 'deny'\n", ["[policy.keys.\"web\"]", "--keys"]),
            ("[policy.keys.web]\ncontrol_token = 'deny'\n", ["safelmm.toml", "unknown field `control_token`"]),
            ("[policy]\ncontrol_tokens = 'maybe'\n", ["safelmm.toml", "maybe"]),
            ("[policy]\ncontrol_tokens = 'rewrite'\n", ["safelmm.toml", "rewrite"]),
            ("[[policy.plugin]]\nname = 'p'\n", ["safelmm.toml", "source"]),
            ("[[policy.plugin]]\nname = 'p p'\nsource = 'x'\n", ["name \"p p\"", "letters"]),
            ("[[policy.plugin]]\nname = 'p'\nsource = 'x'\ndigest = 'abc'\n", ["\"p\", digest", "sha256:"]),
            ("[[policy.plugin]]\nname = 'p'\nsource = 'x'\nhooks = []\n", ["\"p\", hooks", "at least one"]),
            ("[[policy.plugin]]\nname = 'p'\nsource = 'x'\nhooks = ['all']\n", ["safelmm.toml", "screen-prompt"]),
            ("[[policy.plugin]]\nname = 'p'\nsource = 'x'\nfuel = 1\n", ["\"p\", fuel", "found 1"]),
            ("[[policy.plugin]]\nname = 'p'\nsource = 'x'\non-error = 'pass'\n", ["safelmm.toml", "\"block\""]),
            ("[policy.routes.'/v1/none']\nplugins = []\n", ["/v1/none", "/v1/completions"]),
            ("[policy.routes.'/tokenize']\nplugins = ['p']\n", ["/tokenize", "no plugin \"p\""]),
            ("[policy.sandbox]\ninstances = 0\n", ["instances", "found 0"]),
        ] {
            let error = resolve(text, Overrides::default()).unwrap_err();
            assert!(expected.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn plugins_keep_their_order_and_their_settings() {
        let text = "[keys]\nfile = 'k'\n[policy.keys.web]\nplugins = ['b']\n[policy.routes.'/v1/completions']\nplugins = ['a']\n\
                    [policy.sandbox]\nmemory_mib = 3\ncache = 'c'\nwatch_s = 9\n\
                    [[policy.plugin]]\nname = 'b'\nsource = 'bundled:pii'\non-error = { inspect-stream = 'allow' }\n\
                    settings = { words = ['x', { n = 1 }] }\n\
                    [[policy.plugin]]\nname = 'a'\nsource = 'a.wasm'\non_error = 'allow'\nhooks = ['screen-prompt']\n\
                    grants = ['vocabulary']\nfuel = 20000\ndeadline_ms = 30\n";
        let policy = resolve(text, Overrides::default()).unwrap().policy;
        let [b, a] = &policy.plugins[..] else { panic!("{:?}", policy.plugins) };
        assert_eq!((&b.name[..], &b.source), ("b", &Source::Bundled("pii".into())));
        assert_eq!(b.on_error_at, [(Hook::InspectStream, OnError::Allow)]);
        assert_eq!((b.on_error, a.on_error), (OnError::Block, OnError::Allow));
        assert_eq!(b.settings, serde_json::json!({"words": ["x", {"n": 1}]}));
        assert!(matches!(&a.source, Source::File(path) if path.is_absolute() && path.ends_with("a.wasm")));
        assert_eq!((&a.hooks, &a.grants[..]), (&Some(vec![Hook::ScreenPrompt]), &[Grant::Vocabulary][..]));
        assert_eq!((a.limits.fuel, a.limits.deadline), (20_000, Duration::from_millis(30)));
        assert_eq!((policy.sandbox.limits.memory_bytes, policy.sandbox.watch_s), (3 << 20, 9));
        assert!(policy.sandbox.cache.as_ref().is_some_and(|folder| folder.is_absolute()));
        let selection = policy.selection();
        assert_eq!(selection.routes["/v1/completions"], ["a"]);
        // What is read again is what was read.
        let keys = KeysConfig { file: Some("k".into()) };
        assert!(reread_policy(&policy, &keys).is_err(), "the file is gone by now");
        assert_eq!(reread_policy(&PolicyConfig::default(), &keys).unwrap().plugins, []);
    }

    #[test]
    fn an_endpoint_of_traces_shows_no_password_and_an_empty_one_is_none() {
        let error = resolve("[telemetry]\notlp_endpoint = 'http://me:hush@c:4318'", Overrides::default()).unwrap_err();
        assert!(error.contains("otlp_endpoint") && !error.contains("hush"), "{error}");
        let empty = Overrides { otlp_endpoint: Some(String::new()), ..Overrides::default() };
        assert_eq!(Config::resolve(empty).unwrap().telemetry.otlp_endpoint, None);
    }

    #[test]
    fn a_remote_address_needs_keys() {
        let remote = Overrides { listen: Some("[::]:8080".into()), ..Overrides::default() };
        assert!(matches!(Config::resolve(remote.clone()), Err(ConfigError::Remote { .. })));
        assert!(Config::resolve(Overrides { keys: Some("keys.toml".into()), ..remote }).is_ok());
        let local = Overrides { listen: Some("localhost:0".into()), ..Overrides::default() };
        assert!(Config::resolve(local).is_ok_and(|config| config.server.listen.ip().is_loopback()));
    }
}
