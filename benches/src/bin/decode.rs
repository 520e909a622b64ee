//! Decoding speed on the embedded demo, beside the `transformers` library on the same checkpoint in the same run.
//!
//! `cargo run --release -p safelmm-benches --bin decode -- --python PATH`, with a Python that has torch and transformers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use safelmm_benches::median;
use safelmm_model::device::DeviceName;
use safelmm_model::{Checkpoint, Generation, GenerationRequest, Rating, SamplingParams, Work, step};

// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// A Python with torch and transformers; without one, our own figures alone are printed
    #[arg(long)]
    python: Option<PathBuf>,
    /// cpu, cuda, cuda:N or metal; on a GPU the folder `demo/checkpoint` is opened
    #[arg(long, default_value_t)]
    device: DeviceName,
    /// Tokens of each sequence
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Measurements of each; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let checkpoint = match args.device {
        DeviceName::Cpu => safelmm_server::demo::open()?,
        device => Checkpoint::open_on(&demo(), &device.open()?)?,
    };
    let threads = candle_core::utils::get_num_threads();
    println!("{} tokens a sequence, {}, {threads} threads, median of {}", args.tokens, args.device, args.rounds);
    println!("{:>5} {:>14} {:>20} {:>7}", "batch", "ours, tokens/s", "transformers f32", "ratio");
    for batch in [1, 4, 8] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        decode(&checkpoint, batch, args.tokens)?; // warm-up
        for _ in 0..args.rounds {
            ours.push(decode(&checkpoint, batch, args.tokens)?);
            if let Some(python) = &args.python {
                theirs.push(transformers(python, batch, args.tokens, threads)?);
            }
        }
        let ours = median(ours);
        match median(theirs) {
            0.0 => println!("{batch:>5} {ours:>14.0} {:>20} {:>7}", "-", "-"),
            theirs => println!("{batch:>5} {ours:>14.0} {theirs:>20.0} {:>7.2}", ours / theirs),
        }
    }
    Ok(())
}

/// The folder that is embedded as the demo.
fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint")
}

/// Tokens per second over all sequences of a batch.
fn decode(checkpoint: &Checkpoint, batch: usize, tokens: usize) -> Result<f64> {
    let mut running = (0..batch)
        .map(|_| {
            let request = GenerationRequest {
                rating: Some(Rating::G),
                sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                ignore_eos: true,
                ..GenerationRequest::new(checkpoint.tokenizer.encode("Once upon a time", false)?, tokens)
            };
            Ok(Generation::new(checkpoint, request)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    while running.iter().any(|g| !g.is_finished()) {
        let mut all: Vec<Work<'_>> =
            running.iter_mut().map(|generation| Work { generation, tokens: usize::MAX }).collect();
        step(checkpoint, &mut all)?;
    }
    Ok((batch * tokens) as f64 / started.elapsed().as_secs_f64())
}

fn transformers(python: &Path, batch: usize, tokens: usize, threads: usize) -> Result<f64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(root.join("peers/transformers_decode.py"))
        .arg(demo())
        .args([batch, tokens, threads].map(|n| n.to_string()))
        .output()
        .with_context(|| format!("{} cannot be run", python.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?.trim().parse().context("the peer printed no number")
}
