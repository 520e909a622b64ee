//! `[keys]`: who may ask.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Overrides;

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    file: Option<PathBuf>,
}

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct KeysConfig {
    /// `file`, `--keys`, `SAFELMM_KEYS`: the key file that `safelmm key` writes; none serves this machine alone, without
    /// keys. In the configuration file it is relative to that file.
    pub file: Option<PathBuf>,
}

impl KeysConfig {
    pub(super) fn resolve(section: Section, overrides: &Overrides, folder_of_file: &Path) -> Self {
        let in_file = section.file.map(|file| folder_of_file.join(file));
        KeysConfig { file: overrides.keys.clone().or(in_file) }
    }
}
