//! The weights of the learned policies: `rating` (an ordinal linear model) and `perplexity` (two n-gram models).
//!
//! Everything here is a pure function of the files it reads and a seed: the same command writes the same bytes on every
//! machine. Texts come from five places ([`examples`]): documents that the rule of [`crate::rating`] rates sentence by sentence,
//! sentences written for the purpose in 31 languages, the word lists of the rule set into innocent text, generated stories,
//! and, where it is named, a set of labelled tweets. Parts are held out by the hash of their text and seen by nothing but the
//! figures that the command prints.

pub mod examples;
pub mod figures;
pub mod languages;

pub mod sources;

pub mod contrast;
pub mod linear;
pub mod ngrams;

pub mod command;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safelmm_datastore::document::DocumentError;
use safelmm_learned::ModelError;

/// Why weights could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyModelError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of documents that cannot be read.
    #[error("{}: {source}", file.display())]
    Documents {
        /// Which.
        file: PathBuf,
        /// Why.
        source: DocumentError,
    },
    /// A line that is not as it should be.
    #[error("{}:{line}: {what}", file.display())]
    Line {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong and what was expected.
        what: String,
    },
    /// Too little to learn from.
    #[error("{0}")]
    Data(String),
    /// The model that was made is none.
    #[error("the model that was made cannot be read: {0}")]
    Model(#[from] ModelError),
}

/// Writes a file beside its place and renames it: an interrupted command leaves the old one.
///
/// # Errors
/// When it cannot be written.
pub fn write(file: &Path, bytes: &[u8]) -> Result<(), PolicyModelError> {
    let error = |source| PolicyModelError::File { file: file.to_owned(), source };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(error)?;
    }
    let mut beside = file.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, file)).map_err(error)
}
