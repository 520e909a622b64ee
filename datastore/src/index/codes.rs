//! 8-bit codes of vectors, and distances between them as integers.
//!
//! A vector is centred on the mean, rotated at random, divided by one step for all components and rounded to −127…127. The
//! rotation spreads components that are much larger than the others, as hidden states of language models have them, over all,
//! so that one step suits every component (random signs and Walsh–Hadamard transforms: Ailon and Chazelle 2009; the use
//! before scalar quantisation: Suresh et al. 2017, section 3). Rows are stored with 128 added, unsigned, as the
//! instruction for products of unsigned with signed bytes wants them; the query stays signed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;
use rayon::prelude::*;

use super::IndexError;
use super::file::{FileReader, FileWriter};
use super::graph::CodeArena;
use super::random::Random;
use super::vectors::Vectors;
use crate::kernels::code_len;

const MAGIC: [u8; 8] = *b"SLMMCODE";
pub const FILE: &str = "codes.u8";
/// Rows from which mean and step are taken.
const SAMPLE: usize = 16_384;
/// The share of components of the sample that the step covers; what lies beyond is cut off.
const COVERED: f64 = 0.9999;
/// Rows coded at a time.
const BATCH: usize = 16_384;

/// How vectors become codes.
pub struct Quantizer {
    mean: Vec<f32>,
    rotation: Rotation,
    /// Codes per unit of length.
    scale: f32,
}

impl Quantizer {
    /// Fits mean and step to an even sample of the rows.
    pub fn fit(vectors: &Vectors, seed: u64) -> Quantizer {
        let dim = vectors.dim();
        let every = vectors.len().div_ceil(SAMPLE).max(1);
        let mut sample: Vec<f32> = vec![0.0; vectors.len().div_ceil(every) * dim];
        for (values, row) in sample.chunks_exact_mut(dim).zip((0..vectors.len() as u32).step_by(every)) {
            vectors.row(row).convert_to_f32_slice(values);
        }
        let mut sums = vec![0.0_f64; dim];
        for row in sample.chunks_exact(dim) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let count = (sample.len() / dim).max(1) as f64;
        let mean: Vec<f32> = sums.into_iter().map(|sum| (sum / count) as f32).collect();
        let rotation = Rotation::new(dim, seed);
        for row in sample.chunks_exact_mut(dim) {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
            rotation.apply(row);
            row.iter_mut().for_each(|x| *x = x.abs());
        }
        let at = (sample.len() as f64 * COVERED) as usize;
        let largest = if sample.is_empty() {
            0.0
        } else {
            *sample.select_nth_unstable_by(at.min(count as usize * dim - 1), f32::total_cmp).1
        };
        // Where all rows are equal any step does.
        let scale = if largest > 0.0 && (127.0 / largest).is_finite() { 127.0 / largest } else { 1.0 };
        Quantizer { mean, rotation, scale }
    }

    /// The square of a step: squared distances of codes times this are those of vectors, about.
    pub fn unit(&self) -> f32 {
        1.0 / (self.scale * self.scale)
    }

    /// Centred, rotated and in steps, still as floats: `values` is `[dim]`. Returns how far the rounding moves them: a
    /// distance in steps.
    fn transform(&self, values: &mut [f32]) -> f32 {
        values.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
        self.rotation.apply(values);
        round(values, self.scale)
    }

    /// The distance between a row and its code, in steps; `values` is memory to work in.
    pub fn error(&self, row: &[f16], values: &mut Vec<f32>) -> f32 {
        values.resize(row.len(), 0.0);
        row.convert_to_f32_slice(values);
        self.transform(values)
    }

    /// The code of a row, of which `values` are the components on entry, and the sum of its squares.
    fn code(&self, values: &mut [f32], code: &mut [u8]) -> i32 {
        self.transform(values);
        code.fill(0);
        let mut square = 0;
        for (code, x) in code.iter_mut().zip(values) {
            let x = *x as i32;
            square += x * x;
            *code = (x + 128) as u8;
        }
        square
    }

    /// The codes of `squares.len()` rows, the i-th of them being `row(i)`, and the sums of their squares.
    pub fn codes(&self, vectors: &Vectors, row: impl Fn(usize) -> u32 + Sync, codes: &mut [u8], squares: &mut [i32]) {
        let parts = codes.par_chunks_exact_mut(code_len(vectors.dim())).zip(squares).enumerate();
        parts.for_each_init(
            || vec![0.0; vectors.dim()],
            |values, (i, (code, square))| {
                vectors.row(row(i)).convert_to_f32_slice(values);
                *square = self.code(values, code);
            },
        );
    }

