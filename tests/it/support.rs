//! The harness: the real server in this process, on a free port, with the embedded demo.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use reqwest::{Client, Response, StatusCode};
use safelmm_model::Checkpoint;
use safelmm_server::config::{PolicyConfig, ServerConfig};
use safelmm_server::{App, Config, Stop, demo, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The longest a test waits for anything; much shorter than [`TestApp::endless`] takes.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// What a test changes before the server starts.
#[derive(Default)]
pub struct Setup {
    config: Config,
    checkpoint: Option<Arc<Checkpoint>>,
}

impl Setup {
    pub fn queue(mut self, requests: usize) -> Self {
        self.config.server.queue = requests;
        self
    }

    pub fn max_batch(mut self, sequences: usize) -> Self {
        self.config.server.max_batch = sequences;
        self
    }

    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.config.server.request_timeout = limit;
        self
    }

    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.config.server.shutdown_grace = grace;
        self
    }

    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.config.server.max_body_bytes = bytes;
        self
    }

    pub fn embeddings(mut self, folder: &Path) -> Self {
        self.config.embeddings.folder = Some(folder.to_owned());
        self
    }

    pub fn name(mut self, name: &str) -> Self {
        self.config.model.name = Some(name.to_owned());
        self
    }

    pub fn rating_ceiling(mut self, ceiling: safelmm_model::Rating) -> Self {
        self.config.model.rating_ceiling = Some(ceiling);
        self
    }

    /// Changes any setting of `[server]`.
    pub fn server(mut self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        change(&mut self.config.server);
        self
    }

    pub fn stores(mut self, folder: &Path) -> Self {
        self.config.stores.folder = Some(folder.to_owned());
        self
    }

    pub fn training_index(mut self, folder: &Path) -> Self {
        self.config.stores.training_index = Some(folder.to_owned());
        self
    }

    pub fn keys(mut self, file: &Path) -> Self {
        self.config.keys.file = Some(file.to_owned());
        self
    }

    pub fn control_tokens(mut self, verdict: safelmm_plugins::Verdict) -> Self {
        self.config.policy.control_tokens = verdict;
        self
    }

    /// What holds for one key, by its id or its name.
    pub fn control_tokens_of(mut self, key: &str, verdict: safelmm_plugins::Verdict) -> Self {
        self.config.policy.keys.entry(key.to_owned()).or_default().control_tokens = Some(verdict);
        self
    }

    /// Changes any setting of `[policy]`.
    pub fn policy(mut self, change: impl FnOnce(&mut PolicyConfig)) -> Self {
        change(&mut self.config.policy);
        self
    }

    pub fn checkpoint(mut self, folder: &Path) -> Self {
        self.checkpoint = Some(Arc::new(Checkpoint::open(folder).unwrap()));
        self
    }

    pub async fn start(self) -> TestApp {
        let checkpoint = self.checkpoint.unwrap_or_else(demo_checkpoint);
        let app = App::start(checkpoint, &self.config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(Stop::No);
        let serving = tokio::spawn(serve(app.clone(), listener, stopped));
        TestApp { app, base, client: Client::new(), stop, serving }
    }
}

/// A running server and a client for it.
pub struct TestApp {
    pub app: App,
    pub base: String,
    pub client: Client,
    stop: watch::Sender<Stop>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl TestApp {
    /// A server with the default configuration.
    pub async fn start() -> TestApp {
        Setup::default().start().await
    }

    pub fn with() -> Setup {
        Setup::default()
    }

    pub fn model(&self) -> &str {
        self.app.model_name()
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.client.post(format!("{}{path}", self.base)).json(&body).send().await.unwrap()
    }

    /// Posts what must succeed, and returns the answer.
    pub async fn ok(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The text of the first choice of a completion.
    pub async fn text(&self, body: Value) -> String {
        let answer = self.ok("/v1/completions", body).await;
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    }

    /// A streamed request that keeps one place of the batch busy until it is dropped; returns after its first bytes.
    pub async fn occupy(&self) -> Occupied {
        let mut body = self.endless();
        body["stream"] = json!(true);
        let response = self.post("/v1/completions", body).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut bytes = response.bytes_stream().boxed();
        bytes.next().await.unwrap().unwrap();
        Occupied(Box::new(bytes))
    }

    /// A request of as many and as long sequences as can be asked for: minutes of work.
    pub fn endless(&self) -> Value {
        let room = self.app.checkpoint().context_length() - 50;
        json!({"prompt": vec!["The"; 16], "n": 16, "max_tokens": room, "ignore_eos": true})
    }

    /// Waits until the engine has this many running sequences and waiting requests.
    pub async fn until_engine_has(&self, running: usize, waiting: usize) {
        let engine = self.app.engine();
        until(|| engine.running() == running && engine.waiting() == waiting).await;
    }

    pub fn ask_to_stop(&self, how: Stop) {
        self.stop.send_replace(how);
    }

    /// Waits until the server has ended.
    pub async fn stopped(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the server did not end").unwrap().unwrap();
    }
}

/// A request in progress; dropping it is how its client leaves.
pub struct Occupied(#[allow(dead_code)] Box<dyn Send>);

/// Waits for a condition.
pub async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the condition did not come true");
}

fn demo_checkpoint() -> Arc<Checkpoint> {
    static DEMO: OnceLock<Arc<Checkpoint>> = OnceLock::new();
    Arc::clone(DEMO.get_or_init(|| Arc::new(demo::open().unwrap())))
}

/// The demo's files in a new folder, without those that make it a rated model with a chat template and a provenance.
pub fn bare_checkpoint(into: &Path) {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint");
    for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(demo.join(name), into.join(name)).unwrap();
    }
    let text = fs::read_to_string(demo.join("tokenizer_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config.as_object_mut().unwrap().remove("chat_template");
    fs::write(into.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The data of the events of a stream, and the check that the stream is made of nothing else.
pub fn events(stream: &str) -> Vec<&str> {
    let frames = stream.strip_suffix("\n\n").expect("a stream ends with an empty line").split("\n\n");
    frames
        .filter(|frame| !frame.starts_with(':'))
        .map(|frame| {
            let data = frame.strip_prefix("data: ").unwrap_or_else(|| panic!("not a data frame: {frame}"));
            assert!(!data.contains('\n'), "{data}");
            data
        })
        .collect()
}
