//! The key file: TOML, readable by its owner alone, written beside and renamed, so that a kill never damages it.
//!
//! It holds no secret, only hashes. It may be edited by hand; comments do not outlive the next `safelmm key`.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::principal::Rights;
use super::secret::{KeyId, KeyText, SecretHash};

const FORMAT_VERSION: u32 = 1;
const HEADER: &str = "# API keys, written by `safelmm key`. It holds SHA-256 hashes and no secrets.\n\n";
/// The longest name of a key, in bytes: it stands in listings.
const MAX_NAME_BYTES: usize = 100;
/// A century: the years of RFC 3339 have four digits.
const LONGEST_LIFETIME: Duration = Duration::from_secs(36_525 * 86_400);

/// Why a key file cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there.
    #[error(
        "there is no key file {0}: make a first key with `safelmm key new --keys {0} --name NAME`, or remove the \
         setting (--keys, SAFELMM_KEYS, [keys] file) to serve this machine alone without keys"
    )]
    Missing(String),
    /// It holds no key, or only expired ones.
    #[error("the key file {0} holds no key in force: make one with `safelmm key new --keys {0} --name NAME`")]
    NoKey(String),
    /// It cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It is not TOML, or not a key file.
    #[error("in the key file {}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write the key file {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A name that a listing could not show.
    #[error("the name of a key must be a text of 1 to {MAX_NAME_BYTES} bytes without control characters, found {0:?}")]
    Name(String),
    /// Nobody has this id.
    #[error("the key file {} has no key {id}: `safelmm key list` shows those it has", path.display())]
    UnknownId {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        id: KeyId,
    },
    /// The operating system gives no random numbers.
    #[error("cannot make a key: the operating system gives no random numbers: {0}")]
    NoRandomness(io::Error),
}

/// What the file says of one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The public part of the key.
    pub id: KeyId,
    /// What the operator called it.
    pub name: String,
    /// What is kept of its secret.
    pub sha256: SecretHash,
    /// When it was made.
    #[serde(with = "moment")]
    pub created: SystemTime,
    /// From when on it counts no more.
    #[serde(with = "optional_moment", skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<SystemTime>,
    /// What its requests may ask for.
    pub rights: Rights,
    /// How much of it.
    #[serde(default)]
    pub limits: Limits,
}

impl KeyRecord {
    /// Whether the key counts no more.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format_version: u32,
    #[serde(default, rename = "key")]
    keys: Vec<KeyRecord>,
}

/// A key that was just made: the one moment at which its text exists.
#[derive(Debug)]
pub struct Issued {
    /// The text for its holder.
    pub key: KeyText,
    /// What the file says of it.
    pub record: KeyRecord,
}

/// Makes a key and adds it to the file, which is created where it is missing. `lifetime` none means no end.
/// Errors: [`KeyFileError`].
pub fn add(
    path: &Path,
    name: &str,
    rights: Rights,
    limits: Limits,
    lifetime: Option<Duration>,
) -> Result<Issued, KeyFileError> {
    if name.trim().is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(KeyFileError::Name(name.chars().take(MAX_NAME_BYTES).collect()));
    }
    // To the second, as the file says it.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created = UNIX_EPOCH + Duration::from_secs(since_1970.as_secs());
    update(path, |keys| {
        let mut key = KeyText::random().map_err(KeyFileError::NoRandomness)?;
        while keys.iter().any(|known| known.id == key.id()) {
            key = KeyText::random().map_err(KeyFileError::NoRandomness)?;
        }
        let record = KeyRecord {
            id: key.id(),
            name: name.to_owned(),
            sha256: key.hash(),
            created,
            expires: lifetime.map(|lifetime| created + lifetime.min(LONGEST_LIFETIME)),
            rights,
            limits,
        };
        keys.push(record.clone());
        Ok(Issued { key, record })
    })
}

/// Takes a key out of the file and returns what the file said of it. Errors: [`KeyFileError`].
pub fn revoke(path: &Path, id: KeyId) -> Result<KeyRecord, KeyFileError> {
    // First of all, so that a mistaken path leaves no lock file behind.
    list(path)?;
    update(path, |keys| match keys.iter().position(|known| known.id == id) {
        Some(position) => Ok(keys.remove(position)),
        None => Err(KeyFileError::UnknownId { path: path.to_owned(), id }),
    })
}

/// All keys of the file, expired ones too, in the order in which they were made. Errors: [`KeyFileError`].
pub fn list(path: &Path) -> Result<Vec<KeyRecord>, KeyFileError> {
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.display().to_string()),
        _ => KeyFileError::Unreadable { path: path.to_owned(), source },
    })?;
    let malformed = |reason: String| KeyFileError::Malformed { path: path.to_owned(), reason };
    let content: Content = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if content.format_version != FORMAT_VERSION {
        let found = content.format_version;
        return Err(malformed(format!("format_version is {found}, and this program reads {FORMAT_VERSION}")));
    }
    let mut seen = HashSet::new();
    match content.keys.iter().find(|key| !seen.insert(key.id)) {
        Some(twice) => Err(malformed(format!("the key {} is there twice", twice.id))),
        None => Ok(content.keys),
    }
}

/// Changes the keys under a lock, so that of two commands at the same time neither undoes the other.
fn update<T>(
    path: &Path,
    change: impl FnOnce(&mut Vec<KeyRecord>) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    // Behind a symbolic link, the file it points to is replaced and not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let unwritable = |source| KeyFileError::Unwritable { path: path.to_owned(), source };
    let lock = private(&beside(path, ".lock")).map_err(unwritable)?;
    lock.lock().map_err(unwritable)?;
    let mut keys = match list(path) {
        Err(KeyFileError::Missing(_)) => Vec::new(),
        listed => listed?,
    };
    let outcome = change(&mut keys)?;
    let content = toml::to_string(&Content { format_version: FORMAT_VERSION, keys });
    let text = content.map_err(|error| unwritable(io::Error::other(error)))?;
    replace(path, &format!("{HEADER}{text}")).map_err(unwritable)?;
    Ok(outcome)
}

