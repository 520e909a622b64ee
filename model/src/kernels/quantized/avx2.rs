//! The product with a tile by AVX2.
//!
//! `maddubs` multiplies unsigned by signed bytes: the sign of an activation is moved to the weight, so that no pair of
//! products, at most 2 · 127 · 127, goes beyond 16 bits.
#![allow(unsafe_code)] // loads and stores take raw pointers

use std::arch::x86_64::*;

use super::rows::WORDS;
use super::{GROUPS, OFFSET, TILE, Tile};

/// As [`plain::rows`](super::plain::rows).
#[target_feature(enable = "avx2,fma,f16c")]
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    let rows = sums.len();
    sums.fill([0.0; TILE]);
    let ones = _mm256_set1_epi16(1);
    for (b, (scales, words)) in tile.scales.iter().zip(words.chunks_exact(WORDS * rows)).enumerate() {
        for half in 0..2 {
            // SAFETY: 16 bytes inside the array are read; unaligned loads may be anywhere.
            let scales = unsafe { _mm_loadu_si128(scales.as_ptr().add(half * 8).cast()) };
            let scales = _mm256_cvtph_ps(scales);
            let weights = unpack(&tile, b, half);
            for (r, sums) in sums.iter_mut().enumerate() {
                let mut dots = _mm256_setzero_si256();
                for (weights, word) in weights.iter().zip(words[r..].iter().step_by(rows)) {
                    let x = _mm256_set1_epi32(word.cast_signed());
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(*weights, x));
                    dots = _mm256_add_epi32(dots, _mm256_madd_epi16(pairs, ones));
                }
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(f32::from_bits(words[GROUPS * rows + r])));
                let sums = sums[half * 8..].as_mut_ptr();
                // SAFETY: 8 floats inside the array are read and written; unaligned accesses may be anywhere.
                unsafe {
                    let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, _mm256_loadu_ps(sums));
                    _mm256_storeu_ps(sums, sum);
                }
            }
        }
    }
}

/// Weights of half the rows of a block, signed: four of each row in each register.
#[target_feature(enable = "avx2")]
#[inline]
fn unpack(tile: &Tile<'_>, block: usize, half: usize) -> [__m256i; GROUPS] {
    let mut weights = [_mm256_setzero_si256(); GROUPS];
    match tile.codebook {
        None => {
            let offset = _mm256_set1_epi8((OFFSET as u8).cast_signed());
            for (weights, line) in weights.iter_mut().zip(&tile.lines[block * GROUPS..]) {
                *weights = _mm256_xor_si256(load(&line.0, half), offset); // the same as subtracting
            }
        }
        Some(codebook) => {
            // SAFETY: 16 bytes of an array are read; unaligned loads may be anywhere.
            let codebook = unsafe { _mm_loadu_si128(codebook.as_ptr().cast()) };
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
