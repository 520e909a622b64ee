//! Training checkpoints: everything that a run needs to go on exactly where it stopped.
//!
//! `RUN/step-N/` holds `model.safetensors` (f32; of a run that trains adapters, these), `optimizer.safetensors` (moments)
//! and `state.json` with hashes of both. The folder is written beside its place by a thread of its own, read again and
//! held against what it should be, and renamed, so that it is there whole or not at all.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::{fs, io};

use candle_core::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::buckets::Buckets;
use crate::config::CheckpointSection;
use crate::data::hex;
use crate::dataset::Cursor;
use crate::mesh::Mesh;
use crate::optimizer::AdamW;
use crate::origin::Origin;
use crate::parameters::Parameters;
use crate::snapshot::Snapshot;
use crate::stability::Watch;
use crate::tensors::write_tensors;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates judged: made or left out.
    pub step: usize,
    /// Of these, updates left out.
    #[serde(default)]
    pub skipped: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// Where the next batch begins.
    #[serde(flatten)]
    pub data: Cursor,
    /// Wall-clock seconds of training so far.
    pub seconds: f64,
    /// What the judgement of the next update depends on.
    #[serde(default)]
    pub watch: Watch,
    /// Rollbacks so far.
    #[serde(default)]
    pub rollbacks: usize,
}

#[derive(Serialize, Deserialize)]
struct State {
    progress: Progress,
    config: Value,
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
        section: String,
    },
    /// The thread that writes checkpoints ended without an answer.
    #[error("{0}: the checkpoint was not written: its thread panicked")]
    Writer(PathBuf),
}

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

/// Where a run's text and its first weights came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Roots {
    /// SHA-256 of the prepared data's `sources.json`; empty where none was kept.
    pub data: String,
    /// The checkpoint that the run began with; `None` for one from scratch.
    pub origin: Option<Origin>,
}

/// What a run is: a checkpoint of another one is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The configuration, as JSON.
    pub config: Value,
    /// Where its text and its first weights came from.
    pub roots: Roots,
}

/// When checkpoints are due, and which are kept.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Updates between two of them.
    pub steps: usize,
    /// Which are kept.
    pub kept: CheckpointSection,
}

impl Policy {
    fn is_scheduled(&self, step: usize) -> bool {
        step.is_multiple_of(self.steps)
    }
}

/// Writes the checkpoints of a run, one at a time, in the background.
pub struct Saver {
    run: PathBuf,
    identity: Identity,
    policy: Policy,
    writing: Option<JoinHandle<Result<PathBuf, StateError>>>,
}

impl Saver {
    /// For the run in this folder.
    pub fn new(run: &Path, identity: Identity, policy: Policy) -> Saver {
        Saver { run: run.to_owned(), identity, policy, writing: None }
    }

    /// Begins to write a checkpoint; waits for the one before it, whose folder is returned. Deletes what the policy does not
    /// keep once the new one is there.
    ///
    /// # Errors
    /// Names the file, of this checkpoint or of the one before.
    pub fn begin(&mut self, snapshot: Snapshot, progress: &Progress) -> Result<Option<PathBuf>, StateError> {
        let before = self.wait()?;
        let (run, identity, policy) = (self.run.clone(), self.identity.clone(), self.policy.clone());
        let progress = progress.clone();
        self.writing = Some(thread::spawn(move || {
            let folder = write(&run, &identity, &snapshot, &progress)?;
            prune(&run, &policy, progress.watch.suspicious_since())?;
            Ok(folder)
        }));
        Ok(before)
    }

    /// Waits until nothing is being written.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn wait(&mut self) -> Result<Option<PathBuf>, StateError> {
        match self.writing.take().map(JoinHandle::join) {
            None => Ok(None),
            Some(Ok(result)) => result.map(Some),
            Some(Err(_)) => Err(StateError::Writer(self.run.clone())),
        }
    }
}

/// A checkpoint that is being written is finished, whatever ends the run.
impl Drop for Saver {
    fn drop(&mut self) {
        let _ = self.wait();
    }
}

fn write(run: &Path, identity: &Identity, snapshot: &Snapshot, progress: &Progress) -> Result<PathBuf, StateError> {
    let folder = run.join(folder_name(progress.step));
    let beside = folder.with_extension("part");
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| StateError::File { file: path, source }
    };
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(file(&beside))?;
    }
    fs::create_dir_all(&beside).map_err(file(&beside))?;
    let mut sha256 = BTreeMap::new();
    for (name, tensors) in [(MODEL, &snapshot.model), (OPTIMIZER, &snapshot.moments)] {
        let path = beside.join(name);
        let meant = write_tensors(&path, tensors).map_err(file(&path))?;
        if hash(&path).map_err(file(&path))? != meant {
            let reason =
                "what is on the disk is not what was written: the disk or the memory may be failing".to_owned();
            return Err(StateError::Damaged { file: path, reason });
        }
        sha256.insert(name.to_owned(), meant);
    }
    let Roots { data, origin } = identity.roots.clone();
    let state = State { progress: progress.clone(), config: identity.config.clone(), data, origin, sha256 };
    let path = beside.join("state.json");
    let json = serde_json::to_vec_pretty(&state).map_err(|e| file(&path)(e.into()))?;
    fs::write(&path, json).map_err(file(&path))?;
    sync(&path).and_then(|()| sync(&beside)).map_err(file(&beside))?;
    if folder.exists() {
        delete(&folder)?;
    }
    fs::rename(&beside, &folder).map_err(file(&folder))?;
    sync(run).map_err(file(run))?;
    Ok(folder)
}

