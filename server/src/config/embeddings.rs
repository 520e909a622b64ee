//! `[embeddings]`: the encoder that answers `/v1/embeddings`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Overrides;

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    folder: Option<PathBuf>,
}

/// The encoder that answers `/v1/embeddings`.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingsConfig {
    /// `folder`, `--embeddings`, `SAFELMM_EMBEDDINGS`: a folder of a BERT or (XLM-)RoBERTa encoder, served under its own
    /// name; none means that embeddings are made of the model's own states. In the file it is relative to the file.
    pub folder: Option<PathBuf>,
}

impl EmbeddingsConfig {
    pub(super) fn resolve(section: Section, overrides: &Overrides, folder_of_file: &Path) -> Self {
        let in_file = section.folder.map(|folder| folder_of_file.join(folder));
        EmbeddingsConfig { folder: overrides.embeddings.clone().or(in_file) }
    }
}
