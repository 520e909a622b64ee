//! Opening the checkpoint, and telling the user about it.

use std::path::Path;
use std::time::Instant;

use safelmm_model::{Checkpoint, CheckpointError};

use super::log::say;
use crate::demo;

/// Opens a folder, with an adapter merged into its weights where one is named, or the embedded demo; says so on standard
/// error.
pub(super) fn load(folder: Option<&Path>, adapter: Option<&Path>) -> Result<Checkpoint, CheckpointError> {
    let started = Instant::now();
    match (folder, adapter) {
        (Some(folder), Some(adapter)) => say(&format!("loading {} with {} … ", folder.display(), adapter.display())),
        (Some(folder), None) => say(&format!("loading {} … ", folder.display())),
        (None, _) => say("loading the embedded demo checkpoint … "),
    }
    let opened = match (folder, adapter) {
        (Some(folder), Some(adapter)) => Checkpoint::open_with_adapter(folder, adapter),
        (folder, _) => folder.map_or_else(demo::open, Checkpoint::open),
    };
    match &opened {
        Ok(checkpoint) => {
            let (millions, ms) = (checkpoint.parameters() as f64 / 1e6, started.elapsed().as_millis());
            say(&format!("({millions:.1} M parameters, {ms} ms)\n"));
        }
        Err(_) => say("\n"),
    }
    opened
}