    /// The code of a query. Returns the distance between the two, in steps.
    pub fn query(&self, query: &[f32], into: &mut QueryCode) -> f32 {
        into.values.clear();
        into.values.extend_from_slice(query);
        let error = self.transform(&mut into.values);
        into.code.clear();
        into.code.resize(code_len(query.len()), 0);
        let (mut square, mut sum) = (0, 0);
        for (code, x) in into.code.iter_mut().zip(&into.values) {
            *code = *x as i8;
            square += i32::from(*code) * i32::from(*code);
            sum += i32::from(*code);
        }
        into.base = square + 256 * sum;
        into.length = (square as f32).sqrt();
        error
    }
}

/// The code of a query and what all its distances share.
#[derive(Default)]
pub struct QueryCode {
    pub code: Vec<i8>,
    /// In steps, from the mean.
    pub length: f32,
    base: i32,
    values: Vec<f32>,
}

impl QueryCode {
    /// Takes the code of a stored row for a query.
    pub fn set_row(&mut self, row: &[u8], square: i32, dim: usize) {
        self.code.clear();
        self.code.extend(row.iter().map(|&x| (x ^ 0x80) as i8));
        // What fills the last block of a row is 0 as it stands, which the line above turned into −128.
        self.code[dim..].fill(0);
        let sum: i32 = self.code.iter().map(|&x| i32::from(x)).sum();
        self.base = square.wrapping_add(256 * sum);
    }

    /// Σ(q − x)² = Σq² + Σx² − 2·Σq·x in steps, where `dot` = Σq·(x + 128). Never negative for what `write` wrote.
    #[inline(always)]
    pub fn distance(&self, square: i32, dot: i32) -> u32 {
        self.base.wrapping_add(square).wrapping_sub(dot.wrapping_mul(2)).max(0) as u32
    }
}

/// Signs and Walsh–Hadamard transforms over the first and the last 2ⁿ components, 2ⁿ being at most the dimension: lengths and
/// distances stay what they are.
struct Rotation {
    first: Vec<f32>,
    last: Vec<f32>,
    width: usize,
}

impl Rotation {
    fn new(dim: usize, seed: u64) -> Rotation {
        let mut random = Random::new(seed ^ 0x726f_7461_7465);
        let width = 1 << dim.max(1).ilog2();
        // The transform multiplies lengths by √width; the signs take that back.
        let length = 1.0 / (width as f32).sqrt();
        let mut signs = |count: usize| -> Vec<f32> {
            (0..count).map(|_| if random.next() >> 63 == 0 { length } else { -length }).collect()
        };
        Rotation { first: signs(width), last: signs(if width == dim { 0 } else { width }), width }
    }

    fn apply(&self, values: &mut [f32]) {
        for (signs, start) in [(&self.first, 0), (&self.last, values.len() - self.width)] {
            let part = &mut values[start..][..signs.len()];
            part.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
            hadamard(part);
        }
    }
}

/// Takes values to whole steps, of which `scale` are a unit. Returns how far that moves them, in steps.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn round(values: &mut [f32], scale: f32) -> f32 {
    const LANES: usize = 16;
    // In lanes, which are added up in one order whatever the instructions.
    let mut squares = [0.0_f32; LANES];
    let step = |(x, square): (&mut f32, &mut f32)| {
        let steps = *x * scale;
        *x = steps.round_ties_even().clamp(-127.0, 127.0);
        *square += (steps - *x) * (steps - *x);
    };
    let (parts, rest) = values.as_chunks_mut::<LANES>();
    parts.iter_mut().for_each(|part| part.iter_mut().zip(&mut squares).for_each(step));
    rest.iter_mut().zip(&mut squares).for_each(step);
    squares.iter().sum::<f32>().sqrt()
}

/// The Walsh–Hadamard transform of 2ⁿ values, in place, not normalised.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Codes every row, in the order of `rows`, into `codes.u8`.
pub fn write(
    dir: &Path,
    vectors: &Vectors,
    quantizer: &Quantizer,
    seed: u64,
    rows: impl Fn(usize) -> u32 + Sync,
    stop: &AtomicBool,
) -> Result<(), IndexError> {
    let (dim, len) = (vectors.dim(), code_len(vectors.dim()));
    let numbers = [dim as u32, seed as u32, (seed >> 32) as u32];
    let mut file = FileWriter::create(&dir.join(FILE), MAGIC, numbers)?;
    file.write(&quantizer.mean)?;
    file.write(&[quantizer.scale])?;
    file.align()?;
    let mut squares = vec![0_i32; vectors.len()];
    let mut codes = vec![0_u8; BATCH * len];
    for (batch, squares) in squares.chunks_mut(BATCH).enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(IndexError::Stopped);
        }
        let codes = &mut codes[..squares.len() * len];
        quantizer.codes(vectors, |i| rows(batch * BATCH + i), codes, squares);
        file.write(codes)?;
    }
    file.align()?;
    file.write(&squares)?;
    file.finish(vectors.len())
}

