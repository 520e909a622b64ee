//! What one request sees of stores: the documents that it may use, and no others.

mod cursor;
mod part;
mod trace;
mod types;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use cursor::ViewCursor;
pub use types::{Continuations, DocumentInfo, DocumentKey, Neighbour, Occurrence, PassageHit, TraceMatch};

use crate::error::StoreError;
use crate::gate::{Access, Group};
use crate::index::{self, Found, SearchScratch};
use crate::license::License;
use crate::passages::{self, PassageError};
use crate::segment::Segment;
use crate::store::Inner;
use crate::suffix::DEFAULT_LIMIT;
use part::Part;

/// Memory that searches use again; one for each sequence.
#[derive(Default)]
pub struct Scratch {
    search: SearchScratch,
    found: Vec<Found>,
}

/// A consistent picture of the documents that a request may use. Cheap to clone. Documents that are added later do not
/// appear; documents that are removed vanish at once.
///
/// Segments of other access groups are not in it at all: nothing of them is opened, counted or compared.
#[derive(Clone)]
pub struct View {
    parts: Arc<[Part]>,
}

impl View {
    pub(crate) fn new(inner: Arc<Inner>, access: &Access, exclude: &[String]) -> View {
        let state = inner.read();
        let excluded: Vec<u64> = exclude.iter().filter_map(|id| state.catalog.find(id)).map(|e| e.number).collect();
        let mut segments: Vec<_> = state.segments.iter().filter(|s| access.allows(&s.entry.group)).cloned().collect();
        drop(state);
        // By what is in them, not by when they were made: equals are told apart by their place.
        segments.sort_by(|a, b| {
            let order = |s: &Segment| (s.entry.bucket, s.entry.number);
            a.entry.group.cmp(&b.entry.group).then_with(|| order(a).cmp(&order(b)))
        });
        let part = |segment: Arc<Segment>| {
            let named = access.must_name(&segment.entry.group);
            Part::new(inner.clone(), segment, &excluded, named)
        };
        View { parts: segments.into_iter().map(part).collect() }
    }

    /// Several views as one: as if their stores were one store.
    pub fn join(views: &[View]) -> View {
        View { parts: views.iter().flat_map(|view| view.parts.iter().cloned()).collect() }
    }

    /// Names of the stores of which there is something in it.
    pub fn stores(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.parts.iter().map(Part::store).collect();
        names.dedup();
        names
    }

    /// Name of the store that holds a document.
    pub fn store_of(&self, key: DocumentKey) -> Option<&str> {
        self.parts.get(key.segment as usize).map(Part::store)
    }

    /// Whether a document may be used only where the answer names it, however small its part.
    pub fn must_be_named(&self, key: DocumentKey) -> bool {
        self.parts.get(key.segment as usize).is_some_and(Part::must_be_named)
    }

    /// Whether there is nothing that the request may use.
    pub fn is_empty(&self) -> bool {
        !self.parts.iter().any(Part::has_live)
    }

    /// The licenses of the documents in it, ascending.
    pub fn licenses(&self) -> Vec<License> {
        let live = self.parts.iter().filter(|part| part.has_live());
        let mut licenses: Vec<License> = live.map(|part| part.license().clone()).collect();
        licenses.sort();
        licenses.dedup();
        licenses
    }

    /// What the documents in it are alike in, ascending: their licenses, ratings and permissions.
    pub fn groups(&self) -> Vec<Group> {
        let live = self.parts.iter().filter(|part| part.has_live());
        let mut groups: Vec<Group> = live.map(|part| part.segment().entry.group.clone()).collect();
        groups.sort();
        groups.dedup();
        groups
    }

    /// The document with this id; `None` when it was removed or excluded, or is not in the view.
    pub fn find(&self, id: &str) -> Option<DocumentKey> {
        (0..).zip(self.parts.iter()).find_map(|(segment, part)| {
            let document = part.find(id)?;
            part.is_live(document).then_some(DocumentKey { segment, document })
        })
    }

