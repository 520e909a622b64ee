//! What the bundled policies add to an answer: the delay of a token on a stream beside the same stream without policies, in
//! the same rounds, and what a call of each hook costs.
//!
//! `cargo run --release -p safelmm-benches --bin policy_overhead`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use clap::Parser;
use safelmm_benches::http::{Answer, Endpoint};
use safelmm_benches::median;
use safelmm_plugins::bundled::{Bundled, all};
use safelmm_plugins::host::{Observer, Reported, Sandbox, SandboxLimits, WasmPolicy, WasmSettings};
use safelmm_plugins::{Answer as Judged, Document, Hook, Passage, Pipeline, Policy, RequestContext, Selection};
use safelmm_server::config::{Grant, PluginConfig, Source};
use safelmm_server::policies::ModelVocabulary;
use safelmm_server::{App, Config, Stop, demo, serve};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROMPT: &str = "Once upon a time";
const SENTENCE: &str = "The committee met on Monday to talk about the new library and its opening hours. ";

/// Measures the delay that policies add to each token of a stream of the embedded demo, as a share of the time of a token,
/// and the cost of a call of each hook: 1 KiB at a time, streams in pieces of four characters.
#[derive(Parser)]
struct Args {
    /// Bundled policies; may be given several times [default: all of them]
    #[arg(long = "plugin", value_name = "NAME")]
    plugins: Vec<String>,
    /// Tokens of an answer
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Rounds, of an answer with and one without policies; the median of their differences counts
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Calls of each hook
    #[arg(long, default_value_t = 300)]
    calls: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let chosen = |bundled: &Bundled| args.plugins.is_empty() || args.plugins.iter().any(|name| name == bundled.name);
    let bundled: Vec<Bundled> = all().into_iter().filter(chosen).collect();
    ensure!(!bundled.is_empty(), "no such bundled policy: `safelmm plugin list` names them");
    streams(&args, &bundled).await?;
    println!("\n{:<22} {:<16} {:>10} {:>12}", "policy", "hook", "µs (p50)", "fuel (p50)");
    let sandbox = Sandbox::new(SandboxLimits { instances: 16, ..SandboxLimits::default() }, None)?;
    let vocabulary = Arc::new(ModelVocabulary::new(Arc::new(demo::open()?)));
    for bundled in bundled {
        let calls = Arc::new(Calls::default());
        let settings = WasmSettings {
            observer: Some(calls.clone()),
            vocabulary: Some(vocabulary.clone()),
            ..WasmSettings::new(bundled.name, "bundled")
        };
        let policy = WasmPolicy::load(&sandbox, bundled.bytes, settings)?;
        for _ in 0..args.calls {
            ask(&policy);
        }
        calls.print(bundled.name);
    }
    Ok(())
}

/// The same answers with and without policies, in turns.
async fn streams(args: &Args, bundled: &[Bundled]) -> Result<()> {
    let mut config = Config::default();
    config.policy.plugins = bundled
        .iter()
        .map(|bundled| PluginConfig {
            grants: vec![Grant::Vocabulary],
            ..PluginConfig::new(bundled.name, Source::Bundled(bundled.name.to_owned()))
        })
        .collect();
    let (plain, judged) = (Server::start(&Config::default()).await?, Server::start(&config).await?);
    let mut times: [Vec<f64>; 2] = Default::default();
    for round in 0..args.rounds + 2 {
        for (server, times) in [&plain, &judged].into_iter().zip(&mut times) {
            let took = server.endpoint.ask(PROMPT, args.tokens, Answer::Streamed).await?;
            // The first rounds warm up.
            if round >= 2 {
                times.push(took.as_secs_f64() * 1e6 / args.tokens as f64);
            }
        }
    }
    // Of each round by itself: what the machine does besides changes slowly, and weighs on both alike.
    let mut differences: Vec<f64> = times[0].iter().zip(&times[1]).map(|(plain, judged)| judged - plain).collect();
    differences.sort_by(f64::total_cmp);
    // The order statistics around the median that hold it with a probability of 95 %.
    let spread = 0.98 * (differences.len() as f64).sqrt();
    let at = |place: f64| differences[(place.max(0.0) as usize).min(differences.len() - 1)];
    let middle = differences.len() as f64 / 2.0;
    let (low, high) = (at((middle - spread).floor()), at((middle + spread).ceil()));
    let added = median(differences);
    let [plain_us, judged_us] = times.map(median);
    let names: Vec<&str> = bundled.iter().map(|bundled| bundled.name).collect();
    println!("streams of {} tokens, with and without {}:", args.tokens, names.join(", "));
    println!("a token without policies {plain_us:>9.1} µs");
    println!("a token with policies    {judged_us:>9.1} µs");
    let share = |us: f64| us / plain_us * 100.0;
    println!(
        "added                    {added:>9.1} µs, {:.2} % of a token (95 %: {:.2} to {:.2})",
        share(added),
        share(low),
        share(high)
    );
    plain.stop().await?;
    judged.stop().await
}

