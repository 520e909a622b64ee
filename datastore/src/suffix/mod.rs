//! A suffix array over the tokens of a segment: which tokens followed a context, and where a text stands word for word.
//!
//! Documents are separate: no match crosses the border between two.

mod build;
mod continuations;
mod documents;
mod error;
mod format;
mod search;
mod trace;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::mapping::Mapping;
use documents::Documents;
use format::Layout;
use search::Parts;

pub use continuations::{Continuations, DEFAULT_LIMIT, Occurrence, SuffixCursor};
pub use error::SuffixError;
pub use trace::{Match, Place};

/// Tokens that several parts of a segment look at: mapped, or in memory.
pub type SharedTokens = Arc<dyn AsRef<[u32]> + Send + Sync>;

/// The suffix array of a segment, memory-mapped; cheap to clone.
#[derive(Clone)]
pub struct SuffixIndex(Arc<Inner>);

struct Inner {
    file: Mapping,
    layout: Layout,
    tokens: SharedTokens,
    documents: Documents,
}

impl SuffixIndex {
    /// Sorts the suffixes of all documents and writes `dir/suffix.bin`; the folder is made if need be.
    ///
    /// `starts` holds the first token of each document, ascending from 0. Takes linear time and about 12 bytes of memory a
    /// token. The same tokens give the same file.
    ///
    /// # Errors
    /// [`SuffixError`]: starts that do not fit, too many tokens, no memory, the file, or `stop`, which is looked at
    /// between the steps.
    pub fn build(dir: &Path, tokens: &[u32], starts: &[u32], stop: &AtomicBool) -> Result<(), SuffixError> {
        build::build(dir, tokens, starts, stop)
    }

    /// Opens what [`SuffixIndex::build`] wrote for the same tokens and documents.
    ///
    /// Header, sizes and the table of first tokens are checked; a damage further inside costs matches but never a panic,
    /// and [`SuffixIndex::verify`] finds it.
    ///
    /// # Errors
    /// [`SuffixError`]: a file that is missing, damaged or of other tokens, or starts that do not fit.
    pub fn open(dir: &Path, tokens: SharedTokens, starts: &[u32]) -> Result<SuffixIndex, SuffixError> {
        let path = dir.join(format::FILE);
        let length = (*tokens).as_ref().len();
        let documents = Documents::new(starts, length)?;
        let file = Mapping::open(&path).map_err(SuffixError::io(&path))?;
        file.advise_random();
        let words = file.view(0, file.len() / 4).unwrap_or_default();
        let layout = format::read(&path, file.len() as u64, words, length, documents.len())?;
        Ok(SuffixIndex(Arc::new(Inner { file, layout, tokens, documents })))
    }

    /// Tokens of the segment.
    pub fn len(&self) -> usize {
        self.0.layout.positions.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the array holds every position once and in order. Takes time in proportion to the tokens and to the
    /// repeats among them.
    ///
    /// # Errors
    /// [`SuffixError::Damaged`] says where it does not.
    pub fn verify(&self, dir: &Path) -> Result<(), SuffixError> {
        let parts = self.parts();
        let damaged = |at: usize, expected: &str| {
            let found = format!("entry {at} of the suffixes is wrong");
            Err(SuffixError::damaged(&dir.join(format::FILE), found, expected))
        };
        let mut seen = vec![false; parts.tokens.len()];
        for (at, &position) in parts.positions.iter().enumerate() {
            match seen.get_mut(position as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return damaged(at, "every position once"),
            }
        }
        for (at, pair) in parts.positions.windows(2).enumerate() {
            let key = |position: u32| (parts.suffix(position), position);
            if key(pair[0]) >= key(pair[1]) {
                return damaged(at + 1, "ascending suffixes");
            }
        }
        for (at, &id) in parts.ids.iter().enumerate() {
            let (first, next) = (parts.heads[at] as usize, parts.heads[at + 1] as usize);
            let holds = |at: usize| parts.positions.get(at).and_then(|&p| parts.suffix(p).first()) == Some(&id);
            if first >= next || !holds(first) || !holds(next - 1) {
                return damaged(first, &format!("suffixes that begin with token {id}"));
            }
        }
        Ok(())
    }

    fn parts(&self) -> Parts<'_> {
        let Inner { file, layout, tokens, documents } = &*self.0;
        // `format::read` has seen that the file holds them.
        let part = |words: &Range<usize>| file.view(words.start * 4, words.len()).unwrap_or_default();
        Parts {
            tokens: (**tokens).as_ref(),
            documents,
            ids: part(&layout.ids),
            heads: part(&layout.heads),
            positions: part(&layout.positions),
        }
    }
}

#[cfg(test)]
mod tests;
