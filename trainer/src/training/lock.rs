//! One process at a time in a run's folder: a lock of the system's, which ends with the process that holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::TrainError;

/// The file that is locked. It stays in the folder and means nothing by itself.
pub const LOCK: &str = "lock";

/// How long a process that is ending is waited for.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Held as long as the run goes on.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder that exists.
    pub(super) fn take(run: &Path) -> Result<Lock, TrainError> {
        let path = run.join(LOCK);
        let failed = |e| TrainError::File(path.display().to_string(), e);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        for _ in 0..ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Err(TrainError::InUse(run.to_owned()))
    }
}