/// Only under the lock, which makes the name of the new file unique.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut file = private(&new)?;
    file.set_len(0)?;
    if let Ok(old) = fs::metadata(path) {
        // A command run by root must leave the file to the server's user, who reads it.
        let created = file.metadata()?;
        if (old.uid(), old.gid()) != (created.uid(), created.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        // The owner alone writes; a group may read where it could before.
        file.set_permissions(fs::Permissions::from_mode(0o600 | (old.mode() & 0o040)))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Opens a file for writing that its owner alone may read, and creates it where it is missing.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The day of a moment, in UTC: 2027-01-31.
pub fn date(moment: SystemTime) -> String {
    moment::text(moment).chars().take(10).collect()
}

/// A moment as RFC 3339 says it, in UTC and to the second.
pub(super) mod moment {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn text(moment: SystemTime) -> String {
        humantime::format_rfc3339_seconds(moment).to_string()
    }

    pub fn serialize<S: Serializer>(moment: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*moment))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text)
            .map_err(|_| de::Error::custom(format!("expected a moment such as 2027-01-31T12:00:00Z, found {text:?}")))
    }
}

mod optional_moment {
    use std::time::SystemTime;

    use serde::{Deserializer, Serializer};

    use super::moment;

    pub fn serialize<S: Serializer>(moment: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => moment::serialize(moment, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        moment::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Allowed, Use};

    fn new(path: &Path, name: &str) -> Result<Issued, KeyFileError> {
        add(path, name, Rights::default(), Limits::default(), None)
    }

    #[test]
    fn a_key_is_read_back_with_everything_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let rights = Rights {
            rating_ceiling: Some(safelmm_model::Rating::PG),
            uses: vec![Use::NonCommercial],
            stores: Allowed::Only(vec!["poems".into()]),
            manage_stores: true,
            models: Allowed::ALL,
        };
        let limits = Limits { concurrent: std::num::NonZeroU32::new(3), ..Limits::default() };
        let day = Duration::from_secs(86_400);
        let Issued { key, record } = add(&path, "A \"reading\" app", rights.clone(), limits, Some(day)).unwrap();
        new(&path, "second").unwrap();
        let read = list(&path).unwrap();
        assert_eq!((read.len(), read[0].id, &read[0].name), (2, key.id(), &"A \"reading\" app".to_owned()));
        assert_eq!((&read[0].rights, read[0].limits), (&rights, limits));
        assert_eq!((read[0].created, read[0].expires), (record.created, Some(record.created + day)));
        assert!(!read[0].has_expired(record.created) && read[0].has_expired(record.created + day));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(key.reveal().rsplit('-').next().unwrap()), "{text}");
    }

    #[test]
    fn of_many_writers_at_the_same_time_none_loses_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || (0..5).for_each(|n| drop(new(path, &format!("{writer}.{n}")).unwrap())));
            }
        });
        assert_eq!(list(&path).unwrap().len(), 20);
    }

    #[test]
    fn what_a_killed_writer_left_behind_harms_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        new(&path, "first").unwrap();
        fs::write(folder.path().join("keys.toml.new"), "x".repeat(100_000)).unwrap();
        assert_eq!(list(&path).unwrap().len(), 1);
        new(&path, "second").unwrap();
        assert_eq!(list(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_link_stays_a_link_and_a_readable_group_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real.toml"), folder.path().join("keys.toml"));
        new(&path, "first").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        new(&link, "second").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((list(&path).unwrap().len(), fs::metadata(&path).unwrap().mode() & 0o777), (2, 0o640));
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            list(&path).unwrap_err().to_string()
        };
        let missing = list(&path).unwrap_err().to_string();
        assert!(missing.contains("keys.toml") && missing.contains("safelmm key new --keys"), "{missing}");
        assert!(refused("key = 1").contains("keys.toml"));
        assert!(refused("format_version = 9").contains("this program reads 1"));
        assert!(refused("format_version = 1\nowner = 'x'").contains("unknown field `owner`"));
        fs::remove_file(&path).unwrap();
        new(&path, "one").unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (from, to, expected) in [
            ("uses = [\"commercial\"]", "uses = [\"military\"]", "military"),
            ("models = \"all\"", "models = 3", "\"all\" or a list of names"),
            ("[key.limits]", "[key.limits]\nconcurrent = 0", "nonzero"),
            ("created = \"2", "created = \"x", "2027-01-31T12:00:00Z"),
            ("sha256 = \"", "sha256 = \"z", "64 hexadecimal digits"),
        ] {
            assert!(good.contains(from), "no {from} in {good}");
            let error = refused(&good.replace(from, to));
            assert!(error.contains(expected) && error.contains("keys.toml"), "{to}: {error}");
        }
        let twice = good.clone() + good.split_once("\n\n").unwrap().1.split_once("\n\n").unwrap().1;
        assert!(refused(&twice).contains("is there twice"), "{twice}");
        fs::write(&path, &good).unwrap();
        for name in ["", " ", "a\nb", &"n".repeat(101)] {
            assert!(matches!(new(&path, name), Err(KeyFileError::Name(_))), "{name:?}");
        }
        let unknown = revoke(&path, KeyText::random().unwrap().id()).unwrap_err();
        assert!(matches!(unknown, KeyFileError::UnknownId { .. }));
        revoke(&path, list(&path).unwrap()[0].id).unwrap();
        assert!(list(&path).unwrap().is_empty());
    }
}
