//! Opening the checkpoint, and telling the user about it.

use std::path::Path;
use std::time::Instant;

use safelmm_model::{Checkpoint, CheckpointError, Quantize};

use super::log::say;
use crate::demo;

/// Opens a folder, or the embedded demo, with weights of so many bits; says so on standard error.
pub(super) fn load(folder: Option<&Path>, quantize: Quantize) -> Result<Checkpoint, CheckpointError> {
    let started = Instant::now();
    match folder {
        Some(folder) => say(&format!("loading {} … ", folder.display())),
        None => say("loading the embedded demo checkpoint … "),
    }
    let opened = match folder {
        Some(folder) => Checkpoint::open_quantized(folder, quantize),
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