fn folder_name(step: usize) -> String {
    format!("step-{step:08}")
}

/// The number of updates of a checkpoint, by the name of its folder.
pub fn step_of(folder: &Path) -> Option<usize> {
    folder.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Deletes the checkpoints that the policy does not keep. Those between the scheduled ones, of runs that were asked to stop,
/// stay until there is a newer one: what a run goes back to must not depend on where it was interrupted. While updates are
/// suspicious, the last scheduled checkpoint before them is kept too.
fn prune(run: &Path, policy: &Policy, suspicious_since: Option<usize>) -> Result<(), StateError> {
    let folders = checkpoints(run)?;
    let steps: Vec<usize> = folders.iter().filter_map(|folder| step_of(folder)).collect();
    let scheduled: Vec<usize> = steps.iter().copied().filter(|step| policy.is_scheduled(*step)).collect();
    let newest = &scheduled[scheduled.len().saturating_sub(policy.kept.newest)..];
    let good = suspicious_since.and_then(|since| scheduled.iter().copied().filter(|step| *step <= since).max());
    for (folder, step) in folders.iter().zip(&steps) {
        let milestone = policy.kept.every > 0 && *step > 0 && step.is_multiple_of(policy.kept.every);
        let kept = milestone || newest.contains(step) || Some(*step) == good || steps.last() == Some(step);
        if !kept {
            delete(folder)?;
        }
    }
    Ok(())
}

/// Deletes a checkpoint. It loses its name first, so that a process killed meanwhile leaves no half of one.
fn delete(folder: &Path) -> Result<(), StateError> {
    let gone = folder.with_extension("gone.part");
    let error = |source| StateError::File { file: folder.to_owned(), source };
    fs::rename(folder, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(error)
}

/// The newest scheduled checkpoint of at most `step` updates.
///
/// # Errors
/// When the folder cannot be listed.
pub fn scheduled_until(run: &Path, policy: &Policy, step: usize) -> Result<Option<(PathBuf, usize)>, StateError> {
    let folders = checkpoints(run)?.into_iter().filter_map(|folder| Some((step_of(&folder)?, folder)));
    let fitting = folders.filter(|(at, _)| *at <= step && policy.is_scheduled(*at));
    Ok(fitting.max_by_key(|(at, _)| *at).map(|(at, folder)| (folder, at)))
}

/// Deletes the checkpoints behind an update: they belong to a course that the run has left.
///
/// # Errors
/// Names the folder.
pub fn delete_after(run: &Path, step: usize) -> Result<(), StateError> {
    for folder in checkpoints(run)?.into_iter().filter(|folder| step_of(folder) > Some(step)) {
        delete(&folder)?;
    }
    Ok(())
}

/// Deletes checkpoints that a rollback, given as the updates of the checkpoint it went to, should have deleted before its
/// process was killed.
///
/// # Errors
/// Names the folder.
pub fn delete_abandoned(run: &Path, rollbacks: &[usize]) -> Result<(), StateError> {
    for folder in checkpoints(run)? {
        let progress = read_state(&folder)?.progress;
        if rollbacks.iter().skip(progress.rollbacks).any(|to_step| progress.step > *to_step) {
            delete(&folder)?;
        }
    }
    Ok(())
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
        if step_of(&path).is_some() && path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Deletes what an interrupted save or deletion left behind.
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
    /// The configuration of the run, as JSON.
    pub config: Value,
    /// Where the run stands.
    pub progress: Progress,
    /// Where its text and its first weights came from.
    pub roots: Roots,
    /// `model.safetensors`.
    pub model: Vec<u8>,
    optimizer: Vec<u8>,
}

fn read_state(folder: &Path) -> Result<State, StateError> {
    let file = folder.join("state.json");
    let bytes = fs::read(&file).map_err(|source| StateError::File { file: file.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|e| StateError::Damaged { file, reason: e.to_string() })
}

/// The configuration of the run that a checkpoint belongs to.
///
/// # Errors
/// A missing or damaged file.
pub fn read_config(folder: &Path) -> Result<Value, StateError> {
    Ok(read_state(folder)?.config)
}

impl Saved {
    /// Reads a checkpoint's files.
    ///
    /// # Errors
    /// A missing or damaged file.
    pub fn read(folder: &Path) -> Result<Saved, StateError> {
        let state = read_state(folder)?;
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

    /// The configuration, as what it should be.
    ///
    /// # Errors
    /// Another kind of run.
    pub fn config<T: DeserializeOwned>(&self, folder: &Path) -> Result<T, StateError> {
        serde_json::from_value(self.config.clone())
            .map_err(|e| StateError::Damaged { file: folder.join("state.json"), reason: format!("config: {e}") })
    }
}

/// Reads a checkpoint into `parameters` and into the moments that `mesh` gives this worker of them; returns the optimiser and
/// where the run stands.
///
/// # Errors
/// A damaged file, or a run with other settings, other data or other first weights.
pub fn load(
    folder: &Path,
    identity: &Identity,
    parameters: &Parameters,
    mesh: &Mesh,
) -> Result<(AdamW, Progress), StateError> {
    let saved = Saved::read(folder)?;
    if let Some(section) = difference(&saved.config, &identity.config) {
        return Err(StateError::OtherConfig { folder: folder.to_owned(), section });
    }
    let roots = &identity.roots;
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
    let buckets = Buckets::new(parameters);
    let mut optimizer = AdamW::new(&buckets, mesh);
    for ((name, var), place) in parameters.iter().zip(buckets.places()) {
        let own = |tensor: &Tensor| parameters.own(name, tensor).ok().filter(|own| own.shape() == var.shape());
        model
            .get(name)
            .and_then(own)
            .and_then(|t| var.set(&t.to_device(var.device()).ok()?).ok())
            .ok_or_else(|| lack(name, MODEL))?;
        let moment = |kind: &str| -> Result<Vec<f32>, StateError> {
            let key = format!("{name}.{kind}");
            let tensor = moments.get(&key).and_then(own);
            tensor.and_then(|t| t.flatten_all().ok()?.to_vec1().ok()).ok_or_else(|| lack(&key, OPTIMIZER))
        };
        optimizer.restore(place, &moment("first")?, &moment("second")?);
    }
    optimizer.set_updates(saved.progress.step - saved.progress.skipped.min(saved.progress.step));
    Ok((optimizer, saved.progress))
}

/// The checkpoint of `step` updates.
pub fn checkpoint(run: &Path, step: usize) -> PathBuf {
    run.join(folder_name(step))
}

/// The first section in which two configurations differ; the run's name may, how it lies on processes, and its device.
fn difference(saved: &Value, given: &Value) -> Option<String> {
    // Both as they come out of a file, since reading a number may round it.
    let mut given: Value = serde_json::from_str(&given.to_string()).unwrap_or_default();
    let mut saved = saved.clone();
    for config in [&mut saved, &mut given] {
        config.get_mut("train").and_then(Value::as_object_mut).map(|train| train.remove("device"));
    }
    let empty = serde_json::Map::new();
    let (saved, given) = (saved.as_object().unwrap_or(&empty), given.as_object().unwrap_or(&empty));
    let keys = given.keys().chain(saved.keys()).filter(|key| !["name", "parallel"].contains(&&key[..]));
    keys.into_iter().find(|key| saved.get(*key) != given.get(*key)).cloned()
}

/// Waits until a file, or the entries of a folder, are on the disk.
fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn hash(file: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (fs::File::open(file)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            bytes => hasher.update(&buffer[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_run_may_change_its_device_and_not_its_precision() {
        let on = |device: &str, precision: &str| serde_json::json!({"name": "a", "train": {"steps": 2, "device": device, "precision": precision}});
        assert_eq!(difference(&on("cuda", "f32"), &on("cpu", "f32")), None);
        let without = serde_json::json!({"train": {"steps": 2, "precision": "bf16"}});
        assert_eq!(difference(&without, &on("cuda:1", "bf16")), None);
        assert_eq!(difference(&on("cuda", "bf16"), &on("cuda", "f32")).as_deref(), Some("train"));
    }

    #[test]
    fn a_checkpoint_is_whole_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        for step in 0..300 {
            let checkpoint = run.join(folder_name(step));
            fs::create_dir(&checkpoint).unwrap();
            for name in [MODEL, OPTIMIZER, "state.json"] {
                fs::write(checkpoint.join(name), vec![1; 4096]).unwrap();
            }
        }
        let finished = AtomicBool::new(false);
        thread::scope(|scope| {
            // Another process, which would go on with what it finds here at any moment.
            let seen = scope.spawn(|| {
                let mut halves = 0;
                while !finished.load(Ordering::Relaxed) {
                    for checkpoint in checkpoints(run).unwrap() {
                        let lacks = |name| !checkpoint.join(name).exists();
                        let half = [MODEL, OPTIMIZER, "state.json"].into_iter().any(lacks) && checkpoint.exists();
                        halves += usize::from(half);
                    }
                }
                halves
            });
            delete_after(run, 0).unwrap();
            finished.store(true, Ordering::Relaxed);
            assert_eq!(seen.join().unwrap(), 0, "half deleted checkpoints");
        });
        assert_eq!(checkpoints(run).unwrap(), [run.join(folder_name(0))]);
        // What a kill between the two leaves.
        fs::rename(run.join(folder_name(0)), run.join("step-00000000.gone.part")).unwrap();
        clean_up(run).unwrap();
        assert_eq!(fs::read_dir(run).unwrap().count(), 0);
    }
}
