//! `[model]`: which checkpoint is served, under which name and up to which rating.

use std::path::{Path, PathBuf};

use safelmm_model::{Quantize, Rating};
use serde::Deserialize;

use super::{ConfigError, Overrides};

/// The rating of requests that name none, where the configuration names none either.
pub const DEFAULT_RATING: Rating = Rating::PG;

/// The section as the user wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    folder: Option<PathBuf>,
    adapter: Option<PathBuf>,
    name: Option<String>,
    quantize: Option<Quantize>,
    rating_ceiling: Option<Rating>,
    default_rating: Option<Rating>,
}

/// Which checkpoint is served, under which name and up to which rating.
#[derive(Clone, Debug, Default)]
pub struct ModelConfig {
    /// `folder`, `--model`, `SAFELMM_MODEL`: the checkpoint folder; none means the embedded demo. In the file it is
    /// relative to the file.
    pub folder: Option<PathBuf>,
    /// `adapter`, `--adapter`, `SAFELMM_ADAPTER`: the folder of a low-rank adapter that is merged into the checkpoint's
    /// weights; none leaves them as they are. In the file it is relative to the file.
    pub adapter: Option<PathBuf>,
    /// `name`: the id under which clients ask for the model; none means the checkpoint's own name.
    pub name: Option<String>,
    /// `quantize`, `--quantize`, `SAFELMM_QUANTIZE`: the bits in which weights are held, `none`, `q8` or `q4`. Stores of keys
    /// belong to the model in these bits.
    pub quantize: Quantize,
    /// `rating_ceiling`: the highest rating a request may ask for. None means X, for a rated model.
    pub rating_ceiling: Option<Rating>,
    /// `default_rating`: the rating of requests that name none, at most the ceiling. None means [`DEFAULT_RATING`], or
    /// the ceiling where that is lower.
    pub default_rating: Option<Rating>,
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
        if let (Some(ceiling), Some(default)) = (section.rating_ceiling, section.default_rating)
            && default > ceiling
        {
            return Err(ConfigError::Invalid {
                key: "[model] default_rating",
                expected: format!("at most the rating_ceiling {ceiling}"),
                found: default.to_string(),
            });
        }
        let in_file = |path: Option<PathBuf>| path.map(|path| folder_of_file.join(path));
        let folder = overrides.model.clone().or(in_file(section.folder));
        let adapter = overrides.adapter.clone().or(in_file(section.adapter));
        if let (None, Some(adapter)) = (&folder, &adapter) {
            return Err(ConfigError::Invalid {
                key: "[model] adapter",
                expected: "the checkpoint folder that it was trained on, by --model or [model] folder, beside it"
                    .into(),
                found: format!("{} alone", adapter.display()),
            });
        }
        Ok(ModelConfig {
            folder,
            adapter,
            name: section.name,
            quantize: overrides.quantize.or(section.quantize).unwrap_or_default(),
            rating_ceiling: section.rating_ceiling,
            default_rating: section.default_rating,
        })
    }
}
