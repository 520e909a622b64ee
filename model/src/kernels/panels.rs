//! Products with matrices that are packed into panels: the one kernel of inference, for weights and for cached keys and
//! values, for one row and for hundreds.
//!
//! A panel is [`PANEL`] outputs wide and lies row after row of the inner dimension, so that a product is a chain of
//! "broadcast, multiply, add" without a sum across lanes. Every output is summed in one fixed order, by parts of
//! [`PART`] inner elements from first to last: its bits depend neither on the number of rows, nor on the number of
//! threads, nor on the width of the vector registers.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::softmax_row;

/// Outputs of a panel: two AVX-512 registers, so that eight rows fill half of the register file with sums.
pub const PANEL: usize = 32;
/// Rows that share one pass over a panel.
const ROWS: usize = 8;
/// Inner elements that are summed before they are added to the output: a part of a panel stays in the first-level cache.
const PART: usize = 256;
/// Multiplications below which a product is not worth handing to other threads.
const SERIAL: usize = 1 << 17;

/// Registers that one pass over a part sums into for each row: a panel with AVX-512, half of one with AVX2.
const REGISTERS: usize = 2;

/// `sums[r][o] += Σᵢ x[r][i] · w[i][o]`, `x[r]` at least as long as `w`.
#[inline(always)]
fn accumulate<S: Simd, const R: usize>(simd: S, sums: &mut [[f32; PANEL]; R], w: &[[f32; PANEL]], x: [&[f32]; R]) {
    let x: [&[f32]; R] = std::array::from_fn(|r| &x[r][..w.len()]);
    for first in (0..PANEL / S::F32_LANES).step_by(REGISTERS) {
        let mut registers = [[simd.splat_f32s(0.0); REGISTERS]; R];
        for (i, w) in w.iter().enumerate() {
            let (w, _) = S::as_simd_f32s(w);
            for v in 0..REGISTERS {
                let w = w[first + v];
                for r in 0..R {
                    registers[r][v] = simd.mul_add_f32s(simd.splat_f32s(x[r][i]), w, registers[r][v]);
                }
            }
        }
        for (sums, registers) in sums.iter_mut().zip(registers) {
            let (sums, _) = S::as_mut_simd_f32s(sums);
            for (v, register) in registers.into_iter().enumerate() {
                sums[first + v] = simd.add_f32s(sums[first + v], register);
            }
        }
    }
}

/// Calls a function with the number of rows, 1 to [`ROWS`], as a constant.
macro_rules! with_rows {
    ($rows:expr, $call:ident ( $($argument:expr),* )) => {
        match $rows {
            1 => $call::<_, 1>($($argument),*),
            2 => $call::<_, 2>($($argument),*),
            3 => $call::<_, 3>($($argument),*),
            4 => $call::<_, 4>($($argument),*),
            5 => $call::<_, 5>($($argument),*),
            6 => $call::<_, 6>($($argument),*),
            7 => $call::<_, 7>($($argument),*),
            _ => $call::<_, ROWS>($($argument),*),
        }
    };
}

/// A weight matrix, [outputs, width], packed for [`product`](Self::product).
pub struct PackedMatrix {
    /// [⌈outputs / PANEL⌉, width, PANEL]; the last panel is filled up with zeros.
    panels: Vec<[f32; PANEL]>,
    outputs: usize,
    width: usize,
}

impl PackedMatrix {
    /// Packs `weights`, [outputs, width] in row-major order.
    pub fn new(weights: &[f32], outputs: usize, width: usize) -> Self {
        let mut panels = vec![[0.0; PANEL]; outputs.div_ceil(PANEL) * width];
        let by_panel = panels.par_chunks_mut(width.max(1)).zip(weights.par_chunks(PANEL * width.max(1)));
        by_panel.for_each(|(panel, rows)| {
            for (o, row) in rows.chunks_exact(width).enumerate() {
                for (packed, weight) in panel.iter_mut().zip(row) {
                    packed[o] = *weight;
                }
            }
        });
        PackedMatrix { panels, outputs, width }
    }

