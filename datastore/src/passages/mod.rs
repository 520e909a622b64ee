//! Passages of a segment's documents, found by their words (BM25) and by meaning (dense vectors).
//!
//! ```text
//! passages.bin   document, tokens and number of terms of each passage
//! words/         which terms occur in which passages (tantivy)
//! dense/         a vector index with a row for each passage, where there is a sentence encoder
//! ```

mod bm25;
mod cut;
mod error;
mod postings;
mod search;
mod sentences;
mod table;
mod terms;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::index::{self, IndexParams, SearchScratch, VectorIndex, VectorWriter};
use postings::{Postings, PostingsWriter};
use search::Selection;
use table::{Record, Table};

pub use bm25::{Segment, bm25};
pub use cut::{PASSAGE_SIZE, PASSAGE_STRIDE, cut};
pub use error::PassageError;

/// The folder of the terms.
const WORDS: &str = "words";
/// The folder of the vectors.
const DENSE: &str = "dense";

/// A passage to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage<'a> {
    /// Its document, as an index in the segment; documents come in their order.
    pub document: u32,
    /// Its tokens among those of the segment.
    pub tokens: Range<u32>,
    /// Its text.
    pub text: &'a str,
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct PassageHit {
    /// Its number in the segment.
    pub passage: u32,
    /// Its document, as an index in the segment.
    pub document: u32,
    /// Its tokens among those of the segment.
    pub tokens: Range<u32>,
    /// How well it fits, the more the better: BM25's score, or the squared L2 distance of the vectors with the sign turned
    /// (for vectors of length 1 their cosine is 1 + score / 2).
    pub score: f32,
}

/// Writes the passages of a segment, one after another. Until it finishes, terms and postings are in memory, in
/// proportion to the text.
pub struct PassageWriter {
    dir: PathBuf,
    records: Vec<Record>,
    postings: PostingsWriter,
    vectors: Option<VectorWriter>,
    components: usize,
}

impl PassageWriter {
    /// Begins in a folder, which is made if need be. `components` is the dimension of the dense vectors, if there are any.
    ///
    /// # Errors
    /// [`PassageError`] when files cannot be made.
    pub fn create(dir: &Path, components: Option<usize>) -> Result<PassageWriter, PassageError> {
        std::fs::create_dir_all(dir).map_err(PassageError::io(dir))?;
        let vectors = components.map(|components| VectorWriter::create(&dir.join(DENSE), components)).transpose()?;
        Ok(PassageWriter {
            dir: dir.to_owned(),
            records: Vec::new(),
            postings: PostingsWriter::create(&dir.join(WORDS))?,
            vectors,
            components: components.unwrap_or(0),
        })
    }

    /// Adds a passage; `vector` is there exactly if the writer was told its dimension.
    ///
    /// # Errors
    /// [`PassageError`]: a passage out of order, a vector too many or too few or of another dimension, or the file.
    pub fn push(&mut self, passage: &Passage<'_>, vector: Option<&[f32]>) -> Result<(), PassageError> {
        let refuse = |reason: String| Err(PassageError::Passage { passage: self.records.len(), reason });
        if let Some(last) = self.records.last().filter(|last| last.document > passage.document) {
            return refuse(format!(
                "document {} after document {}: give them in order",
                passage.document, last.document
            ));
        }
        if passage.tokens.start > passage.tokens.end {
            return refuse(format!("its tokens {:?} end before they begin", passage.tokens));
        }
        match (&mut self.vectors, vector) {
            (None, None) => {}
            (Some(writer), Some(vector)) if vector.len() == self.components => writer.push(vector)?,
            (_, vector) => {
                let components = vector.map_or(0, <[f32]>::len);
                return refuse(format!("a vector of {components} components, expected {}", self.components));
            }
        }
        let terms = self.postings.push(passage.text)?;
        let Range { start, end } = passage.tokens;
        self.records.push(Record { document: passage.document, start, end, terms });
        Ok(())
    }

