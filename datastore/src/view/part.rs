//! A segment as one request sees it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::DocumentInfo;
use crate::license::License;
use crate::segment::Segment;
use crate::store::Inner;

/// A segment with the documents that are excluded.
#[derive(Clone)]
pub(super) struct Part {
    inner: Arc<Inner>,
    segment: Arc<Segment>,
    /// Documents of the segment, ascending.
    excluded: Arc<[u32]>,
    /// Whether its documents may be used only where they are named.
    named: bool,
}

/// A predicate for documents; `None` stands for all.
pub(super) type Allowed<'a> = Option<&'a dyn Fn(u32) -> bool>;

impl Part {
    /// `excluded`: numbers in the catalogue.
    pub(super) fn new(inner: Arc<Inner>, segment: Arc<Segment>, excluded: &[u64], named: bool) -> Part {
        let mut excluded: Vec<u32> = excluded.iter().filter_map(|number| segment.find(*number)).collect();
        excluded.sort_unstable();
        Part { inner, segment, excluded: excluded.into(), named }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(super) fn store(&self) -> &str {
        self.inner.name()
    }

    pub(super) fn must_be_named(&self) -> bool {
        self.named
    }

    pub(super) fn license(&self) -> &License {
        &self.segment.entry.group.license
    }

    /// Whether none of its documents is removed or excluded.
    pub(super) fn is_whole(&self) -> bool {
        self.excluded.is_empty() && self.segment.dead_count() == 0
    }

    /// Whether a document is neither removed nor excluded.
    pub(super) fn is_live(&self, document: u32) -> bool {
        !self.segment.is_dead(document) && self.excluded.binary_search(&document).is_err()
    }

    pub(super) fn has_live(&self) -> bool {
        self.live().next().is_some()
    }

    /// Its documents that are neither removed nor excluded.
    pub(super) fn live(&self) -> impl Iterator<Item = u32> {
        (0..self.segment.documents()).filter(|document| self.is_live(*document))
    }

    /// Their tokens.
    pub(super) fn tokens(&self) -> u64 {
        match self.is_whole() {
            true => u64::from(self.segment.entry.tokens),
            false => self.live().filter_map(|document| self.segment.range(document)).map(|r| r.len() as u64).sum(),
        }
    }

    /// The document with this id.
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        let number = self.inner.read().catalog.find(id)?.number;
        self.segment.find(number)
    }

    /// Runs a search, and again when a document was removed while it ran, so that no result holds one that was.
    pub(super) fn settled<T>(&self, search: impl Fn(Allowed<'_>) -> T) -> T {
        loop {
            let before = self.segment.dead_count();
            let allowed = |document: u32| self.is_live(document);
            let found = if self.is_whole() { search(None) } else { search(Some(&allowed)) };
            if self.segment.dead_count() == before {
                return found;
            }
        }
    }

    /// What is known of a document.
    pub(super) fn document(&self, document: u32) -> Option<DocumentInfo> {
        let number = self.segment.number(document)?;
        let record = self.inner.read().catalog.document(self.inner.folder(), number);
        // A record that cannot be read names nobody: whoever verifies the store is told why.
        record.ok().flatten().map(|record| record.into_info())
    }

    /// Adds what it is to a fingerprint.
    pub(super) fn identify(&self, hash: &mut Sha256) {
        hash.update(self.segment.entry.sha256.as_bytes());
        for document in (0..self.segment.documents()).filter(|d| !self.is_live(*d)) {
            hash.update(document.to_le_bytes());
        }
        hash.update([0xff; 5]);
    }
}
