//! Weights in 8 and 4 bits: a scale for each block, chosen so that the squared error is small.

use half::{bf16, f16};
use multiversion::multiversion;

use super::{BLOCK, Codebook, HALF};

/// Steps of 4-bit weights, closer together where weights are many: those of ggml's `IQ4_NL`.
pub(super) const NONLINEAR: Codebook = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The largest multiple of a unit that a scale is.
const MULTIPLES: f32 = 127.0;

/// Steps that the largest weight of half a block is tried on.
const ANCHORS: [f32; 12] = [-145.0, -136.0, -127.0, -118.0, -111.0, -104.0, 97.0, 104.0, 113.0, 122.0, 131.0, 140.0];

/// A block of weights in 8 bits: its scale and the weights in units of it, −127 to 127.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn eight_bits(block: &[f32; BLOCK]) -> (f16, [i8; BLOCK]) {
    let mut max = 0.0_f32;
    for x in block {
        max = if x.abs() > max { x.abs() } else { max };
    }
    let scale = f16::from_f32(max / 127.0);
    let inverse = inverse(scale.to_f32());
    let mut quantized = [0; BLOCK];
    for (q, x) in quantized.iter_mut().zip(block) {
        *q = (x * inverse).clamp(-127.0, 127.0).round_ties_even() as i8;
    }
    (scale, quantized)
}

/// Blocks of 4-bit weights that share a unit.
pub struct Unit {
    /// What scales are multiples of.
    pub unit: bf16,
    /// The blocks, in order.
    pub blocks: Vec<FourBits>,
}

/// A block of 4-bit weights.
pub struct FourBits {
    /// The scale of each half in units, −127 to 127.
    pub multiples: [i8; 2],
    /// For each weight which of the [`NONLINEAR`] steps it is.
    pub codes: [u8; BLOCK],
}

/// Blocks of weights in 4 bits. Scales are chosen for halves of blocks by [`scale`], the largest gives the unit, and of the
/// multiples next to a scale the one is taken that gives the smallest squared error.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn four_bits(blocks: &[[f32; BLOCK]]) -> Unit {
    let halves = |block: &[f32; BLOCK]| -> [[f32; HALF]; 2] {
        let (halves, _) = block.as_chunks::<HALF>();
        [halves[0], halves[1]]
    };
    let scales: Vec<[f32; 2]> = blocks.iter().map(|block| halves(block).map(|half| scale(&half))).collect();
    let largest = scales.as_flattened().iter().fold(0.0_f32, |max, scale| max.max(scale.abs()));
    let unit = bf16::from_f32(largest / MULTIPLES);
    let of = |block: &[f32; BLOCK], scales: &[f32; 2]| {
        let mut found = FourBits { multiples: [0; 2], codes: [0; BLOCK] };
        let parts = found.codes.as_chunks_mut::<HALF>().0.iter_mut().zip(&mut found.multiples);
        for (((codes, multiple), half), scale) in parts.zip(halves(block)).zip(scales) {
            (*multiple, *codes) = multiple_of(&half, unit.to_f32(), *scale);
        }
        found
    };
    Unit { unit, blocks: blocks.iter().zip(&scales).map(|(block, scales)| of(block, scales)).collect() }
}

/// The multiple of `unit` next to `scale` with the smallest error, and the codes.
#[inline(always)]
fn multiple_of(half: &[f32; HALF], unit: f32, scale: f32) -> (i8, [u8; HALF]) {
    let nearest_multiple = (scale * inverse(unit)).round_ties_even();
    let mut best = (f32::INFINITY, 0, [0; HALF]);
    for candidate in [0.0, -1.0, 1.0] {
        let multiple = (nearest_multiple + candidate).clamp(-MULTIPLES, MULTIPLES);
        let scale = multiple * unit;
        let (codes, steps) = nearest(half, inverse(scale));
        let error = error(half, &steps, scale);
        if error < best.0 {
            best = (error, multiple as i8, codes);
        }
    }
    (best.1, best.2)
}

/// The scale of some weights, which may be negative: of those that take the largest weight to one of some steps or near
/// it, each improved once by least squares, the one with the smallest squared error.
#[inline(always)]
fn scale(half: &[f32; HALF]) -> f32 {
    let mut largest = 0.0_f32;
    for x in half {
        largest = if x.abs() > largest.abs() { *x } else { largest };
    }
    if largest == 0.0 {
        return 0.0;
    }
    let mut best = (f32::INFINITY, 0.0);
    for anchor in ANCHORS {
        let (_, steps) = nearest(half, anchor / largest);
        let (mut projection, mut square) = (0.0_f32, 0.0_f32);
        for (x, step) in half.iter().zip(&steps) {
            projection = x.mul_add(*step, projection);
            square = step.mul_add(*step, square);
        }
        let scale = projection / square;
        let error = error(half, &steps, scale);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// For each weight times `inverse` the nearest step: which one it is, and its size.
#[inline(always)]
fn nearest(half: &[f32; HALF], inverse: f32) -> ([u8; HALF], [f32; HALF]) {
    let (mut codes, mut steps) = ([0; HALF], [f32::from(NONLINEAR[0]); HALF]);
    for ((code, step), x) in codes.iter_mut().zip(&mut steps).zip(half) {
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
fn error(half: &[f32; HALF], steps: &[f32; HALF], scale: f32) -> f32 {
    let mut error = 0.0_f32;
    for (x, step) in half.iter().zip(steps) {
        let difference = scale.mul_add(-step, *x);
        error = difference.mul_add(difference, error);
    }
    error
}

/// 1 / scale, or 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
