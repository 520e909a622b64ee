//! Binary search among the sorted suffixes.

use std::cmp::Ordering;
use std::ops::Range;

use super::documents::Documents;

/// A predicate on documents; none allows them all.
pub(crate) type Allowed<'a> = Option<&'a dyn Fn(u32) -> bool>;

/// The parts of an index as slices, taken once for a query.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub tokens: &'a [u32],
    pub documents: &'a Documents,
    pub ids: &'a [u32],
    pub heads: &'a [u32],
    pub positions: &'a [u32],
}

impl<'a> Parts<'a> {
    /// The tokens from a position to the end of its document; none where a damaged file points outside.
    pub fn suffix(&self, position: u32) -> &'a [u32] {
        if position as usize >= self.tokens.len() {
            return &[];
        }
        let end = self.documents.end(self.documents.of(position));
        self.tokens.get(position as usize..end as usize).unwrap_or(&[])
    }

    /// The suffixes that begin with a token.
    fn head(&self, token: u32) -> Range<usize> {
        match self.ids.binary_search(&token) {
            Ok(at) => self.heads[at] as usize..self.heads[at + 1] as usize,
            Err(_) => 0..0,
        }
    }

    /// The suffixes that begin with `pattern`; with `followed`, only those that go on after it. All, for no tokens.
    pub fn interval(&self, pattern: &[u32], followed: bool) -> Range<usize> {
        let Some(&first) = pattern.first() else { return 0..self.positions.len() };
        let head = self.head(first);
        let low = self.bound(head.clone(), pattern, |order| match order {
            // A suffix that ends with the pattern comes before all that go on.
            Place::Ends => followed,
            Place::Within => false,
            Place::Differs(order) => order == Ordering::Less,
        });
        let high = self.bound(low..head.end, pattern, |order| match order {
            Place::Ends | Place::Within => true,
            Place::Differs(order) => order == Ordering::Less,
        });
        low..high
    }

    /// The first suffix of `range` that is not less than `pattern`.
    pub fn lower_bound(&self, range: Range<usize>, pattern: &[u32]) -> usize {
        self.bound(range, pattern, |order| matches!(order, Place::Differs(Ordering::Less)))
    }

    /// The partition point of `before` in `range`, whose suffixes all begin with the first token of `pattern`. What both
    /// borders share with the pattern every suffix between them shares too and is not compared again (Manber and Myers
    /// 1993, section 2).
    fn bound(&self, range: Range<usize>, pattern: &[u32], before: impl Fn(Place) -> bool) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        let (mut common_low, mut common_high) = (1, 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let suffix = self.positions.get(middle).map_or(&[][..], |&position| self.suffix(position));
            let skip = common_low.min(common_high);
            let common = skip + common_prefix(suffix.get(skip..).unwrap_or(&[]), pattern.get(skip..).unwrap_or(&[]));
            let place = match (suffix.get(common), pattern.get(common)) {
                (None, None) => Place::Ends,
                (Some(_), None) => Place::Within,
                (None, Some(_)) => Place::Differs(Ordering::Less),
                (Some(a), Some(b)) => Place::Differs(a.cmp(b)),
            };
            if before(place) {
                (low, common_low) = (middle + 1, common);
            } else {
                (high, common_high) = (middle, common);
            }
        }
        low
    }

    /// The document of a position if it is allowed; none where a damaged file points outside.
    pub fn allowed(&self, position: u32, allowed: Allowed<'_>) -> Option<u32> {
        if position as usize >= self.tokens.len() {
            return None;
        }
        let document = self.documents.of(position);
        allowed.is_none_or(|allowed| allowed(document)).then_some(document)
    }

    /// Whether one of the suffixes is of an allowed document.
    pub fn any(&self, interval: Range<usize>, allowed: Allowed<'_>) -> bool {
        self.positions.get(interval).unwrap_or(&[]).iter().any(|&p| self.allowed(p, allowed).is_some())
    }
}

/// How a suffix stands to a pattern.
enum Place {
    /// They are the same.
    Ends,
    /// The suffix begins with the pattern and goes on.
    Within,
    /// The suffix is less or greater; where it ends within the pattern, it is less.
    Differs(Ordering),
}

/// Tokens that both begin with.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
