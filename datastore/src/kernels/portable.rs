//! The safe twin: plain loops, for every machine.

use half::f16;

use super::{fold, squared_l2_tail};

fn row(codes: &[u8], id: u32, len: usize) -> &[u8] {
    &codes[id as usize * len..][..len]
}

fn dot(row: &[u8], query: &[i8]) -> i32 {
    row.iter().zip(query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

pub fn gather_dots(codes: &[u8], ids: &[u32], query: &[i8], out: &mut [i32]) {
    for (id, out) in ids.iter().zip(out) {
        *out = dot(row(codes, *id, query.len()), query);
    }
}

pub fn scan_dots(codes: &[u8], query: &[i8], out: &mut [i32]) {
    for (row, out) in codes.chunks_exact(query.len()).zip(out) {
        *out = dot(row, query);
    }
}

pub fn squared_l2_codes(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

pub fn squared_l2(query: &[f32], row: &[f16]) -> f32 {
    let mut lanes = [0.0_f32; 32];
    let (queries, query_tail) = query.as_chunks::<32>();
    let (rows, row_tail) = row.as_chunks::<32>();
    for (q, x) in queries.iter().zip(rows) {
        for i in 0..32 {
            let difference = q[i] - x[i].to_f32();
            lanes[i] = difference.mul_add(difference, lanes[i]);
        }
    }
    squared_l2_tail(fold(lanes), query_tail, row_tail)
}
