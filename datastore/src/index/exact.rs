//! Every row is compared.

use super::scratch::Scratch;
use super::top::float_key;
use super::vectors::Vectors;
use crate::kernels::{prefetch, squared_l2};

/// Offers every allowed row, with its exact distance, to `scratch.nearest`.
pub fn search(vectors: &Vectors, query: &[f32], allowed: Option<&dyn Fn(u32) -> bool>, scratch: &mut Scratch) {
    for (row, vector) in (0_u32..).zip(vectors.all().chunks_exact(vectors.dim())) {
        if allowed.is_none_or(|allowed| allowed(row)) {
            scratch.nearest.push(float_key(squared_l2(query, vector), row));
        }
    }
}

/// Rows ahead that are asked for.
const AHEAD: usize = 8;

/// Offers the rows in `scratch.ids`, with their exact distances, to `scratch.nearest`.
pub fn rescore(vectors: &Vectors, query: &[f32], scratch: &mut Scratch) {
    let (all, dim) = (vectors.all(), vectors.dim());
    let vector = |row: u32| &all[row as usize * dim..][..dim];
    scratch.ids.iter().take(AHEAD).for_each(|&row| prefetch(vector(row)));
    for (i, &row) in scratch.ids.iter().enumerate() {
        if let Some(&ahead) = scratch.ids.get(i + AHEAD) {
            prefetch(vector(ahead));
        }
        scratch.nearest.push(float_key(squared_l2(query, vector(row)), row));
    }
}
