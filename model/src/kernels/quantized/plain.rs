//! The product with a tile in plain Rust: what runs anywhere, and what the other kernels are compared with.

use super::rounding::NONLINEAR;
use super::rows::{SCALE, WORDS};
use super::{BLOCK, GROUPS, OFFSET, Scales, TILE, Tile};

/// Rows of activations times a tile: `sums[r][o]`, the rows being words as `QuantizedRows` lays them out.
pub fn rows(tile: Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    let rows = sums.len();
    sums.fill([0.0; TILE]);
    let mut weights = [[[0_i8; 4]; GROUPS]; TILE];
    for (b, words) in (0..tile.scales.blocks()).zip(words.chunks_exact(WORDS * rows)) {
        unpack(&tile, b, &mut weights);
        let scales = tile.scales.of_block(b);
        let groups = GROUPS / scales.get().len();
        for (r, sums) in sums.iter_mut().enumerate() {
            let scale = f32::from_bits(words[SCALE * rows + r]);
            for (part, scales) in scales.get().iter().enumerate() {
                let words = words[part * groups * rows + r..].iter().step_by(rows).take(groups);
                for ((sum, weights), weight_scale) in sums.iter_mut().zip(&weights).zip(scales) {
                    let mut dot = 0_i32;
                    for (weights, word) in weights[part * groups..].iter().zip(words.clone()) {
                        let values = word.to_le_bytes().map(u8::cast_signed);
                        dot += weights.iter().zip(values).map(|(w, x)| i32::from(*w) * i32::from(x)).sum::<i32>();
                    }
                    *sum = (dot as f32).mul_add(weight_scale * scale, *sum);
                }
            }
        }
    }
}

/// The weights of a block in units of their scales, [TILE][BLOCK].
pub fn unpack(tile: &Tile<'_>, block: usize, weights: &mut [[[i8; 4]; GROUPS]; TILE]) {
    for (row, weights) in weights.iter_mut().enumerate() {
        for (group, weights) in weights.iter_mut().enumerate() {
            *weights = self::group(tile, block, group, row);
        }
    }
}

/// One row's weights of a block in units of their scales.
pub fn unpack_row(tile: &Tile<'_>, block: usize, row: usize) -> [i8; BLOCK] {
    let mut weights = [0; BLOCK];
    for (group, weights) in weights.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *weights = self::group(tile, block, group, row);
    }
    weights
}

fn group(tile: &Tile<'_>, block: usize, group: usize, row: usize) -> [i8; 4] {
    let bytes = |line: usize| -> [u8; 4] { std::array::from_fn(|i| tile.lines[line].0[row * 4 + i]) };
    match tile.scales {
        Scales::Eight(_) => bytes(block * GROUPS + group).map(|byte| (i32::from(byte) - OFFSET) as i8),
        Scales::Four { .. } => bytes((block * GROUPS + group) / 2)
            .map(|byte| NONLINEAR[usize::from(if group.is_multiple_of(2) { byte & 15 } else { byte >> 4 })]),
    }
}
