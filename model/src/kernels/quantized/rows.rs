//! Activations in 8 bits.

use multiversion::multiversion;

use super::{BLOCK, GROUPS, HALF, OFFSET, ROWS};

/// 32-bit words of a block of one row: its [`GROUPS`] of four values, its scale, and what the sums of its halves begin with.
pub(super) const WORDS: usize = GROUPS + 3;
/// Which word is the scale.
pub(super) const SCALE: usize = GROUPS;
/// Which words the sums begin with.
pub(super) const OFFSETS: [usize; 2] = [GROUPS + 1, GROUPS + 2];

/// Rows of activations in 8 bits, with a scale for every [`BLOCK`] values of a row. The memory is kept between uses.
#[derive(Default)]
pub struct QuantizedRows {
    /// For every [`ROWS`] rows, and for the rest of R < `ROWS`: [blocks][WORDS][R], so that a kernel finds what belongs to
    /// a block at constant places. Of the words the first `GROUPS` are four values each, then come the scale in f32 and, for
    /// each half of the block, −[`OFFSET`] · Σ values, which undoes the offset of the weights.
    words: Vec<u32>,
    rows: usize,
    width: usize,
}

impl QuantizedRows {
    /// Quantises rows of `width` values. A row with a value that is no number becomes one of such values.
    pub fn quantize(&mut self, x: &[f32], width: usize) {
        let blocks = width.div_ceil(BLOCK);
        self.rows = x.len().checked_div(width).unwrap_or(0);
        self.width = width;
        self.words.resize(self.rows * blocks * WORDS, 0);
        let chunks = self.words.chunks_mut((ROWS * blocks * WORDS).max(1)).zip(x.chunks((ROWS * width).max(1)));
        for (words, x) in chunks {
            quantize_rows(words, x, width, x.len() / width);
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How long they are.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows in parts of at most [`ROWS`]: the first row of each part, how many they are, and their words.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, usize, &[u32])> {
        let part = self.width.div_ceil(BLOCK) * WORDS;
        self.words.chunks((ROWS * part).max(1)).enumerate().map(move |(i, words)| (i * ROWS, words.len() / part, words))
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn quantize_rows(words: &mut [u32], x: &[f32], width: usize, rows: usize) {
    for (r, row) in x.chunks_exact(width).enumerate() {
        for (words, values) in words.chunks_exact_mut(WORDS * rows).zip(row.chunks(BLOCK)) {
            let mut block = [0.0_f32; BLOCK];
            block[..values.len()].copy_from_slice(values);
            let (scale, quantized) = quantize_block(&block);
            for (group, word) in quantized.as_chunks::<4>().0.iter().zip(words[r..].iter_mut().step_by(rows)) {
                *word = u32::from_le_bytes(group.map(i8::cast_unsigned));
            }
            words[SCALE * rows + r] = scale.to_bits();
            for (half, word) in quantized.as_chunks::<HALF>().0.iter().zip(OFFSETS) {
                let sum = half.iter().map(|v| i32::from(*v)).sum::<i32>();
                words[word * rows + r] = (-OFFSET * sum).cast_unsigned();
            }
        }
    }
}

/// The scale, max |x| / 127, and the values in units of it.
#[inline(always)]
fn quantize_block(block: &[f32; BLOCK]) -> (f32, [i8; BLOCK]) {
    let (mut max, mut unordered) = (0.0_f32, false);
    for x in block {
        max = if x.abs() > max { x.abs() } else { max };
        unordered |= x.is_nan();
    }
    let inverse = if max > 0.0 { 127.0 / max } else { 0.0 };
    let mut quantized = [0; BLOCK];
    for (q, x) in quantized.iter_mut().zip(block) {
        // Adding and subtracting 1.5 · 2^23 rounds to the nearest integer, the even one of two.
        let rounded = (x * inverse + 12_582_912.0) - 12_582_912.0;
        *q = rounded as i8;
    }
    (if unordered { f32::NAN } else { max / 127.0 }, quantized)
}
