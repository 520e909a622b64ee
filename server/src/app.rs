//! The application: one model, its engine and what the routes need to know about both.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use safelmm_datastore::EncodeError;
use safelmm_datastore::gate::GateTable;
use safelmm_model::{Checkpoint, CheckpointError, Encoder, EncoderError, GrammarError, Grammars, Rating};
use tokio::sync::watch;

use crate::config::{Config, ConfigError, DEFAULT_RATING, PolicyConfig, ServerConfig};
use crate::embedder::Embedder;
use crate::engine::{Decoder, Engine, EngineConfig, Sequence};
use crate::http::Spellings;
use crate::keys::{KeyFileError, Keyring};
use crate::metrics::Metrics;
use crate::policies::{ModelVocabulary, Policies, PoliciesError};
use crate::retrieval::{ModelEncoder, Stores, StoresError};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The checkpoint cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The encoder cannot be opened.
    #[error("[embeddings] folder: {0}")]
    Encoder(#[from] EncoderError),
    /// The stores cannot be opened.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// The parameters of the model cannot be read, so that stores cannot be told from those of other models.
    #[error(transparent)]
    Fingerprint(#[from] EncodeError),
    /// The policies cannot be loaded.
    #[error(transparent)]
    Policies(#[from] PoliciesError),
    /// A rating ceiling was configured that the model cannot keep.
    #[error(
        "[model] rating_ceiling is {ceiling}, but the model {model:?} has no rating tokens and cannot keep to a rating: \
         remove the setting, or serve a checkpoint that was trained with ratings"
    )]
    Unrated {
        /// The configured ceiling.
        ceiling: Rating,
        /// The model's name.
        model: String,
    },
    /// The address is not free.
    #[error(
        "cannot listen on {listen}: the port is taken by another program. Stop that program, or choose another address, \
         for example with --listen {}",
        SocketAddr::new(listen.ip(), next_port(listen))
    )]
    PortTaken {
        /// The address.
        listen: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {listen}: {source}. Choose another address with --listen HOST:PORT")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The operating system gives no thread or no runtime.
    #[error("cannot start the engine: {0}")]
    Engine(std::io::Error),
}

fn next_port(listen: &SocketAddr) -> u16 {
    listen.port().checked_add(1).unwrap_or(8081)
}

/// A cheap handle on the running application.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    checkpoint: Arc<Checkpoint>,
    engine: Engine<Sequence>,
    embedder: Option<Embedder>,
    metrics: Metrics,
    server: ServerConfig,
    name: String,
    ratings: Vec<Rating>,
    default_rating: Option<Rating>,
    policies: Policies,
    stores: Stores,
    gate: GateTable,
    keys: Option<Arc<Keyring>>,
    closing: watch::Sender<bool>,
    created: u64,
    /// Made when they are first asked for.
    spellings: OnceLock<Arc<Spellings>>,
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

impl App {
    /// Starts the engine for a checkpoint. Errors: [`StartError`].
    pub fn start(checkpoint: Arc<Checkpoint>, config: &Config) -> Result<App, StartError> {
        let name = config.model.name.clone().unwrap_or_else(|| checkpoint.name().to_owned());
        let ratings = match config.model.rating_ceiling {
            Some(ceiling) if !checkpoint.rated() => return Err(StartError::Unrated { ceiling, model: name }),
            _ if !checkpoint.rated() => Vec::new(),
            ceiling => Rating::ALL.into_iter().filter(|rating| ceiling.is_none_or(|c| *rating <= c)).collect(),
        };
        let default_rating = config.model.default_rating.unwrap_or(DEFAULT_RATING);
        let default_rating = ratings.last().map(|ceiling: &Rating| default_rating.min(*ceiling));
        let sizes = EngineConfig {
            queue: config.server.queue,
            queue_tokens: config.server.queue_tokens,
            max_batch: config.server.max_batch,
            prefill_chunk: config.server.prefill_chunk,
            request_timeout: config.server.request_timeout,
        };
        let keys = config.keys.file.as_deref().map(Keyring::open).transpose()?.map(Arc::new);
        report_unknown_keys(&config.policy, keys.as_deref());
        let embedder = match &config.embeddings.folder {
            Some(folder) => Some(Embedder::new(
                Arc::new(Encoder::open(folder)?),
                config.server.queue,
                config.server.request_timeout,
            )),
            None => None,
        };
        let sentences = embedder.as_ref().map(|embedder| Arc::clone(embedder.encoder()));
        let encoder = ModelEncoder::unidentified(Arc::clone(&checkpoint), sentences);
        if config.stores.folder.is_some() || config.stores.training_index.is_some() {
            encoder.identify()?;
        }
        let stores = Stores::open(config.stores.folder.clone(), config.stores.training_index.as_deref(), encoder)?;
        let metrics = Metrics::default();
        let tokenizer = &checkpoint.tokenizer;
        let spellings = tokenizer.control_ids().iter().filter_map(|id| tokenizer.token_text(*id)).collect();
        let vocabulary = Arc::new(ModelVocabulary::new(Arc::clone(&checkpoint)));
        let policies = Policies::load(&config.policy, &config.keys, spellings, vocabulary, metrics.clone())?;
        let backend = Decoder::new(Arc::clone(&checkpoint), config.server.kv_cache_bytes);
        let engine = Engine::start(backend, sizes, metrics.clone()).map_err(StartError::Engine)?;
        let server = config.server.clone();
        let (closing, _) = watch::channel(false);
        let app = App(Arc::new(Inner {
            checkpoint,
            engine,
            embedder,
            metrics,
            server,
            name,
            ratings,
            default_rating,
            policies,
            stores,
            gate: config.stores.gate,
            keys,
            closing,
            created: unix_time(),
            spellings: OnceLock::new(),
            grammars: OnceLock::new(),
        }));
        app.watch_policies(config.policy.sandbox.watch_s)?;
        Ok(app)
    }

