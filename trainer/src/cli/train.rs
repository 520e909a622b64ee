//! `safelmm-train pretrain`, `finetune`, `export` and `report`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Device;
use safelmm_trainer::comm::launch::{Workers, only_one};
use safelmm_trainer::config::{Overlay, ParallelSection, TrainSection};
use safelmm_trainer::finetune::{self, Exported, FinetuneConfig, finetune};
use safelmm_trainer::machine::measure_peak;
use safelmm_trainer::pretrain::pretrain_with;
use safelmm_trainer::report::Report;
use safelmm_trainer::training::Outcome;
use safelmm_trainer::{export, run_state, watch};
use serde::Serialize;

use super::stop::Stop;

/// A pretraining.
#[derive(clap::Args)]
pub struct PretrainArgs {
    #[command(flatten)]
    config: Overlay,
    /// Prepared data
    #[arg(long)]
    data: PathBuf,
    /// The run's folder: checkpoints, logs, report
    #[arg(long)]
    out: PathBuf,
    /// A checkpoint folder to begin with, of the same shape and tokenizer; the data comes from `data --tokenizer`
    #[arg(long)]
    init: Option<PathBuf>,
    #[command(flatten)]
    parallel: ParallelArgs,
}

/// A fine-tuning.
#[derive(clap::Args)]
pub struct FinetuneArgs {
    /// The configuration of the fine-tuning
    #[arg(long)]
    config: PathBuf,
    /// The checkpoint folder to begin with
    #[arg(long)]
    checkpoint: PathBuf,
    /// Conversations: a file of JSON lines, or a folder of such files; may be given many times
    #[arg(long, required = true)]
    instructions: Vec<PathBuf>,
    /// The run's folder: checkpoints, logs, report
    #[arg(long)]
    out: PathBuf,
    /// A setting over the configuration, such as lora.rank=16; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// An export.
#[derive(clap::Args)]
pub struct ExportArgs {
    /// Prepared data, of a pretraining
    #[arg(long, conflicts_with = "checkpoint", required_unless_present = "checkpoint")]
    data: Option<PathBuf>,
    /// The checkpoint folder that a fine-tuning began with
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// The run's folder
    #[arg(long)]
    run: PathBuf,
    /// The folder to write
    #[arg(long)]
    out: PathBuf,
    /// Put adapters into the weights: a checkpoint folder instead of an adapter folder
    #[arg(long, requires = "checkpoint")]
    merge: bool,
}

/// A report.
#[derive(clap::Args)]
pub struct ReportArgs {
    /// The run's folder; `report.html` is written into it
    run: PathBuf,
    /// Also write the run as an offline run of W&B into this folder
    #[arg(long)]
    wandb: Option<PathBuf>,
    /// The project of the offline run
    #[arg(long, default_value = "safelmm")]
    project: String,
}

impl PretrainArgs {
    /// The name and the folder of the run, once its configuration was read and what it needs is there.
    ///
    /// # Errors
    /// Names the key or the path.
    pub fn check(&self) -> Result<(String, &Path)> {
        let config = self.config.read()?;
        exist(self.init.iter().chain([&self.data]))?;
        Ok((config.name, &self.out))
    }
}

impl FinetuneArgs {
    /// The name and the folder of the run, once its configuration was read and what it needs is there.
    ///
    /// # Errors
    /// Names the key or the path.
    pub fn check(&self) -> Result<(String, &Path)> {
        let config = FinetuneConfig::read(&self.config, &self.settings)?;
        exist(self.instructions.iter().chain([&self.checkpoint]))?;
        Ok((config.name, &self.out))
    }
}

fn exist<'a>(mut paths: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    match paths.find(|path| !path.exists()) {
        Some(path) => bail!("{}: there is no such file or folder", path.display()),
        None => Ok(()),
    }
}

/// Pretrains, to the end or to a signal.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn run_pretrain(args: &PretrainArgs, report: &mut Report) -> Result<()> {
    let stop = Stop::listen()?;
    let workers = Workers::join()?;
    let outcome = workers.run(|world| {
        let mut config = args.config.read()?;
        args.parallel.put_over(&mut config.parallel);
        config.parallel.validate()?;
        if world.rank() > 0 {
            *report = Report::silent();
        }
        if is_finished(&args.out, &config, config.train.steps)? {
            report.line("finished before: nothing is left to do");
            return Ok(None);
        }
        measure(&config.train, report)?;
        let init = args.init.as_deref();
        let outcome = pretrain_with(world, &config, &args.data, &args.out, init, &stop.asked, report)?;
        anyhow::Ok(Some(outcome))
    });
    drop(workers); // who ends before the others have ended too would be taken for one that failed
    if let Some(outcome) = outcome? {
        end(outcome, &stop, report);
    }
    Ok(())
}

