//! Serving a model of TinyLlama's shape over HTTP, beside llama-cpp-python's server and `transformers` on the same random
//! weights in the same run.
//!
//! `cargo run --release -p safelmm-benches --bin serving -- --work DIR --llama PYTHON --transformers PYTHON`

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use safelmm_benches::http::{Answer, Endpoint};
use safelmm_benches::median;
use safelmm_benches::process::{Script, Server, build_safelmm, free_port, peers};
use safelmm_benches::random_checkpoint::{CONTEXT, Shape, TINY_LLAMA};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Prompts of the measurements of speed and of the first token, in tokens.
const SHORT: usize = 16;
const LONG: usize = 512;
/// Tokens of the answer that warms a server up.
const WARM_UP: usize = 2;
/// The token that ends a text.
const END_OF_TEXT: &str = "256";

/// Measures `safelmm serve` on random weights of TinyLlama's shape: tokens per second alone and with several streaming
/// clients, and the time to the first token of a prompt of 512, beside llama-cpp-python's server (f16, the same weights)
/// and transformers (f32, in its own process, no HTTP). All are measured in turns, and medians are compared. The full size
/// needs about 12 GB of memory with both peers and takes some minutes a round; each measurement is printed as it comes.
#[derive(Parser)]
struct Args {
    /// Where the checkpoint is made (2.2 GB in bf16, and as much again for llama.cpp); what is there already is used
    #[arg(long)]
    work: PathBuf,
    /// The binary `safelmm`; without it, the one of these sources is built
    #[arg(long)]
    safelmm: Option<PathBuf>,
    /// A Python with llama-cpp-python[server] and gguf
    #[arg(long)]
    llama: Option<PathBuf>,
    /// A Python with torch and transformers
    #[arg(long)]
    transformers: Option<PathBuf>,
    /// Layers; fewer than 22 for quick runs
    #[arg(long, default_value_t = TINY_LLAMA.layers)]
    layers: usize,
    /// Tokens of each answer
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Clients at once
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Measurements of each; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seed of the weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is measured of each: tokens per second alone and together, milliseconds to the first token.
#[derive(Default)]
struct Measured {
    alone: Vec<f64>,
    together: Vec<f64>,
    first: Vec<f64>,
}

enum Peer {
    /// The server is here to be ended with the rest.
    Http {
        _server: Server,
        endpoint: Endpoint,
    },
    InProcess(Script),
}

#[tokio::main]
async fn main() -> Result<()> {
    // A task of its own, so that whoever stops the measuring ends the servers too.
    let measuring = tokio::spawn(measure(Args::parse()));
    tokio::select! {
        done = measuring => done?,
        stopped = asked_to_stop() => stopped.and_then(|()| bail!("stopped before the end: there is no median")),
    }
}

/// Returns at Ctrl-C, or when the program is asked to terminate.
async fn asked_to_stop() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => Ok(pressed?),
        _ = terminated.recv() => Ok(()),
    }
}

async fn measure(args: Args) -> Result<()> {
    let threads = std::thread::available_parallelism()?.get();
    let shape = Shape { layers: args.layers, ..TINY_LLAMA };
    let folder = checkpoint(&args, shape)?;
    let mut peers = vec![("safelmm", safelmm(&args, &folder).await?)];
    if let Some(python) = &args.llama {
        peers.push(("llama-cpp-python, f16", llama(python, &folder, threads).await?));
    }
    if let Some(python) = &args.transformers {
        let arguments = [folder.as_os_str(), threads.to_string().as_ref()].map(ToOwned::to_owned);
        let script = Script::start(python, "transformers_serving.py", &arguments.each_ref().map(|a| a.as_os_str()))?;
        peers.push(("transformers, f32", Peer::InProcess(script)));
    }
    let mut measured: Vec<Measured> = peers.iter().map(|_| Measured::default()).collect();
    let mut prompts = Prompts(0);
    for (_, peer) in &mut peers {
        // Whatever is loaded at its first use.
        speed(peer, &mut prompts, 1, WARM_UP).await?;
    }
    for round in 1..=args.rounds {
        for ((name, peer), measured) in peers.iter_mut().zip(&mut measured) {
            let alone = speed(peer, &mut prompts, 1, args.tokens).await?;
            let together = speed(peer, &mut prompts, args.clients, args.tokens).await?;
            let first = first_token(peer, &mut prompts).await?;
            // The table comes at the end, and that may be far.
            eprintln!("round {round}: {name}: {alone:.2} and {together:.2} tokens/s, first token {first:.0} ms");
            measured.alone.push(alone);
            measured.together.push(together);
            measured.first.push(first);
        }
    }
    let (parameters, rounds) = (shape.parameters() / 1_000_000, args.rounds);
    println!("{parameters} M parameters in {} layers, {threads} threads, medians of {rounds}", shape.layers);
    println!("answers of {} tokens to prompts of {SHORT}; first token of prompts of {LONG}\n", args.tokens);
    print(&peers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &measured, args.clients);
    Ok(())
}

