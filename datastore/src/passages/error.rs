//! What can go wrong with an index of passages.

use std::io;
use std::path::{Path, PathBuf};

use crate::index::IndexError;

/// Why an index of passages was not built, not opened or not read.
#[derive(Debug, thiserror::Error)]
pub enum PassageError {
    /// A file cannot be written or read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is damaged, cut short, or of another version.
    #[error("{path}: {found}, expected {expected}; build the passages of this segment again, or restore the file")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// The index of words says no.
    #[error("{path}: {reason}")]
    Words {
        /// The folder.
        path: PathBuf,
        /// What tantivy said.
        reason: String,
    },
    /// A passage does not fit those before it.
    #[error("passage {passage}: {reason}")]
    Passage {
        /// Its number.
        passage: usize,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Dense search where no vectors were stored.
    #[error("{0} holds no dense vectors; build the store with a sentence encoder to search by meaning")]
    NoVectors(PathBuf),
    /// The vectors of the passages.
    #[error(transparent)]
    Vectors(#[from] IndexError),
    /// The caller asked to stop.
    #[error("stopped before the passages were ready")]
    Stopped,
}

impl PassageError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> PassageError {
        let path = path.to_owned();
        move |source| PassageError::Io { path, source }
    }

    pub(super) fn damaged(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> PassageError {
        PassageError::Damaged { path: path.to_owned(), found: found.into(), expected: expected.into() }
    }

    pub(super) fn words(path: &Path) -> impl FnOnce(tantivy::TantivyError) -> PassageError {
        let path = path.to_owned();
        move |error| PassageError::Words { path, reason: error.to_string() }
    }
}
