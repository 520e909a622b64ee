//! What can go wrong with a suffix array.

use std::io;
use std::path::{Path, PathBuf};

/// Why a suffix array was not built or not opened.
#[derive(Debug, thiserror::Error)]
pub enum SuffixError {
    /// A file cannot be written or read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is damaged, cut short, or of another version.
    #[error("{path}: {found}, expected {expected}; build the index of this segment again, or restore the file")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// The starts of documents do not fit the tokens.
    #[error("documents: {0}")]
    Starts(String),
    /// More tokens than one array can index.
    #[error("{tokens} tokens in {documents} documents are too many for one segment: at most {most} together; split it")]
    TooLong {
        /// Tokens given.
        tokens: usize,
        /// Documents given.
        documents: usize,
        /// The most that tokens and documents may be together.
        most: usize,
    },
    /// The suffixes could not be sorted, which means that memory ran out.
    #[error("the suffixes could not be sorted: {0}; about {1} MiB of memory are needed")]
    Sort(String, usize),
    /// The caller asked to stop.
    #[error("stopped before the suffix array was ready")]
    Stopped,
}

impl SuffixError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> SuffixError {
        let path = path.to_owned();
        move |source| SuffixError::Io { path, source }
    }

    pub(crate) fn damaged(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> SuffixError {
        SuffixError::Damaged { path: path.to_owned(), found: found.into(), expected: expected.into() }
    }
}