fn print(names: &[&str], measured: &[Measured], clients: usize) {
    let line = |name: &str, columns: [&dyn Display; 4]| {
        let [alone, together, gain, first] = columns.map(ToString::to_string);
        println!("{name:<22} {alone:>15} {together:>21} {gain:>8} {first:>16}");
    };
    line("", [&"alone, tokens/s", &format!("{clients} clients, tokens/s"), &"gain", &"first token, ms"]);
    // Ratios within a round, which lie minutes apart at most: a machine is not as fast at all times.
    let ratio = |a: &Vec<f64>, b: &Vec<f64>| median(a.iter().zip(b).map(|(a, b)| a / b).collect());
    for (name, Measured { alone, together, first }) in names.iter().zip(measured) {
        let gain = format!("{:.2}", ratio(together, alone));
        let [alone, together, first] = [alone, together, first].map(|figures| median(figures.clone()));
        line(name, [&format!("{alone:.1}"), &format!("{together:.1}"), &gain, &format!("{first:.0}")]);
    }
    let Some((ours, peers)) = measured.split_first() else { return };
    for (name, theirs) in names.iter().skip(1).zip(peers) {
        let figures = [
            ratio(&ours.alone, &theirs.alone),
            ratio(&ours.together, &theirs.together),
            ratio(&theirs.first, &ours.first),
        ]
        .map(|r| format!("{r:.2}"));
        line(
            &format!("ours / {}", name.split(',').next().unwrap_or_default()),
            [&figures[0], &figures[1], &"", &figures[2]],
        );
    }
    println!("\nGains and ratios are medians over the rounds. Ratios above 1 are in our favour.");
    println!(
        "llama-cpp-python's server works on one request at a time, and its clients queue (--interrupt_requests false;"
    );
    println!("by default it cuts an answer short when another request comes).");
    println!("transformers generates in its own process, all sequences as one batch.");
}

/// The folder of the random checkpoint, made if it is not there.
fn checkpoint(args: &Args, shape: Shape) -> Result<PathBuf> {
    let folder = args.work.join(format!("layers-{}-seed-{}", args.layers, args.seed));
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        shape.write(&unfinished, args.seed)?;
        fs::rename(&unfinished, &folder)?;
    }
    Ok(folder)
}

async fn safelmm(args: &Args, folder: &Path) -> Result<Peer> {
    let port = free_port()?;
    let binary = args.safelmm.clone().map_or_else(build_safelmm, Ok)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg("--model").arg(folder).args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(["--max-batch", &args.clients.to_string()]);
    let server = Server::start(&mut command, port).await?;
    let endpoint = Endpoint::new(&server.base, &[("ignore_eos", json!(true))]);
    Ok(Peer::Http { _server: server, endpoint })
}

async fn llama(python: &Path, folder: &Path, threads: usize) -> Result<Peer> {
    let gguf = folder.join("model-f16.gguf");
    if !gguf.exists() {
        let unfinished = gguf.with_extension("unfinished");
        let script = peers().join("write_gguf.py");
        let status = Command::new(python).arg(script).arg(folder).arg(&unfinished).status();
        ensure!(status.context("the Python of --llama cannot be run")?.success(), "the GGUF file was not written");
        fs::rename(&unfinished, &gguf)?;
    }
    let port = free_port()?;
    let mut command = Command::new(python);
    command.args(["-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--n_ctx", &CONTEXT.to_string(), "--n_threads", &threads.to_string()]);
    // By its default, a request cuts the answer of the one before short.
    command.args(["--interrupt_requests", "false"]);
    command.args(["--n_threads_batch", &threads.to_string(), "--model"]).arg(&gguf);
    let server = Server::start(&mut command, port).await?;
    let endpoint = Endpoint::new(&server.base, &[("logit_bias", json!({END_OF_TEXT: -100}))]);
    Ok(Peer::Http { _server: server, endpoint })
}

/// Tokens per second over all sequences, from the requests to the last token.
async fn speed(peer: &mut Peer, prompts: &mut Prompts, sequences: usize, tokens: usize) -> Result<f64> {
    let seconds = match peer {
        Peer::Http { endpoint, .. } => {
            let prompts: Vec<String> = (0..sequences).map(|_| prompts.of(SHORT)).collect();
            endpoint.ask_together(&prompts, tokens).await?.as_secs_f64()
        }
        Peer::InProcess(script) => script.ask(&format!("{sequences} {SHORT} {tokens}"))?,
    };
    Ok((sequences * tokens) as f64 / seconds)
}

/// Milliseconds to the first token: the time of an answer of one.
async fn first_token(peer: &mut Peer, prompts: &mut Prompts) -> Result<f64> {
    let seconds = match peer {
        Peer::Http { endpoint, .. } => endpoint.ask(&prompts.of(LONG), 1, Answer::Streamed).await?.as_secs_f64(),
        Peer::InProcess(script) => script.ask(&format!("1 {LONG} 1"))?,
    };
    Ok(seconds * 1000.0)
}

/// Prompts of which no two have the same first four tokens, so that nothing that a server remembers helps. A character is
/// a token.
struct Prompts(usize);

impl Prompts {
    fn of(&mut self, tokens: usize) -> String {
        self.0 += 1;
        let number: String = format!("{:04}", self.0).chars().rev().collect();
        let text = number + &" the rain fell on the harbour and nobody spoke".repeat(tokens / 40 + 1);
        text[..tokens].to_owned()
    }
}
