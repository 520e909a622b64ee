//! Precision, recall and over-refusal of the bundled policies, by language, with 95 % Wilson intervals.
//!
//! `cargo run --release -p safelmm-benches --bin policies -- --eval DIR --corpora DIR`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use safelmm_benches::policies::{Sets, subjects};
use safelmm_trainer::policy_models::figures::Figures;

/// Asks every bundled policy, natively, about every text of the policies' own sets and of public ones, and prints a table for each
/// policy and set: how many texts it should act on, precision, recall, and over-refusal (how many of the other texts it acts on).
/// Sets that are not there are named and left out. Of the tweets only the half counts that no bundled model was trained on.
#[derive(Parser)]
struct Args {
    /// The folder of the bundled policies
    #[arg(long, default_value = "plugins/bundled")]
    bundled: PathBuf,
    /// A folder of public sets: hate-speech-davidson, bold-prompts, alice-in-wonderland-prompts, crows-pairs, winogender
    #[arg(long)]
    eval: Option<PathBuf>,
    /// A folder with treebanks-31-languages.jsonl.gz: running text, where acting is over-refusal
    #[arg(long)]
    corpora: Option<PathBuf>,
    /// Only policies whose names hold this
    #[arg(long)]
    policy: Option<String>,
    /// All languages together alone
    #[arg(long)]
    brief: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut sets = Sets::default();
    sets.bundled(&args.bundled)?;
    match &args.eval {
        Some(folder) => sets.public(folder)?,
        None => sets.skipped.push("the public sets: --eval names no folder".into()),
    }
    match &args.corpora {
        Some(folder) => sets.clean(folder)?,
        None => sets.skipped.push("running text: --corpora names no folder".into()),
    }
    for reason in &sets.skipped {
        println!("skipped: {reason}");
    }
    for subject in subjects()? {
        if args.policy.as_ref().is_some_and(|wanted| !subject.name.contains(wanted.as_str())) {
            continue;
        }
        let mut figures = Figures::default();
        let (started, mut bytes) = (Instant::now(), 0);
        for (name, items) in &sets.sets {
            for item in items {
                let Some(truth) = subject.should_act(item) else { continue };
                bytes += item.text.len();
                figures.add(&format!("{} on {name}", subject.name), &item.language, truth, subject.acts(item)?);
            }
        }
        let microseconds = started.elapsed().as_secs_f64() * 1e6;
        if args.brief {
            figures.0.values_mut().for_each(|languages| languages.retain(|language, _| language == "all"));
        }
        println!("{figures}");
        println!("{}: {:.0} µs for each KiB, natively", subject.name, microseconds / (bytes.max(1) as f64 / 1024.0));
    }
    Ok(())
}
