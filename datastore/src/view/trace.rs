//! Verbatim matches over several segments.

use std::collections::BTreeMap;

use super::part::Part;
use super::{DocumentKey, TraceMatch};

/// The matches of all segments, without those that are contained in a longer one of another segment.
pub(super) fn trace(parts: &[Part], tokens: &[u32], min_len: usize, most: usize) -> Vec<TraceMatch> {
    // By start, then by end.
    let mut matches: BTreeMap<(usize, usize), TraceMatch> = BTreeMap::new();
    for (number, part) in (0..).zip(parts) {
        let segment = part.segment();
        for found in part.settled(|allowed| segment.parts.suffix.trace(tokens, min_len, most, allowed)) {
            let entry = matches.entry((found.range.start, found.range.end)).or_insert_with(|| TraceMatch {
                range: found.range,
                occurrences: Vec::new(),
                count: 0,
            });
            entry.count += found.count as u64;
            let room = most.saturating_sub(entry.occurrences.len());
            entry.occurrences.extend(found.occurrences.iter().take(room).filter_map(|place| {
                let position = place.position - segment.range(place.document)?.start;
                Some((DocumentKey { segment: number, document: place.document }, position))
            }));
        }
    }
    let mut kept: Vec<TraceMatch> = Vec::new();
    let mut reach = 0;
    let mut start = usize::MAX;
    for (_, found) in matches {
        // In this order whatever contains a match comes before it, but for those with the same start.
        if found.range.start == start {
            kept.pop();
        } else if found.range.end <= reach {
            continue;
        }
        start = found.range.start;
        reach = found.range.end;
        kept.push(found);
    }
    kept
}
