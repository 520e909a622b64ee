//! Documents as they come in: JSON lines, plain or compressed by gzip.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::license::{License, LicenseClass};
use crate::rating::Rating;

/// A text with its provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Unique within its source.
    pub id: String,
    /// The text.
    pub text: String,
    /// Language code.
    #[serde(default, alias = "language")]
    pub lang: String,
    /// The license; without one there is no entry.
    pub license: License,
    /// Where the collection came from.
    #[serde(default)]
    pub source: String,
    /// Title of the work.
    #[serde(default)]
    pub title: String,
    /// Author of the work.
    #[serde(default)]
    pub author: String,
    /// Where it can be found.
    #[serde(default)]
    pub url: String,
    /// Who holds the rights, where that is not the author.
    #[serde(default)]
    pub rights_holder: String,
    /// Content rating; without one a document counts as X.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rating>,
    /// What the rights holder allows; where nothing is said, the license speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
}

/// What the rights holder allows beyond or below the license.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// Whether a model may be trained on the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<bool>,
    /// Whether the text may be retrieved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieve: Option<bool>,
}

impl Document {
    /// Whether it may be retrieved at all; for what, the gate decides by its license.
    pub fn retrieve(&self) -> bool {
        let said = self.permissions.and_then(|p| p.retrieve);
        said.unwrap_or(self.license.class() < LicenseClass::NoDerivatives)
    }

    /// Whether a model may be trained on it: when the license allows it and the rights holder does not forbid it.
    pub fn train(&self) -> bool {
        self.license.may_train() && self.permissions.and_then(|p| p.train) != Some(false)
    }

    /// Whether it can enter a store that takes texts of up to `max_bytes`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self, max_bytes: usize) -> Result<(), DocumentError> {
        let refuse = |what: &str| Err(DocumentError::Refused { document: self.id.clone(), what: what.to_owned() });
        let members = [&self.id, &self.title, &self.author, &self.url, &self.lang, &self.rights_holder, &self.source];
        if self.id.is_empty() {
            return refuse("it has no id, and needs one that is unique in the store");
        }
        if self.text.trim().is_empty() {
            return refuse("its text is empty");
        }
        if self.text.len() > max_bytes {
            let bytes = self.text.len();
            return refuse(&format!("its text has {bytes} bytes, more than the limit of {max_bytes}: split it"));
        }
        if self.text.contains('\0') {
            return refuse("its text has NUL bytes: it is no text, or a damaged one");
        }
        if members.iter().any(|m| m.contains('\0') || m.len() > MAX_MEMBER_BYTES) {
            return refuse("its id, title, author or the like has NUL bytes, or more than 4 KiB");
        }
        Ok(())
    }
}

/// Bytes of what is said of a document, for each member.
const MAX_MEMBER_BYTES: usize = 1 << 12;

/// Why documents cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be opened or read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is of a kind that is not read.
    #[error("{0}: expected .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .txt, .md, or a folder with .txt and .md files")]
    Kind(PathBuf),
    /// A file of columns does not hold documents.
    #[error("{file}: {what}")]
    Table {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A line is no document.
    #[error("{file}, line {line}: {source}: expected a JSON object with id, text, lang and license")]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A text is not UTF-8.
    #[error("{place}: it is not UTF-8, at byte {byte}: convert it first")]
    NotUtf8 {
        /// The file, and the line where there are lines.
        place: String,
        /// The first byte that is not.
        byte: usize,
    },
    /// Nothing says under which license a document stands.
    #[error("{place}: document {document:?} names no license: add one to it, or name one for the whole source")]
    NoLicense {
        /// The file, and the line where there are lines.
        place: String,
        /// Its id.
        document: String,
    },
    /// A document cannot enter.
    #[error("document {document:?}: {what}")]
    Refused {
        /// Its id.
        document: String,
        /// Why.
        what: String,
    },
}

impl DocumentError {
    /// Whether no document can follow, as opposed to one document that is wrong.
    pub fn ends_source(&self) -> bool {
        matches!(self, DocumentError::Read { .. } | DocumentError::Kind(_) | DocumentError::Table { .. })
    }
}

/// The documents of a JSON-lines file, one at a time; `.gz` and `.zst` files are decompressed. Empty lines are passed
/// over.
///
/// # Errors
/// When the file cannot be opened; each item when its line cannot be read or is no document.
pub fn read_jsonl(path: &Path) -> Result<impl Iterator<Item = Result<Document, DocumentError>> + use<>, DocumentError> {
    crate::sources::jsonl::open(path, crate::sources::SourceDefaults::default())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const GOOD: &str = r#"{"id": "a", "text": "One.", "lang": "en", "license": "CC0-1.0"}"#;

    #[test]
    fn plain_and_compressed_files_are_read_alike() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, gz) = (folder.path().join("a.jsonl"), folder.path().join("a.jsonl.gz"));
        std::fs::write(&plain, format!("{GOOD}\n\n{GOOD}\n")).unwrap();
        let mut encoder = GzEncoder::new(File::create(&gz).unwrap(), Compression::fast());
        encoder.write_all(&std::fs::read(&plain).unwrap()).unwrap();
        encoder.finish().unwrap();
        let read = |path: &Path| read_jsonl(path).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(read(&plain).len(), 2);
        assert_eq!(read(&plain), read(&gz));
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.jsonl");
        for bad in ["{", r#"{"id": "a", "text": "One.", "lang": "en"}"#, &GOOD.replace("CC0-1.0", "mine")] {
            std::fs::write(&path, format!("{GOOD}\n{bad}\n")).unwrap();
            let message = read_jsonl(&path).unwrap().nth(1).unwrap().unwrap_err().to_string();
            assert!(message.contains("line 2"), "{message}");
        }
        let message = read_jsonl(Path::new("/nonexistent.jsonl")).err().unwrap().to_string();
        assert!(message.contains("/nonexistent.jsonl"), "{message}");
    }

    #[test]
    fn what_is_said_of_a_document_is_read() {
        let line = r#"{"id": "a", "text": "One.", "language": "de", "license": "CC-BY-NC-4.0", "rating": "PG",
            "rights_holder": "A", "permissions": {"retrieve": false}}"#;
        let document: Document = serde_json::from_str(line).unwrap();
        assert_eq!((&*document.lang, document.rating, document.retrieve()), ("de", Some(Rating::PG), false));
        assert!(!document.train());
        let document: Document = serde_json::from_str(GOOD).unwrap();
        assert!(document.retrieve() && document.train() && document.rating.is_none());
        let unknown: Document = serde_json::from_str(&GOOD.replace("CC0-1.0", "LicenseRef-x")).unwrap();
        assert!(!unknown.retrieve());
    }

    #[test]
    fn what_cannot_enter_says_why() {
        let good: Document = serde_json::from_str(GOOD).unwrap();
        good.check(100).unwrap();
        let with = |change: &dyn Fn(&mut Document)| {
            let mut document = good.clone();
            change(&mut document);
            document.check(100).unwrap_err().to_string()
        };
        for (message, word) in [
            (with(&|d| d.text = " \n".to_owned()), "empty"),
            (with(&|d| d.text = "a\0b".to_owned()), "NUL"),
            (with(&|d| d.text = "a".repeat(101)), "limit of 100"),
            (with(&|d| d.id = String::new()), "no id"),
            (with(&|d| d.title = "\0".to_owned()), "NUL"),
        ] {
            assert!(message.contains(word), "{message}");
        }
    }
}
