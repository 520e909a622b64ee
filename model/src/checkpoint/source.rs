//! The files that a checkpoint is made of.

use std::io;
use std::path::Path;

use serde::Deserialize;

use super::error::{CheckpointError, File};
use crate::mapping::Bytes;

/// The files of a checkpoint: a folder, or a table inside the program.
pub(super) enum Source<'a> {
    Folder(&'a Path),
    Embedded { name: &'a str, files: &'static [(&'static str, &'static [u8])] },
}

impl Source<'_> {
    /// How messages name a file.
    pub fn file(&self, name: &str) -> File {
        match self {
            Source::Folder(folder) => File(folder.join(name).display().to_string()),
            Source::Embedded { name: model, .. } => File(format!("{model}:{name}")),
        }
    }

    /// The bytes of a file, or `None` where there is none of that name.
    pub fn optional(&self, name: &str) -> Result<Option<Bytes>, CheckpointError> {
        match self {
            Source::Folder(folder) => match Bytes::map(&folder.join(name)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CheckpointError::Read { file: self.file(name), source }),
            },
            Source::Embedded { files, .. } => {
                Ok(files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| Bytes::Static(bytes)))
            }
        }
    }

    /// The bytes of a file.
    pub fn required(&self, name: &str) -> Result<Bytes, CheckpointError> {
        self.optional(name)?.ok_or_else(|| CheckpointError::Missing(self.file(name)))
    }

    /// A file as JSON, or `None` where there is none of that name.
    pub fn json<T: for<'d> Deserialize<'d>>(&self, name: &str) -> Result<Option<T>, CheckpointError> {
        let Some(bytes) = self.optional(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| CheckpointError::Json { file: self.file(name), reason: e.to_string() })
    }
}
