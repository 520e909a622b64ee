//! Weights in 8 and 4 bits: a scale in f16 for each block, chosen so that the squared error is small.

use half::f16;
use multiversion::multiversion;

use super::{BLOCK, Codebook};

/// Steps of 4-bit weights, closer together where weights are many: those of ggml's `IQ4_NL`.
pub(super) const NONLINEAR: Codebook = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Steps that the largest weight of a block is tried on.
const ANCHORS: [f32; 12] = [-145.0, -136.0, -127.0, -118.0, -111.0, -104.0, 97.0, 104.0, 113.0, 122.0, 131.0, 140.0];

/// A block of weights in 8 bits: its scale and the weights in units of it, −127 to 127.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn eight_bits(block: &[f32; BLOCK]) -> (f16, [i8; BLOCK]) {
    let mut max = 0.0_f32;
    for x in block {
        max = if x.abs() > max { x.abs() } else { max };
    }
    let scale = f16::from_f32(max / 127.0);
    let inverse = inverse(scale);
    let mut quantized = [0; BLOCK];
    for (q, x) in quantized.iter_mut().zip(block) {
        *q = (x * inverse).clamp(-127.0, 127.0).round_ties_even() as i8;
    }
    (scale, quantized)
}

/// A block of weights in 4 bits: its scale, which may be negative, and for each weight which of the [`NONLINEAR`] steps
/// it is. Of the scales that take the largest weight to one of some steps or near it, each improved once by least
/// squares, the one with the smallest squared error.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn four_bits(block: &[f32; BLOCK]) -> (f16, [u8; BLOCK]) {
    let mut largest = 0.0_f32;
    for x in block {
        largest = if x.abs() > largest.abs() { *x } else { largest };
    }
    let mut best = (f32::INFINITY, f16::ZERO, [8; BLOCK]);
    for anchor in ANCHORS {
        let (codes, steps) = nearest(block, anchor / largest);
        let (mut projection, mut square) = (0.0_f32, 0.0_f32);
        for (x, step) in block.iter().zip(&steps) {
            projection = x.mul_add(*step, projection);
            square = step.mul_add(*step, square);
        }
        let scale = f16::from_f32(projection / square);
        let error = error(block, &steps, scale);
        if error < best.0 {
            best = (error, scale, codes);
        }
    }
    // The codes once more, for the scale that was found.
    let (codes, steps) = nearest(block, inverse(best.1));
    if error(block, &steps, best.1) < best.0 {
        best.2 = codes;
    }
    (best.1, best.2)
}

/// For each weight times `inverse` the nearest step: which one it is, and its size.
#[inline(always)]
fn nearest(block: &[f32; BLOCK], inverse: f32) -> ([u8; BLOCK], [f32; BLOCK]) {
    let (mut codes, mut steps) = ([0; BLOCK], [f32::from(NONLINEAR[0]); BLOCK]);
    for ((code, step), x) in codes.iter_mut().zip(&mut steps).zip(block) {
        let x = x * inverse;
        for pair in NONLINEAR.windows(2) {
            let middle = (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
            *code += u8::from(x > middle);
            *step = if x > middle { f32::from(pair[1]) } else { *step };
        }
    }
    (codes, steps)
}

#[inline(always)]
fn error(block: &[f32; BLOCK], steps: &[f32; BLOCK], scale: f16) -> f32 {
    let scale = scale.to_f32();
    let mut error = 0.0_f32;
    for (x, step) in block.iter().zip(steps) {
        let difference = scale.mul_add(-step, *x);
        error = difference.mul_add(difference, error);
    }
    error
}

#[inline(always)]
fn inverse(scale: f16) -> f32 {
    let scale = scale.to_f32();
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
