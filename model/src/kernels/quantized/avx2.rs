//! The product with a tile by AVX2.
//!
//! `maddubs` multiplies unsigned by signed bytes: the sign of an activation is moved to the weight, so that no pair of
//! products, at most 2 · 127 · 127, goes beyond 16 bits.
#![allow(unsafe_code)] // loads and stores take raw pointers

use std::arch::x86_64::*;

use super::rounding::NONLINEAR;
use super::rows::{SCALE, WORDS};
use super::{GROUPS, OFFSET, Scales, TILE, Tile, UNIT};

/// As [`plain::rows`](super::plain::rows).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    let rows = sums.len();
    sums.fill([0.0; TILE]);
    for (b, words) in (0..tile.scales.blocks()).zip(words.chunks_exact(WORDS * rows)) {
        for half in 0..2 {
            let weights = unpack(&tile, b, half);
            match tile.scales {
                Scales::Eight(scales) => {
                    // SAFETY: 16 bytes inside the array are read; unaligned loads may be anywhere.
                    let scales = unsafe { _mm_loadu_si128(scales[b].as_ptr().add(half * 8).cast()) };
                    add_part(sums, half, &weights, _mm256_cvtph_ps(scales), words, 0);
                }
                Scales::Four { units, multiples } => {
                    // SAFETY: as above.
                    let units = unsafe { _mm_loadu_si128(units[b / UNIT].as_ptr().add(half * 8).cast()) };
                    let units = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(units)));
                    let weights = weights.as_chunks::<{ GROUPS / 2 }>().0;
                    for (part, (multiples, weights)) in multiples[b].iter().zip(weights).enumerate() {
                        // SAFETY: 8 bytes inside the array are read.
                        let multiples = unsafe { _mm_loadl_epi64(multiples.as_ptr().add(half * 8).cast()) };
                        let multiples = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(multiples));
                        add_part(sums, half, weights, _mm256_mul_ps(multiples, units), words, part * GROUPS / 2);
                    }
                }
            }
        }
    }
}

/// Adds the scaled products of half the rows' weights with groups of the activations, from `first` on.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn add_part(sums: &mut [[f32; TILE]], half: usize, weights: &[__m256i], scales: __m256, words: &[u32], first: usize) {
    let (rows, ones) = (sums.len(), _mm256_set1_epi16(1));
    for (r, sums) in sums.iter_mut().enumerate() {
        let mut dots = _mm256_setzero_si256();
        for (weights, word) in weights.iter().zip(words[first * rows + r..].iter().step_by(rows)) {
            let x = _mm256_set1_epi32(word.cast_signed());
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(*weights, x));
            dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, ones));
        }
        let scale = _mm256_mul_ps(scales, _mm256_set1_ps(f32::from_bits(words[SCALE * rows + r])));
        let sums = sums[half * 8..].as_mut_ptr();
        // SAFETY: 8 floats inside the array are read and written; unaligned accesses may be anywhere.
        unsafe {
            let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, _mm256_loadu_ps(sums));
            _mm256_storeu_ps(sums, sum);
        }
    }
}

/// Weights of half the rows of a block, signed: four of each row in each register.
#[target_feature(enable = "avx2")]
#[inline]
fn unpack(tile: &Tile<'_>, block: usize, half: usize) -> [__m256i; GROUPS] {
    let mut weights = [_mm256_setzero_si256(); GROUPS];
    match tile.scales {
        Scales::Eight(_) => {
            let offset = _mm256_set1_epi8((OFFSET as u8).cast_signed());
            for (weights, line) in weights.iter_mut().zip(&tile.lines[block * GROUPS..]) {
                *weights = _mm256_xor_si256(load(&line.0, half), offset); // the same as subtracting
            }
        }
        Scales::Four { .. } => {
            // SAFETY: 16 bytes of an array are read; unaligned loads may be anywhere.
            let codebook = unsafe { _mm_loadu_si128(NONLINEAR.as_ptr().cast()) };
            let (codebook, low) = (_mm256_broadcastsi128_si256(codebook), _mm256_set1_epi8(15));
            let lines = &tile.lines[block * GROUPS / 2..];
            for (weights, line) in weights.as_chunks_mut::<2>().0.iter_mut().zip(lines) {
                let codes = load(&line.0, half);
                weights[0] = _mm256_shuffle_epi8(codebook, _mm256_and_si256(codes, low));
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                weights[1] = _mm256_shuffle_epi8(codebook, high);
            }
        }
    }
    weights
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(line: &[u8; 64], half: usize) -> __m256i {
    // SAFETY: half is 0 or 1, and 32 bytes inside the array are read; unaligned loads may be anywhere.
    unsafe { _mm256_loadu_si256(line.as_ptr().add(half * 32).cast()) }
}
