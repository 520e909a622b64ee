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
use safelmm_trainer::plan::{self, Footprint, Layout, Plan, Shape};
use safelmm_trainer::policy_models::{self, command::PolicyModels};
use safelmm_trainer::presets::{Preset, preset};
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
    /// Say what a run will take before anything is allocated: memory, exchange, speed, hours, energy, CO2.
    Plan(PlanArgs),
    /// Judge the text on standard input by the rating rule, and say which words decided.
    Rate,
    /// Make the weights of the learned policies from rated texts, and say how well they judge what was held out.
    #[command(subcommand)]
    PolicyModels(PolicyModels),
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

#[derive(clap::Args)]
struct PlanArgs {
    /// The model: demo, 160m, 1b, 7b, 13b, 34b
    #[arg(long, conflicts_with = "config", required_unless_present = "config")]
    preset: Option<String>,
    /// The model of a run's configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// Devices
    #[arg(long)]
    gpus: usize,
    /// The machine: a100-64, a100-40, a100-80, h100-80
    #[arg(long)]
    gpu: String,
    /// Devices that share each layer
    #[arg(long, default_value_t = 1)]
    tensor: usize,
    /// Stages that the layers are divided into
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Sequences of one forward and backward pass
    #[arg(long, default_value_t = 8)]
    micro_batch: usize,
    /// Sequences of an update; without it 512, or one pass on every copy where that is more
    #[arg(long)]
    global_batch: Option<usize>,
    /// Tokens of a sequence; without it the model's context
    #[arg(long)]
    sequence: Option<usize>,
    /// Tokens of the run, such as 300B or 2T
    #[arg(long, default_value = "2T", value_parser = count_of_tokens)]
    tokens: f64,
    /// The building's energy over the devices'
    #[arg(long, default_value_t = 1.2)]
    pue: f64,
    /// Grams of CO2 equivalents for each kWh; 242: the European Union's mean in 2023 (European Environment Agency)
    #[arg(long, default_value_t = 242.0)]
    co2: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A number with K, M, B or T behind it, or without.
fn count_of_tokens(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 1e3),
        Some((at, 'M' | 'm')) => (&text[..at], 1e6),
        Some((at, 'B' | 'b' | 'G' | 'g')) => (&text[..at], 1e9),
        Some((at, 'T' | 't')) => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let expected = || format!("'{text}' is no number of tokens, expected one such as 300B, 2T or 1000000");
    let number: f64 = digits.parse().map_err(|_| expected())?;
    if number.is_finite() && number > 0.0 { Ok(number * factor) } else { Err(expected()) }
}

fn plan(args: &PlanArgs) -> Result<()> {
    let preset = match (&args.preset, &args.config) {
        (_, Some(config)) => {
            let config = RunConfig::read(config)?;
            Preset { name: "config", model: config.model, vocab_size: config.tokenizer.vocab_size }
        }
        (name, None) => preset(name.as_deref().unwrap_or_default()).map_err(anyhow::Error::msg)?,
    };
    let machine = plan::machine(&args.gpu).map_err(anyhow::Error::msg)?;
    for (option, value) in [("--pue", args.pue), ("--co2", args.co2)] {
        ensure!(value.is_finite() && value >= 0.0, "{option} is {value}: expected a number from 0 on");
    }
    let PlanArgs { gpus, tensor, pipeline, micro_batch, .. } = *args;
    let sequence = args.sequence.unwrap_or(preset.model.context);
    let pass = (gpus / tensor.saturating_mul(pipeline).max(1)).saturating_mul(micro_batch).max(1);
    // The least multiple of a pass that has 512 sequences.
    let global_batch = args.global_batch.unwrap_or_else(|| pass.saturating_mul(512_usize.div_ceil(pass)));
    let layout = Layout { gpus, tensor, pipeline, micro_batch, global_batch, sequence };
    let shape = Shape::new(&preset.model, preset.vocab_size, sequence);
    let footprint = Footprint { pue: args.pue, grams_per_kwh: args.co2 };
    let plan = Plan::new(&shape, layout, machine, args.tokens, footprint)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&plan)?),
        false => print!("{plan}"),
    }
    Ok(())
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
        Command::Plan(args) => plan(&args)?,
        Command::Rate => {
            let judgement = rate(&std::io::read_to_string(std::io::stdin())?);
            println!("{} ({} words)", judgement.rating, judgement.words);
            for f in judgement.findings {
                println!("{}\t{:?}\t{}\t{} times", f.severity, f.category, f.term, f.count);
            }
        }
        Command::PolicyModels(which) => policy_models::command::run(&which, &mut report)?,
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
