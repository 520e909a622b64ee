//! `safelmm-train submit`.

use std::env;
use std::path::{self, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use safelmm_trainer::report::Report;
use safelmm_trainer::slurm::{JobId, JobRequest, SCRIPT, Word, script, send};

use super::{Args, Command};

/// What is sent to SLURM.
#[derive(clap::Args)]
pub struct SubmitArgs {
    #[command(flatten)]
    request: JobRequest,
    /// Where the script and the logs lie; without it `slurm` in the run's folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the script, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// What the job does: `pretrain` or `finetune` with all its options
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Checks the training's command line and its configuration, writes a script for it and sends that.
///
/// # Errors
/// Says what is wrong and what to do; what was sent before it went wrong too.
pub fn submit(args: &SubmitArgs, report: &Report) -> Result<()> {
    args.request.validate()?;
    let name = "safelmm-train".to_owned();
    let command = [vec![name], args.command.clone()].concat();
    let training = Args::try_parse_from(&command).map_err(|e| anyhow!("behind `--`: {}", e.render()))?;
    let (name, run) = match &training.command {
        Command::Pretrain(pretraining) => pretraining.check()?,
        Command::Finetune(finetuning) => finetuning.check()?,
        _ => bail!("behind `--` stands `{}`: expected `pretrain` or `finetune`", args.command[0]),
    };
    let several = cfg!(feature = "mpi") && matches!(training.command, Command::Pretrain(_));
    ensure!(
        several || args.request.tasks() == 1,
        "{} nodes with {} tasks each: expected one of each: only `pretrain` runs in several processes, of a safelmm-train \
         built with `--features mpi`",
        args.request.nodes,
        args.request.tasks_per_node
    );
    let folder = path::absolute(args.out.clone().unwrap_or_else(|| run.join("slurm")))?;
    let jobs = folder.join("jobs");
    let program = env::current_exe()?;
    let program = program.to_str().with_context(|| format!("{}: is not UTF-8", program.display()))?;
    let command = [vec![program.to_owned()], args.command.clone()].concat();
    let script = script(&args.request, &Word::resembling(&name), &jobs, &command)?;
    if args.dry_run {
        print!("{script}");
        return Ok(());
    }
    let sent = send(&script, &folder, &jobs, args.request.jobs)?;
    let ids: Vec<&str> = sent.iter().map(JobId::as_str).collect();
    report.line(&format!(
        "sent {}; the script is {}, logs come to lie beside it; `scancel {0}` takes it back",
        ids.join(" "),
        folder.join(SCRIPT).display()
    ));
    Ok(())
}
