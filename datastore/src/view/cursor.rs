//! Continuations over several segments.

use std::sync::Arc;

use super::part::Part;
use super::{Continuations, DocumentKey, Occurrence};
use crate::suffix::{self, DEFAULT_LIMIT, SuffixCursor};

/// Follows a context that grows by a token at a time.
pub struct ViewCursor {
    parts: Arc<[Part]>,
    cursors: Vec<SuffixCursor>,
}

impl ViewCursor {
    pub(super) fn new(parts: Arc<[Part]>, max_context: usize) -> ViewCursor {
        let cursors = parts.iter().map(|part| SuffixCursor::new(&part.segment().parts.suffix, max_context)).collect();
        ViewCursor { parts, cursors }
    }

    /// The context grows by a token.
    pub fn push(&mut self, token: u32) {
        self.cursors.iter_mut().for_each(|cursor| cursor.push(token));
    }

    /// What followed the longest suffix of the context that occurs in the view; `limit` as in
    /// [`View::continuations`](super::View::continuations).
    pub fn continuations(&mut self, limit: Option<usize>) -> Continuations {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        let mut found = Vec::new();
        for (part, cursor) in self.parts.iter().zip(&mut self.cursors) {
            // Looking does not move a cursor, but for noting how far back it need look again.
            let cursor = std::cell::RefCell::new(cursor);
            found.push(part.settled(|allowed| cursor.borrow_mut().continuations(allowed, limit)));
        }
        combine(&self.parts, found.into_iter(), limit)
    }
}

/// The continuations of the segments in which the longest suffix occurs, taken together.
pub(super) fn combine(
    parts: &[Part],
    found: impl Iterator<Item = suffix::Continuations>,
    limit: usize,
) -> Continuations {
    let mut best = Continuations::default();
    for (number, (part, found)) in (0..).zip(parts.iter().zip(found)) {
        if found.matched == 0 || found.matched < best.matched {
            continue;
        }
        if found.matched > best.matched {
            best = Continuations { matched: found.matched, ..Continuations::default() };
        }
        best.too_many |= found.too_many;
        best.occurrences.extend(found.occurrences.iter().filter_map(|occurrence| {
            let position = occurrence.position - part.segment().range(occurrence.document)?.start;
            let document = DocumentKey { segment: number, document: occurrence.document };
            Some(Occurrence { token: occurrence.token, document, position })
        }));
    }
    if best.too_many || best.occurrences.len() > limit {
        best.too_many = true;
        best.occurrences.clear();
    }
    best
}
