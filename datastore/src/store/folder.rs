//! The folder of a store: what lies where, who has it open, and what a crash left behind.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Inner;
use crate::error::{StoreError, damaged, io_error};
use crate::files::{self, FileDigest};
use crate::manifest::{self, Manifest};

/// The key of the receipts.
pub(super) const KEY: &str = "receipt.key";
pub(super) const LOCK: &str = "lock";
const META: &str = "meta";
const META_DIGESTS: &str = "meta.json";
const SEGMENTS: &str = "segments";

/// What a store's folder may hold beside the manifest.
pub(super) const NAMES: [&str; 7] = [LOCK, META, META_DIGESTS, SEGMENTS, KEY, "manifest.part", "meta.part"];

/// How often, and after what pause, a lock is tried again.
const LOCK_ATTEMPTS: usize = 8;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Held while a process has the store open; the system releases it when the process ends, however it ends.
pub(crate) struct Lock {
    _file: File,
}

/// `meta.json`: digests of the catalogue's files, valid between closing a store and opening it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaDigests {
    generation: u64,
    /// `None` while the store is open, and after a crash.
    files: Option<BTreeMap<String, FileDigest>>,
}

/// The folder of a segment.
pub(super) fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(SEGMENTS).join(number.to_string())
}

/// The folder of a catalogue.
pub(super) fn generation(folder: &Path, generation: u64) -> PathBuf {
    folder.join(META).join(generation.to_string())
}

fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let path = folder.join(LOCK);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = options.map_err(io_error(&path))?;
    let mut attempts = LOCK_ATTEMPTS;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            // A process that starts another one shares its locks with it for a moment.
            Err(TryLockError::WouldBlock) if attempts > 0 => attempts -= 1,
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.to_owned())),
            Err(TryLockError::Error(e)) => return Err(io_error(&path)(e)),
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Makes the folder of a new store, and takes away what a creation that was killed left there.
pub(super) fn prepare(folder: &Path) -> Result<Lock, StoreError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let name = entry.map_err(io_error(folder))?.file_name();
        if !NAMES.iter().any(|ours| name == *ours) {
            return Err(StoreError::Exists(folder.to_owned()));
        }
    }
    let lock = lock(folder)?;
    for name in NAMES.into_iter().filter(|name| *name != LOCK) {
        remove(&folder.join(name))?;
    }
    for name in [META, SEGMENTS] {
        fs::create_dir(folder.join(name)).map_err(io_error(folder))?;
    }
    files::sync_folder(folder)?;
    Ok(lock)
}

/// Locks a store and reads its manifest.
pub(super) fn open(folder: &Path) -> Result<(Manifest, Lock), StoreError> {
    if !folder.join(manifest::FILE).exists() {
        return Err(StoreError::NoStore(folder.to_owned()));
    }
    let lock = lock(folder)?;
    Ok((Manifest::read(folder)?, lock))
}

/// Deletes what the manifest does not name: the remains of commits that never happened.
pub(super) fn tidy(folder: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let segments: Vec<String> = manifest.segments.iter().map(|s| s.number.to_string()).collect();
    keep_only(&folder.join(SEGMENTS), |name| segments.iter().any(|s| s == name))?;
    let generation = manifest.generation.to_string();
    keep_only(&folder.join(META), |name| name == generation)?;
    for name in ["manifest.part", "meta.part"] {
        remove(&folder.join(name))?;
    }
    Ok(())
}

fn keep_only(folder: &Path, named: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        if !entry.file_name().to_str().is_some_and(&named) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a folder with all that is in it; what is not there is removed already.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    let result = match fs::symlink_metadata(path) {
        Err(e) => Err(e),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(path)(e)),
        _ => Ok(()),
    }
}

/// Holds the catalogue's files against the digests of the last closing. After a crash there are none; the digests of
/// the records, in the manifest, are always there.
pub(super) fn check_closed(folder: &Path, current: u64) -> Result<(), StoreError> {
    let file = folder.join(META_DIGESTS);
    let digests: MetaDigests = files::read_sealed(&file)?;
    // A crash between a compaction's commit and its end leaves the mark of the generation before.
    let Some(expected) = digests.files else { return Ok(()) };
    if digests.generation != current {
        return Err(damaged(&file, "it is of another catalogue than the manifest"));
    }
    let place = generation(folder, current);
    let found = meta_files(&place)?;
    for (name, digest) in &expected {
        if found.get(name) != Some(digest) {
            return Err(damaged(&place.join(name), "its content does not fit its checksum"));
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(damaged(&place.join(name), "nobody wrote this file")),
        None => Ok(()),
    }
}

pub(super) fn meta_files(place: &Path) -> Result<BTreeMap<String, FileDigest>, StoreError> {
    files::list(place)?.into_iter().map(|(name, path)| Ok((name, files::digest(&path)?))).collect()
}

/// Notes that the catalogue's files will change.
pub(super) fn mark_open(folder: &Path, generation: u64) -> Result<(), StoreError> {
    files::write_sealed(&folder.join(META_DIGESTS), &MetaDigests { generation, files: None })
}

impl Inner {
    /// Closes the catalogue and notes the digests of its files.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let _maintenance = self.maintain();
        let mut state = self.write();
        if state.closed {
            return Ok(());
        }
        state.closed = true;
        state.catalog.close();
        if state.poisoned.is_some() {
            // What is on the disk is for the next opening to judge.
            return Ok(());
        }
        let current = state.manifest.generation;
        let files = Some(meta_files(&generation(&self.folder, current))?);
        files::write_sealed(&self.folder.join(META_DIGESTS), &MetaDigests { generation: current, files })
    }
}