    /// Rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.panels)
    }

    /// Copies one row of the matrix, [width].
    pub fn copy_row(&self, output: usize, into: &mut [f32]) {
        let panel = &self.panels[output / PANEL * self.width..][..self.width];
        for (value, packed) in into.iter_mut().zip(panel) {
            *value = packed[output % PANEL];
        }
    }

    /// x · Wᵀ: [rows, width] → [rows, outputs].
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        if self.width == 0 || self.outputs == 0 {
            return Vec::new();
        }
        let rows = x.len() / self.width;
        let mut by_panel = vec![[0.0; PANEL]; self.panels.len() / self.width * rows]; // [panels, rows, PANEL]
        if rows == 0 {
            return Vec::new();
        }
        let one = |sums: &mut [[f32; PANEL]], panel: &[[f32; PANEL]]| {
            Arch::new().dispatch(PanelProduct { sums, panel, x, width: self.width });
        };
        if rows * self.panels.len() * PANEL < SERIAL {
            by_panel.chunks_mut(rows).zip(self.panels.chunks(self.width)).for_each(|(sums, panel)| one(sums, panel));
        } else {
            by_panel
                .par_chunks_mut(rows)
                .zip(self.panels.par_chunks(self.width))
                .for_each(|(sums, panel)| one(sums, panel));
        }
        self.by_row(&by_panel, rows)
    }

    /// [panels, rows, PANEL] → [rows, outputs].
    fn by_row(&self, by_panel: &[[f32; PANEL]], rows: usize) -> Vec<f32> {
        let mut y = vec![0.0; rows * self.outputs];
        for (p, panel) in by_panel.chunks_exact(rows).enumerate() {
            let wide = PANEL.min(self.outputs - p * PANEL);
            for (r, sums) in panel.iter().enumerate() {
                y[r * self.outputs + p * PANEL..][..wide].copy_from_slice(&sums[..wide]);
            }
        }
        y
    }
}

/// The product of all rows with one panel.
struct PanelProduct<'a> {
    sums: &'a mut [[f32; PANEL]],
    panel: &'a [[f32; PANEL]],
    x: &'a [f32],
    width: usize,
}

impl WithSimd for PanelProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let PanelProduct { sums, panel, x, width } = self;
        for (i, part) in panel.chunks(PART).enumerate() {
            for (sums, x) in sums.chunks_mut(ROWS).zip(x.chunks(ROWS * width)) {
                with_rows!(sums.len(), panel_rows(simd, sums, part, &x[i * PART..], width));
            }
        }
    }
}

#[inline(always)]
fn panel_rows<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f32; PANEL]],
    part: &[[f32; PANEL]],
    x: &[f32],
    width: usize,
) {
    if let Some(sums) = sums.first_chunk_mut::<R>() {
        accumulate::<S, R>(simd, sums, part, std::array::from_fn(|r| &x[r * width..]));
    }
}

/// One block of cached keys and values for one layer and one key-value head.
pub trait KeyValueBlock {
    /// Keys, [head_dim][PANEL tokens].
    fn keys(&self) -> &[[f32; PANEL]];
    /// Values, [⌈head_dim / PANEL⌉][PANEL tokens][PANEL].
    fn values(&self) -> &[[f32; PANEL]];
}

/// Attention of one token: all query heads that share a key-value head, over the blocks of the past.
pub struct TokenAttention<'a, B> {
    /// The result, [heads of the group, head_dim].
    pub out: &'a mut [f32],
    /// Queries, [heads of the group, head_dim].
    pub q: &'a [f32],
    /// The blocks, in order; each holds [`PANEL`] tokens.
    pub blocks: &'a [B],
    /// The first token that is seen, and the end of those that are.
    pub visible: std::ops::Range<usize>,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the products of queries and keys.
    pub scale: f32,
    /// Memory for the scores, kept between calls.
    pub scores: &'a mut Vec<f32>,
}

impl<B: KeyValueBlock> TokenAttention<'_, B> {
    /// softmax(scale · q · Kᵀ) · V over the visible tokens (Vaswani et al. 2017, equation 1).
    pub fn run(self) {
        Arch::new().dispatch(self);
    }
}

impl<B: KeyValueBlock> WithSimd for TokenAttention<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let TokenAttention { out, q, blocks, visible, head_dim, scale, scores } = self;
        let group = ROWS * head_dim;
        for (out, q) in out.chunks_mut(group).zip(q.chunks(group)) {
            let seen = Seen { blocks, visible: visible.clone(), head_dim, scale };
            with_rows!(q.len() / head_dim, attend_heads(simd, out, q, &seen, scores));
        }
    }
}

/// What the heads of one token look at.
struct Seen<'a, B> {
    blocks: &'a [B],
    visible: std::ops::Range<usize>,
    head_dim: usize,
    scale: f32,
}

