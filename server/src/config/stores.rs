//! `[stores]`: licensed text that requests may attach.

use std::path::{Path, PathBuf};

use safelmm_datastore::gate::GateTable;
use serde::Deserialize;

use super::Overrides;

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    folder: Option<PathBuf>,
    training_index: Option<PathBuf>,
    #[serde(default)]
    gate: GateTable,
}

/// Licensed text that requests may attach.
#[derive(Clone, Debug, Default)]
pub struct StoresConfig {
    /// `folder`, `--stores`, `SAFELMM_STORES`: the folder that holds one folder for each store; none means no stores. In
    /// the configuration file it is relative to that file.
    pub folder: Option<PathBuf>,
    /// `training_index`: a store made of the text that the model was trained on. It informs no answer; answers that say
    /// where they come from are compared with it. Relative to the file.
    pub training_index: Option<PathBuf>,
    /// `[stores.gate]`: which license classes are open to which use.
    pub gate: GateTable,
}

impl StoresConfig {
    pub(super) fn resolve(section: Section, overrides: &Overrides, folder_of_file: &Path) -> Self {
        let in_file = |path: Option<PathBuf>| path.map(|path| folder_of_file.join(path));
        StoresConfig {
            folder: overrides.stores.clone().or(in_file(section.folder)),
            training_index: in_file(section.training_index),
            gate: section.gate,
        }
    }
}