    /// Looks at the files of the policies again, now and then, for as long as the application is there.
    fn watch_policies(&self, seconds: u64) -> Result<(), StartError> {
        if seconds == 0 {
            return Ok(());
        }
        let inner = Arc::downgrade(&self.0);
        let watch = move || {
            loop {
                std::thread::sleep(Duration::from_secs(seconds));
                match inner.upgrade() {
                    Some(inner) => inner.policies.refresh(false),
                    None => break,
                }
            }
        };
        std::thread::Builder::new().name("policy-watch".into()).spawn(watch).map(drop).map_err(StartError::Engine)
    }

    /// The model.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.0.checkpoint
    }

    /// The engine that decodes for all requests.
    pub fn engine(&self) -> &Engine<Sequence> {
        &self.0.engine
    }

    /// The encoder for embeddings, where one is configured.
    pub(crate) fn embedder(&self) -> Option<&Embedder> {
        self.0.embedder.as_ref()
    }

    /// What is counted and measured.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The resolved `[server]` section.
    pub fn server_config(&self) -> &ServerConfig {
        &self.0.server
    }

    /// The id under which clients ask for the model.
    pub fn model_name(&self) -> &str {
        &self.0.name
    }

    /// The ratings a request may ask for, lowest first; empty for a model without ratings.
    pub fn ratings(&self) -> &[Rating] {
        &self.0.ratings
    }

    /// The highest rating a request may ask for; none for a model without ratings.
    pub fn rating_ceiling(&self) -> Option<Rating> {
        self.0.ratings.last().copied()
    }

    /// The rating of requests that name none; none for a model without ratings.
    pub fn default_rating(&self) -> Option<Rating> {
        self.0.default_rating
    }

    /// The policies that texts go through.
    pub fn policies(&self) -> &Policies {
        &self.0.policies
    }

    /// The stores that requests may attach.
    pub fn stores(&self) -> &Stores {
        &self.0.stores
    }

    /// Which license classes are open to which use.
    pub fn gate(&self) -> &GateTable {
        &self.0.gate
    }

    /// How log-probabilities spell tokens. The first call takes a while for a large vocabulary.
    pub(crate) fn spellings(&self) -> &Arc<Spellings> {
        self.0.spellings.get_or_init(|| Arc::new(Spellings::new(&self.0.checkpoint.tokenizer)))
    }

    /// The grammars that answers can be made to follow. The first call takes a while for a large vocabulary. Errors: a
    /// tokenizer that cannot be constrained.
    pub(crate) fn grammars(&self) -> Result<&Grammars, GrammarError> {
        let Inner { checkpoint, grammars, .. } = &*self.0;
        let made = grammars.get_or_init(|| Grammars::new(&checkpoint.tokenizer, checkpoint.config().vocab_size));
        made.as_ref().map_err(Clone::clone)
    }

    /// The keys in force; none on a server that everyone on this machine may use.
    pub fn keys(&self) -> Option<&Arc<Keyring>> {
        self.0.keys.as_ref()
    }

    /// Takes no new requests from now on; answers that were begun are finished.
    pub fn close(&self) {
        self.0.engine.close();
        self.0.closing.send_replace(true);
    }

    /// Returns once [`App::close`] was called.
    pub async fn closing(&self) {
        // The sender lives as long as this handle does.
        let _ = self.0.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// When the application started: seconds since 1970.
    pub fn created(&self) -> u64 {
        self.0.created
    }
}

/// Says in the log which sections `[policy.keys.…]` hold for no key: a slip of the pen would go unnoticed otherwise. The
/// server starts all the same, since the key may be made while it runs, or have been revoked.
fn report_unknown_keys(policy: &PolicyConfig, keys: Option<&Keyring>) {
    for key in policy.keys.keys().filter(|key| keys.is_none_or(|keys| !keys.has(key))) {
        tracing::warn!(key, "[policy.keys] names a key that is not in the key file, neither by its id nor by its name");
    }
}

/// Seconds since 1970; 0 on a clock that stands before.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
