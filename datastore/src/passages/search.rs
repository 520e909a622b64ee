//! The passages of allowed documents.

use super::PassageIndex;
use super::table::Record;

/// The allowed passages of a segment, found once for a query: a removal meanwhile changes no half of it.
pub(super) struct Selection<'a> {
    pub records: &'a [Record],
    /// Whether each passage is allowed; none: all are.
    allowed: Option<Vec<bool>>,
    /// Allowed passages.
    pub passages: u64,
    /// Terms of the allowed passages together.
    pub terms: u64,
}

impl<'a> Selection<'a> {
    pub fn new(index: &'a PassageIndex, allowed: Option<&dyn Fn(u32) -> bool>) -> Selection<'a> {
        let records = index.records();
        let Some(allowed) = allowed else {
            let terms = records.iter().map(|record| u64::from(record.terms)).sum();
            return Selection { records, allowed: None, passages: records.len() as u64, terms };
        };
        let mut selection = Selection { records, allowed: None, passages: 0, terms: 0 };
        let mut flags = Vec::with_capacity(records.len());
        for passages in records.chunk_by(|a, b| a.document == b.document) {
            let yes = allowed(passages[0].document);
            flags.resize(flags.len() + passages.len(), yes);
            if yes {
                selection.passages += passages.len() as u64;
                selection.terms += passages.iter().map(|record| u64::from(record.terms)).sum::<u64>();
            }
        }
        Selection { allowed: Some(flags), ..selection }
    }

    /// Whether a passage is allowed; not, where a damaged file names one that there is not.
    pub fn holds(&self, passage: u32) -> bool {
        match &self.allowed {
            Some(flags) => flags.get(passage as usize).copied().unwrap_or(false),
            None => (passage as usize) < self.records.len(),
        }
    }
}
