//! From a fine-tuning to what is served: an adapter folder in the layout of peft, or a checkpoint folder with everything in
//! its weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{Device, Tensor};
use safelmm_model::card::Card;
use safelmm_model::checkpoint::{Prepare, open_decoder_with};
use safelmm_model::{Checkpoint, CheckpointError};
use serde_json::{Value, json};

use super::lora::{FIRST_FACTOR, SECOND_FACTOR, write_adapter};
use super::{FinetuneConfig, INSTRUCTIONS, LoraSection};
use crate::export::bf16_file;
use crate::run_state::{self, Saved, StateError};

/// Why a fine-tuning cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneExportError {
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tensors cannot be read or joined.
    #[error("{file}: {source}")]
    Tensors {
        /// The file.
        file: PathBuf,
        /// Why.
        source: candle_core::Error,
    },
    /// The weights cannot be written.
    #[error("{0}: {1}")]
    Write(PathBuf, safetensors::SafeTensorError),
    /// The run has no finished checkpoint.
    #[error("{0}: no checkpoint yet: let `safelmm-train finetune` save one")]
    NoCheckpoint(PathBuf),
    /// The run's folder cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The checkpoint that it began with cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Another checkpoint than the one that the run began with.
    #[error("{folder}: the run in {run} began with another checkpoint ({model}): give that one")]
    OtherCheckpoint {
        /// What was given.
        folder: PathBuf,
        /// The run's folder.
        run: PathBuf,
        /// The name of what it began with.
        model: String,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// An adapter folder, to be served beside the checkpoint that the run began with.
    Adapter,
    /// A checkpoint folder.
    Checkpoint,
}

/// Files of a checkpoint folder that a fine-tuning does not change.
const SAME: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Writes the newest checkpoint of the fine-tuning in `run`, which began with the checkpoint folder `base`, to the folder
/// `out`: an adapter where adapters were trained, unless they are to be merged; else a checkpoint with weights in bf16.
///
/// # Errors
/// Names the file; another base than the run's is refused.
pub fn export(base: &Path, run: &Path, out: &Path, merge: bool) -> Result<Exported, FinetuneExportError> {
    let newest = run_state::checkpoints(run)?.pop().ok_or_else(|| FinetuneExportError::NoCheckpoint(run.to_owned()))?;
    let saved = Saved::read(&newest)?;
    let config: FinetuneConfig = saved.config(&newest)?;
    let model_file = newest.join("model.safetensors");
    let tensors_error = |source| FinetuneExportError::Tensors { file: model_file.clone(), source };
    let checkpoint = Checkpoint::open(base)?;
    let fingerprint = checkpoint.fingerprint().map_err(tensors_error)?;
    match &saved.roots.origin {
        Some(origin) if origin.sha256 == fingerprint => {}
        origin => {
            let model = origin.as_ref().map_or_else(String::new, |origin| origin.model.clone());
            return Err(FinetuneExportError::OtherCheckpoint { folder: base.to_owned(), run: run.to_owned(), model });
        }
    }
    let error = |file: &Path| {
        let file = file.to_owned();
        move |source| FinetuneExportError::File { file, source }
    };
    fs::create_dir_all(out).map_err(error(out))?;
    let trained: BTreeMap<String, Tensor> =
        candle_core::safetensors::load_buffer(&saved.model, &Device::Cpu).map_err(tensors_error)?.into_iter().collect();
    let provenance = out.join("provenance.json");
    let record = provenance_of(&config, &saved, run);
    let json = |value: &Value| serde_json::to_vec_pretty(value).unwrap_or_default();
    fs::write(&provenance, json(&record)).map_err(error(&provenance))?;
    if let (Some(lora), false) = (&config.lora, merge) {
        write_adapter(out, lora, checkpoint.name(), &trained).map_err(error(out))?;
        return Ok(Exported::Adapter);
    }
    let mut whole = Whole { lora: config.lora.as_ref(), trained, tensors: BTreeMap::new() };
    open_decoder_with(base, &mut whole)?;
    let bytes = bf16_file(&whole.tensors).map_err(tensors_error)?;
    let bytes = bytes.map_err(|e| FinetuneExportError::Write(out.join("model.safetensors"), e))?;
    for name in SAME {
        let from = base.join(name);
        if from.exists() {
            fs::copy(&from, out.join(name)).map_err(error(&from))?;
        }
    }
    let mut files = vec![("model.safetensors", bytes)];
    if checkpoint.card().is_some() {
        let card = Card::new(&config.name, config.train.precision.record());
        files.push(("safelmm.json", json(&serde_json::to_value(card).unwrap_or_default())));
    }
    for (name, bytes) in files {
        let (path, beside) = (out.join(name), out.join(format!("{name}.part")));
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path)).map_err(error(&path))?;
    }
    Ok(Exported::Checkpoint)
}

/// Every weight with what was trained in it.
struct Whole<'a> {
    lora: Option<&'a LoraSection>,
    trained: BTreeMap<String, Tensor>,
    tensors: BTreeMap<String, Tensor>,
}

impl Prepare for Whole<'_> {
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let factor = |which: &str| self.trained.get(&format!("{module}.{which}.weight"));
        let joined = match (self.lora, factor(FIRST_FACTOR), factor(SECOND_FACTOR)) {
            (Some(lora), Some(a), Some(b)) => {
                b.matmul(a).and_then(|delta| &tensor + (delta * (lora.alpha / lora.rank as f64))?)
            }
            _ => Ok(self.trained.get(name).unwrap_or(&tensor).clone()),
        };
        let joined =
            joined.map_err(|source| CheckpointError::Prepared { tensor: name.to_owned(), source: Box::new(source) })?;
        self.tensors.insert(name.to_owned(), joined);
        Ok(tensor)
    }
}

fn provenance_of(config: &FinetuneConfig, saved: &Saved, run: &Path) -> Value {
    let instructions =
        fs::read(run.join(INSTRUCTIONS)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    json!({
        "format_version": 1,
        "model": config.name,
        "seed": config.seed,
        "init": saved.roots.origin,
        "instructions": instructions,
        "method": match &config.lora {
            Some(lora) => json!({"lora": lora}),
            None => json!("all weights"),
        },
    })
}
