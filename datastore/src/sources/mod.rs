//! Where documents come from: JSON lines, Parquet tables, and folders of text.

pub(crate) mod jsonl;
mod parquet;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::document::{Document, DocumentError, Permissions};
use crate::license::License;
use crate::rating::Rating;

/// What an operator says of all documents of a source that do not say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceDefaults {
    /// The license. Without one, documents that name none are refused.
    pub license: Option<License>,
    /// The rating.
    pub rating: Option<Rating>,
    /// The author.
    pub author: String,
    /// The language code.
    pub lang: String,
    /// Who holds the rights.
    pub rights_holder: String,
    /// Where the documents can be found.
    pub url: String,
    /// Name of the collection.
    pub source: String,
    /// What the rights holder allows.
    pub permissions: Option<Permissions>,
}

/// The documents of a source, one at a time.
pub type Documents = Box<dyn Iterator<Item = Result<Document, DocumentError>>>;

/// The documents of a file or folder: `.jsonl` (also `.json` and `.ndjson`, with `.gz` or `.zst` behind), `.parquet`, a
/// single `.txt` or `.md` file, or a folder with such.
///
/// # Errors
/// When it cannot be opened or is of another kind; each item when it is no document.
pub fn open(path: &Path, defaults: &SourceDefaults) -> Result<Documents, DocumentError> {
    let found = path.metadata().map_err(|source| DocumentError::Read { file: path.to_owned(), source })?;
    if found.is_dir() {
        return text::folder(path, defaults.clone());
    }
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let inner = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    if [".jsonl", ".ndjson", ".json"].iter().any(|end| inner.ends_with(end)) {
        return Ok(Box::new(jsonl::open(path, defaults.clone())?));
    }
    if name.ends_with(".parquet") {
        return parquet::open(path, defaults.clone());
    }
    match text::is_text(path) {
        true => text::file(path, defaults.clone()),
        false => Err(DocumentError::Kind(path.to_owned())),
    }
}

/// A document that may say less than it must.
#[derive(Default, Deserialize)]
struct Raw {
    id: String,
    text: String,
    #[serde(default)]
    license: Option<License>,
    #[serde(default, alias = "language")]
    lang: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    rights_holder: Option<String>,
    #[serde(default)]
    rating: Option<Rating>,
    #[serde(default)]
    permissions: Option<Permissions>,
}

impl Raw {
    /// The document, with what the operator says where it says nothing. `place` names it in errors.
    fn complete(self, defaults: &SourceDefaults, place: impl FnOnce() -> String) -> Result<Document, DocumentError> {
        let Some(license) = self.license.or_else(|| defaults.license.clone()) else {
            return Err(DocumentError::NoLicense { place: place(), document: self.id });
        };
        let or =
            |said: Option<String>, default: &str| said.filter(|s| !s.is_empty()).unwrap_or_else(|| default.to_owned());
        Ok(Document {
            id: self.id,
            text: self.text,
            license,
            lang: or(self.lang, &defaults.lang),
            source: or(self.source, &defaults.source),
            title: self.title.unwrap_or_default(),
            author: or(self.author, &defaults.author),
            url: or(self.url, &defaults.url),
            rights_holder: or(self.rights_holder, &defaults.rights_holder),
            rating: self.rating.or(defaults.rating),
            permissions: self.permissions.or(defaults.permissions),
        })
    }
}

/// A file's bytes as text.
fn utf8(bytes: Vec<u8>, place: impl FnOnce() -> String) -> Result<String, DocumentError> {
    String::from_utf8(bytes).map_err(|e| DocumentError::NotUtf8 { place: place(), byte: e.utf8_error().valid_up_to() })
}
