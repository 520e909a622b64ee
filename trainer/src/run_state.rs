//! Training checkpoints: everything that a run needs to go on exactly where it stopped.
//!
//! `RUN/step-N/` holds `model.safetensors` (f32), `optimizer.safetensors` (moments) and `state.json` with hashes of
//! both. The folder is written beside its place and renamed, so that it is there whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::RunConfig;
use crate::data::hex;
use crate::optimizer::{AdamW, Moments};
use crate::origin::Origin;
use crate::parameters::Parameters;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates made.
    pub step: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// The epoch that the next passage belongs to.
    pub epoch: u64,
    /// The place in that epoch.
    pub place: usize,
    /// Wall-clock seconds of training so far.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct State {
    progress: Progress,
    config: RunConfig,
    /// SHA-256 of the prepared data's `sources.json`.
    #[serde(default)]
    data: String,
    /// The checkpoint that the run began with; `None` for one from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    sha256: BTreeMap<String, String>,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tensors cannot be written or read.
    #[error("{file}: {source}")]
    Tensors {
        /// The file.
        file: PathBuf,
        /// Why.
        source: candle_core::Error,
    },
    /// A file is damaged.
    #[error("{file}: {reason}: delete this checkpoint to go on from the one before it")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// How.
        reason: String,
    },
    /// The run was started with other data.
    #[error("{folder}: the run was started with other prepared data: use that data, or another --out folder")]
    OtherData {
        /// The run's folder.
        folder: PathBuf,
    },
    /// The run began with other weights.
    #[error("{folder}: the run began with {began}, not with {given}: use another --out folder, or the same --init")]
    OtherOrigin {
        /// The run's folder.
        folder: PathBuf,
        /// What it began with.
        began: String,
        /// What was asked for.
        given: String,
    },
    /// The run was started with other settings.
    #[error(
        "{folder}: the run was started with another configuration ({section} differs): use another --out folder, or the old configuration"
    )]
    OtherConfig {
        /// The run's folder.
        folder: PathBuf,
        /// What differs.
        section: &'static str,
    },
}

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

/// Checkpoints kept, the newest ones.
const KEEP: usize = 2;

/// Where a run's text and its first weights came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Roots {
    /// SHA-256 of the prepared data's `sources.json`; empty where none was kept.
    pub data: String,
    /// The checkpoint that the run began with; `None` for one from scratch.
    pub origin: Option<Origin>,
}

/// Writes a checkpoint and deletes the oldest ones.
///
/// # Errors
/// Names the file.
pub fn save(
    run: &Path,
    config: &RunConfig,
    roots: &Roots,
    parameters: &Parameters,
    optimizer: &AdamW,
    progress: &Progress,
) -> Result<PathBuf, StateError> {
    let folder = run.join(format!("step-{:08}", progress.step));
    let beside = run.join(format!("step-{:08}.part", progress.step));
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| StateError::File { file: path, source }
    };
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(file(&beside))?;
    }
    fs::create_dir_all(&beside).map_err(file(&beside))?;
    let tensors = |name: &str, tensors: HashMap<String, Tensor>| {
        let path = beside.join(name);
        candle_core::safetensors::save(&tensors, &path).map_err(|source| StateError::Tensors { file: path, source })
    };
    tensors(MODEL, parameters.iter().map(|(name, var)| (name.to_owned(), var.as_tensor().clone())).collect())?;
    let mut moments = HashMap::new();
    for ((name, var), m) in parameters.iter().zip(optimizer.moments()) {
        for (kind, data) in [("first", &m.first), ("second", &m.second)] {
            let tensor = Tensor::from_slice(data, var.shape(), &Device::Cpu)
                .map_err(|source| StateError::Tensors { file: beside.join(OPTIMIZER), source })?;
            moments.insert(format!("{name}.{kind}"), tensor);
        }
    }
    tensors(OPTIMIZER, moments)?;
    let mut sha256 = BTreeMap::new();
    for name in [MODEL, OPTIMIZER] {
        let path = beside.join(name);
        sha256.insert(name.to_owned(), hash(&path).map_err(file(&path))?);
        sync(&path).map_err(file(&path))?;
    }
    let Roots { data, origin } = roots.clone();
    let state = State { progress: progress.clone(), config: config.clone(), data, origin, sha256 };
    let path = beside.join("state.json");
    let json = serde_json::to_vec_pretty(&state).map_err(|e| file(&path)(e.into()))?;
    fs::write(&path, json).map_err(file(&path))?;
    sync(&path).and_then(|()| sync(&beside)).map_err(file(&beside))?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(file(&folder))?;
    }
    fs::rename(&beside, &folder).map_err(file(&folder))?;
    sync(run).map_err(file(run))?;
    for old in checkpoints(run)?.into_iter().rev().skip(KEEP) {
        fs::remove_dir_all(&old).map_err(file(&old))?;
    }
    Ok(folder)
}

