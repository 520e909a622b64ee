//! The product with a tile in plain Rust: what runs anywhere, and what the other kernels are compared with.

use half::f16;

use super::rows::WORDS;
use super::{BLOCK, GROUPS, OFFSET, TILE, Tile};

/// Rows of activations times a tile: `sums[r][o]`, the rows being words as `QuantizedRows` lays them out.
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    let rows = sums.len();
    sums.fill([0.0; TILE]);
    let mut weights = [[0_i8; BLOCK]; TILE];
    for (b, (scales, words)) in tile.scales.iter().zip(words.chunks_exact(WORDS * rows)).enumerate() {
        unpack(&tile, b, &mut weights);
        for (r, sums) in sums.iter_mut().enumerate() {
            let scale = f32::from_bits(words[GROUPS * rows + r]);
            for ((sum, weights), weight_scale) in sums.iter_mut().zip(&weights).zip(scales) {
                let mut dot = 0_i32;
                for (weights, word) in weights.as_chunks::<4>().0.iter().zip(words[r..].iter().step_by(rows)) {
                    let values = word.to_le_bytes().map(u8::cast_signed);
                    dot += weights.iter().zip(values).map(|(w, x)| i32::from(*w) * i32::from(x)).sum::<i32>();
                }
                *sum = (dot as f32).mul_add(f16::from_bits(*weight_scale).to_f32() * scale, *sum);
            }
        }
    }
}

/// The weights of a block, [TILE][BLOCK].
pub fn unpack(tile: &Tile<'_>, block: usize, weights: &mut [[i8; BLOCK]; TILE]) {
    for (row, weights) in weights.iter_mut().enumerate() {
        for (group, weights) in weights.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let bytes = |line: usize| -> [u8; 4] { std::array::from_fn(|i| tile.lines[line].0[row * 4 + i]) };
            *weights = match tile.codebook {
                None => bytes(block * GROUPS + group).map(|byte| (i32::from(byte) - OFFSET) as i8),
                Some(codebook) => bytes((block * GROUPS + group) / 2)
                    .map(|byte| codebook[usize::from(if group % 2 == 0 { byte & 15 } else { byte >> 4 })]),
            };
        }
    }
}