/// The mapped codes.
pub struct Codes {
    file: FileReader,
    quantizer: Quantizer,
    places: [usize; 3],
    rows: usize,
    dim: usize,
}

impl Codes {
    pub fn open(dir: &Path, vectors: &Vectors) -> Result<Codes, IndexError> {
        let file = FileReader::open(&dir.join(FILE), MAGIC)?;
        let [dim, seed_low, seed_high] = file.header.numbers;
        let (rows, dim) = (file.header.rows as usize, dim as usize);
        if (rows, dim) != (vectors.len(), vectors.dim()) {
            let (want_rows, want_dim) = (vectors.len(), vectors.dim());
            let reason = format!("it is of {rows} rows of {dim} components, the vectors are {want_rows} of {want_dim}");
            return Err(IndexError::damaged(file.path(), reason));
        }
        let places = file.sections([Some((dim + 1) * 4), rows.checked_mul(code_len(dim)), rows.checked_mul(4)])?;
        let numbers: &[f32] = file.view(places[0], dim + 1);
        let finite = numbers.iter().all(|x| x.is_finite());
        let Some((&scale, mean)) = numbers.split_last().filter(|(scale, _)| finite && **scale > 0.0) else {
            return Err(IndexError::damaged(file.path(), "its mean and step are not finite, or the step not positive"));
        };
        let rotation = Rotation::new(dim, u64::from(seed_low) | u64::from(seed_high) << 32);
        let quantizer = Quantizer { mean: mean.to_vec(), rotation, scale };
        Ok(Codes { file, quantizer, places, rows, dim })
    }

    /// For searches that read a few rows; scans of lists are better off without.
    pub fn advise_random(&self) {
        self.file.mapping().advise_random();
    }

    pub fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    /// Sums of the squares of the codes: `[rows]`.
    pub fn squares(&self) -> &[i32] {
        self.file.view(self.places[2], self.rows)
    }

    /// The codes: `[rows, code_len]`.
    pub fn all(&self) -> &[u8] {
        self.file.view(self.places[1], self.rows * code_len(self.dim))
    }

    pub fn arena(&self) -> CodeArena<'_> {
        CodeArena { codes: self.all(), squares: self.squares() }
    }

    pub fn dim(&self) -> usize {
        self.dim
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rotation_keeps_lengths_and_spreads_what_stands_out(dim in 1_usize..300, at in any::<prop::sample::Index>()) {
            let rotation = Rotation::new(dim, 5);
            let mut values = vec![0.0; dim];
            values[at.index(dim)] = 3.0;
            rotation.apply(&mut values);
            let square: f32 = values.iter().map(|x| x * x).sum();
            prop_assert!((square - 9.0).abs() < 1e-4, "{square}");
            let largest = values.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
            // An outlier in the overlap passes both transforms and may gather again, by chance never to the whole.
            prop_assert!(dim < 16 || largest < 2.0, "{largest}");
        }

        #[test]
        fn integer_distances_are_those_of_the_codes(
            pairs in prop::collection::vec((-1.5_f32..1.5, -1.5_f32..1.5), 1..150),
        ) {
            let dim = pairs.len();
            let quantizer = Quantizer { mean: vec![0.1; dim], rotation: Rotation::new(dim, 1), scale: 60.0 };
            let mut row: Vec<f32> = pairs.iter().map(|p| p.1).collect();
            let query: Vec<f32> = pairs.iter().map(|p| p.0).collect();
            let mut code = vec![9; code_len(dim)];
            let square = quantizer.code(&mut row, &mut code);
            let mut coded = QueryCode::default();
            quantizer.query(&query, &mut coded);
            let expected: i32 =
                coded.code[..dim].iter().zip(&code).map(|(q, x)| (i32::from(*q) + 128 - i32::from(*x)).pow(2)).sum();
            let mut dot = [0];
            crate::kernels::scan_dots(&code, &coded.code, &mut dot);
            prop_assert_eq!(coded.distance(square, dot[0]), expected as u32);
            coded.set_row(&code, square, dim);
            crate::kernels::scan_dots(&code, &coded.code, &mut dot);
            prop_assert_eq!(coded.distance(square, dot[0]), 0);
        }
    }
}
