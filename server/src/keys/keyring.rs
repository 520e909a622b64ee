//! The keys in force while the server runs.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use super::file::{self, KeyFileError, moment};
use super::limits::Meter;
use super::principal::Principal;
use super::secret::{KeyId, KeyText, SecretHash};

/// How often, at most, the file is looked at: what is made or revoked counts within about this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a key is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Nobody's key: unknown, revoked, mistyped or not a key at all. Which of these, is not said.
    #[error("Incorrect API key provided. Ask the operator of this server for one")]
    Unknown,
    /// Its time is over. Said only to who has the secret.
    #[error("This API key expired on {0}. Ask the operator of this server for a new one")]
    Expired(String),
}

/// The keys of a file. They follow the file while the server runs; a file that cannot be read changes nothing.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
    looked: Mutex<Looked>,
}

type Keys = HashMap<KeyId, Key>;

#[derive(Debug)]
struct Key {
    hash: SecretHash,
    expires: Option<SystemTime>,
    meter: Arc<Meter>,
    principal: Principal,
}

#[derive(Debug)]
struct Looked {
    at: Instant,
    stamp: Option<Stamp>,
    complained: bool,
}

/// What changes when a file is replaced or written: inode, seconds and nanoseconds of its change, bytes.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
}

impl Keyring {
    /// Reads the file. Errors: [`KeyFileError`], also when no key is in force.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        // Before reading, so that a change in between is seen at the next look.
        let looked = Looked { at: Instant::now(), stamp: stamp(path), complained: false };
        let keys = read(path, &Keys::new())?;
        let now = SystemTime::now();
        if keys.values().all(|key| key.expires.is_some_and(|end| end <= now)) {
            return Err(KeyFileError::NoKey(path.display().to_string()));
        }
        Ok(Keyring { path: path.to_owned(), keys: RwLock::new(Arc::new(keys)), looked: Mutex::new(looked) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many keys there are, expired ones included.
    pub fn len(&self) -> usize {
        self.keys().len()
    }

    /// Whether a key has this id or this name.
    pub fn has(&self, id_or_name: &str) -> bool {
        let is_meant = |(id, key): (&KeyId, &Key)| id.to_string() == id_or_name || key.principal.name() == id_or_name;
        self.keys().iter().any(is_meant)
    }

    /// Whether there is no key (any more).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is time for [`Keyring::refresh`] and nobody is at it.
    pub fn is_due(&self) -> bool {
        self.looked.try_lock().is_ok_and(|looked| looked.at.elapsed() >= LOOK_AGAIN)
    }

    /// Looks at the file, at most once a second, and takes over what changed. A file that cannot be read changes
    /// nothing and is reported to the log, once. Blocks while it reads.
    pub fn refresh(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.at.elapsed() < LOOK_AGAIN {
            return;
        }
        looked.at = Instant::now();
        let stamp = stamp(&self.path);
        if stamp == looked.stamp {
            return;
        }
        match read(&self.path, &self.keys()) {
            Ok(keys) => {
                (looked.stamp, looked.complained) = (stamp, false);
                tracing::info!(keys = keys.len(), file = %self.path.display(), "the key file has changed");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(error) => {
                // Read again at the next look: what stood in the way may pass without changing the file.
                if !std::mem::replace(&mut looked.complained, true) {
                    let error = error.to_string();
                    tracing::error!(error, "the key file has changed and is of no use: the keys stay as they were");
                }
            }
        }
    }

    /// Who holds this key. Errors: [`Rejected`].
    pub fn authenticate(&self, text: &str) -> Result<Principal, Rejected> {
        let presented: KeyText = text.parse().map_err(|_| Rejected::Unknown)?;
        let keys = self.keys();
        let key = keys.get(&presented.id());
        if !presented.matches(key.map(|key| &key.hash)) {
            return Err(Rejected::Unknown);
        }
        let key = key.ok_or(Rejected::Unknown)?;
        match key.expires {
            Some(end) if end <= SystemTime::now() => Err(Rejected::Expired(moment::text(end))),
            _ => Ok(key.principal.clone()),
        }
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads the file; keys that were there before keep their accounts.
fn read(path: &Path, before: &Keys) -> Result<Keys, KeyFileError> {
    let keys = file::list(path)?.into_iter().map(|record| {
        let meter = match before.get(&record.id) {
            Some(known) => {
                known.meter.set_limits(record.limits);
                Arc::clone(&known.meter)
            }
            None => Arc::new(Meter::new(record.limits)),
        };
        let principal = Principal::new(record.id, record.name, record.rights, Arc::clone(&meter));
        (record.id, Key { hash: record.sha256, expires: record.expires, meter, principal })
    });
    Ok(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Limits, Rights};

    fn refresh(ring: &Keyring) {
        ring.looked.lock().unwrap().at = Instant::now().checked_sub(LOOK_AGAIN).unwrap();
        assert!(ring.is_due());
        ring.refresh();
        assert!(!ring.is_due());
    }

    #[test]
    fn the_keys_follow_the_file_and_outlive_its_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        assert!(matches!(Keyring::open(&path), Err(KeyFileError::Missing(_))));
        let limits = Limits { concurrent: std::num::NonZeroU32::new(1), ..Limits::default() };
        let first = file::add(&path, "first", Rights::default(), limits, None).unwrap();
        let ring = Keyring::open(&path).unwrap();
        let text = first.key.reveal();
        let running = ring.authenticate(&text).unwrap().admit().unwrap();

        let second = file::add(&path, "second", Rights::default(), Limits::default(), None).unwrap().key.reveal();
        assert_eq!(ring.authenticate(&second).unwrap_err(), Rejected::Unknown);
        refresh(&ring);
        assert_eq!(ring.authenticate(&second).unwrap().name(), "second");
        assert!(ring.authenticate(&text).unwrap().admit().is_err(), "what runs goes on counting");
        drop(running);

        fs::write(&path, "format_version = ").unwrap();
        refresh(&ring);
        assert_eq!(ring.authenticate(&text).unwrap().id(), Some(first.key.id()));
        fs::remove_file(&path).unwrap();
        refresh(&ring);
        assert!(ring.authenticate(&text).is_ok());

        file::add(&path, "third", Rights::default(), Limits::default(), None).unwrap();
        refresh(&ring);
        assert_eq!(ring.authenticate(&text).unwrap_err(), Rejected::Unknown);
        assert_eq!(ring.len(), 1);
    }

    #[test]
    fn wrong_secrets_and_expired_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let expired = file::add(&path, "old", Rights::default(), Limits::default(), Some(Duration::ZERO)).unwrap();
        assert!(matches!(Keyring::open(&path), Err(KeyFileError::NoKey(_))));
        let good = file::add(&path, "good", Rights::default(), Limits::default(), None).unwrap().key.reveal();
        let ring = Keyring::open(&path).unwrap();
        assert!(matches!(ring.authenticate(&expired.key.reveal()), Err(Rejected::Expired(_))));
        let (head, secret) = good.rsplit_once('-').unwrap();
        let other: String = secret.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
        for wrong in
            [format!("{head}-{other}"), format!("{head}-"), format!("{good} "), good.to_uppercase(), String::new()]
        {
            assert_eq!(ring.authenticate(&wrong).unwrap_err(), Rejected::Unknown, "{wrong}");
        }
        assert!(ring.authenticate(&good).is_ok());
        assert!(ring.has("good") && ring.has(&expired.key.id().to_string()) && !ring.has("better"));
    }
}
