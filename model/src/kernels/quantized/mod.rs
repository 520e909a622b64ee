//! Products with weights of 8 or 4 bits: for one row at the speed of the memory, for many at that of the integer units.
//!
//! Weights are cut into blocks of [`BLOCK`] neighbours of a row, with one scale each in 8 bits, one for each half in 4 bits.
//! Sixteen rows make a tile, which lies in memory in the order in which it is read, so that one instruction takes four
//! elements of each of the 16 rows. Activations are quantised to 8 bits, with a scale for every [`BLOCK`] of them. The
//! product of what shares its scales is an integer sum, which is exact; one after another these are scaled and added up in
//! f32 by one fused multiply-add. So the bits of a result depend neither on the instructions that the processor has, nor on
//! the number of threads or rows.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
mod product;
mod rounding;
mod rows;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use half::{bf16, f16};

pub use matrix::{Format, QuantizeError, QuantizedMatrix};
pub use product::{Product, products};
pub use rows::QuantizedRows;

/// Neighbours in a row that share a scale: activations, and weights of 8 bits.
const BLOCK: usize = 32;
/// Neighbours in a row that share a scale: weights of 4 bits.
const HALF: usize = BLOCK / 2;
/// Blocks of 4-bit weights whose scales are multiples of one unit.
const UNIT: usize = 8;
/// Rows of a tile: the 32-bit lanes of an AVX-512 register.
const TILE: usize = 16;
/// Rows of activations that share one pass over a tile.
const ROWS: usize = 16;
/// Groups of four neighbours in a block: what one 32-bit lane of an integer dot product takes.
const GROUPS: usize = BLOCK / 4;
/// What is added to a weight of 8 bits to make it unsigned, as AVX-512 VNNI wants it.
const OFFSET: i32 = 128;

/// 64 bytes of packed weights: a cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// The steps of a 4-bit weight, in units of its scale.
type Codebook = [i8; 16];

/// One tile of a matrix.
#[derive(Clone, Copy)]
struct Tile<'a> {
    scales: Scales<'a>,
    /// In 8 bits [blocks][GROUPS], each line four weights plus [`OFFSET`] of each row. In 4 bits [blocks][GROUPS / 2]: the low
    /// halves of a line's bytes are the steps of one group, the high ones those of the next.
    lines: &'a [Line],
}

/// What the weights of a tile are in units of.
#[derive(Clone, Copy)]
enum Scales<'a> {
    /// Of 8-bit weights: f16, [blocks][TILE].
    Eight(&'a [[u16; TILE]]),
    /// Of 4-bit weights, whose steps are [`NONLINEAR`](rounding::NONLINEAR): `multiples` of `units`.
    Four {
        /// bf16, [⌈blocks / UNIT⌉][TILE].
        units: &'a [[u16; TILE]],
        /// [blocks][2][TILE].
        multiples: &'a [[[i8; TILE]; 2]],
    },
}

impl Scales<'_> {
    fn blocks(&self) -> usize {
        match self {
            Scales::Eight(scales) => scales.len(),
            Scales::Four { multiples, .. } => multiples.len(),
        }
    }

    /// The scales of a block in f32, which holds them exactly: of the whole, or of its halves.
    fn of_block(&self, block: usize) -> Parts {
        match self {
            Scales::Eight(scales) => Parts::Whole([scales[block].map(|scale| f16::from_bits(scale).to_f32())]),
            Scales::Four { units, multiples } => Parts::Halves(multiples[block].map(|multiples| {
                std::array::from_fn(|o| bf16::from_bits(units[block / UNIT][o]).to_f32() * f32::from(multiples[o]))
            })),
        }
    }
}

/// The scales of a block of a tile.
enum Parts {
    Whole([[f32; TILE]; 1]),
    Halves([[f32; TILE]; 2]),
}

impl Parts {
    fn get(&self) -> &[[f32; TILE]] {
        match self {
            Parts::Whole(scales) => scales,
            Parts::Halves(scales) => scales,
        }
    }
}

/// The instructions that products are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Plain,
}

impl Instructions {
    /// All that this processor has, the widest first.
    fn all() -> Vec<Instructions> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                all.push(Instructions::Avx512);
            }
            if has!("avx2") && has!("fma") && has!("f16c") {
                all.push(Instructions::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(Instructions::Neon);
        }
        all.push(Instructions::Plain);
        all
    }

    /// The widest that this processor has.
    fn best() -> Instructions {
        static BEST: OnceLock<Instructions> = OnceLock::new();
        *BEST.get_or_init(|| Instructions::all()[0])
    }
}

/// Calls a function with the number of rows, 1 to [`ROWS`], as a constant.
macro_rules! with_rows {
    ($rows:expr, $call:ident ( $($argument:expr),* )) => {
        match $rows {
            1 => $call::<1>($($argument),*),
            2 => $call::<2>($($argument),*),
            3 => $call::<3>($($argument),*),
            4 => $call::<4>($($argument),*),
            5 => $call::<5>($($argument),*),
            6 => $call::<6>($($argument),*),
            7 => $call::<7>($($argument),*),
            8 => $call::<8>($($argument),*),
            9 => $call::<9>($($argument),*),
            10 => $call::<10>($($argument),*),
            11 => $call::<11>($($argument),*),
            12 => $call::<12>($($argument),*),
            13 => $call::<13>($($argument),*),
            14 => $call::<14>($($argument),*),
            15 => $call::<15>($($argument),*),
            _ => $call::<16>($($argument),*),
        }
    };
}
use with_rows;
