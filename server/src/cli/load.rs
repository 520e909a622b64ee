//! Opening the checkpoint, and telling the user about it.

use std::path::Path;
use std::time::Instant;

use safelmm_model::{Checkpoint, CheckpointError};

use super::log::say;
use crate::demo;

/// Opens a folder, or the embedded demo; says so on standard error.
pub(super) fn load(folder: Option<&Path>) -> Result<Checkpoint, CheckpointError> {
    let started = Instant::now();
    match folder {
        Some(folder) => say(&format!("loading {} … ", folder.display())),
        None => say("loading the embedded demo checkpoint … "),
    }
    let opened = folder.map_or_else(demo::open, Checkpoint::open);
    match &opened {
        Ok(checkpoint) => {
            let (millions, ms) = (checkpoint.parameters() as f64 / 1e6, started.elapsed().as_millis());
            say(&format!("({millions:.1} M parameters, {ms} ms)\n"));
        }
        Err(_) => say("\n"),
    }
    opened
}
