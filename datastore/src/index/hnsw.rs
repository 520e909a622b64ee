//! The graph as `hnsw_rs` builds it, read out through its public interface. No other file names that crate.
//!
//! It draws levels from a generator of its own with a fixed seed, so a graph is a function of the vectors and of the order in
//! which they are inserted, as long as one thread inserts them: threads race for levels and for each other's lists. So one
//! thread does it, and the time to build does not shrink with the number of processors.

use std::sync::atomic::{AtomicBool, Ordering};

use hnsw_rs::prelude::{Distance, Hnsw};

use super::IndexError;
use super::random::Random;
use crate::kernels::squared_l2_codes;

/// In a list: no neighbour.
pub const NONE: u32 = u32::MAX;

/// Layers at most, of which 16 is the largest number that `hnsw_rs` allows.
const LAYERS: usize = 16;
/// Insertions between two looks at the flag that stops.
const STEP: usize = 256;

/// The neighbour lists of a graph.
pub struct Lists {
    /// Of every row in the lowest layer, `2·m` places each, [`NONE`] behind the last.
    pub lowest: Vec<u32>,
    /// The layers above, from the second lowest on.
    pub upper: Vec<UpperLayer>,
    /// Where searches enter.
    pub entry: u32,
}

/// A layer above the lowest.
#[derive(Default)]
pub struct UpperLayer {
    /// The rows in it, ascending.
    pub rows: Vec<u32>,
    /// Their neighbours, at most `m` each, as rows.
    pub lists: Vec<Vec<u32>>,
}

/// Squared L2 distance of codes.
struct CodeDistance;

impl Distance<u8> for CodeDistance {
    fn eval(&self, a: &[u8], b: &[u8]) -> f32 {
        squared_l2_codes(a, b) as f32
    }
}

/// Inserts all codes, `len` bytes each, in an order drawn with `seed`.
///
/// `m` must be at most 256: with more, `hnsw_rs` ends the process. There must be at least one row.
pub fn build(
    codes: &[u8],
    len: usize,
    (m, ef_construction): (usize, usize),
    seed: u64,
    progress: &dyn Fn(usize),
    stop: &AtomicBool,
) -> Result<Lists, IndexError> {
    let rows = codes.len() / len;
    let graph = Hnsw::<u8, CodeDistance>::new(m, rows, LAYERS, ef_construction, CodeDistance);
    for (done, row) in Random::new(seed).order(rows).into_iter().enumerate() {
        if done % STEP == 0 {
            if stop.load(Ordering::Relaxed) {
                return Err(IndexError::Stopped);
            }
            progress(done);
        }
        graph.insert_slice((&codes[row as usize * len..][..len], row as usize));
    }
    Ok(read(&graph, rows, m))
}

fn read(graph: &Hnsw<'_, u8, CodeDistance>, rows: usize, m: usize) -> Lists {
    let points = graph.get_point_indexation();
    let top = usize::from(graph.get_max_level_observed());
    let mut lowest = vec![NONE; rows * 2 * m];
    let mut upper: Vec<Vec<(u32, Vec<u32>)>> = vec![Vec::new(); top];
    for level in 0..=top {
        for point in points.get_layer_iterator(level) {
            let row = point.get_origin_id();
            let mut lists = point.get_neighborhood_id().into_iter();
            let mut list =
                || lists.next().unwrap_or_default().into_iter().map(|n| n.d_id as u32).filter(|&n| n != row as u32);
            let places = lowest[row * 2 * m..][..2 * m].iter_mut();
            places.zip(list()).for_each(|(place, neighbour)| *place = neighbour);
            for layer in &mut upper[..level] {
                layer.push((row as u32, list().take(m).collect()));
            }
        }
    }
    // The first point that reached the highest level is where `hnsw_rs` itself enters.
    let entry = points.get_layer_iterator(top).next().map_or(0, |point| point.get_origin_id() as u32);
    let upper = upper.into_iter().map(|mut layer| {
        layer.sort_unstable_by_key(|(row, _)| *row);
        let (rows, lists) = layer.into_iter().unzip();
        UpperLayer { rows, lists }
    });
    Lists { lowest, upper: upper.collect(), entry }
}
