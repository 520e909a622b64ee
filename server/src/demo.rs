//! The embedded demo checkpoint: what `safelmm serve` and `safelmm generate` use when no folder is named.

use safelmm_model::{Checkpoint, CheckpointError, Quantize};

/// The name under which the demo is served.
pub const NAME: &str = "safelmm-demo";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../demo/checkpoint/", $name)))),*]
    };
}

/// The files of the checkpoint folder, by name.
static FILES: &[(&str, &[u8])] = files![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "safelmm.json",
    "provenance.json",
];

/// Opens the embedded checkpoint. Fails only when the files that were embedded at build time do not fit together.
pub fn open() -> Result<Checkpoint, CheckpointError> {
    open_quantized(Quantize::None)
}

/// As [`open`], with weights of fewer bits.
///
/// # Errors
/// As [`open`].
pub fn open_quantized(quantize: Quantize) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::from_embedded(FILES, NAME, quantize)
}