    /// Builds the indexes and says how many passages there are. `params` is for the dense vectors; `stop` is looked at
    /// between and, while their index is built, within the steps.
    ///
    /// # Errors
    /// [`PassageError`]: the files, or `stop`.
    pub fn finish(self, params: &IndexParams, stop: &AtomicBool) -> Result<usize, PassageError> {
        if stop.load(Ordering::Relaxed) {
            return Err(PassageError::Stopped);
        }
        let words = self.postings.finish()?;
        if let Some(vectors) = self.vectors {
            vectors.finish()?;
            index::build(&self.dir.join(DENSE), params, &|_, _| {}, stop).map_err(|error| match error {
                index::IndexError::Stopped => PassageError::Stopped,
                error => error.into(),
            })?;
        }
        let path = self.dir.join(table::FILE);
        table::write(&path, &self.records, self.components, words).map_err(PassageError::io(&path))?;
        Ok(self.records.len())
    }
}

/// The passages of a segment, memory-mapped; cheap to clone. Nothing runs in the background.
#[derive(Clone)]
pub struct PassageIndex(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    table: Table,
    postings: Postings,
    dense: Option<VectorIndex>,
}

impl PassageIndex {
    /// Opens what a [`PassageWriter`] wrote for a segment of so many documents and tokens. Table, sizes and the checksums of
    /// the terms are checked.
    ///
    /// # Errors
    /// [`PassageError`]: a file that is missing, damaged, or of another segment.
    pub fn open(dir: &Path, documents: usize, tokens: usize) -> Result<PassageIndex, PassageError> {
        let table = Table::open(&dir.join(table::FILE), documents, tokens)?;
        let passages = table.records().len();
        let postings = Postings::open(&dir.join(WORDS), passages, table.words)?;
        let dense = match table.components {
            0 => None,
            components => {
                let index = VectorIndex::open(&dir.join(DENSE))?;
                if (index.len(), index.dim()) != (passages, components) {
                    let found = format!("{} vectors of {} components", index.len(), index.dim());
                    let expected = format!("{passages} of {components}, as in the table beside it");
                    return Err(PassageError::damaged(&dir.join(DENSE), found, expected));
                }
                Some(index)
            }
        };
        Ok(PassageIndex(Arc::new(Inner { dir: dir.to_owned(), table, postings, dense })))
    }

    /// Passages.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether there is no passage.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimension of the dense vectors, if there are any.
    pub fn components(&self) -> Option<usize> {
        self.0.dense.as_ref().map(VectorIndex::dim)
    }

    /// Document and tokens of a passage.
    pub fn passage(&self, passage: u32) -> Option<(u32, Range<u32>)> {
        self.records().get(passage as usize).map(|record| (record.document, record.tokens()))
    }

    /// Writes the dense vector of a passage into `out`, which has [`PassageIndex::components`] numbers.
    pub fn vector(&self, passage: u32, out: &mut [f32]) {
        if let Some(dense) = &self.0.dense {
            dense.vector(passage, out);
        }
    }

    /// The best `n` passages of allowed documents (none: of all) for a query, as [`bm25`] over this segment alone.
    ///
    /// # Errors
    /// [`PassageError`] when the postings cannot be read.
    pub fn bm25(
        &self,
        query: &str,
        n: usize,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Vec<PassageHit>, PassageError> {
        Ok(bm25(&[(self, allowed)], query, n)?.into_iter().map(|(_, hit)| hit).collect())
    }

    /// The `n` passages of allowed documents (none: of all) whose vectors are nearest to one, equal ones by number.
    ///
    /// # Errors
    /// [`PassageError`]: no vectors, or one of another dimension or with numbers that are not finite.
    pub fn dense(
        &self,
        vector: &[f32],
        n: usize,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Vec<PassageHit>, PassageError> {
        let index = self.0.dense.as_ref().ok_or_else(|| PassageError::NoVectors(self.0.dir.clone()))?;
        let selection = Selection::new(self, allowed);
        let holds = |passage: u32| selection.holds(passage);
        let filter: Option<&(dyn Fn(u32) -> bool + Sync)> = allowed.is_some().then_some(&holds);
        let mut hits = Vec::new();
        index.search(vector, n, None, filter, &mut SearchScratch::default(), &mut hits)?;
        let hit = |hit: index::Hit| {
            let record = selection.records.get(hit.row as usize)?;
            let (document, tokens) = (record.document, record.tokens());
            Some(PassageHit { passage: hit.row, document, tokens, score: -hit.distance })
        };
        Ok(hits.into_iter().filter_map(hit).collect())
    }

    fn records(&self) -> &[Record] {
        self.0.table.records()
    }

    fn postings(&self) -> &Postings {
        &self.0.postings
    }
}

#[cfg(test)]
mod tests;
