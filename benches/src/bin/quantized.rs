//! Decoding with weights of 8 and 4 bits: tokens per second on random weights, beside llama.cpp at the same bits in the same
//! rounds, and the perplexity that it costs.
//!
//! `cargo run --release -p safelmm-benches --bin quantized -- --work DIR --llama PYTHON [--text FILE]`, with a Python that
//! has llama-cpp-python and gguf.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use safelmm_benches::median;
use safelmm_benches::process::{Script, peers};
use safelmm_benches::random_checkpoint::{SMALL, Shape, TINY_LLAMA};
use safelmm_model::{Checkpoint, Generation, GenerationRequest, Opening, Quantize, SamplingParams, Work, step};

// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tokens of a prompt that is answered.
const SHORT: usize = 16;
/// Tokens of a prompt whose reading is measured.
const LONG: usize = 512;

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// 110 million parameters
    Small,
    /// 1.1 billion parameters, the shape of TinyLlama
    TinyLlama,
}

#[derive(Parser)]
struct Args {
    /// Where the random checkpoints are kept
    #[arg(long)]
    work: PathBuf,
    /// The shape of the random checkpoint
    #[arg(long, value_enum, default_value = "small")]
    size: Size,
    /// A Python with llama-cpp-python and gguf; without one, our own figures alone are printed
    #[arg(long)]
    llama: Option<PathBuf>,
    /// Text that the demo did not see: its perplexity in f32, 8 and 4 bits is printed too
    #[arg(long)]
    text: Option<PathBuf>,
    /// Tokens of each answer
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Measurements of each; medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(text) = &args.text {
        perplexities(&fs::read_to_string(text).with_context(|| format!("{} cannot be read", text.display()))?)?;
    }
    let (name, shape) = match args.size {
        Size::Small => ("small", SMALL),
        Size::TinyLlama => ("tiny-llama", TINY_LLAMA),
    };
    let folder = checkpoint(&args.work.join(name), shape)?;
    println!(
        "{} M parameters, answers of {} tokens, medians of {}",
        shape.parameters() / 1_000_000,
        args.tokens,
        args.rounds
    );
    for (quantize, formats) in [(Quantize::Q8, &["Q8_0"][..]), (Quantize::Q4, &["Q4_0", "Q4_K_S"])] {
        let started = Instant::now();
        let checkpoint = Checkpoint::open_with(&folder, Opening { quantize, ..Opening::default() })?;
        let bytes = checkpoint.decoder.matrix_bytes();
        println!("\n{quantize}: {} MB, opened in {:.1} s", bytes / 1_000_000, started.elapsed().as_secs_f64());
        compare(&args, &folder, &checkpoint, formats)?;
    }
    Ok(())
}

/// The rows of one precision: ours, and each peer's with the ratio.
fn compare(args: &Args, folder: &Path, checkpoint: &Checkpoint, formats: &[&str]) -> Result<()> {
    let threads = std::thread::available_parallelism()?.get().to_string();
    let mut peers = Vec::new();
    if let Some(python) = &args.llama {
        let gguf = gguf(python, folder)?;
        for format in formats {
            let arguments = [gguf.as_os_str(), format.as_ref(), threads.as_ref()];
            peers.push((*format, Script::start(python, "llama_decode.py", &arguments)?));
        }
    }
    for (what, sequences, prompt, tokens) in
        [("alone", 1, SHORT, args.tokens), ("eight", 8, SHORT, args.tokens), ("prompt", 1, LONG, 0)]
    {
        let rate = |seconds: f64| (sequences * if tokens == 0 { prompt } else { tokens }) as f64 / seconds;
        let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); peers.len()]);
        run(checkpoint, sequences, SHORT, 2)?; // warm-up
        for _ in 0..args.rounds {
            ours.push(rate(run(checkpoint, sequences, prompt, tokens)?));
            for ((_, script), theirs) in peers.iter_mut().zip(&mut theirs) {
                theirs.push(rate(script.ask(&format!("{sequences} {prompt} {tokens}"))?));
            }
        }
        print!("{what:>8}: {:>8.1} tokens/s", median(ours.clone()));
        for ((format, _), theirs) in peers.iter().zip(theirs) {
            // Ratios within a round: a machine is not as fast at all times.
            let ratio = median(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect());
            print!("; {format} {:.1}, ratio {ratio:.2}", median(theirs));
        }
        println!();
    }
    Ok(())
}

/// Seconds for the prompts and the answers together; with no token to answer, for the prompts and one.
fn run(checkpoint: &Checkpoint, sequences: usize, prompt: usize, tokens: usize) -> Result<f64> {
    let mut running = (0..sequences)
        .map(|sequence| {
            let request = GenerationRequest {
                sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
                ignore_eos: true,
                ..GenerationRequest::new(
                    (0..prompt).map(|i| ((i * 31 + sequence * 7) % 256) as u32).collect(),
                    tokens.max(1),
                )
            };
            Ok(Generation::new(checkpoint, request)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    while running.iter().any(|generation| !generation.is_finished()) {
        let mut all: Vec<Work<'_>> =
            running.iter_mut().map(|generation| Work { generation, tokens: usize::MAX }).collect();
        step(checkpoint, &mut all)?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Perplexity of a text by the demo, in windows of its context.
fn perplexities(text: &str) -> Result<()> {
    let mut exact = None;
    for quantize in Quantize::ALL {
        let checkpoint = safelmm_server::demo::open_quantized(quantize)?;
        let start = checkpoint.neutral_start().context("the demo has no token that begins a text")?;
        let tokens = checkpoint.tokenizer.encode(text, false)?;
        ensure!(!tokens.is_empty(), "the text is empty");
        let mut nats = 0.0;
        for window in tokens.chunks(checkpoint.context_length() - 1) {
            let input = [&[start][..], &window[..window.len() - 1]].concat();
            let hidden = checkpoint.decoder.forward(&[&input])?;
            nats -= checkpoint.decoder.token_log_probs(&hidden, window)?.into_iter().map(f64::from).sum::<f64>();
        }
        let perplexity = (nats / tokens.len() as f64).exp();
        let exact = *exact.get_or_insert(perplexity);
        println!("perplexity, {quantize:>4}: {perplexity:.3} ({:+.2} %)", (perplexity / exact - 1.0) * 100.0);
    }
    Ok(())
}

/// The folder of the random checkpoint, made if it is not there.
fn checkpoint(folder: &Path, shape: Shape) -> Result<PathBuf> {
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        shape.write(&unfinished, 1)?;
        fs::rename(&unfinished, folder)?;
    }
    Ok(folder.to_owned())
}

/// The checkpoint as a GGUF file in f16, made if it is not there.
fn gguf(python: &Path, folder: &Path) -> Result<PathBuf> {
    let gguf = folder.join("model-f16.gguf");
    if !gguf.exists() {
        let unfinished = gguf.with_extension("unfinished");
        let status = Command::new(python).arg(peers().join("write_gguf.py")).arg(folder).arg(&unfinished).status();
        ensure!(status.context("the Python of --llama cannot be run")?.success(), "the GGUF file was not written");
        fs::rename(&unfinished, &gguf)?;
    }
    Ok(gguf)
}
