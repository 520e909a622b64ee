//! The files that a checkpoint is made of.

use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

use super::error::{CheckpointError, File};
use super::weights::{INDEX, SINGLE};
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
        match self.optional(name)? {
            Some(bytes) => Ok(bytes),
            None => Err(match self.gguf()? {
                Some(gguf) => CheckpointError::MissingBesideGguf { file: self.file(name), gguf },
                None => CheckpointError::Missing(self.file(name)),
            }),
        }
    }

    /// The GGUF file of a folder without safetensors.
    pub fn gguf(&self) -> Result<Option<String>, CheckpointError> {
        let Source::Folder(folder) = self else { return Ok(None) };
        if [SINGLE, INDEX].into_iter().any(|name| folder.join(name).exists()) {
            return Ok(None);
        }
        let failed = |source| CheckpointError::Read { file: File(folder.display().to_string()), source };
        let mut found = None;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".gguf") {
                continue;
            }
            if let Some(other) = found.replace(name.clone()) {
                let reason = format!("{other} lies beside it: expected one GGUF file with all weights in the folder");
                return Err(CheckpointError::Gguf { file: self.file(&name), reason });
            }
        }
        Ok(found)
    }

    /// A file as JSON, or `None` where there is none of that name.
    pub fn json<T: for<'d> Deserialize<'d>>(&self, name: &str) -> Result<Option<T>, CheckpointError> {
        let Some(bytes) = self.optional(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| CheckpointError::Json { file: self.file(name), reason: e.to_string() })
    }
}
