//! Jobs of SLURM: what is asked for, the script of a run, and its way to `sbatch`.
//!
//! The script starts the trainer with `srun` and hands it the signal that SLURM sends before the time limit
//! (`sbatch --signal`). The trainer saves and ends with [`SAVED`]; the job then queues itself again
//! (`scontrol requeue`), or leaves the rest to the next job of a chain (`sbatch --dependency`).

mod request;
mod script;
mod send;

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

pub use request::{JobRequest, TimeLimit, Word};
pub use script::script;
pub use send::{JobId, SCRIPT, send};

/// The exit code of a training that SIGUSR1 or SIGTERM ended: it is saved, and the same command goes on with it. As
/// `sysexits.h` has it, `EX_TEMPFAIL`: try again later.
pub const SAVED: i32 = 75;

/// Why jobs cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The signal would come before the job.
    #[error(
        "--time {time} is not longer than --signal-seconds {signal_seconds}: the job would be told to stop at once"
    )]
    Time {
        /// The limit of a job.
        time: TimeLimit,
        /// When the signal comes, in seconds before it.
        signal_seconds: u32,
    },
    /// An argument that no shell can hold.
    #[error("{0:?} has a zero byte in it, which a script cannot hold")]
    Zero(String),
    /// A path that is no text.
    #[error("{0:?} is not UTF-8, as paths in a script must be")]
    NotUtf8(PathBuf),
    /// A folder that sbatch cannot be told of.
    #[error("{0:?}: sbatch takes no folder with a backslash or a line break for logs: choose another --out")]
    Folder(PathBuf),
    /// A file cannot be written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// SLURM is not here.
    #[error("there is no `sbatch` on the path: jobs are sent where SLURM is; --dry-run prints the script anywhere")]
    Absent,
    /// sbatch cannot be started.
    #[error("sbatch cannot be started: {0}")]
    Start(io::Error),
    /// SLURM does not take the job.
    #[error("sbatch refused the job ({status}); what it said stands above{}", before(sent))]
    Refused {
        /// How sbatch ended.
        status: ExitStatus,
        /// The jobs of the chain that it took before.
        sent: Vec<JobId>,
    },
    /// Another program than sbatch, or one that is not understood.
    #[error("sbatch answered {said:?}, expected the number of the job{}", before(sent))]
    Answer {
        /// What stood on its standard output.
        said: String,
        /// The jobs of the chain that it took before.
        sent: Vec<JobId>,
    },
}

fn before(sent: &[JobId]) -> String {
    let ids: Vec<&str> = sent.iter().map(JobId::as_str).collect();
    match ids.is_empty() {
        true => "; no job was sent".to_owned(),
        false => format!("; sent before it: `scancel {}` takes that back", ids.join(" ")),
    }
}
