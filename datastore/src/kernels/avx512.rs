//! AVX-512 with VNNI: 64 code components an instruction.
#![allow(unsafe_code)] // vector loads from fixed-size chunks

use std::arch::x86_64::*;

use half::f16;

use super::{CODE_BLOCK, prefetch, squared_l2_tail};

/// How many rows ahead are asked for.
const AHEAD: usize = 4;

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T: bytemuck::Pod>(block: &[T; CODE_BLOCK]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: the block is exactly the 64 bytes that are read; the load need not be aligned.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_f32(block: &[f32; 16]) -> __m512 {
    // SAFETY: the block is exactly the 16 floats that are read; the load need not be aligned.
    unsafe { _mm512_loadu_ps(block.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_f16(block: &[f16; 16]) -> __m512 {
    // SAFETY: the block is exactly the 32 bytes that are read; the load need not be aligned.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(block.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot(row: &[u8], query: &[i8]) -> i32 {
    let mut sum = _mm512_setzero_si512();
    for (x, q) in row.as_chunks().0.iter().zip(query.as_chunks().0) {
        sum = _mm512_dpbusd_epi32(sum, load(x), load(q));
    }
    _mm512_reduce_add_epi32(sum)
}

/// Four rows at once share the loads of the query and the adding up of lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot4(rows: [&[u8]; 4], query: &[i8]) -> [i32; 4] {
    let query = query.as_chunks::<CODE_BLOCK>().0;
    let rows = rows.map(|row| &row.as_chunks::<CODE_BLOCK>().0[..query.len()]);
    let mut sums = [_mm512_setzero_si512(); 4];
    for (i, q) in query.iter().enumerate() {
        let q = load(q);
        sums[0] = _mm512_dpbusd_epi32(sums[0], load(&rows[0][i]), q);
        sums[1] = _mm512_dpbusd_epi32(sums[1], load(&rows[1][i]), q);
        sums[2] = _mm512_dpbusd_epi32(sums[2], load(&rows[2][i]), q);
        sums[3] = _mm512_dpbusd_epi32(sums[3], load(&rows[3][i]), q);
    }
    let [a, b, c, d] = sums.map(|s| _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64::<1>(s)));
    let quads = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let total = _mm_add_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256::<1>(quads));
    [
        _mm_extract_epi32::<0>(total),
        _mm_extract_epi32::<1>(total),
        _mm_extract_epi32::<2>(total),
        _mm_extract_epi32::<3>(total),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn gather_dots(codes: &[u8], ids: &[u32], query: &[i8], out: &mut [i32]) {
    let len = query.len();
    let row = |id: u32| &codes[id as usize * len..][..len];
    for &id in ids.iter().take(2 * AHEAD) {
        prefetch(row(id));
    }
    let (fours, rest) = ids.as_chunks::<4>();
    let (out_fours, out_rest) = out.as_chunks_mut::<4>();
    for (i, (four, out)) in fours.iter().zip(out_fours).enumerate() {
        for &id in ids.iter().skip(4 * i + 2 * AHEAD).take(4) {
            prefetch(row(id));
        }
        *out = dot4(four.map(row), query);
    }
    for (id, out) in rest.iter().zip(out_rest) {
        *out = dot(row(*id), query);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn scan_dots(codes: &[u8], query: &[i8], out: &mut [i32]) {
    let len = query.len();
    let (out_fours, out_rest) = out.as_chunks_mut::<4>();
    let (fours, rest) = codes.split_at(out_fours.len() * 4 * len);
    for (four, out) in fours.chunks_exact(4 * len).zip(out_fours) {
        *out = dot4([&four[..len], &four[len..2 * len], &four[2 * len..3 * len], &four[3 * len..]], query);
    }
    for (row, out) in rest.chunks_exact(len).zip(out_rest) {
        *out = dot(row, query);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn squared_l2_codes(a: &[u8], b: &[u8]) -> u32 {
    let zero = _mm512_setzero_si512();
    let mut sums = [zero; 2];
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let (a, b) = (load(a), load(b));
        let difference = _mm512_or_si512(_mm512_subs_epu8(a, b), _mm512_subs_epu8(b, a));
        let (low, high) = (_mm512_unpacklo_epi8(difference, zero), _mm512_unpackhi_epi8(difference, zero));
        sums[0] = _mm512_dpwssd_epi32(sums[0], low, low);
        sums[1] = _mm512_dpwssd_epi32(sums[1], high, high);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1])) as u32
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn squared_l2(query: &[f32], row: &[f16]) -> f32 {
    let (mut first, mut second) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    let (queries, query_tail) = query.as_chunks::<32>();
    let (rows, row_tail) = row.as_chunks::<32>();
    for (q, x) in queries.iter().zip(rows) {
        if let ([q0, q1], [x0, x1]) = (q.as_chunks::<16>().0, x.as_chunks::<16>().0) {
            let difference = _mm512_sub_ps(load_f32(q0), load_f16(x0));
            first = _mm512_fmadd_ps(difference, difference, first);
            let difference = _mm512_sub_ps(load_f32(q1), load_f16(x1));
            second = _mm512_fmadd_ps(difference, difference, second);
        }
    }
    let sixteen = _mm512_add_ps(first, second);
    let eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps::<1>(sixteen));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
    squared_l2_tail(_mm_cvtss_f32(one), query_tail, row_tail)
}
