//! The yardstick of retrieval: how much better a model of the demo's size becomes when it is trained on a domain too.
//!
//! The domains' licenses forbid training what is served. The model made here is a measuring instrument: it is never
//! served or passed on, and is deleted when the measurement is done. The license gate of data preparation knows no
//! exception, so this program gives it a relabelled copy of the store parts, for this one purpose.
//!
//! `cargo run --release -p safelmm-benches --bin domain_reference -- prepare --corpora CORPORA --work WORK` splits the
//! domains, writes the training's configuration and says how to train; `-- measure --work WORK CHECKPOINT...` measures.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, Parser, Subcommand};
use safelmm_benches::domains::{self, DOMAINS, Part};
use safelmm_datastore::document::Document;
use safelmm_model::{Checkpoint, Rating, Tokenizer};
use safelmm_trainer::config::{RunConfig, SourceSection};
use safelmm_trainer::dataset::{Dataset, Passage};
use safelmm_trainer::evaluate::nats;
use safelmm_trainer::passages;
use serde_json::Value;

// The trainer's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the relabelled copy says its license is: one that the gate lets pass.
const LABEL: &str = "LicenseRef-public-domain";
/// The name of the model, for whoever finds it.
const NAME: &str = "reference-for-measurement-not-to-be-served";
/// Updates that raise the learning rate.
const WARMUP: usize = 50;
/// Updates between two checkpoints, of which the number of updates is a multiple.
const CHECKPOINT: usize = 50;

#[derive(Parser)]
#[command(
    about = "The yardstick of retrieval: a model trained on the domains too, to measure against, never to serve."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Split the domains into store, tuning and test, and write what the training of the yardstick needs.
    Prepare(Prepare),
    /// Perplexity and bits per byte of checkpoints on the parts of each domain, without retrieval.
    Measure(Measure),
}

#[derive(Args)]
struct Prepare {
    /// The folder of corpora: the domains and the sources of the original training
    #[arg(long)]
    corpora: PathBuf,
    /// Where parts, relabelled copies and configuration go
    #[arg(long)]
    work: PathBuf,
    /// The checkpoint that is trained further
    #[arg(long, default_value = "demo/checkpoint")]
    checkpoint: PathBuf,
    /// The configuration that it was trained with
    #[arg(long, default_value = "demo/train.toml")]
    config: PathBuf,
    /// Times that the largest domain is seen; the small ones half as often again
    #[arg(long, default_value_t = 2.0)]
    epochs: f64,
    /// Share of the tokens that come from the original sources, so that nothing is forgotten
    #[arg(long, default_value_t = 0.1)]
    replay: f64,
}

#[derive(Args)]
struct Measure {
    /// The folder that `prepare` wrote
    #[arg(long)]
    work: PathBuf,
    /// Prepared data whose held-out passages of the original sources are measured too
    #[arg(long)]
    data: Option<PathBuf>,
    /// Measure the store parts too, on which the yardstick was trained
    #[arg(long)]
    store: bool,
    /// Checkpoint folders
    #[arg(required = true)]
    checkpoints: Vec<PathBuf>,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Prepare(arguments) => prepare(&arguments),
        Command::Measure(arguments) => measure(&arguments),
    }
}

