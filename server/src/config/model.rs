//! `[model]`: which checkpoint is served, under which name and up to which rating.

use std::path::{Path, PathBuf};

use safelmm_model::Rating;
use serde::Deserialize;

use super::{ConfigError, Overrides};

/// The ceiling of a rated model whose configuration names none.
pub const DEFAULT_RATING_CEILING: Rating = Rating::R;

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    folder: Option<PathBuf>,
    name: Option<String>,
    rating_ceiling: Option<Rating>,
}

/// Which checkpoint is served, under which name and up to which rating.
#[derive(Clone, Debug, Default)]
pub struct ModelConfig {
    /// `folder`, `--model`, `SAFELMM_MODEL`: the checkpoint folder; none means the embedded demo. In the file it is
    /// relative to the file.
    pub folder: Option<PathBuf>,
    /// `name`: the id under which clients ask for the model; none means the checkpoint's own name.
    pub name: Option<String>,
    /// `rating_ceiling`: the highest rating a request may ask for, and the rating of requests that name none. None
    /// means [`DEFAULT_RATING_CEILING`] for a rated model.
    pub rating_ceiling: Option<Rating>,
}

impl ModelConfig {
    pub(super) fn resolve(section: Section, overrides: &Overrides, folder_of_file: &Path) -> Result<Self, ConfigError> {
        let named = section.name.as_deref();
        if let Some(name) = named.filter(|name| name.is_empty() || name.chars().any(char::is_control)) {
            return Err(ConfigError::Invalid {
                key: "[model] name",
                expected: "a text without control characters, not empty".into(),
                found: format!("{name:?}"),
            });
        }
        let in_file = section.folder.map(|folder| folder_of_file.join(folder));
        Ok(ModelConfig {
            folder: overrides.model.clone().or(in_file),
            name: section.name,
            rating_ceiling: section.rating_ceiling,
        })
    }
}
