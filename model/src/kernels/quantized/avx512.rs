//! The product with a tile by AVX-512 VNNI: one instruction multiplies 64 weights of 8 bits and adds them to 16 sums.
#![allow(unsafe_code)] // loads, stores and prefetching take raw pointers

use std::arch::x86_64::*;

use super::rows::WORDS;
use super::{GROUPS, OFFSET, TILE, Tile, with_rows};

/// Lines of 64 bytes between what is multiplied and what is fetched from memory.
const AHEAD: usize = 64;

/// As [`plain::rows`](super::plain::rows), for 1 to [`ROWS`](super::ROWS) rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    with_rows!(sums.len(), some(tile, words, sums))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn some<const R: usize>(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    match (sums.first_chunk_mut::<R>(), tile.codebook) {
        (Some(sums), None) => eight_bits(tile, words, sums),
        (Some(sums), Some(codebook)) => four_bits(tile, codebook, words, sums),
        (None, _) => {}
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn eight_bits<const R: usize>(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]; R]) {
    let mut total = [_mm512_setzero_ps(); R];
    let blocks = tile.scales.iter().zip(tile.lines.as_chunks::<GROUPS>().0).zip(words.chunks_exact(WORDS * R));
    for ((scales, lines), words) in blocks {
        let mut dots = offsets::<R>(words);
        for (line, words) in lines.iter().zip(words.as_chunks::<R>().0) {
            prefetch(line);
            let weights = load(&line.0);
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], weights, _mm512_set1_epi32(words[r].cast_signed()));
            }
        }
        add_scaled(&mut total, &dots, scales, words);
    }
    store(&total, sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn four_bits<const R: usize>(tile: Tile<'_>, codebook: &[i8; 16], words: &[u32], sums: &mut [[f32; TILE]; R]) {
    let unsigned = codebook.map(|step| (i32::from(step) + OFFSET) as u8);
    let codebook = _mm512_broadcast_i32x4(_mm_set_epi64x(
        i64::from_le_bytes(*unsigned.last_chunk().unwrap_or(&[0; 8])),
        i64::from_le_bytes(*unsigned.first_chunk().unwrap_or(&[0; 8])),
    ));
    let low = _mm512_set1_epi8(15);
    let mut total = [_mm512_setzero_ps(); R];
    let blocks = tile.scales.iter().zip(tile.lines.as_chunks::<{ GROUPS / 2 }>().0).zip(words.chunks_exact(WORDS * R));
    for ((scales, lines), words) in blocks {
        let mut dots = offsets::<R>(words);
        for (line, pair) in lines.iter().zip(words.as_chunks::<R>().0.as_chunks::<2>().0) {
            prefetch(line);
            let codes = load(&line.0);
            let first = _mm512_shuffle_epi8(codebook, _mm512_and_si512(codes, low));
            let second = _mm512_shuffle_epi8(codebook, _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low));
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], first, _mm512_set1_epi32(pair[0][r].cast_signed()));
            }
            for r in 0..R {
                dots[r] = _mm512_dpbusd_epi32(dots[r], second, _mm512_set1_epi32(pair[1][r].cast_signed()));
            }
        }
        add_scaled(&mut total, &dots, scales, words);
    }
    store(&total, sums);
}

/// What the sums of a block begin with.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn offsets<const R: usize>(words: &[u32]) -> [__m512i; R] {
    let mut dots = [_mm512_setzero_si512(); R];
    for (dots, offset) in dots.iter_mut().zip(&words[(GROUPS + 1) * R..]) {
        *dots = _mm512_set1_epi32(offset.cast_signed());
    }
    dots
}

/// `total += dots · scale of the weights · scale of the activations`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn add_scaled<const R: usize>(total: &mut [__m512; R], dots: &[__m512i; R], scales: &[u16; TILE], words: &[u32]) {
    // SAFETY: 32 bytes of an array are read; unaligned loads may be anywhere.
    let scales = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) });
    for ((total, dots), scale) in total.iter_mut().zip(dots).zip(&words[GROUPS * R..]) {
        let scale = _mm512_mul_ps(scales, _mm512_set1_ps(f32::from_bits(*scale)));
        *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*dots), scale, *total);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn load(line: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes of an array are read; unaligned loads may be anywhere.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn store<const R: usize>(total: &[__m512; R], sums: &mut [[f32; TILE]; R]) {
    for (total, sums) in total.iter().zip(sums) {
        // SAFETY: 16 floats are written to an array of as many; unaligned stores may be anywhere.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
#[allow(unused_unsafe)] // safe in newer compilers
fn prefetch(line: &super::Line) {
    // SAFETY: a prefetch never faults, wherever it points, and `wrapping_add` may leave the allocation.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_add(AHEAD).cast()) }
}