/// How the run lies on its processes, over `[parallel]` of the configuration.
#[derive(clap::Args)]
pub struct ParallelArgs {
    /// Processes that share each layer
    #[arg(long)]
    tensor: Option<usize>,
    /// Stages that the layers are divided into
    #[arg(long)]
    pipeline: Option<usize>,
    /// Share the optimiser's state out among the copies of the model (ZeRO-1)
    #[arg(long)]
    zero: bool,
}

impl ParallelArgs {
    fn put_over(&self, section: &mut ParallelSection) {
        section.tensor = self.tensor.unwrap_or(section.tensor);
        section.pipeline = self.pipeline.unwrap_or(section.pipeline);
        section.zero |= self.zero;
    }
}

/// Fine-tunes, to the end or to a signal.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn run_finetune(args: &FinetuneArgs, report: &mut Report) -> Result<()> {
    only_one("safelmm-train finetune")?;
    let stop = Stop::listen()?;
    let config = FinetuneConfig::read(&args.config, &args.settings)?;
    if is_finished(&args.out, &config, config.train.steps)? {
        report.line("finished before: nothing is left to do");
        return Ok(());
    }
    measure(&config.train, report)?;
    end(finetune(&config, &args.checkpoint, &args.instructions, &args.out, &stop.asked, report)?, &stop, report);
    Ok(())
}

/// Whether the run has all its steps, so that neither data nor weights need be read.
fn is_finished(run: &Path, config: &impl Serialize, steps: usize) -> Result<bool> {
    let Some(newest) = run_state::checkpoints(run)?.pop() else { return Ok(false) };
    Ok(run_state::step_of(&newest) == Some(steps) && run_state::read_config(&newest)? == serde_json::to_value(config)?)
}

/// Exports the newest checkpoint of a run.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn run_export(args: &ExportArgs, report: &Report) -> Result<()> {
    let (run, out) = (&args.run, &args.out);
    match (&args.data, &args.checkpoint) {
        (Some(data), _) => {
            export::export(data, run, out)?;
            report.line(&format!("wrote {}", out.display()));
        }
        (None, Some(base)) => match finetune::export(base, run, out, args.merge)? {
            Exported::Checkpoint => report.line(&format!("wrote {}", out.display())),
            Exported::Adapter => report.line(&format!(
                "wrote the adapter {0}: `safelmm serve --model {1} --adapter {0}` serves it",
                out.display(),
                base.display()
            )),
        },
        (None, None) => bail!("expected --data of a pretraining, or --checkpoint of a fine-tuning"),
    }
    Ok(())
}

/// Writes the report of a run, and its offline run.
///
/// # Errors
/// A folder that is no run's.
pub fn run_report(args: &ReportArgs, report: &Report) -> Result<()> {
    let run = &args.run;
    if !run.join(watch::LOG).exists() {
        bail!("{}: there is no {}: expected the folder of a run", run.display(), watch::LOG);
    }
    let (name, config) = watch::name_and_config(run)?;
    report.line(&format!("wrote {}", watch::write_report(run, &name, config.as_ref())?.display()));
    if let Some(folder) = &args.wandb {
        let run = watch::write_wandb(run, folder, &args.project, &name, config.as_ref())?;
        report.line(&format!("wrote {0}: `wandb sync {0}` uploads it", run.display()));
    }
    Ok(())
}

fn measure(train: &TrainSection, report: &mut Report) -> Result<()> {
    let device = train.device.open()?;
    let peak = Device::Cpu.with_context(|| measure_peak(&device, train.precision))?;
    report.line(&format!("matrix products of this machine ({}) come to {:.0} GFLOP/s", train.device, peak / 1e9));
    report.peak = Some(peak);
    Ok(())
}

fn end(outcome: Outcome, stop: &Stop, report: &Report) {
    match outcome {
        Outcome::Finished => report.line("finished"),
        Outcome::Interrupted { step } => {
            report.line(&format!("stopped at step {step}; the same command goes on from there"));
            std::process::exit(stop.code());
        }
    }
}
