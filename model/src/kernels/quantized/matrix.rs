//! Weight matrices, packed.

use std::io;

use memmap2::MmapMut;
use rayon::prelude::*;

use super::rounding::{Unit, eight_bits, four_bits};
use super::{BLOCK, GROUPS, Line, OFFSET, Scales, TILE, Tile, UNIT, plain};

/// The largest absolute value of a weight, so that no scale of 8-bit weights goes beyond f16.
const LARGEST: f32 = 1e6;

/// How weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 8 bits in equal steps, and a scale of 16 bits for every 32 of them: 8.5 bits a weight.
    Q8,
    /// 4 bits in steps that are closer together around zero, a scale of 8 bits for every 16 of them, and for every 256 a unit
    /// of 16 bits that the scales are multiples of: 4.5625 bits a weight.
    Q4,
}

/// Why a matrix cannot be quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// A weight for which there is no scale.
    #[error("holds {value} at element {element}: quantisation takes numbers from −{LARGEST:e} to {LARGEST:e}")]
    TooLarge {
        /// The weight.
        value: f32,
        /// Its index in row-major order.
        element: usize,
    },
    /// A row of the original cannot be read.
    #[error(transparent)]
    Row(Box<candle_core::Error>),
    /// No memory for the packed weights.
    #[error("no memory for the packed weights: {0}")]
    Memory(#[from] io::Error),
}

/// A weight matrix of 8 or 4 bits, [outputs, width], packed for [`products`](super::products).
pub struct QuantizedMatrix {
    scales: OwnedScales,
    /// [tiles][blocks][lines of a block].
    lines: Lines,
    outputs: usize,
    width: usize,
}

/// As [`Scales`], of all tiles in order.
enum OwnedScales {
    Eight(Vec<[u16; TILE]>),
    Four { units: Vec<[u16; TILE]>, multiples: Vec<[[i8; TILE]; 2]> },
}

impl QuantizedMatrix {
    /// Quantises and packs a matrix that `row` gives row by row, [width] each, from any thread and in any order.
    ///
    /// # Errors
    /// A weight that is too large or no number, a row that cannot be had, or no memory.
    pub fn new(
        format: Format,
        outputs: usize,
        width: usize,
        row: impl Fn(usize, &mut [f32]) -> candle_core::Result<()> + Sync,
    ) -> Result<Self, QuantizeError> {
        let (tiles, blocks) = (outputs.div_ceil(TILE), width.div_ceil(BLOCK));
        let lines_of_block = match format {
            Format::Q8 => GROUPS,
            Format::Q4 => GROUPS / 2,
        };
        let mut lines = Lines::new(tiles * blocks * lines_of_block)?;
        let lines_by_tile = lines.get_mut().par_chunks_mut((blocks * lines_of_block).max(1));
        // Calls `pack` with the scales and lines of the tile, and each of its rows, filled up to whole blocks.
        let rows_of_tile = |tile: usize, values: &mut Vec<f32>, pack: &mut dyn FnMut(usize, &[f32])| {
            values.resize(blocks * BLOCK, 0.0);
            for (o, output) in (tile * TILE..outputs.min((tile + 1) * TILE)).enumerate() {
                row(output, &mut values[..width]).map_err(|e| QuantizeError::Row(Box::new(e)))?;
                if let Some(at) = values.iter().position(|x| x.is_nan() || x.abs() > LARGEST) {
                    return Err(QuantizeError::TooLarge { value: values[at], element: output * width + at });
                }
                pack(o, values);
            }
            Ok(())
        };
        let scales = match format {
            Format::Q8 => {
                let mut scales = vec![[0; TILE]; tiles * blocks];
                let by_tile = scales.par_chunks_mut(blocks.max(1)).zip(lines_by_tile).enumerate();
                by_tile.try_for_each_init(Vec::new, |values, (tile, (scales, lines))| {
                    rows_of_tile(tile, values, &mut |o, row| {
                        let blocks = row.as_chunks::<BLOCK>().0.iter().zip(scales.iter_mut());
                        for ((block, scales), lines) in blocks.zip(lines.chunks_exact_mut(lines_of_block)) {
                            let (scale, weights) = eight_bits(block);
                            scales[o] = scale.to_bits();
                            put(lines, o, &weights.map(|weight| (i32::from(weight) + OFFSET) as u8));
                        }
                    })
                })?;
                OwnedScales::Eight(scales)
            }
            Format::Q4 => {
                let mut units = vec![[0; TILE]; tiles * blocks.div_ceil(UNIT)];
                let mut multiples = vec![[[0; TILE]; 2]; tiles * blocks];
                let scales = units.par_chunks_mut(blocks.div_ceil(UNIT).max(1));
                let by_tile = scales.zip(multiples.par_chunks_mut(blocks.max(1))).zip(lines_by_tile).enumerate();
                by_tile.try_for_each_init(Vec::new, |values, (tile, ((units, multiples), lines))| {
                    rows_of_tile(tile, values, &mut |o, row| {
                        let parts = row.chunks(UNIT * BLOCK).zip(units.iter_mut()).zip(multiples.chunks_mut(UNIT));
                        for (((row, unit), multiples), lines) in parts.zip(lines.chunks_mut(UNIT * lines_of_block)) {
                            let Unit { unit: size, blocks } = four_bits(row.as_chunks().0);
                            unit[o] = size.to_bits();
                            let lines = lines.chunks_exact_mut(lines_of_block);
                            for ((block, multiples), lines) in blocks.iter().zip(multiples).zip(lines) {
                                (multiples[0][o], multiples[1][o]) = (block.multiples[0], block.multiples[1]);
                                put(lines, o, &block.codes);
                            }
                        }
                    })
                })?;
                OwnedScales::Four { units, multiples }
            }
        };
        Ok(QuantizedMatrix { scales, lines, outputs, width })
    }

