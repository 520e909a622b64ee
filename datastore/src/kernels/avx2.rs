//! AVX2 with FMA and F16C: what x86-64 machines without VNNI have.
#![allow(unsafe_code)] // vector loads from fixed-size chunks

use std::arch::x86_64::*;

use half::f16;

use super::{prefetch, squared_l2_tail};

/// How many rows ahead are asked for.
const AHEAD: usize = 4;

#[inline]
#[target_feature(enable = "avx2")]
fn load<T: bytemuck::Pod>(block: &[T; 16]) -> __m128i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: the block is exactly the 16 bytes that are read; the load need not be aligned.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_f32(block: &[f32; 8]) -> __m256 {
    // SAFETY: the block is exactly the 8 floats that are read; the load need not be aligned.
    unsafe { _mm256_loadu_ps(block.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_f16(block: &[f16; 8]) -> __m256 {
    // SAFETY: the block is exactly the 16 bytes that are read; the load need not be aligned.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_up(sum: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}

/// Widened to 16 bits: the shorter `maddubs` would saturate.
#[inline]
#[target_feature(enable = "avx2")]
fn dot(row: &[u8], query: &[i8]) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (x, q) in row.as_chunks::<32>().0.iter().zip(query.as_chunks::<32>().0) {
        for ((x, q), sum) in x.as_chunks().0.iter().zip(q.as_chunks().0).zip(&mut sums) {
            let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(load(x)), _mm256_cvtepi8_epi16(load(q)));
            *sum = _mm256_add_epi32(*sum, products);
        }
    }
    add_up(_mm256_add_epi32(sums[0], sums[1]))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub fn gather_dots(codes: &[u8], ids: &[u32], query: &[i8], out: &mut [i32]) {
    let len = query.len();
    let row = |id: u32| &codes[id as usize * len..][..len];
    for &id in ids.iter().take(AHEAD) {
        prefetch(row(id));
    }
    for (i, (&id, out)) in ids.iter().zip(out).enumerate() {
        if let Some(&id) = ids.get(i + AHEAD) {
            prefetch(row(id));
        }
        *out = dot(row(id), query);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub fn scan_dots(codes: &[u8], query: &[i8], out: &mut [i32]) {
    for (row, out) in codes.chunks_exact(query.len()).zip(out) {
        *out = dot(row, query);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub fn squared_l2_codes(a: &[u8], b: &[u8]) -> u32 {
    let mut sum = _mm256_setzero_si256();
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let difference = _mm256_sub_epi16(_mm256_cvtepu8_epi16(load(a)), _mm256_cvtepu8_epi16(load(b)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(difference, difference));
    }
    add_up(sum) as u32
}

#[target_feature(enable = "avx2,fma,f16c")]
pub fn squared_l2(query: &[f32], row: &[f16]) -> f32 {
    let mut lanes = [_mm256_setzero_ps(); 4];
    let (queries, query_tail) = query.as_chunks::<32>();
    let (rows, row_tail) = row.as_chunks::<32>();
    for (q, x) in queries.iter().zip(rows) {
        for ((q, x), lane) in q.as_chunks().0.iter().zip(x.as_chunks().0).zip(&mut lanes) {
            let difference = _mm256_sub_ps(load_f32(q), load_f16(x));
            *lane = _mm256_fmadd_ps(difference, difference, *lane);
        }
    }
    let eight = _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[2]), _mm256_add_ps(lanes[1], lanes[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
    squared_l2_tail(_mm_cvtss_f32(one), query_tail, row_tail)
}
