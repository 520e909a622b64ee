//! Maximal verbatim matches of a text with the documents (OLMoTrace: Liu et al. 2025, section 3).

use std::ops::Range;

use super::SuffixIndex;
use super::search::{Allowed, Parts, common_prefix};

/// Where a match occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The document, as an index in the segment.
    pub document: u32,
    /// The first token of the match among the tokens of the segment.
    pub position: u32,
}

/// Tokens of a text that stand in a document word for word and cannot be extended at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Which tokens of the text.
    pub range: Range<usize>,
    /// Occurrences in allowed documents.
    pub count: usize,
    /// Some of them, in the order of the suffix array: by what follows, then by document.
    pub occurrences: Vec<Place>,
}

impl SuffixIndex {
    /// The matches of `tokens` with allowed documents (none: all documents) that have at least `min_len` tokens and are
    /// not contained in another, by start, each with its count and with up to `most` of its occurrences.
    ///
    /// No match crosses the border of a document. Documents that are not allowed influence nothing.
    pub fn trace(
        &self,
        tokens: &[u32],
        min_len: usize,
        most: usize,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<Match> {
        let parts = self.parts();
        let occurs = |range: Range<usize>| parts.any(parts.interval(&tokens[range], false), allowed);
        let min_len = min_len.max(1);
        let mut matches = Vec::new();
        let (mut start, mut end) = (0, min_len);
        // The least start for which tokens[start..end] occurs; if tokens[s..end] occurs, so does tokens[s + 1..end].
        while end <= tokens.len() {
            start = first_that(start, end, |s| occurs(s..end));
            if end - start < min_len {
                end = start + min_len;
                continue;
            }
            let length = longest_prefix(&parts, &tokens[start..], end - start, allowed);
            let range = start..start + length.max(end - start);
            end = range.end + 1;
            matches.extend(describe(&parts, tokens, range, most, allowed));
        }
        matches
    }
}

/// The least number of `low..high` for which `holds`, or `high`. It holds for every number after one for which it holds.
fn first_that(low: usize, high: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (low, high);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The longest prefix of the pattern that occurs in an allowed document, if it has at least `known` tokens.
fn longest_prefix(parts: &Parts<'_>, pattern: &[u32], known: usize, allowed: Allowed<'_>) -> usize {
    let interval = parts.interval(&pattern[..known], false);
    let at = parts.lower_bound(interval.clone(), pattern);
    // The further from the place of the pattern, the less a suffix shares with it: the nearest allowed ones decide.
    let shared = |position: &u32| {
        let allowed = parts.allowed(*position, allowed).is_some();
        allowed.then(|| common_prefix(parts.suffix(*position), pattern))
    };
    let before = parts.positions.get(interval.start..at).unwrap_or(&[]).iter().rev().find_map(shared);
    let after = parts.positions.get(at..interval.end).unwrap_or(&[]).iter().find_map(shared);
    before.max(after).unwrap_or(0)
}

fn describe(
    parts: &Parts<'_>,
    tokens: &[u32],
    range: Range<usize>,
    most: usize,
    allowed: Allowed<'_>,
) -> Option<Match> {
    let interval = parts.interval(&tokens[range.clone()], false);
    let found = parts.positions.get(interval).unwrap_or(&[]);
    let mut places = found
        .iter()
        .filter_map(|&position| parts.allowed(position, allowed).map(|document| Place { document, position }));
    let occurrences: Vec<Place> = places.by_ref().take(most).collect();
    let count = if allowed.is_none() { found.len() } else { occurrences.len() + places.count() };
    // None, where a document was removed meanwhile.
    (count > 0).then_some(Match { range, count, occurrences })
}
