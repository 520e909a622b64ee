//! Documents as they come in: JSON lines, plain or compressed by gzip.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::license::License;

/// A text with its provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Unique within its source.
    pub id: String,
    /// The text.
    pub text: String,
    /// Language code.
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
}

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
}

/// The documents of a JSON-lines file, one at a time; `.gz` files are decompressed. Empty lines are passed over.
///
/// # Errors
/// When the file cannot be opened; each item when its line cannot be read or is no document.
pub fn read_jsonl(path: &Path) -> Result<impl Iterator<Item = Result<Document, DocumentError>> + use<>, DocumentError> {
    let path = path.to_owned();
    let file = File::open(&path).map_err(|source| DocumentError::Read { file: path.clone(), source })?;
    let reader: Box<dyn Read> = match path.extension().is_some_and(|e| e == "gz") {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let lines = BufReader::new(reader).lines().enumerate();
    Ok(lines.filter_map(move |(number, line)| match line {
        Err(source) => Some(Err(DocumentError::Read { file: path.clone(), source })),
        Ok(line) if line.trim().is_empty() => None,
        Ok(line) => Some(serde_json::from_str(&line).map_err(|source| DocumentError::Line {
            file: path.clone(),
            line: number + 1,
            source,
        })),
    }))
}

#[cfg(test)]
mod tests {
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
}
