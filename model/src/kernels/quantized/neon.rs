//! The product with a tile by the dot product instructions of ARMv8.2.
#![allow(unsafe_code)] // loads and stores take raw pointers, and the instruction has no stable intrinsic

use std::arch::aarch64::*;
use std::arch::asm;

use super::rounding::NONLINEAR;
use super::rows::{SCALE, WORDS};
use super::{GROUPS, OFFSET, Scales, TILE, Tile};

/// Rows of a tile in one register.
const LANES: usize = 4;

/// As [`plain::rows`](super::plain::rows).
#[target_feature(enable = "neon,dotprod")]
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    let rows = sums.len();
    sums.fill([0.0; TILE]);
    for (b, words) in (0..tile.scales.blocks()).zip(words.chunks_exact(WORDS * rows)) {
        let scales = tile.scales.of_block(b);
        let groups = GROUPS / scales.get().len();
        for quarter in 0..TILE / LANES {
            let weights = unpack(&tile, b, quarter);
            for (part, (scales, weights)) in scales.get().iter().zip(weights.chunks(groups)).enumerate() {
                // SAFETY: 16 bytes inside the array are read.
                let scales = unsafe { vld1q_f32(scales.as_ptr().add(quarter * LANES)) };
                for (r, sums) in sums.iter_mut().enumerate() {
                    let mut dots = vdupq_n_s32(0);
                    for (weights, word) in weights.iter().zip(words[part * groups * rows + r..].iter().step_by(rows)) {
                        dots = dot(dots, *weights, vreinterpretq_s8_u32(vdupq_n_u32(*word)));
                    }
                    let scale = vmulq_n_f32(scales, f32::from_bits(words[SCALE * rows + r]));
                    let sums = sums[quarter * LANES..].as_mut_ptr();
                    // SAFETY: 4 floats inside the array are read and written.
                    unsafe { vst1q_f32(sums, vfmaq_f32(vld1q_f32(sums), vcvtq_f32_s32(dots), scale)) }
                }
            }
        }
    }
}

/// `sums[i] += Σⱼ a[4 i + j] · b[4 i + j]`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: works on the named registers alone; the instruction is part of the enabled feature.
    unsafe {
        asm!("sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b", sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Weights of a quarter of the rows of a block, signed: four of each row in each register.
#[target_feature(enable = "neon")]
#[inline]
fn unpack(tile: &Tile<'_>, block: usize, quarter: usize) -> [int8x16_t; GROUPS] {
    let mut weights = [vdupq_n_s8(0); GROUPS];
    match tile.scales {
        Scales::Eight(_) => {
            let offset = vdupq_n_u8(OFFSET as u8);
            for (weights, line) in weights.iter_mut().zip(&tile.lines[block * GROUPS..]) {
                *weights = vreinterpretq_s8_u8(veorq_u8(load(&line.0, quarter), offset)); // the same as subtracting
            }
        }
        Scales::Four { .. } => {
            // SAFETY: 16 bytes of an array are read.
            let codebook = unsafe { vld1q_s8(NONLINEAR.as_ptr()) };
            let lines = &tile.lines[block * GROUPS / 2..];
            for (weights, line) in weights.as_chunks_mut::<2>().0.iter_mut().zip(lines) {
                let codes = load(&line.0, quarter);
                weights[0] = vqtbl1q_s8(codebook, vandq_u8(codes, vdupq_n_u8(15)));
                weights[1] = vqtbl1q_s8(codebook, vshrq_n_u8::<4>(codes));
            }
        }
    }
    weights
}

#[target_feature(enable = "neon")]
#[inline]
fn load(line: &[u8; 64], quarter: usize) -> uint8x16_t {
    // SAFETY: quarter is below 4, and 16 bytes inside the array are read.
    unsafe { vld1q_u8(line.as_ptr().add(quarter * 16)) }
}