struct Server {
    endpoint: Endpoint,
    stop: watch::Sender<Stop>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(config: &Config) -> Result<Server> {
        let app = App::start(Arc::new(demo::open()?), config)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = Endpoint::new(&format!("http://{}", listener.local_addr()?), &[("ignore_eos", json!(true))]);
        let (stop, stopped) = watch::channel(Stop::No);
        let serving = tokio::spawn(serve(app, listener, stopped));
        Ok(Server { endpoint, stop, serving })
    }

    async fn stop(self) -> Result<()> {
        self.stop.send_replace(Stop::Now);
        Ok(self.serving.await??)
    }
}

/// One call of each hook of a policy; a stream in pieces of four characters.
fn ask(policy: &WasmPolicy) {
    let text: String = SENTENCE.chars().cycle().take(1024).collect();
    let request = RequestContext {
        id: "1".into(),
        model: "demo".into(),
        caller: None,
        rating: None,
        declared_use: None,
        route: "/v1/completions",
        language: None,
    };
    let hooks = policy.hooks();
    if hooks.has(Hook::ScreenPrompt) {
        policy.screen_prompt(&request, &text);
    }
    if hooks.has(Hook::FilterPassages) {
        policy.filter_passages(&request, &[Passage { source: document(), score: 1.0, text: text.clone() }]);
    }
    if hooks.has(Hook::ReviewResponse) {
        policy.review_response(&request, &text, &[document()]);
    }
    if hooks.in_sessions() {
        let pipeline = Pipeline::new(vec![Arc::new(policy.clone())], Vec::new(), Selection::default());
        let answer = Judged::new(pipeline.scope(request), PROMPT);
        let mut logits: Vec<f32> = (0_u16..8192).map(|id| -f32::from(id) / 64.0).collect();
        let _ = answer.adjust(None, &mut logits);
        let mut guard = answer.stream();
        for piece in text.as_bytes().chunks(4).take(64) {
            guard.push(&String::from_utf8_lossy(piece));
        }
        guard.finish("", &[document()]);
    }
}

fn document() -> Document {
    let of = |text: &str| text.to_owned();
    Document {
        id: of("d"),
        store: of("s"),
        title: of("Title"),
        author: of("Author"),
        license: of("CC-BY-4.0"),
        url: of("about:blank"),
        language: None,
        rating: None,
        obligations: Vec::new(),
    }
}

/// Microseconds and fuel of calls, by hook.
#[derive(Default)]
struct Calls(Mutex<BTreeMap<Hook, Vec<(f64, f64)>>>);

impl Observer for Calls {
    fn called(&self, call: &Reported<'_>) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(call.hook).or_default().push((call.took.as_secs_f64() * 1e6, call.fuel as f64));
    }
}

impl Calls {
    fn print(&self, policy: &str) {
        for (hook, calls) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (times, fuel): (Vec<f64>, Vec<f64>) = calls.iter().copied().unzip();
            println!("{policy:<22} {:<16} {:>10.1} {:>12.0}", hook.as_str(), median(times), median(fuel));
        }
    }
}
