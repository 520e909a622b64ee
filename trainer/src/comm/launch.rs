//! How a process finds the others of its run.

use std::env;
use std::sync::Arc;

use super::{Comm, local};

/// The workers of a run, as long as it lasts.
pub struct Workers {
    /// All of them.
    pub world: Arc<dyn Comm>,
    /// Ends MPI when it is dropped.
    #[cfg(feature = "mpi")]
    universe: Option<::mpi::environment::Universe>,
}

/// Why the others were not found.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program cannot talk to them.
    #[error(
        "this is one of {0} processes that were started together, and this safelmm-train was built without MPI: \
         build it by `cargo build --release -p safelmm-trainer --features mpi`, or start one process"
    )]
    WithoutMpi(usize),
    /// What was asked for is done by one process.
    #[error(
        "{0} runs in one process, and this is one of {1} that were started together: start one, without mpirun or srun -n"
    )]
    OneProcess(&'static str, usize),
    /// MPI did not begin.
    #[error(
        "MPI has begun before, or lets no two threads of a process send at the same time (MPI_THREAD_MULTIPLE): \
         expected an MPI library that does"
    )]
    NoMpi,
}

/// What `mpirun` of Open MPI, of MPICH and its kin, and `srun` tell their processes of their number.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

fn started_together() -> Option<usize> {
    SIZES.iter().find_map(|name| env::var(name).ok()?.parse().ok()).filter(|size| *size > 1)
}

/// Refuses a process that is one of several, for `what` is done by one.
///
/// # Errors
/// There are others.
pub fn only_one(what: &'static str) -> Result<(), LaunchError> {
    match started_together() {
        Some(size) => Err(LaunchError::OneProcess(what, size)),
        None => Ok(()),
    }
}

impl Workers {
    /// Joins the processes that were started together with this one; without others it is alone.
    ///
    /// # Errors
    /// The program has no MPI, or MPI does not begin.
    #[cfg(feature = "mpi")]
    pub fn join() -> Result<Workers, LaunchError> {
        if started_together().is_none() {
            return Ok(Workers { world: local::alone(), universe: None });
        }
        let (universe, world) = super::mpi::begin().ok_or(LaunchError::NoMpi)?;
        Ok(Workers { world, universe: Some(universe) })
    }

    /// Joins the processes that were started together with this one; without others it is alone.
    ///
    /// # Errors
    /// The program has no MPI, or MPI does not begin.
    #[cfg(not(feature = "mpi"))]
    pub fn join() -> Result<Workers, LaunchError> {
        match started_together() {
            Some(size) => Err(LaunchError::WithoutMpi(size)),
            None => Ok(Workers { world: local::alone() }),
        }
    }

    /// What a worker does: where it fails, the others end too.
    ///
    /// # Errors
    /// Those of the work, of a worker that is alone.
    pub fn run<T, E: std::fmt::Display>(&self, work: impl FnOnce(&Arc<dyn Comm>) -> Result<T, E>) -> Result<T, E> {
        let result = work(&self.world);
        #[cfg(feature = "mpi")]
        if let (Err(error), Some(_)) = (&result, &self.universe) {
            eprintln!("rank {} of {}: {error:#}", self.world.rank(), self.world.size());
            super::mpi::abort();
        }
        result
    }
}
