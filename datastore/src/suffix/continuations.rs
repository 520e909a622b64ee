//! The n-gram model of the longest suffix (infini-gram: Liu et al. 2024, section 3).

use std::ops::Range;

use super::SuffixIndex;
use super::search::{Allowed, Parts};

/// More allowed occurrences than this and [`SuffixIndex::continuations`] gives none, where the caller names no other limit.
pub const DEFAULT_LIMIT: usize = 4096;

/// A token that followed the context somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// The token.
    pub token: u32,
    /// Its document, as an index in the segment.
    pub document: u32,
    /// Its position among the tokens of the segment.
    pub position: u32,
}

/// What followed the longest suffix of a context that occurs before a token in an allowed document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Continuations {
    /// Tokens of that suffix; 0 if not even the last token of the context occurs before another.
    pub matched: usize,
    /// Every occurrence in an allowed document, by position; none if `too_many`, and none if nothing matched.
    pub occurrences: Vec<Occurrence>,
    /// There are more than the limit: what follows so short a context the model knows by itself.
    pub too_many: bool,
}

impl SuffixIndex {
    /// What followed the longest suffix of `context` that occurs, before a token, in a document for which `allowed` holds
    /// (none: every document). Documents that are not allowed influence nothing. The caller cuts the context to the
    /// longest suffix that counts.
    ///
    /// The occurrences are all there are, unless these are more than `limit`.
    pub fn continuations(&self, context: &[u32], allowed: Option<&dyn Fn(u32) -> bool>, limit: usize) -> Continuations {
        let parts = self.parts();
        let (matched, interval) = longest(&parts, context, allowed);
        collect(&parts, matched, interval, allowed, limit)
    }
}

/// Follows a context that grows by a token at a time: after one more token the longest suffix is at most one token
/// longer, so that most steps search once or twice.
///
/// What `continuations` gives is what [`SuffixIndex::continuations`] gives for the last `max_context` tokens, as long as
/// no document becomes allowed that was not before: removals while it is in use are honoured.
#[derive(Clone)]
pub struct SuffixCursor {
    index: SuffixIndex,
    max_context: usize,
    /// The last tokens, at most twice `max_context`.
    tail: Vec<u32>,
    /// No longer suffix can occur.
    reach: usize,
}

impl SuffixCursor {
    /// A cursor after no token.
    pub fn new(index: &SuffixIndex, max_context: usize) -> SuffixCursor {
        SuffixCursor { index: index.clone(), max_context, tail: Vec::new(), reach: 0 }
    }

    /// The context grows by a token.
    pub fn push(&mut self, token: u32) {
        if self.tail.len() >= self.max_context.saturating_mul(2).max(1) {
            let surplus = self.tail.len() - self.max_context.min(self.tail.len());
            self.tail.drain(..surplus);
        }
        self.tail.push(token);
        self.reach = (self.reach + 1).min(self.max_context);
    }

    /// As [`SuffixIndex::continuations`], for what was pushed.
    pub fn continuations(&mut self, allowed: Option<&dyn Fn(u32) -> bool>, limit: usize) -> Continuations {
        let parts = self.index.parts();
        let context = &self.tail[self.tail.len() - self.reach.min(self.tail.len())..];
        let (matched, interval) = longest(&parts, context, allowed);
        self.reach = matched;
        collect(&parts, matched, interval, allowed, limit)
    }
}

/// The longest suffix of the context that occurs before a token in an allowed document, and the suffixes that begin with
/// it and go on. With a suffix every shorter one occurs too, at the same places: so its length can be searched for.
fn longest(parts: &Parts<'_>, context: &[u32], allowed: Allowed<'_>) -> (usize, Range<usize>) {
    let try_length = |length: usize| {
        let interval = parts.interval(&context[context.len() - length..], true);
        parts.any(interval.clone(), allowed).then_some(interval)
    };
    let (mut matched, mut found) = (0, 0..0);
    let mut too_long = context.len() + 1;
    // A context that is being followed mostly goes on, and what it has left matches little: so from both ends.
    let mut length = context.len();
    while matched + 1 < too_long {
        match try_length(length) {
            Some(interval) => (matched, found) = (length, interval),
            None => too_long = length,
        }
        length = if matched == 0 { (too_long / 4).clamp(1, too_long.max(2) - 1) } else { (matched + too_long) / 2 };
    }
    (matched, found)
}

fn collect(
    parts: &Parts<'_>,
    matched: usize,
    interval: Range<usize>,
    allowed: Allowed<'_>,
    limit: usize,
) -> Continuations {
    if allowed.is_none() && interval.len() > limit {
        return Continuations { matched, occurrences: Vec::new(), too_many: true };
    }
    let mut occurrences = Vec::new();
    for &start in parts.positions.get(interval).unwrap_or(&[]) {
        let Some(document) = parts.allowed(start, allowed) else { continue };
        let position = start as usize + matched;
        let Some(&token) = parts.tokens.get(position) else { continue };
        if occurrences.len() == limit {
            return Continuations { matched, occurrences: Vec::new(), too_many: true };
        }
        occurrences.push(Occurrence { token, document, position: position as u32 });
    }
    if occurrences.is_empty() {
        return Continuations::default(); // the document was removed meanwhile
    }
    occurrences.sort_unstable_by_key(|occurrence| occurrence.position);
    Continuations { matched, occurrences, too_many: false }
}
