//! `safelmm-train eval`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use safelmm_model::Checkpoint;
use safelmm_trainer::data::{self, Sources};
use safelmm_trainer::dataset::Dataset;
use safelmm_trainer::evaluate::{Evaluation, measure_bits, measure_control};
use safelmm_trainer::memorisation::measure_memorisation;
use safelmm_trainer::report::Report;

/// What is measured.
#[derive(clap::Args)]
pub struct EvalArgs {
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
    /// Training passages whose beginnings are continued, to see whether their text comes back.
    #[arg(long, default_value_t = 200, value_parser = at_least_one)]
    passages: usize,
    /// Seed of the texts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

/// Measures, and writes the figures into the checkpoint's card.
///
/// # Errors
/// A checkpoint without ratings, or data that it was not trained on.
pub fn evaluate(args: &EvalArgs, report: &mut Report) -> Result<()> {
    let (folder, data) = (&args.checkpoint, &args.data);
    let checkpoint = Checkpoint::open(folder)?;
    let mut card =
        checkpoint.card().context("the checkpoint has no safelmm.json: it was not trained with ratings")?.clone();
    let (sources, _) = Sources::read(data)?;
    let tokenizer = |folder: &PathBuf| std::fs::read(folder.join("tokenizer.json"));
    ensure!(
        tokenizer(folder)? == tokenizer(data)?,
        "{}: its tokenizer is not that of the prepared data in {}: give the data that it was trained on",
        folder.display(),
        data.display()
    );
    let train = Dataset::read(&data.join("train.safetensors"))?;
    let heldout = Dataset::read(&data.join("heldout.safetensors"))?;
    ensure!(!heldout.passages.is_empty(), "{}: no held-out passage: data.heldout is 0", data.display());
    let bits_per_byte = measure_bits(&checkpoint, &train, &heldout, &sources, report)?;
    let memorisation = measure_memorisation(&checkpoint, &train, &heldout, args.passages, args.seed, report)?;
    let rating_control = measure_control(&checkpoint, args.samples, args.tokens, args.guidance, args.seed, report)?;
    let evaluation = Evaluation { seed: args.seed, bits_per_byte, rating_control, memorisation: Some(memorisation) };
    card.evaluation = serde_json::to_value(&evaluation)?;
    data::write_json(&folder.join("safelmm.json"), &card)?;
    println!("{}", serde_json::to_string_pretty(&evaluation)?);
    Ok(())
}
