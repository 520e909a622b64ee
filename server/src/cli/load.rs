//! Opening the checkpoint, and telling the user about it.

use std::path::Path;
use std::time::Instant;

use safelmm_model::{Checkpoint, CheckpointError, Opening, Quantize};

use super::log::say;
use crate::demo;

/// Opens a folder, with an adapter merged into its weights where one is named, or the embedded demo, with weights of so many
/// bits; says so on standard error.
pub(super) fn load(
    folder: Option<&Path>,
    adapter: Option<&Path>,
    quantize: Quantize,
) -> Result<Checkpoint, CheckpointError> {
    let started = Instant::now();
    match (folder, adapter) {
        (Some(folder), Some(adapter)) => say(&format!("loading {} with {} … ", folder.display(), adapter.display())),
        (Some(folder), None) => say(&format!("loading {} … ", folder.display())),
        (None, _) => say("loading the embedded demo checkpoint … "),
    }
    let opened = match folder {
        Some(folder) => Checkpoint::open_with(folder, Opening { adapter, quantize }),
        None => demo::open_quantized(quantize),
    };
    match &opened {
        Ok(checkpoint) => {
            let (millions, ms) = (checkpoint.parameters() as f64 / 1e6, started.elapsed().as_millis());
            let bits = if quantize == Quantize::None { String::new() } else { format!(" in {quantize}") };
            say(&format!("({millions:.1} M parameters{bits}, {ms} ms)\n"));
        }
        Err(_) => say("\n"),
    }
    opened
}
