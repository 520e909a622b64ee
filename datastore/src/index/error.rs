//! What can go wrong with a vector index.

use std::io;
use std::path::{Path, PathBuf};

/// Errors of building, opening and searching a vector index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The file system said no.
    #[error("cannot {action} {path}: {source}; check the disk, its free space and the rights on the folder")]
    Io {
        /// What was tried: "read", "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is not what `build` wrote.
    #[error("{path} is damaged: {reason}; build the index again from its vectors, or the segment from its documents")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A component is infinite, not a number, or beyond what 16-bit floats hold (±65504).
    #[error("row {row} has the component {value}, which no 16-bit float holds: expected finite numbers within ±65504")]
    NonFinite {
        /// The row, from 0.
        row: usize,
        /// The component.
        value: f32,
    },
    /// A query or a batch of rows does not fit the dimension of the index.
    #[error("{got} components were given: expected {expected}")]
    Dimension {
        /// Components given.
        got: usize,
        /// What would have been right, in words.
        expected: String,
    },
    /// A query has a component that is infinite or not a number.
    #[error("component {component} of the query is {value}: expected a finite number")]
    Query {
        /// The component, from 0.
        component: usize,
        /// Its value.
        value: f32,
    },
    /// A parameter is out of its range.
    #[error("{name} is {value}: expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: usize,
        /// Its range.
        expected: &'static str,
    },
    /// The caller asked to stop; the folder holds no finished index.
    #[error("building the index was stopped; build it again")]
    Stopped,
}

impl IndexError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IndexError {
        move |source| IndexError::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> IndexError {
        IndexError::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
