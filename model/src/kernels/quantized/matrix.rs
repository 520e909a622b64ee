//! Weight matrices, packed.

use std::io;

use half::f16;
use memmap2::MmapMut;
use rayon::prelude::*;

use super::rounding::{NONLINEAR, eight_bits, four_bits};
use super::{BLOCK, Codebook, GROUPS, Line, OFFSET, TILE, Tile};

/// The largest absolute value of a weight, so that no scale goes beyond f16.
const LARGEST: f32 = 1e6;

/// How many bits a weight takes. Scales, of 16 bits for every [`BLOCK`] weights, add half a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 8 bits in equal steps.
    Q8,
    /// 4 bits in steps that are closer together around zero.
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
    /// No memory for the packed weights.
    #[error("no memory for the packed weights: {0}")]
    Memory(#[from] io::Error),
}

/// A block of weights before it is packed.
#[derive(Clone, Copy)]
struct QuantizedBlock {
    /// What the weights are in units of.
    scale: f16,
    /// Weights of 8 bits plus [`OFFSET`], or which of the steps of the codebook they are.
    codes: [u8; BLOCK],
}

/// A weight matrix of 8 or 4 bits, [outputs, width], packed for [`products`](super::products).
pub struct QuantizedMatrix {
    /// f16, [tiles][blocks][TILE].
    scales: Vec<[u16; TILE]>,
    /// [tiles][blocks][lines of a block].
    lines: Lines,
    codebook: Option<&'static Codebook>,
    outputs: usize,
    width: usize,
}

impl QuantizedMatrix {
    /// Quantises and packs a matrix that `row` gives row by row, [width] each, from any thread and in any order.
    ///
    /// # Errors
    /// A weight that is too large or no number, or no memory.
    pub fn new(
        format: Format,
        outputs: usize,
        width: usize,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Self, QuantizeError> {
        let codebook = (format == Format::Q4).then_some(&NONLINEAR);
        Self::pack(codebook, outputs, width, |index, blocks, scratch| {
            scratch.resize(width, 0.0);
            row(index, scratch);
            if let Some(at) = scratch.iter().position(|x| !(x.abs() <= LARGEST)) {
                return Err(QuantizeError::TooLarge { value: scratch[at], element: index * width + at });
            }
            for (block, weights) in blocks.iter_mut().zip(scratch.chunks(BLOCK)) {
                let mut all = [0.0; BLOCK];
                all[..weights.len()].copy_from_slice(weights);
                *block = quantize(format, &all);
            }
            Ok(())
        })
    }

    fn pack(
        codebook: Option<&'static Codebook>,
        outputs: usize,
        width: usize,
        fill: impl Fn(usize, &mut [QuantizedBlock], &mut Vec<f32>) -> Result<(), QuantizeError> + Sync,
    ) -> Result<Self, QuantizeError> {
        let (tiles, blocks) = (outputs.div_ceil(TILE), width.div_ceil(BLOCK));
        let lines_of_block = if codebook.is_some() { GROUPS / 2 } else { GROUPS };
        let mut scales = vec![[0; TILE]; tiles * blocks];
        let mut lines = Lines::new(tiles * blocks * lines_of_block)?;
        let by_tile = scales
            .par_chunks_mut(blocks.max(1))
            .zip(lines.get_mut().par_chunks_mut((blocks * lines_of_block).max(1)))
            .enumerate();
        let scratch = || (vec![QuantizedBlock { scale: f16::ZERO, codes: [0; BLOCK] }; blocks], Vec::new());
        by_tile.try_for_each_init(scratch, |(row, scratch), (tile, (scales, lines))| {
            for (o, output) in (tile * TILE..outputs.min((tile + 1) * TILE)).enumerate() {
                fill(output, row, scratch)?;
                for (b, block) in row.iter().enumerate() {
                    scales[b][o] = block.scale.to_bits();
                    put(&mut lines[b * lines_of_block..][..lines_of_block], o, &block.codes);
                }
            }
            Ok::<_, QuantizeError>(())
        })?;
        Ok(QuantizedMatrix { scales, lines, codebook, outputs, width })
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
        match self.codebook {
            None => "weights of 8 bits by 32, activations of 8 bits by 32, version 1",
            Some(_) => "weights of 4 bits by 32, activations of 8 bits by 32, version 1",
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.scales) + size_of_val(self.lines.get())
    }

    /// Writes one row of the matrix as f32, [width].
    pub fn copy_row(&self, output: usize, into: &mut [f32]) {
        let (tile, o) = (self.tile(output / TILE), output % TILE);
        let lines_of_block = tile.lines.len() / tile.scales.len().max(1);
        let blocks = tile.scales.iter().zip(tile.lines.chunks_exact(lines_of_block.max(1)));
        for (weights, (scales, lines)) in into.chunks_mut(BLOCK).zip(blocks) {
            let scale = f16::from_bits(scales[o]).to_f32();
            for (i, weight) in weights.iter_mut().enumerate() {
                let (group, byte) = (i / 4, o * 4 + i % 4);
                let code = match self.codebook {
                    None => i32::from(lines[group].0[byte]) - OFFSET,
                    Some(codebook) => {
                        let pair = lines[group / 2].0[byte];
                        i32::from(codebook[usize::from(if group % 2 == 0 { pair & 15 } else { pair >> 4 })])
                    }
                };
                *weight = scale * code as f32;
            }
        }
    }

    pub(super) fn tiles(&self) -> usize {
        self.outputs.div_ceil(TILE)
    }

    pub(super) fn tile(&self, tile: usize) -> Tile<'_> {
        let (scales, lines) = (self.scales.len() / self.tiles(), self.lines.get().len() / self.tiles());
        Tile {
            scales: &self.scales[tile * scales..][..scales],
            lines: &self.lines.get()[tile * lines..][..lines],
            codebook: self.codebook,
        }
    }
}

fn quantize(format: Format, block: &[f32; BLOCK]) -> QuantizedBlock {
    match format {
        Format::Q8 => {
            let (scale, weights) = eight_bits(block);
            QuantizedBlock { scale, codes: weights.map(|weight| (i32::from(weight) + OFFSET) as u8) }
        }
        Format::Q4 => {
            let (scale, codes) = four_bits(block);
            QuantizedBlock { scale, codes }
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
