//! Why a store cannot do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use crate::document::DocumentError;
use crate::encoder::EncodeError;

/// Why a store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read or written.
    #[error("{}: {source}{}", file.display(), advice(source))]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no store.
    #[error("{0}: there is no store here (no manifest.json): expected a folder made by `store create`")]
    NoStore(PathBuf),
    /// There is something already.
    #[error("{0}: something is there already: a new store needs a folder that is empty or does not exist")]
    Exists(PathBuf),
    /// Another process has the store open.
    #[error("{0}: another process has this store open: stop it, or ask the server that serves the store")]
    Locked(PathBuf),
    /// The store was made by a program that this one does not know.
    #[error(
        "{file}: format version {found}, expected {expected}: the store was made by another version of this program"
    )]
    Version {
        /// The manifest.
        file: PathBuf,
        /// What it says.
        found: u32,
        /// What this program writes.
        expected: u32,
    },
    /// The keys are those of another model.
    #[error(
        "the store {store:?} belongs to another model ({what}: the store says {expected}, the model {found}): \
         serve it with its own model, or make a new store from the documents"
    )]
    OtherModel {
        /// The store.
        store: String,
        /// Fingerprint, dimension or vocabulary.
        what: &'static str,
        /// The store's.
        expected: String,
        /// The model's.
        found: String,
    },
    /// Settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// A file is not what was written.
    #[error("{}: damaged: {what}; restore it from a copy, or make the store again from the documents", file.display())]
    Damaged {
        /// The file or folder.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The key-value store failed.
    #[error("{}: the catalogue failed: {what}", folder.display())]
    Storage {
        /// Its folder.
        folder: PathBuf,
        /// What it said.
        what: String,
    },
    /// A document cannot enter.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The model cannot encode a document.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An index cannot be built, opened or asked.
    #[error("{}: {what}", folder.display())]
    Index {
        /// Its folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An earlier failure left the open store in a state that only reopening repairs.
    #[error("an earlier write failed ({0}): close the store and open it again")]
    Poisoned(String),
    /// The caller asked to stop; what was committed stays.
    #[error("stopped on request; what was committed stays")]
    Stopped,
}

/// What to do about an error of the operating system.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space; what was committed is safe",
        io::ErrorKind::FileTooLarge => ": a limit on file sizes is in force; what was committed is safe",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": a store needs a folder that this user may write to, also to be read"
        }
        _ => "",
    }
}

/// Names the file of an input or output error.
pub(crate) fn io_error(file: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let file = file.to_owned();
    move |source| StoreError::Io { file, source }
}

pub(crate) fn damaged(file: &Path, what: impl Into<String>) -> StoreError {
    StoreError::Damaged { file: file.to_owned(), what: what.into() }
}
