//! The command line.

mod evaluate;
mod plan;
mod stop;
mod submit;
mod train;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use safelmm_trainer::config::Overlay;
use safelmm_trainer::data;
use safelmm_trainer::policy_models::{self, command::PolicyModels};
use safelmm_trainer::rating::rate;
use safelmm_trainer::report::Report;

/// Trains SafeLMM checkpoints from licensed documents.
#[derive(Parser)]
#[command(name = "safelmm-train", version, about = "Trains SafeLMM checkpoints from licensed documents.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Filter, rate and tokenise documents, and learn the tokenizer.
    Data {
        #[command(flatten)]
        config: Overlay,
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
    /// Print a configuration as a run would take it, with its preset and settings, checked.
    Config {
        #[command(flatten)]
        config: Overlay,
    },
    /// Train from scratch or from the weights of a checkpoint, or go on with an interrupted run in the same folder.
    Pretrain(train::PretrainArgs),
    /// Train a checkpoint on conversations, all of its weights or low-rank adapters, or go on with that.
    Finetune(train::FinetuneArgs),
    /// Send a training to SLURM, as one job that queues itself again or as a chain: submit --time 24:00:00 -- pretrain …
    Submit(submit::SubmitArgs),
    /// Measure a checkpoint: held-out bits per byte beside two baselines, whether its rating is obeyed, whether it gives
    /// back training text. The figures go into its safelmm.json.
    Eval(evaluate::EvalArgs),
    /// Say what a run will take before anything is allocated: memory, exchange, speed, hours, energy, CO2.
    Plan(plan::PlanArgs),
    /// Judge the text on standard input by the rating rule, and say which words decided.
    Rate,
    /// Make the weights of the learned policies from rated texts, and say how well they judge what was held out.
    #[command(subcommand)]
    PolicyModels(PolicyModels),
    /// Write the newest checkpoint of a run as a folder that the server opens.
    Export(train::ExportArgs),
    /// Write a run's report.html, and its offline run for W&B.
    Report(train::ReportArgs),
}

impl Args {
    /// Does what was asked for.
    ///
    /// # Errors
    /// Says what is wrong and what to do.
    pub fn run(self) -> Result<()> {
        let mut report = Report::new();
        match self.command {
            Command::Data { config, corpora, tokenizer, out } => {
                let config = config.read()?;
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
            Command::Config { config } => print!("{}", toml::to_string_pretty(&config.read()?)?),
            Command::Pretrain(args) => train::run_pretrain(&args, &mut report)?,
            Command::Finetune(args) => train::run_finetune(&args, &mut report)?,
            Command::Submit(args) => submit::submit(&args, &report)?,
            Command::Eval(args) => evaluate::evaluate(&args, &mut report)?,
            Command::Plan(args) => plan::plan(&args)?,
            Command::Rate => {
                let judgement = rate(&std::io::read_to_string(std::io::stdin())?);
                println!("{} ({} words)", judgement.rating, judgement.words);
                for f in judgement.findings {
                    println!("{}\t{:?}\t{}\t{} times", f.severity, f.category, f.term, f.count);
                }
            }
            Command::PolicyModels(which) => policy_models::command::run(&which, &mut report)?,
            Command::Export(args) => train::run_export(&args, &report)?,
            Command::Report(args) => train::run_report(&args, &report)?,
        }
        Ok(())
    }
}