    /// Rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How numbers are held and multiplied, to tell it from other ways: changes when a result would.
    pub fn scheme(&self) -> &'static str {
        match self.scales {
            OwnedScales::Eight(_) => "weights of 8 bits by 32, activations of 8 bits by 32, version 1",
            OwnedScales::Four { .. } => "weights of 4 bits by 16, activations of 8 bits by 32, version 2",
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let scales = match &self.scales {
            OwnedScales::Eight(scales) => size_of_val(&**scales),
            OwnedScales::Four { units, multiples } => size_of_val(&**units) + size_of_val(&**multiples),
        };
        scales + size_of_val(self.lines.get())
    }

    /// Writes one row of the matrix as f32, [width].
    pub fn copy_row(&self, output: usize, into: &mut [f32]) {
        let (tile, o) = (self.tile(output / TILE), output % TILE);
        for (b, into) in into.chunks_mut(BLOCK).enumerate() {
            let scales = tile.scales.of_block(b);
            let part = BLOCK / scales.get().len();
            for (i, (weight, step)) in into.iter_mut().zip(plain::unpack_row(&tile, b, o)).enumerate() {
                *weight = scales.get()[i / part][o] * f32::from(step);
            }
        }
    }

    pub(super) fn tiles(&self) -> usize {
        self.outputs.div_ceil(TILE)
    }

    pub(super) fn tile(&self, tile: usize) -> Tile<'_> {
        fn of<T>(all: &[T], tile: usize, tiles: usize) -> &[T] {
            let size = all.len() / tiles;
            &all[tile * size..][..size]
        }
        let tiles = self.tiles();
        Tile {
            scales: match &self.scales {
                OwnedScales::Eight(scales) => Scales::Eight(of(scales, tile, tiles)),
                OwnedScales::Four { units, multiples } => {
                    Scales::Four { units: of(units, tile, tiles), multiples: of(multiples, tile, tiles) }
                }
            },
            lines: of(self.lines.get(), tile, tiles),
        }
    }
}

/// Writes the codes of one row of a tile for one block, into lines that are zero there.
fn put(lines: &mut [Line], row: usize, codes: &[u8; BLOCK]) {
    for (group, codes) in codes.as_chunks::<4>().0.iter().enumerate() {
        let (line, shift) = match lines.len() {
            GROUPS => (group, 0),
            _ => (group / 2, group % 2 * 4),
        };
        for (byte, code) in lines[line].0[row * 4..].iter_mut().zip(codes) {
            *byte |= code << shift;
        }
    }
}

/// Zeroed memory in huge pages where the system has them, which spares the processor most look-ups of addresses.
struct Lines(Option<MmapMut>);

impl Lines {
    fn new(lines: usize) -> io::Result<Self> {
        if lines == 0 {
            return Ok(Lines(None));
        }
        let map = MmapMut::map_anon(lines * size_of::<Line>())?;
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage); // a kernel without them does without
        Ok(Lines(Some(map)))
    }

    fn get(&self) -> &[Line] {
        self.0.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }

    fn get_mut(&mut self) -> &mut [Line] {
        self.0.as_mut().map_or(&mut [], |map| bytemuck::cast_slice_mut(map))
    }
}
