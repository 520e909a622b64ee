//! Records on the disk, by sled. It panics on some kinds of damage: every call is guarded, and what it says becomes an
//! error. No thread of its own is let run, since nobody could catch a panic there: changes are written by `flush`.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Change, KeyValue, Tree, Visit};
use crate::error::StoreError;

/// Records of a leaf, as sled has it by default.
const LEAF_FANOUT: usize = 1024;
/// Records are small and read one at a time.
const CACHE_BYTES: usize = 64 << 20;

/// How often, and after what pause, its lock is tried again.
const LOCK_ATTEMPTS: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Records on the disk.
pub(crate) struct Sled {
    folder: PathBuf,
    /// sled's handles are for one thread at a time. Empty only while this is being dropped.
    open: Mutex<Option<Open>>,
}

struct Open {
    db: sled::Db<LEAF_FANOUT>,
    trees: [sled::Tree<LEAF_FANOUT>; 3],
}

impl Sled {
    /// Opens the records in a folder, or begins them.
    pub(crate) fn open(folder: &Path) -> Result<Sled, StoreError> {
        let open = guard(folder, || {
            let config = sled::Config::new().path(folder).flush_every_ms(None).cache_capacity_bytes(CACHE_BYTES);
            let mut attempts = LOCK_ATTEMPTS;
            let db: sled::Db<LEAF_FANOUT> = loop {
                match config.open() {
                    // The store is locked for this process: whoever holds the lock of its catalogue is a process that
                    // this one is just starting, which shares its locks for a moment.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts > 0 => attempts -= 1,
                    result => break result?,
                }
                std::thread::sleep(LOCK_PAUSE);
            };
            let [a, b, c] = Tree::ALL.map(|tree| db.open_tree(tree.name()));
            Ok(Open { trees: [a?, b?, c?], db })
        })?;
        Ok(Sled { folder: folder.to_owned(), open: Mutex::new(Some(open)) })
    }

    fn with<T>(&self, work: impl FnOnce(&Open) -> io::Result<T>) -> Result<T, StoreError> {
        guard(&self.folder, || match &*self.lock() {
            Some(open) => work(open),
            None => Err(io::Error::other("closed")),
        })
    }
}

impl KeyValue for Sled {
    fn get(&self, tree: Tree, key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|open| Ok(open.trees[tree as usize].get(key.to_be_bytes())?.map(|value| value.to_vec())))
    }

    fn apply(&self, tree: Tree, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.to_be_bytes(), value),
                None => batch.remove(key.to_be_bytes()),
            }
        }
        self.with(|open| open.trees[tree as usize].apply_batch(batch))
    }

    fn scan(&self, tree: Tree, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut records = self.with(|open| Ok(open.trees[tree as usize].iter()))?;
        loop {
            // Only sled is guarded: a panic of the visitor is a defect of this program and should be seen as one.
            let next = guard(&self.folder, || records.next().transpose())?;
            let Some((key, value)) = next else { return Ok(()) };
            let key = <[u8; 8]>::try_from(&key[..]).map_err(|_| self.error("a key is not 8 bytes long"))?;
            visit(u64::from_be_bytes(key), &value)?;
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.with(|open| open.db.flush().map(|_| ()))
    }
}

impl Sled {
    /// A panic of sled is told to whoever meets it; what it leaves behind is judged by the digests of the records.
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, what: &str) -> StoreError {
        StoreError::Storage { folder: self.folder.clone(), what: what.to_owned() }
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        let open = self.lock().take();
        // What was acknowledged is flushed already: if this fails, nothing is lost that anyone was told of.
        let _ = guard(&self.folder, || {
            drop(open);
            Ok(())
        });
    }
}

/// Runs a call of sled; both its errors and its panics become errors.
fn guard<T>(folder: &Path, work: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
    let error = |what| StoreError::Storage { folder: folder.to_owned(), what };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| match e.kind() {
            io::ErrorKind::Other | io::ErrorKind::InvalidData => error(e.to_string()),
            _ => StoreError::Io { file: folder.to_owned(), source: e },
        }),
        Err(panic) => Err(error(format!("sled stopped: {}", words(&*panic)))),
    }
}

fn words(panic: &dyn Any) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it did not say why".to_owned())
}