#[inline(always)]
fn attend_heads<S: Simd, const R: usize>(
    simd: S,
    out: &mut [f32],
    q: &[f32],
    seen: &Seen<'_, impl KeyValueBlock>,
    scores: &mut Vec<f32>,
) {
    let Seen { blocks, visible, head_dim, scale } = seen;
    let blocks = || blocks.iter().enumerate().take(visible.end.div_ceil(PANEL)).skip(visible.start / PANEL);
    let stride = visible.end.next_multiple_of(PANEL);
    scores.clear();
    scores.resize(R * stride, 0.0);
    let q: [&[f32]; R] = std::array::from_fn(|r| &q[r * head_dim..][..*head_dim]);
    for (b, block) in blocks() {
        let mut products = [[0.0; PANEL]; R];
        accumulate(simd, &mut products, &block.keys()[..*head_dim], q);
        for (r, products) in products.iter().enumerate() {
            scores[r * stride + b * PANEL..][..PANEL].copy_from_slice(products);
        }
    }
    for scores in scores.chunks_exact_mut(stride) {
        scores[visible.clone()].iter_mut().for_each(|score| *score *= scale);
        softmax_row(scores, visible.clone());
    }
    for panel in 0..head_dim.div_ceil(PANEL) {
        let mut sums = [[0.0; PANEL]; R];
        for (b, block) in blocks() {
            let from = visible.start.max(b * PANEL);
            let to = visible.end.min((b + 1) * PANEL);
            let values = &block.values()[panel * PANEL..][from - b * PANEL..to - b * PANEL];
            accumulate(simd, &mut sums, values, std::array::from_fn(|r| &scores[r * stride + from..r * stride + to]));
        }
        let wide = PANEL.min(head_dim - panel * PANEL);
        for (r, sums) in sums.iter().enumerate() {
            out[r * head_dim + panel * PANEL..][..wide].copy_from_slice(&sums[..wide]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(i: usize) -> f32 {
        ((i * 2_654_435_761) % 1009) as f32 / 500.0 - 1.0
    }

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| number(i + 77 * seed)).collect()
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_company_and_is_right() {
        for (outputs, width) in [(3, 5), (32, 16), (65, 300), (1000, 520)] {
            let w = numbers(outputs * width, 1);
            let packed = PackedMatrix::new(&w, outputs, width);
            let x = numbers(37 * width, 2);
            let all = packed.product(&x);
            for rows in [1, 2, 7, 8, 9, 20] {
                let some = packed.product(&x[..rows * width]);
                assert!(some.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()), "{rows} rows of {width}");
            }
            for (r, o) in [(0, 0), (36, outputs - 1), (5, outputs / 2)] {
                let want: f64 = (0..width).map(|i| f64::from(x[r * width + i]) * f64::from(w[o * width + i])).sum();
                assert!((f64::from(all[r * outputs + o]) - want).abs() < 1e-4);
                let mut row = vec![0.0; width];
                packed.copy_row(o, &mut row);
                assert_eq!(row, w[o * width..][..width]);
            }
        }
        assert_eq!(PackedMatrix::new(&[], 0, 4).product(&[1.0; 4]), Vec::<f32>::new());
    }

    struct Block {
        keys: Vec<[f32; PANEL]>,
        values: Vec<[f32; PANEL]>,
    }

    impl KeyValueBlock for Block {
        fn keys(&self) -> &[[f32; PANEL]] {
            &self.keys
        }

        fn values(&self) -> &[[f32; PANEL]] {
            &self.values
        }
    }

    #[test]
    fn attention_is_the_softmax_of_what_is_visible() {
        let (head_dim, heads, tokens) = (40, 9, 70);
        let (q, k, v) = (numbers(heads * head_dim, 3), numbers(tokens * head_dim, 4), numbers(tokens * head_dim, 5));
        let blocks: Vec<Block> = (0..tokens.div_ceil(PANEL))
            .map(|b| {
                let mut block =
                    Block { keys: vec![[f32::NAN; PANEL]; head_dim], values: vec![[f32::NAN; PANEL]; 2 * PANEL] };
                for t in b * PANEL..tokens.min((b + 1) * PANEL) {
                    for i in 0..head_dim {
                        block.keys[i][t % PANEL] = k[t * head_dim + i];
                        block.values[i / PANEL * PANEL + t % PANEL][i % PANEL] = v[t * head_dim + i];
                    }
                }
                block
            })
            .collect();
        for visible in [0..1, 0..32, 0..70, 5..40, 33..64, 69..70] {
            let mut out = vec![0.0; heads * head_dim];
            let (scale, mut scores) = (0.3, Vec::new());
            let visible_now = visible.clone();
            TokenAttention {
                out: &mut out,
                q: &q,
                blocks: &blocks,
                visible: visible_now,
                head_dim,
                scale,
                scores: &mut scores,
            }
            .run();
            for h in 0..heads {
                let q = &q[h * head_dim..][..head_dim];
                let dot = |t: usize| -> f64 {
                    q.iter().zip(&k[t * head_dim..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let weights: Vec<f64> = visible.clone().map(|t| (f64::from(scale) * dot(t)).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..head_dim {
                    let of = |t: usize| f64::from(v[t * head_dim + i]);
                    let want: f64 = visible.clone().zip(&weights).map(|(t, w)| w / total * of(t)).sum();
                    assert!((f64::from(out[h * head_dim + i]) - want).abs() < 1e-5, "{visible:?} head {h}");
                }
            }
        }
    }
}
