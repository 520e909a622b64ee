//! JSON lines: a document on each.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{Raw, SourceDefaults, utf8};
use crate::document::{Document, DocumentError};

/// Bytes of a line at most: a file without line ends would fill the memory.
const MAX_LINE: u64 = 256 << 20;

/// The documents of a file; `.gz` and `.zst` are decompressed.
pub(crate) fn open(path: &Path, defaults: SourceDefaults) -> Result<Lines, DocumentError> {
    let error = |source| DocumentError::Read { file: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    let reader: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file).map_err(error)?),
        _ => Box::new(file),
    };
    Ok(Lines { path: path.to_owned(), defaults, reader: BufReader::new(reader), number: 0, ended: false })
}

/// The documents of a file, one at a time.
pub(crate) struct Lines {
    path: PathBuf,
    defaults: SourceDefaults,
    reader: BufReader<Box<dyn Read>>,
    number: usize,
    ended: bool,
}

impl Lines {
    fn line(&mut self) -> Result<Option<Vec<u8>>, DocumentError> {
        let error = |source| DocumentError::Read { file: self.path.clone(), source };
        loop {
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(error)?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == MAX_LINE {
                let what = format!("line {} is longer than {MAX_LINE} bytes", self.number + 1);
                return Err(error(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
            self.number += 1;
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn document(&self, line: Vec<u8>) -> Result<Document, DocumentError> {
        let place = || format!("{}, line {}", self.path.display(), self.number);
        let line = utf8(line, place)?;
        let raw: Raw = serde_json::from_str(&line).map_err(|source| DocumentError::Line {
            file: self.path.clone(),
            line: self.number,
            source,
        })?;
        raw.complete(&self.defaults, place)
    }
}

impl Iterator for Lines {
    type Item = Result<Document, DocumentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.line() {
            Ok(line) => line.map(|line| self.document(line)),
            Err(error) => {
                // A stream that is broken once stays so.
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}
