//! The product with a tile by AVX-512 VNNI: one instruction multiplies 64 weights of 8 bits and adds them to 16 sums.
#![allow(unsafe_code)] // loads, stores and prefetching take raw pointers

use std::arch::x86_64::*;

use super::rounding::NONLINEAR;
use super::rows::{OFFSETS, SCALE, WORDS};
use super::{GROUPS, OFFSET, Scales, TILE, Tile, UNIT, with_rows};

/// Lines of 64 bytes between what is multiplied and what is fetched from memory.
const AHEAD: usize = 64;

/// As [`plain::rows`](super::plain::rows), for 1 to [`ROWS`](super::ROWS) rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    with_rows!(sums.len(), some(tile, words, sums))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn some<const R: usize>(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    let Some(sums) = sums.first_chunk_mut::<R>() else { return };
    let total = match tile.scales {
        Scales::Eight(scales) => eight_bits::<R>(&tile, scales, words),
        Scales::Four { units, multiples } => four_bits::<R>(&tile, units, multiples, words),
    };
    for (total, sums) in total.iter().zip(sums) {
        // SAFETY: 16 floats are written to an array of as many; unaligned stores may be anywhere.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn eight_bits<const R: usize>(tile: &Tile<'_>, scales: &[[u16; TILE]], words: &[u32]) -> [__m512; R] {
    let mut total = [_mm512_setzero_ps(); R];
    let blocks = scales.iter().zip(tile.lines.as_chunks::<GROUPS>().0).zip(words.chunks_exact(WORDS * R));
    for ((scales, lines), words) in blocks {
        let mut dots = [_mm512_setzero_si512(); R];
        for (r, dots) in dots.iter_mut().enumerate() {
            let [first, second] = OFFSETS.map(|word| _mm512_set1_epi32(words[word * R + r].cast_signed()));
            *dots = _mm512_add_epi32(first, second);
        }
        for (line, words) in lines.iter().zip(words.as_chunks::<R>().0) {
            prefetch(line);
            multiply(&mut dots, load(&line.0), words);
        }
        // SAFETY: 32 bytes of an array are read; unaligned loads may be anywhere.
        let scales = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) });
        add_scaled(&mut total, &dots, scales, words);
    }
    total
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn four_bits<const R: usize>(
    tile: &Tile<'_>,
    units: &[[u16; TILE]],
    multiples: &[[[i8; TILE]; 2]],
    words: &[u32],
) -> [__m512; R] {
    let unsigned = NONLINEAR.map(|step| (i32::from(step) + OFFSET) as u8);
    let codebook = _mm512_broadcast_i32x4(_mm_set_epi64x(
        i64::from_le_bytes(*unsigned.last_chunk().unwrap_or(&[0; 8])),
        i64::from_le_bytes(*unsigned.first_chunk().unwrap_or(&[0; 8])),
    ));
    let low = _mm512_set1_epi8(15);
    let mut total = [_mm512_setzero_ps(); R];
    let blocks = multiples.iter().zip(tile.lines.as_chunks::<{ GROUPS / 2 }>().0).zip(words.chunks_exact(WORDS * R));
    for (b, ((multiples, lines), words)) in blocks.enumerate() {
        // SAFETY: 32 bytes of an array are read; unaligned loads may be anywhere.
        let unit = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(units[b / UNIT].as_ptr().cast()) });
        let unit = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(unit));
        let values = words.as_chunks::<R>().0.as_chunks::<{ GROUPS / 2 }>().0;
        let halves = multiples.iter().zip(lines.as_chunks::<{ GROUPS / 4 }>().0).zip(values).zip(OFFSETS);
        for (((multiples, lines), values), offset) in halves {
            let mut dots = [_mm512_setzero_si512(); R];
            for (r, dots) in dots.iter_mut().enumerate() {
                *dots = _mm512_set1_epi32(words[offset * R + r].cast_signed());
            }
            for (line, values) in lines.iter().zip(values.as_chunks::<2>().0) {
                prefetch(line);
                let codes = load(&line.0);
                let first = _mm512_shuffle_epi8(codebook, _mm512_and_si512(codes, low));
                multiply(&mut dots, first, &values[0]);
                let codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low);
                multiply(&mut dots, _mm512_shuffle_epi8(codebook, codes), &values[1]);
            }
            // SAFETY: 16 bytes of an array are read; unaligned loads may be anywhere.
            let multiples = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(multiples.as_ptr().cast()) });
            add_scaled(&mut total, &dots, _mm512_mul_ps(_mm512_cvtepi32_ps(multiples), unit), words);
        }
    }
    total
}

/// `dots += weights · values`, four of each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn multiply<const R: usize>(dots: &mut [__m512i; R], weights: __m512i, values: &[u32; R]) {
    for (dots, value) in dots.iter_mut().zip(values) {
        *dots = _mm512_dpbusd_epi32(*dots, weights, _mm512_set1_epi32(value.cast_signed()));
    }
}

/// `total += dots · scale of the weights · scale of the activations`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn add_scaled<const R: usize>(total: &mut [__m512; R], dots: &[__m512i; R], scales: __m512, words: &[u32]) {
    for ((total, dots), scale) in total.iter_mut().zip(dots).zip(&words[SCALE * R..]) {
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

#[target_feature(enable = "avx512f")]
#[inline]
#[allow(unused_unsafe)] // safe in newer compilers
fn prefetch(line: &super::Line) {
    // SAFETY: a prefetch never faults, wherever it points, and `wrapping_add` may leave the allocation.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).wrapping_add(AHEAD).cast()) }
}