    /// Identifies what is in it: the segments, their licenses, and what is removed and excluded. What a request may not
    /// use does not change it. For keys of caches.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in self.parts.iter() {
            part.identify(&mut hash);
        }
        hash.finalize().into()
    }

    /// Tokens of its documents.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(Part::tokens).sum()
    }

    /// How many documents are under each license.
    pub fn documents_by_license(&self) -> BTreeMap<License, usize> {
        let mut counts = BTreeMap::new();
        for part in self.parts.iter().filter(|part| part.has_live()) {
            *counts.entry(part.license().clone()).or_default() += part.live().count();
        }
        counts
    }

    /// The `k` tokens whose keys are nearest to `key`, ascending by squared Euclidean distance; of equals the first by
    /// document and place. `effort` trades time for recall, `None` is the index's default. `out` is cleared. A key of
    /// another dimension, or with numbers that are not finite, is near to nothing.
    pub fn neighbours(
        &self,
        key: &[f32],
        k: usize,
        effort: Option<usize>,
        scratch: &mut Scratch,
        out: &mut Vec<Neighbour>,
    ) {
        out.clear();
        let Scratch { search, found } = scratch;
        let is_live = |part: &Part, row: u32| part.is_live(part.segment().document_of(row));
        let checks: Vec<_> = self.parts.iter().map(|part| (part, move |row: u32| is_live(part, row))).collect();
        // A document that is removed during the search is noticed here, and the search made again without it.
        loop {
            let asked = checks.iter().map(|(part, check)| {
                let all: &(dyn Fn(u32) -> bool + Sync) = check;
                index::Part { index: &part.segment().parts.keys, allowed: (!part.is_whole()).then_some(all) }
            });
            let asked: Vec<index::Part<'_>> = asked.collect();
            if index::search_together(&asked, key, k, effort, search, found).is_err() {
                return;
            }
            let is_live = |found: &Found| {
                let part = &self.parts[found.part as usize];
                part.is_whole() || is_live(part, found.hit.row)
            };
            if found.iter().all(is_live) {
                break;
            }
        }
        out.extend(found.iter().filter_map(|Found { part, hit }| {
            let segment = self.parts[*part as usize].segment();
            let document = segment.document_of(hit.row);
            let position = hit.row - segment.range(document)?.start;
            let token = *segment.tokens().get(hit.row as usize)?;
            Some(Neighbour {
                distance: hit.distance,
                token,
                document: DocumentKey { segment: *part, document },
                position,
            })
        }));
    }

    /// What followed the longest suffix of `context` that occurs in the view. `limit`: occurrences that are counted at
    /// most, `None` is the index's default.
    pub fn continuations(&self, context: &[u32], limit: Option<usize>) -> Continuations {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        let found = self
            .parts
            .iter()
            .map(|part| part.settled(|allowed| part.segment().parts.suffix.continuations(context, allowed, limit)));
        cursor::combine(&self.parts, found, limit)
    }

    /// Follows a context that grows by a token at a time; of it the last `max_context` tokens count. Much faster than
    /// [`View::continuations`] for each.
    pub fn cursor(&self, max_context: usize) -> ViewCursor {
        ViewCursor::new(self.parts.clone(), max_context)
    }

    /// The `n` best passages for the words of `query` by BM25, the best first. Counts and lengths are those of the
    /// view's live passages alone.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub fn passages_bm25(&self, query: &str, n: usize) -> Result<Vec<PassageHit>, StoreError> {
        let checks: Vec<_> = self.parts.iter().map(|part| move |document: u32| part.is_live(document)).collect();
        loop {
            let segments: Vec<passages::Segment<'_>> = self
                .parts
                .iter()
                .zip(&checks)
                .map(|(part, check)| {
                    let filter: Option<&dyn Fn(u32) -> bool> = if part.is_whole() { None } else { Some(check) };
                    (&part.segment().parts.passages, filter)
                })
                .collect();
            let found = passages::bm25(&segments, query, n).map_err(|e| self.passage_error(e))?;
            let hits: Vec<_> = found.into_iter().filter_map(|(number, hit)| self.passage_hit(number, hit)).collect();
            if hits.iter().all(|hit| self.is_live(hit.document)) {
                return Ok(hits);
            }
        }
    }

    /// The `n` passages whose vectors are nearest to `vector`, the best first; of equals the first by document and
    /// place. The score is the squared Euclidean distance with the sign turned.
    ///
    /// # Errors
    /// When a store has no vectors of passages, or those of another dimension.
    pub fn passages_dense(&self, vector: &[f32], n: usize) -> Result<Vec<PassageHit>, StoreError> {
        let mut hits = Vec::new();
        for (number, part) in self.parts.iter().enumerate() {
            let found = part.settled(|allowed| part.segment().parts.passages.dense(vector, n, allowed));
            let found = found.map_err(|e| self.passage_error(e))?;
            hits.extend(found.into_iter().filter_map(|hit| self.passage_hit(number, hit)));
        }
        let order = |hit: &PassageHit| (hit.document, hit.passage);
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| order(a).cmp(&order(b))));
        hits.truncate(n);
        Ok(hits)
    }

    fn passage_hit(&self, number: usize, hit: passages::PassageHit) -> Option<PassageHit> {
        let first = self.parts.get(number)?.segment().range(hit.document)?.start;
        let document = DocumentKey { segment: number as u32, document: hit.document };
        let tokens = hit.tokens.start.checked_sub(first)?..hit.tokens.end.checked_sub(first)?;
        Some(PassageHit { document, passage: hit.passage, tokens, score: hit.score })
    }

    fn passage_error(&self, error: PassageError) -> StoreError {
        let folder = self.parts.first().map(|part| part.segment().folder().to_owned()).unwrap_or_default();
        StoreError::Index { folder, what: error.to_string() }
    }

    /// Maximal stretches of at least `min_len` of `tokens` that stand verbatim in the view, by their start, with up to
    /// `most` places of each. None is contained in another.
    pub fn trace(&self, tokens: &[u32], min_len: usize, most: usize) -> Vec<TraceMatch> {
        trace::trace(&self.parts, tokens, min_len, most)
    }

    /// What is known of a document; `None` when it was removed or excluded.
    pub fn document(&self, key: DocumentKey) -> Option<DocumentInfo> {
        let part = self.parts.get(key.segment as usize).filter(|part| part.is_live(key.document))?;
        part.document(key.document)
    }

    /// Whether a document is neither removed nor excluded.
    pub fn is_live(&self, key: DocumentKey) -> bool {
        self.parts.get(key.segment as usize).is_some_and(|part| part.is_live(key.document))
    }

    /// Tokens `range` of a document; `None` when it was removed, or when it has no such tokens.
    pub fn document_tokens(&self, key: DocumentKey, range: Range<u32>) -> Option<&[u32]> {
        let part = self.parts.get(key.segment as usize).filter(|part| part.is_live(key.document))?;
        let all = part.segment().range(key.document)?;
        let tokens = part.segment().tokens().get(all.start as usize..all.end as usize)?;
        tokens.get(range.start as usize..range.end as usize)
    }

    /// The text that tokens `range` of a document cover, widened to whole characters; `None` when it was removed, or
    /// when it has no such tokens.
    pub fn document_text(&self, key: DocumentKey, range: Range<u32>) -> Option<&str> {
        let part = self.parts.get(key.segment as usize).filter(|part| part.is_live(key.document))?;
        part.segment().text_of(key.document, range)
    }

    /// The tokens of a passage.
    pub fn passage_tokens(&self, hit: &PassageHit) -> Option<&[u32]> {
        self.document_tokens(hit.document, hit.tokens.clone())
    }

    /// The text of a passage.
    pub fn passage_text(&self, hit: &PassageHit) -> Option<&str> {
        self.document_text(hit.document, hit.tokens.clone())
    }
}
