//! The indexes of a segment: keys, suffixes and passages, and how they are written and opened.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Prepared, Tokens};
use crate::error::{StoreError, io_error};
use crate::index::{self, IndexError, IndexParams, VectorIndex, VectorWriter};
use crate::passages::{Passage, PassageError, PassageIndex, PassageWriter};
use crate::store::{StoreSettings, passage_text};
use crate::suffix::{SuffixError, SuffixIndex};

const KEYS: &str = "keys";
const SUFFIX: &str = "suffix";
const PASSAGES: &str = "passages";

/// The indexes of a segment, open.
pub(crate) struct Parts {
    pub keys: VectorIndex,
    pub suffix: SuffixIndex,
    pub passages: PassageIndex,
}

impl Parts {
    pub(crate) fn open(folder: &Path, tokens: Arc<Tokens>, starts: &[u32]) -> Result<Parts, StoreError> {
        let count = tokens.as_ref().as_ref().len();
        let keys = VectorIndex::open(&folder.join(KEYS)).map_err(key_error(folder))?;
        if keys.len() != count {
            return Err(crate::error::damaged(&folder.join(KEYS), "it has not one key for each token"));
        }
        let suffix = SuffixIndex::open(&folder.join(SUFFIX), tokens, starts).map_err(suffix_error(folder))?;
        let passages = PassageIndex::open(&folder.join(PASSAGES), starts.len(), count);
        Ok(Parts { keys, suffix, passages: passages.map_err(passage_error(folder))? })
    }

    /// The key of a token, `[dim]`.
    pub(crate) fn key(&self, position: u32, out: &mut [f32]) {
        self.keys.vector(position, out);
    }

    /// The vectors of a document's passages, in their order; none where there is no encoder of passages.
    pub(crate) fn dense_of(&self, document: u32) -> Vec<Vec<f32>> {
        let Some(dim) = self.passages.components() else { return Vec::new() };
        let of_document = |passage: &u32| self.passages.passage(*passage).is_some_and(|(d, _)| d == document);
        // Passages stand in the order of their documents.
        let passages = 0..self.passages.len() as u32;
        let first = partition_point(passages.clone(), |p| self.passages.passage(p).is_some_and(|(d, _)| d < document));
        let vectors = (first..passages.end).take_while(of_document).map(|passage| {
            let mut vector = vec![0.0; dim];
            self.passages.vector(passage, &mut vector);
            vector
        });
        vectors.collect()
    }
}

/// The first number of a range for which `holds` is false; it holds for all before it.
fn partition_point(range: std::ops::Range<u32>, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match holds(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// The indexes of a segment that is being written.
pub(crate) struct PartsWriter {
    keys: VectorWriter,
    passages: PassageWriter,
}

impl PartsWriter {
    /// `passage_dim`: numbers in a passage's vector, where there is one.
    pub(crate) fn create(
        folder: &Path,
        settings: &StoreSettings,
        passage_dim: Option<usize>,
    ) -> Result<PartsWriter, StoreError> {
        for name in [KEYS, SUFFIX, PASSAGES] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        let keys = VectorWriter::create(&folder.join(KEYS), settings.dim).map_err(key_error(folder))?;
        let passages = PassageWriter::create(&folder.join(PASSAGES), passage_dim).map_err(passage_error(folder))?;
        Ok(PartsWriter { keys, passages })
    }

    /// Adds keys, `[tokens, dim]`.
    pub(crate) fn push_keys(&mut self, folder: &Path, rows: &[f32]) -> Result<(), StoreError> {
        self.keys.push(rows).map_err(key_error(folder))
    }

    /// Adds the passages of a document that begins at token `first`.
    pub(crate) fn push_passages(
        &mut self,
        folder: &Path,
        document: u32,
        first: u32,
        prepared: &Prepared<'_>,
    ) -> Result<(), StoreError> {
        for (number, range) in prepared.passages.iter().enumerate() {
            let passage = Passage {
                document,
                tokens: first + range.start as u32..first + range.end as u32,
                text: passage_text(prepared.text, prepared.offsets, range),
            };
            let vector = prepared.dense.get(number).map(|vector| &vector[..]);
            self.passages.push(&passage, vector).map_err(passage_error(folder))?;
        }
        Ok(())
    }

    /// Builds all indexes, with the parameters of keys and of passages.
    pub(crate) fn finish(
        self,
        folder: &Path,
        tokens: &[u32],
        starts: &[u32],
        [keys, passages]: [&IndexParams; 2],
        stop: &AtomicBool,
    ) -> Result<(), StoreError> {
        self.keys.finish().map_err(key_error(folder))?;
        index::build(&folder.join(KEYS), keys, &|_, _| {}, stop).map_err(key_error(folder))?;
        SuffixIndex::build(&folder.join(SUFFIX), tokens, starts, stop).map_err(suffix_error(folder))?;
        self.passages.finish(passages, stop).map(|_| ()).map_err(passage_error(folder))
    }
}

fn key_error(folder: &Path) -> impl FnOnce(IndexError) -> StoreError + use<> {
    let folder = folder.join(KEYS);
    move |error| from_index(folder, error)
}

fn from_index(folder: std::path::PathBuf, error: IndexError) -> StoreError {
    match error {
        IndexError::Stopped => StoreError::Stopped,
        IndexError::Io { path, source, .. } => StoreError::Io { file: path, source },
        error => StoreError::Index { folder, what: error.to_string() },
    }
}

fn suffix_error(folder: &Path) -> impl FnOnce(SuffixError) -> StoreError + use<> {
    let folder = folder.join(SUFFIX);
    move |error| match error {
        SuffixError::Stopped => StoreError::Stopped,
        SuffixError::Io { path, source } => StoreError::Io { file: path, source },
        error => StoreError::Index { folder, what: error.to_string() },
    }
}

fn passage_error(folder: &Path) -> impl FnOnce(PassageError) -> StoreError + use<> {
    let folder = folder.join(PASSAGES);
    move |error| match error {
        PassageError::Stopped => StoreError::Stopped,
        PassageError::Io { path, source } => StoreError::Io { file: path, source },
        PassageError::Vectors(error) => from_index(folder, error),
        error => StoreError::Index { folder, what: error.to_string() },
    }
}