fn prepare(arguments: &Prepare) -> Result<()> {
    let Prepare { corpora, work, checkpoint: folder, config, epochs, replay } = arguments;
    let possible = (0.0..1.0).contains(replay) && epochs.is_finite() && *epochs > 0.0;
    if !possible {
        bail!("--replay is a share from 0 up to 1, --epochs a positive number");
    }
    let (parts, relabelled) = (work.join("parts"), work.join("corpora"));
    for folder in [&parts, &relabelled] {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let checkpoint = Checkpoint::open(folder)?;
    let mut sources = Vec::new();
    let mut domain_tokens = 0.0; // of one epoch
    println!("{:<22} {:<7} {:>9} {:>10} {:>9}", "domain", "part", "documents", "bytes", "tokens");
    for domain in DOMAINS {
        for (part, documents) in domains::read(corpora, domain)? {
            domains::write_part(&parts, domain, part, &documents)?;
            let tokens = tokens(&checkpoint.tokenizer, &documents)?;
            let bytes: usize = documents.iter().map(|d| d.text.len()).sum();
            println!("{:<22} {:<7} {:>9} {bytes:>10} {tokens:>9}", domain.name, part.name(), documents.len());
            if part == Part::Store {
                let file = PathBuf::from(format!("{}.jsonl", domain.name));
                domains::write_jsonl(&relabelled.join(&file), &relabel(documents)?)?;
                // All of it is trained on: the tuning and test parts are what is held out.
                sources.push(SourceSection { file, languages: vec![], repeat: domain.repeat, heldout: Some(0.0) });
                domain_tokens += domain.repeat * tokens as f64;
            }
        }
    }
    let mut run = RunConfig::read(config)?;
    let original = original_tokens(&checkpoint)?;
    let replay_tokens = domain_tokens * replay / (1.0 - replay);
    let share = (replay_tokens / original * 1000.0).round() / 1000.0;
    for mut source in run.data.source {
        let name = source.file.clone();
        // Not fs::copy, which would copy a write protection that a second run stumbles over.
        let original = corpora.join(&name);
        fs::read(&original)
            .and_then(|bytes| fs::write(relabelled.join(&name), bytes))
            .with_context(|| format!("{} cannot be copied to {}", original.display(), relabelled.display()))?;
        source.repeat *= share;
        sources.push(source);
    }
    run.name = NAME.to_owned();
    run.data.source = sources;
    run.data.stories.per_rating = scaled(run.data.stories.per_rating, share);
    run.data.stories.dialogues_per_rating = scaled(run.data.stories.dialogues_per_rating, share);
    // A batch is filled until it is full: half a passage more than asked for, on average.
    let update = (run.train.batch_tokens + run.model.context / 2) as f64;
    let updates = epochs * (domain_tokens + share * original) / update;
    run.train.steps = scaled(CHECKPOINT, (updates / CHECKPOINT as f64).round().max(1.0));
    run.train.warmup_steps = WARMUP.min(run.train.steps);
    run.train.learning_rate /= 3.0;
    run.train.final_learning_rate = 0.1;
    run.train.checkpoint_steps = CHECKPOINT;
    run.validate()?;
    let file = work.join("reference.toml");
    let notice = notice();
    let comment: String = notice.lines().map(|line| format!("# {line}\n")).collect();
    fs::write(&file, format!("{comment}\n{}", toml::to_string(&run)?))?;
    fs::write(work.join("NOTICE.txt"), &notice)?;
    println!("\n{notice}");
    println!(
        "{} updates, {:.0} % of the tokens from the original sources. To train it:\n",
        run.train.steps,
        replay * 100.0
    );
    let (file, folder, work) = (file.display(), folder.display(), work.display());
    println!(
        "safelmm-train data --config {file} --corpora {work}/corpora --tokenizer {folder} --out {work}/data\n\
         safelmm-train pretrain --config {file} --data {work}/data --init {folder} --out {work}/run\n\
         safelmm-train export --data {work}/data --run {work}/run --out {work}/checkpoint"
    );
    Ok(())
}

fn notice() -> String {
    format!(
        "FOR MEASUREMENT ONLY. The copies of {} in this folder carry another license than\n\
         their own, so that a yardstick can be trained. Those licenses forbid commercial use and do not allow training what\n\
         is served. Neither the copies nor the model trained on them may be served, published or passed on; delete the\n\
         folder when the measurement is done.\n",
        DOMAINS.map(|d| d.name).join(", ")
    )
}

/// The copies that the license gate lets pass; their origin says what they are.
fn relabel(documents: Vec<Document>) -> Result<Vec<Document>> {
    let license: safelmm_datastore::license::License = LABEL.parse()?;
    let relabel = |mut document: Document| {
        document.source = format!("relabelled for one measurement, really {}: {}", document.license, document.source);
        document.license = license.clone();
        document
    };
    Ok(documents.into_iter().map(relabel).collect())
}

fn tokens(tokenizer: &Tokenizer, documents: &[Document]) -> Result<usize> {
    documents.iter().try_fold(0, |sum, document| Ok(sum + tokenizer.encode(&document.text, false)?.len()))
}

/// Tokens that the checkpoint was trained on in one epoch, by its own record.
fn original_tokens(checkpoint: &Checkpoint) -> Result<f64> {
    let record = checkpoint.provenance().context("the checkpoint has no provenance.json")?;
    let sources = record["sources"].as_array().context("provenance.json names no sources")?;
    let of = |source: &Value| Some(source["tokens"].as_f64()? * source["repeat"].as_f64()?);
    sources.iter().map(of).sum::<Option<f64>>().context("provenance.json: a source has no tokens or no repeat")
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of passages and updates
fn scaled(count: usize, share: f64) -> usize {
    (count as f64 * share).round() as usize
}

fn measure(arguments: &Measure) -> Result<()> {
    println!("passages of at most the context, each from the neutral start; no retrieval\n");
    println!(
        "{:<46} {:<30} {:>9} {:>9} {:>11} {:>10}",
        "checkpoint", "text", "tokens", "bytes", "perplexity", "bits/byte"
    );
    for folder in &arguments.checkpoints {
        let checkpoint = Checkpoint::open(folder)?;
        for domain in DOMAINS {
            for part in Part::ALL.into_iter().filter(|part| *part != Part::Store || arguments.store) {
                let documents = domains::read_part(&arguments.work.join("parts"), domain, part)?;
                let passages = cut(&checkpoint, &documents)?;
                line(&checkpoint, &format!("{}, {}", domain.name, part.name()), &passages.iter().collect::<Vec<_>>())?;
            }
        }
        if let Some(data) = &arguments.data {
            let heldout = Dataset::read(&data.join("heldout.safetensors"))?;
            line(&checkpoint, "original sources, held out", &heldout.passages.iter().collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// The passages of documents, none left out, as training would cut them.
fn cut(checkpoint: &Checkpoint, documents: &[Document]) -> Result<Vec<Passage>> {
    let limit = checkpoint.context_length() - 2;
    let encode = |text: &str| checkpoint.tokenizer.encode(text, false);
    let length = |text: &str| encode(text).map_or(usize::MAX, |tokens| tokens.len());
    let mut found = Vec::new();
    for document in documents {
        for text in passages::cut(&document.text, limit, 1, &length) {
            // The rating is not looked at: the passages are scored from the neutral start.
            let (tokens, rating) = (encode(text)?, Rating::G);
            found.push(Passage { tokens, bytes: text.len(), rating, source: 0, language: 0 });
        }
    }
    Ok(found)
}

fn line(checkpoint: &Checkpoint, text: &str, passages: &[&Passage]) -> Result<()> {
    let losses = Device::Cpu.with_context(|| nats(&checkpoint.decoder, passages, false))?;
    let nats: f64 = losses.iter().sum();
    let (tokens, bytes) = passages.iter().fold((0, 0), |(t, b), p| (t + p.tokens.len(), b + p.bytes));
    let bits = nats / std::f64::consts::LN_2 / (bytes as f64).max(1.0);
    let perplexity = (nats / (tokens as f64).max(1.0)).exp();
    println!("{:<46} {text:<30} {tokens:>9} {bytes:>9} {perplexity:>11.2} {bits:>10.4}", checkpoint.name());
    Ok(())
}
