//! What the server adds to the model: requests per second of a model that costs next to nothing, and the time of a request
//! over HTTP beside the same generation given to the engine directly, in the same process.
//!
//! `cargo run --release -p safelmm-benches --bin overhead`

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use safelmm_benches::http::{Answer, Endpoint};
use safelmm_benches::random_checkpoint::Shape;
use safelmm_benches::{median, percentile};
use safelmm_model::{Checkpoint, Generation, GenerationRequest, SamplingParams};
use safelmm_server::engine::{CacheDomain, Event, Sequence};
use safelmm_server::{App, Config, Stop, serve};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: Shape = Shape { hidden: 64, layers: 2, heads: 4, kv_heads: 2, intermediate: 128, vocab: 1000 };
const PROMPT: &str = "Once upon a time";
/// The cost of the HTTP layer that is aimed at, in milliseconds.
const AIM: f64 = 1.0;

/// Measures the server around a random model of two layers: requests per second with many clients, and what HTTP adds to
/// a generation. Server and clients run in one process and share its processors.
#[derive(Parser)]
struct Args {
    /// Clients at once
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds of each measurement of requests per second
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Requests of the comparison of HTTP and engine
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Measurements of requests per second; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    SHAPE.write(folder.path(), 1)?;
    let mut config = Config::default();
    config.server.max_batch = args.clients;
    config.server.queue = args.clients;
    let app = App::start(Arc::new(Checkpoint::open(folder.path())?), &config)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = watch::channel(Stop::No);
    let serving = tokio::spawn(serve(app.clone(), listener, stopped));
    let endpoint = Endpoint::new(&base, &[("ignore_eos", json!(true))]);

    for tokens in [1, 16] {
        let mut rates = Vec::new();
        for _ in 0..args.rounds {
            rates.push(rate(&endpoint, tokens, &args).await?);
        }
        println!("{} clients, streamed answers of {tokens:>2} tokens: {:>7.0} requests/s", args.clients, median(rates));
    }

    println!(
        "\n{:>6} {:>24} {:>24} {:>24}",
        "tokens", "engine, ms (p50, p99)", "whole over HTTP", "streamed over HTTP"
    );
    for tokens in [1, 16] {
        let [mut direct, mut whole, mut streamed] = [const { Vec::new() }; 3];
        for _ in 0..args.requests {
            direct.push(milliseconds(straight(&app, tokens).await?));
            whole.push(milliseconds(endpoint.ask(PROMPT, tokens, Answer::Whole).await?));
            streamed.push(milliseconds(endpoint.ask(PROMPT, tokens, Answer::Streamed).await?));
        }
        let engine = median(direct.clone());
        let adds = [&whole, &streamed].map(|times| format!("adds {:.3} ms", median(times.clone()) - engine));
        let pair = |times: Vec<f64>| format!("{:.3}, {:.3}", median(times.clone()), percentile(times, 0.99));
        println!("{tokens:>6} {:>24} {:>24} {:>24}", pair(direct), pair(whole), pair(streamed));
        println!("{:>6} {:>24} {:>24} {:>24}", "", format!("aim: < {AIM} ms"), adds[0], adds[1]);
    }
    stop.send_replace(Stop::Now);
    serving.await??;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Requests per second of clients that each ask again as soon as they are answered.
async fn rate(endpoint: &Endpoint, tokens: usize, args: &Args) -> Result<f64> {
    let (started, seconds) = (Instant::now(), Duration::from_secs(args.seconds));
    let clients = (0..args.clients).map(|_| async {
        let mut answered = 0;
        while started.elapsed() < seconds {
            endpoint.ask(PROMPT, tokens, Answer::Streamed).await?;
            answered += 1;
        }
        anyhow::Ok(answered)
    });
    let answered: usize = futures::future::try_join_all(clients).await?.into_iter().sum();
    Ok(answered as f64 / started.elapsed().as_secs_f64())
}

/// The time of a generation that is given to the engine directly: what the others ask for over HTTP.
async fn straight(app: &App, tokens: usize) -> Result<Duration> {
    let started = Instant::now();
    let checkpoint = app.checkpoint();
    let request = GenerationRequest {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        ignore_eos: true,
        ..GenerationRequest::new(checkpoint.tokenizer.encode(PROMPT, true)?, tokens)
    };
    let sequence = Sequence::new(Generation::new(checkpoint, request)?, &CacheDomain::new(["bench"]));
    let all = sequence.tokens();
    let mut ticket = app.engine().submit(vec![sequence], all)?;
    loop {
        let event = timeout(Duration::from_secs(60), ticket.next()).await??;
        if matches!(event, Event::Progress { progress, .. } if progress.finish.is_some()) {
            return Ok(started.elapsed());
        }
    }
}
