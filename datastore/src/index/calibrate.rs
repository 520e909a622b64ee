//! Finds, for an index that was just built, the effort that reaches the intended recall.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::description::Effort;
use super::random::Random;
use super::scratch::Scratch;
use super::vectors::Vectors;
use super::{IndexError, Structure, top};

/// Recall to reach: a little above 0.95, since queries from outside are harder than those made here.
const RECALL: f64 = 0.96;
/// Numbers of neighbours for which the effort is found; between them it is interpolated.
const NEIGHBOURS: [usize; 5] = [1, 10, 64, 256, 1024];
/// Rows that serve as queries; each is hidden from its own search, as if it had never been in the index.
const QUERIES: usize = 128;
/// As many where there are more than a million rows, since each is compared with all of them.
const QUERIES_OF_MANY: usize = 32;
/// The effort for each number of neighbours, ascending in both.
pub fn efforts(
    vectors: &Vectors,
    structure: &Structure,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Vec<Effort>, IndexError> {
    let mut random = Random::new(seed ^ 0x63_616c_6962);
    let others = vectors.len().saturating_sub(1);
    let most = NEIGHBOURS[NEIGHBOURS.len() - 1].min(others);
    let count = if vectors.len() > 1_000_000 { QUERIES_OF_MANY } else { QUERIES };
    let rows: Vec<u32> = (0..count).map(|_| random.below(vectors.len()) as u32).collect();
    let queries: Vec<(u32, Vec<u32>)> = rows
        .par_iter()
        .map_init(Scratch::default, |scratch, &row| {
            if stop.load(Ordering::Relaxed) {
                return Err(IndexError::Stopped);
            }
            Ok((row, nearest(&Structure::Exact { bounds: None, inverted: None }, vectors, row, (most, 0), scratch)))
        })
        .collect::<Result<_, _>>()?;
    let recall = |k: usize, effort: usize| -> Result<f64, IndexError> {
        if stop.load(Ordering::Relaxed) {
            return Err(IndexError::Stopped);
        }
        let found: usize = queries
            .par_iter()
            .map_init(Scratch::default, |scratch, (row, truth)| {
                let found: HashSet<u32> = nearest(structure, vectors, *row, (k, effort), scratch).into_iter().collect();
                truth[..k].iter().filter(|row| found.contains(row)).count()
            })
            .sum();
        Ok(found as f64 / (k * queries.len()) as f64)
    };
    let mut efforts: Vec<Effort> = Vec::new();
    for k in NEIGHBOURS.into_iter().filter(|&k| k <= others) {
        // Doubled until it is enough, then narrowed down to an eighth.
        let mut low = efforts.last().map_or(0, |e| e.effort.saturating_sub(1));
        let mut high = (low + 1).max(structure.least_effort(k));
        let most = structure.most_effort(others);
        high = high.min(most);
        while high < most && recall(k, high)? < RECALL {
            low = high;
            high = (high * 2).min(most);
        }
        while high - low > (high / 8).max(1) {
            let middle = low + (high - low) / 2;
            if recall(k, middle)? < RECALL { low = middle } else { high = middle }
        }
        efforts.push(Effort { k, effort: high });
    }
    Ok(efforts)
}

/// The rows nearest to a row, itself left out, nearest first.
fn nearest(
    structure: &Structure,
    vectors: &Vectors,
    row: u32,
    (k, effort): (usize, usize),
    scratch: &mut Scratch,
) -> Vec<u32> {
    scratch.nearest.start(k);
    scratch.hidden = Some(row);
    structure.search(vectors, &vectors.row(row).to_f32_vec(), (k, effort), Some(&|other| other != row), scratch);
    let keys = scratch.nearest.finish();
    keys.sort_unstable();
    keys.iter().map(|&key| top::row(key)).collect()
}
