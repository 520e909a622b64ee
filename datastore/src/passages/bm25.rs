//! BM25 over the passages that a request may see, as if there were no others (Robertson and Zaragoza 2009; with the idf of
//! Lucene, which is never negative: Kamphuis et al. 2020, section 2).

use super::search::Selection;
use super::{PassageError, PassageHit, PassageIndex, terms};

/// Saturation of repeated terms. The values are those of Anserini (Yang, Fang and Lin 2017) and Pyserini, by which SILO
/// retrieved.
const K1: f64 = 0.9;
/// Weight of a passage's length.
const B: f64 = 0.4;

/// The best `n` passages of several segments for a query: segment and passage, by score, equal ones by segment and number.
///
/// Each segment comes with the predicate that says which of its documents are allowed (none: all); it is asked once for each
/// document. The number of passages, their average length and the documents of a term are those of all allowed
/// passages together: so the answer does not depend on how these are spread over segments, and what is not allowed
/// influences no score. A passage without a term of the query is never found.
///
/// # Errors
/// [`PassageError`] when the postings cannot be read.
pub fn bm25(segments: &[Segment<'_>], query: &str, n: usize) -> Result<Vec<(usize, PassageHit)>, PassageError> {
    let selections: Vec<Selection> = segments.iter().map(|(index, allowed)| Selection::new(index, *allowed)).collect();
    let passages: u64 = selections.iter().map(|s| s.passages).sum();
    let terms: u64 = selections.iter().map(|s| s.terms).sum();
    let mean = terms as f64 / passages.max(1) as f64;
    let mut scores: Vec<Vec<f64>> = selections.iter().map(|s| vec![0.0; s.records.len()]).collect();
    let mut found: Vec<(usize, u32, u32)> = Vec::new(); // segment, passage, frequency
    // Terms in one order, so that the sums are the same to the last bit.
    for (term, repeats) in terms::count(query) {
        found.clear();
        for (segment, (index, _)) in segments.iter().enumerate() {
            let selection = &selections[segment];
            index.postings().for_each(&term, |passage, frequency| {
                if selection.holds(passage) {
                    found.push((segment, passage, frequency));
                }
            })?;
        }
        let holding = found.len() as f64;
        let idf = (1.0 + (passages as f64 - holding + 0.5) / (holding + 0.5)).ln();
        for &(segment, passage, frequency) in &found {
            let length = f64::from(selections[segment].records[passage as usize].terms);
            let frequency = f64::from(frequency);
            let saturated = frequency / (frequency + K1 * (1.0 - B + B * length / mean));
            scores[segment][passage as usize] += f64::from(repeats) * idf * saturated;
        }
    }
    let mut hits: Vec<(usize, PassageHit)> = Vec::new();
    for (segment, scores) in scores.iter().enumerate() {
        let scored = scores.iter().zip(selections[segment].records).zip(0..).filter(|((score, _), _)| **score > 0.0);
        hits.extend(scored.map(|((&score, record), passage)| {
            (segment, PassageHit { passage, document: record.document, tokens: record.tokens(), score: score as f32 })
        }));
    }
    let order = |a: &(usize, PassageHit), b: &(usize, PassageHit)| {
        b.1.score.total_cmp(&a.1.score).then(a.0.cmp(&b.0)).then(a.1.passage.cmp(&b.1.passage))
    };
    if n < hits.len() {
        hits.select_nth_unstable_by(n, order);
        hits.truncate(n);
    }
    hits.sort_unstable_by(order);
    Ok(hits)
}

/// A segment's passages, and which of its documents are allowed.
pub type Segment<'a> = (&'a PassageIndex, Option<&'a dyn Fn(u32) -> bool>);
