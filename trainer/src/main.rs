//! `safelmm-train`: data preparation, pretraining, evaluation and export.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use safelmm_model::Checkpoint;
use safelmm_trainer::config::RunConfig;
use safelmm_trainer::data::{self, Sources};
use safelmm_trainer::dataset::Dataset;
use safelmm_trainer::evaluate::{Evaluation, measure_bits, measure_control};
use safelmm_trainer::export::export;
use safelmm_trainer::pretrain::{Outcome, pretrain};
use safelmm_trainer::rating::rate;
use safelmm_trainer::report::Report;

// Keeps freed memory: a training step allocates the same large buffers again and again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a run that Ctrl-C ended, so that a script does not take it for a finished one.
const INTERRUPTED: i32 = 130;

#[derive(Parser)]
#[command(name = "safelmm-train", version, about = "Trains SafeLMM checkpoints from licensed documents.")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Filter, rate and tokenise documents, and learn the tokenizer.
    Data {
        /// The run's configuration.
        #[arg(long)]
        config: PathBuf,
        /// The folder that holds the source files named in the configuration.
        #[arg(long)]
        corpora: PathBuf,
        /// A checkpoint folder whose tokenizer is taken instead of learning one, so that ids agree with its.
        #[arg(long)]
        tokenizer: Option<PathBuf>,
        /// Where the prepared data goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Train from scratch or from the weights of a checkpoint, or go on with an interrupted run in the same folder.
    Pretrain {
        /// The run's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Prepared data.
        #[arg(long)]
        data: PathBuf,
        /// The run's folder: checkpoints and log.
        #[arg(long)]
        out: PathBuf,
        /// A checkpoint folder to begin with, of the same shape and tokenizer; the data comes from `data --tokenizer`.
        #[arg(long)]
        init: Option<PathBuf>,
    },
    /// Measure a checkpoint: held-out bits per byte beside two baselines, and whether its rating is obeyed.
    /// The figures go into its safelmm.json.
    Eval {
        /// The checkpoint folder.
        #[arg(long)]
        checkpoint: PathBuf,
        /// The prepared data it was trained on.
        #[arg(long)]
        data: PathBuf,
        /// Texts to generate for each rating.
        #[arg(long, default_value_t = 200, value_parser = at_least_one)]
        samples: usize,
        /// Tokens of each text.
        #[arg(long, default_value_t = 160, value_parser = at_least_one)]
        tokens: usize,
        /// Guidance of the guided texts.
        #[arg(long, default_value_t = 3.0)]
        guidance: f32,
        /// Seed of the texts.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Judge the text on standard input by the rating rule, and say which words decided.
    Rate,
    /// Write the newest checkpoint of a run as a folder that the server opens.
    Export {
        /// Prepared data.
        #[arg(long)]
        data: PathBuf,
        /// The run's folder.
        #[arg(long)]
        run: PathBuf,
        /// The checkpoint folder to write.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> Result<()> {
    let mut report = Report::new();
    match Args::parse().command {
        Command::Data { config, corpora, tokenizer, out } => {
            let config = RunConfig::read(&config)?;
            let sources = data::prepare(&config, &corpora, tokenizer.as_deref(), &out, &mut report)?;
            for source in &sources.sources {
                report.line(&format!(
                    "{}: {} documents, {} passages, {:.2} M tokens, ratings {:?}, left out {:?}",
                    source.source,
                    source.documents,
                    source.passages,
                    source.tokens as f64 / 1e6,
                    source.ratings,
                    source.left_out
                ));
            }
        }
        Command::Pretrain { config, data, out, init } => {
            let config = RunConfig::read(&config)?;
            let stop = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&stop);
            ctrlc::set_handler(move || {
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED); // asked twice: at once, without a checkpoint
                }
                eprintln!("stopping after this step; once more to stop at once");
            })
            .context("cannot listen for Ctrl-C")?;
            match pretrain(&config, &data, &out, init.as_deref(), &stop, &mut report)? {
                Outcome::Finished => report.line("finished"),
                Outcome::Interrupted { step } => {
                    report.line(&format!("stopped at step {step}; the same command goes on from there"));
                    std::process::exit(INTERRUPTED);
                }
            }
        }
        Command::Eval { checkpoint, data, samples, tokens, guidance, seed } => {
            let control = Control { samples, tokens, guidance, seed };
            let evaluation = evaluate(&checkpoint, &data, &control, &mut report)?;
            println!("{}", serde_json::to_string_pretty(&evaluation)?);
        }
        Command::Rate => {
            let judgement = rate(&std::io::read_to_string(std::io::stdin())?);
            println!("{} ({} words)", judgement.rating, judgement.words);
            for f in judgement.findings {
                println!("{}\t{:?}\t{}\t{} times", f.severity, f.category, f.term, f.count);
            }
        }
        Command::Export { data, run, out } => {
            export(&data, &run, &out)?;
            report.line(&format!("wrote {}", out.display()));
        }
    }
    Ok(())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

/// How rating control is measured.
struct Control {
    samples: usize,
    tokens: usize,
    guidance: f32,
    seed: u64,
}

/// Measures, and writes the figures into the checkpoint's card.
fn evaluate(folder: &Path, data: &Path, control: &Control, report: &mut Report) -> Result<Evaluation> {
    let checkpoint = Checkpoint::open(folder)?;
    let mut card =
        checkpoint.card().context("the checkpoint has no safelmm.json: it was not trained with ratings")?.clone();
    let (sources, _) = Sources::read(data)?;
    let tokenizer = |folder: &Path| std::fs::read(folder.join("tokenizer.json"));
    ensure!(
        tokenizer(folder)? == tokenizer(data)?,
        "{}: its tokenizer is not that of the prepared data in {}: give the data that it was trained on",
        folder.display(),
        data.display()
    );
    let names: Vec<String> = sources.sources.iter().map(|s| s.source.clone()).collect();
    let train = Dataset::read(&data.join("train.safetensors"))?;
    let heldout = Dataset::read(&data.join("heldout.safetensors"))?;
    ensure!(!heldout.passages.is_empty(), "{}: no held-out passage: data.heldout is 0", data.display());
    let bits_per_byte = measure_bits(&sources.config, &checkpoint, &train, &heldout, &names, report)?;
    let rating_control =
        measure_control(&checkpoint, control.samples, control.tokens, control.guidance, control.seed, report)?;
    let evaluation = Evaluation { seed: control.seed, bits_per_byte, rating_control };
    card.evaluation = serde_json::to_value(&evaluation)?;
    data::write_json(&folder.join("safelmm.json"), &card)?;
    Ok(evaluation)
}
