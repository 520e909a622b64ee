//! Every row is compared: by its vector where there are few, else by its code first, of which it is known how far it is
//! from the vector, and by the vector only where the code leaves doubt. Either way the nearest rows are found.
//!
//! `errors.f32`: the distance between each row and its code, in steps (`[rows]` f32), in the order of the codes. With e_x for the row, e_q for the query
//! and D for the distance of the codes, the triangle inequality puts the distance of the vectors into D ± (e_x + e_q). The
//! k-th smallest upper end is a distance that k rows keep to: what has its lower end beyond it is not among the nearest.

use std::path::Path;

use half::f16;
use rayon::prelude::*;

use super::IndexError;
use super::codes::{Codes, Quantizer};
use super::file::{FileReader, FileWriter};
use super::graph::{Allowed, CodeArena};
use super::scratch::Scratch;
use super::top::{Smallest, distance, float_key, row};
use super::vectors::Vectors;
use crate::kernels::{code_len, prefetch, scan_dots, squared_l2};

const MAGIC: [u8; 8] = *b"SLMMERRS";
pub const FILE: &str = "errors.f32";
/// Up to this many rows the vectors alone are as fast.
pub const FEW: usize = 2048;
/// Rows that a thread compares at a time.
const BLOCK: usize = 4096;
/// What rotation and sums of 32-bit floats may be off by, as a share of the lengths involved.
const ROUNDING: f32 = 1e-4;

/// Offers every allowed row, with its exact distance, to `scratch.nearest`.
pub fn search(vectors: &Vectors, query: &[f32], allowed: Allowed<'_>, scratch: &mut Scratch) {
    for (row, vector) in (0_u32..).zip(vectors.all().chunks_exact(vectors.dim())) {
        if allowed.is_none_or(|allowed| allowed(row)) {
            scratch.nearest.push(float_key(squared_l2(query, vector), row));
        }
    }
}

/// Writes how far each row is from its code, in the order of the codes: the i-th of them is that of `row(i)`.
pub fn write_errors(
    dir: &Path,
    vectors: &Vectors,
    quantizer: &Quantizer,
    row: impl Fn(usize) -> u32 + Sync,
) -> Result<(), IndexError> {
    let mut file = FileWriter::create(&dir.join(FILE), MAGIC, [0; 3])?;
    let places = 0..vectors.len();
    let error = |values: &mut Vec<f32>, place| quantizer.error(vectors.row(row(place)), values);
    let errors: Vec<f32> = places.into_par_iter().map_init(Vec::new, error).collect();
    file.write(&errors)?;
    file.finish(vectors.len())
}

/// The codes of all rows, with their errors.
pub struct Bounds {
    codes: Codes,
    errors: FileReader,
    place: usize,
}

impl Bounds {
    pub fn open(dir: &Path, vectors: &Vectors) -> Result<Bounds, IndexError> {
        let codes = Codes::open(dir, vectors)?;
        let errors = FileReader::open(&dir.join(FILE), MAGIC)?;
        let [place] = errors.sections([vectors.len().checked_mul(4)])?;
        if errors.header.rows as usize != vectors.len() {
            let reason = format!("it is of {} rows, the vectors are {}", errors.header.rows, vectors.len());
            return Err(IndexError::damaged(errors.path(), reason));
        }
        Ok(Bounds { codes, errors, place })
    }

    /// The codes, in the order of places where there are lists.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// As [`search`]: those `k` rows that are nearest are among what is offered. `places`: the row of each code, where they
    /// do not stand in the order of rows.
    pub fn search(
        &self,
        (vectors, places): (&Vectors, Option<&[u32]>),
        query: &[f32],
        k: usize,
        allowed: Allowed<'_>,
        scratch: &mut Scratch,
    ) {
        let Scratch { query: code, nearest, candidates, distances, ids, .. } = scratch;
        let row_of = |place: u32| places.map_or(place, |rows| rows[place as usize]);
        let error = self.codes.quantizer().query(query, code);
        let CodeArena { codes, squares } = self.codes.arena();
        let errors: &[f32] = self.errors.view(self.place, vectors.len());
        let (len, code) = (code_len(vectors.dim()), &*code);
        distances.resize(vectors.len(), 0.0);
        distances.par_chunks_mut(BLOCK).enumerate().for_each_init(
            || vec![0; BLOCK],
            |dots, (block, distances)| {
                let start = block * BLOCK;
                let rows = start..start + distances.len();
                let dots = &mut dots[..rows.len()];
                scan_dots(&codes[rows.start * len..rows.end * len], &code.code, dots);
                for ((distance, square), dot) in distances.iter_mut().zip(&squares[rows]).zip(dots) {
                    *distance = (code.distance(*square, *dot) as f32).sqrt();
                }
            },
        );
        // Of a damaged file a row may be none.
        let is_allowed = |row: u32| (row as usize) < vectors.len() && allowed.is_none_or(|allowed| allowed(row));
        candidates.start(k);
        for (place, (d, e)) in (0_u32..).zip(distances.iter().zip(errors)) {
            let upper = float_key(d + e, row_of(place));
            if upper < candidates.limit() && is_allowed(row(upper)) {
                candidates.push(upper);
            }
        }
        let kept = candidates.finish();
        // Where there are no more than are wanted, all of them are nearest.
        let furthest = if kept.len() < k { f32::INFINITY } else { kept.iter().copied().max().map_or(0.0, distance) };
        let rounding = ROUNDING * (2.0 * furthest + code.length);
        let limit = furthest + 2.0 * error + rounding;
        ids.clear();
        ids.extend((0_u32..).zip(distances.iter().zip(errors)).filter_map(|(place, (d, e))| {
            // A bound that is no number excludes nothing.
            let beyond = d - e > limit;
            let row = row_of(place);
            (!beyond && is_allowed(row)).then_some(row)
        }));
        rescore(&|row| vectors.row(row), query, ids, nearest);
    }
}

/// How many rows, nearest by their codes, are compared exactly for `k` neighbours: distances of codes are off by a few
/// thousandths, so that the true neighbours are among somewhat more.
pub fn rescored(k: usize) -> usize {
    k + k / 4 + 32
}

/// Rows ahead that are asked for.
const AHEAD: usize = 8;
/// Components from which on rows are shared out among threads.
const MANY: usize = 1 << 18;

/// Offers rows, whose vectors `vector` gives, with their exact distances to `nearest`.
pub fn rescore<'a>(vector: &(impl Fn(u32) -> &'a [f16] + Sync), query: &[f32], rows: &[u32], nearest: &mut Smallest) {
    let keys = |rows: &[u32], offer: &mut dyn FnMut(u64)| {
        rows.iter().take(AHEAD).for_each(|&row| prefetch(vector(row)));
        for (i, &row) in rows.iter().enumerate() {
            if let Some(&ahead) = rows.get(i + AHEAD) {
                prefetch(vector(ahead));
            }
            offer(float_key(squared_l2(query, vector(row)), row));
        }
    };
    if rows.len() * query.len() < MANY {
        return keys(rows, &mut |key| nearest.push(key));
    }
    let each = rows.len().div_ceil(rayon::current_num_threads());
    let shares: Vec<Vec<u64>> = rows
        .par_chunks(each)
        .map(|rows| {
            let mut share = Vec::with_capacity(rows.len());
            keys(rows, &mut |key| share.push(key));
            share
        })
        .collect();
    shares.iter().flatten().for_each(|&key| nearest.push(key));
}
