//! k-means over codes (Lloyd 1982), all in integers, so that the result does not depend on the order in which threads add.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::IndexError;
use super::codes::QueryCode;
use super::random::Random;
use super::top::key;
use crate::kernels::scan_dots;

/// Rounds at most; it ends earlier when no row changes its centroid.
const ROUNDS: usize = 6;
/// Rows whose codes stay in the nearest cache while all centroids pass by.
const BLOCK: usize = 64;

/// Centroids as codes.
pub struct Centroids {
    /// `[lists, len]`
    pub codes: Vec<u8>,
    /// `[lists]`, as queries.
    queries: Vec<QueryCode>,
    len: usize,
    dim: usize,
}

impl Centroids {
    /// Centroids.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    fn new(codes: Vec<u8>, len: usize, dim: usize) -> Centroids {
        let query = |code: &[u8]| {
            let mut query = QueryCode::default();
            query.set_row(code, square(&code[..dim]), dim);
            query
        };
        let queries = codes.chunks_exact(len).map(query).collect();
        Centroids { codes, queries, len, dim }
    }

    /// Finds `lists` centroids of `sample`, which has at least as many rows.
    pub fn train(
        sample: &[u8],
        (len, dim): (usize, usize),
        lists: usize,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Centroids, IndexError> {
        let rows = sample.len() / len;
        let row = |row: usize| &sample[row * len..][..len];
        let mut random = Random::new(seed ^ 0x6b6d_6561_6e73);
        let first = random.order(rows);
        let mut codes: Vec<u8> = first[..lists].iter().flat_map(|&i| row(i as usize)).copied().collect();
        let mut nearest = vec![0_u32; rows];
        for _ in 0..ROUNDS {
            if stop.load(Ordering::Relaxed) {
                return Err(IndexError::Stopped);
            }
            let before = nearest.clone();
            Centroids::new(codes.clone(), len, dim).assign(sample, &mut nearest);
            if before == nearest {
                break;
            }
            let mut sums = vec![0_u32; lists * dim];
            let mut counts = vec![0_u32; lists];
            for (i, &list) in nearest.iter().enumerate() {
                counts[list as usize] += 1;
                let sum = &mut sums[list as usize * dim..][..dim];
                sum.iter_mut().zip(row(i)).for_each(|(sum, &x)| *sum += u32::from(x));
            }
            for (list, code) in codes.chunks_exact_mut(len).enumerate() {
                match counts[list] {
                    // A centroid that no row is nearest to begins anew.
                    0 => code.copy_from_slice(row(random.below(rows))),
                    count => {
                        let sum = &sums[list * dim..][..dim];
                        code.iter_mut().zip(sum).for_each(|(x, sum)| *x = ((sum + count / 2) / count) as u8);
                    }
                }
            }
        }
        Ok(Centroids::new(codes, len, dim))
    }

    /// The centroids in the order of groups, around `count` centroids of their own; those, and where each group begins.
    pub fn grouped(
        self,
        count: usize,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<(Centroids, Centroids, Vec<u32>), IndexError> {
        let Centroids { codes, len, dim, .. } = self;
        let groups = Centroids::train(&codes, (len, dim), count, seed, stop)?;
        let mut nearest = vec![0_u32; codes.len() / len];
        groups.assign(&codes, &mut nearest);
        let mut order: Vec<usize> = (0..nearest.len()).collect();
        order.sort_by_key(|&list| nearest[list]);
        let sorted = order.iter().flat_map(|&list| &codes[list * len..][..len]).copied().collect();
        Ok((Centroids::new(sorted, len, dim), groups, starts(&nearest, count)))
    }

    /// The nearest centroid of every row of `rows`, the first of equally near ones.
    pub fn assign(&self, rows: &[u8], nearest: &mut [u32]) {
        let blocks = rows.par_chunks(BLOCK * self.len).zip(nearest.par_chunks_mut(BLOCK));
        blocks.for_each(|(rows, nearest)| {
            let (mut dots, mut best) = ([0; BLOCK], [u64::MAX; BLOCK]);
            let (dots, best) = (&mut dots[..nearest.len()], &mut best[..nearest.len()]);
            let squares: Vec<i32> = rows.chunks_exact(self.len).map(|row| square(&row[..self.dim])).collect();
            for (list, query) in self.queries.iter().enumerate() {
                scan_dots(rows, &query.code, dots);
                for ((best, &dot), &square) in best.iter_mut().zip(&*dots).zip(&squares) {
                    *best = (*best).min(key(query.distance(square, dot), list as u32));
                }
            }
            nearest.iter_mut().zip(best).for_each(|(nearest, best)| *nearest = *best as u32);
        });
    }

    /// Sums of squares: `[lists]`.
    pub fn squares(&self) -> Vec<i32> {
        self.codes.chunks_exact(self.len).map(|code| square(&code[..self.dim])).collect()
    }
}

/// Where each of `count` stretches begins when rows are put into the order of theirs, and where the last one ends.
pub fn starts(of_rows: &[u32], count: usize) -> Vec<u32> {
    let mut starts = vec![0_u32; count + 1];
    of_rows.iter().for_each(|&number| starts[number as usize + 1] += 1);
    (0..count).for_each(|i| starts[i + 1] += starts[i]);
    starts
}

/// The sum of the squares of a code without its padding.
fn square(code: &[u8]) -> i32 {
    code.iter().map(|&x| (i32::from(x) - 128).pow(2)).sum()
}