/// The finished checkpoints of a run, oldest first.
///
/// # Errors
/// When the folder cannot be listed.
pub fn checkpoints(run: &Path) -> Result<Vec<PathBuf>, StateError> {
    let error = |source| StateError::File { file: run.to_owned(), source };
    if !run.exists() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(run).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("step-") && !name.ends_with(".part") && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Deletes what an interrupted save left behind.
///
/// # Errors
/// When the folder cannot be listed or the rest cannot be deleted.
pub fn clean_up(run: &Path) -> Result<(), StateError> {
    let error = |source| StateError::File { file: run.to_owned(), source };
    if !run.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(run).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("step-") && name.ends_with(".part") {
            fs::remove_dir_all(&path).map_err(error)?;
        }
    }
    Ok(())
}

/// A checkpoint as it lies on disk, its hashes checked.
pub struct Saved {
    /// The configuration of the run.
    pub config: RunConfig,
    /// Where the run stands.
    pub progress: Progress,
    /// Where its text and its first weights came from.
    pub roots: Roots,
    /// `model.safetensors`.
    pub model: Vec<u8>,
    optimizer: Vec<u8>,
}

impl Saved {
    /// Reads a checkpoint's files.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn read(folder: &Path) -> Result<Saved, StateError> {
        let path = folder.join("state.json");
        let bytes = fs::read(&path).map_err(|source| StateError::File { file: path.clone(), source })?;
        let state: State = serde_json::from_slice(&bytes)
            .map_err(|e| StateError::Damaged { file: path.clone(), reason: e.to_string() })?;
        let read = |name: &str| -> Result<Vec<u8>, StateError> {
            let file = folder.join(name);
            let bytes = fs::read(&file).map_err(|source| StateError::File { file: file.clone(), source })?;
            match state.sha256.get(name) {
                Some(hash) if *hash == hex(&Sha256::digest(&bytes)) => Ok(bytes),
                _ => Err(StateError::Damaged { file, reason: "its hash is not that of state.json".to_owned() }),
            }
        };
        let (model, optimizer) = (read(MODEL)?, read(OPTIMIZER)?);
        let roots = Roots { data: state.data, origin: state.origin };
        Ok(Saved { config: state.config, progress: state.progress, roots, model, optimizer })
    }
}

/// Reads a checkpoint into `parameters`; returns the optimiser and where the run stands.
///
/// # Errors
/// A damaged file, or a run with other settings, other data or other first weights.
pub fn load(
    folder: &Path,
    config: &RunConfig,
    roots: &Roots,
    parameters: &Parameters,
) -> Result<(AdamW, Progress), StateError> {
    let saved = Saved::read(folder)?;
    for (section, same) in [
        ("model", saved.config.model == config.model),
        ("tokenizer", saved.config.tokenizer == config.tokenizer),
        ("data", saved.config.data == config.data),
        ("seed", saved.config.seed == config.seed),
        ("train", saved.config.train == config.train),
    ] {
        if !same {
            return Err(StateError::OtherConfig { folder: folder.to_owned(), section });
        }
    }
    if saved.roots.data != roots.data {
        return Err(StateError::OtherData { folder: folder.to_owned() });
    }
    if saved.roots.origin != roots.origin {
        let name = |origin: &Option<Origin>| match origin {
            Some(origin) => format!("the weights of {} ({})", origin.model, origin.sha256),
            None => "fresh weights".to_owned(),
        };
        let (began, given) = (name(&saved.roots.origin), name(&roots.origin));
        return Err(StateError::OtherOrigin { folder: folder.to_owned(), began, given });
    }
    let tensors = |name: &str, bytes: &[u8]| {
        let damaged = |e: candle_core::Error| StateError::Damaged { file: folder.join(name), reason: e.to_string() };
        candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(damaged)
    };
    let (model, moments) = (tensors(MODEL, &saved.model)?, tensors(OPTIMIZER, &saved.optimizer)?);
    let lack = |name: &str, file: &str| StateError::Damaged {
        file: folder.join(file),
        reason: format!("the tensor {name} is missing or has another shape"),
    };
    let mut restored = Vec::new();
    for (name, var) in parameters.iter() {
        model.get(name).and_then(|t| var.set(t).ok()).ok_or_else(|| lack(name, MODEL))?;
        let moment = |kind: &str| {
            let key = format!("{name}.{kind}");
            let tensor = moments.get(&key).filter(|t| t.shape() == var.shape());
            tensor.and_then(|t| t.flatten_all().ok()?.to_vec1().ok()).ok_or_else(|| lack(&key, OPTIMIZER))
        };
        restored.push(Moments { first: moment("first")?, second: moment("second")? });
    }
    let steps = saved.progress.step;
    Ok((AdamW::restore(restored, steps), saved.progress))
}

/// Waits until a file, or the entries of a folder, are on the disk.
fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn hash(file: &Path) -> io::Result<String> {
    Ok(hex(&Sha256::digest(fs::read(file)?)))
}
