//! Products of activations with one matrix or several, spread over threads.
#![allow(unsafe_code)] // threads write disjoint columns of one row-major result

use std::marker::PhantomData;

use super::{Instructions, QuantizedMatrix, QuantizedRows, ROWS, TILE, plain};
use crate::kernels::pool::Pool;

/// Bytes of weights that a thread takes at a time: some microseconds of reading.
const TASK: usize = 96 << 10;

/// A matrix, and where its product goes.
pub struct Product<'a> {
    matrix: &'a QuantizedMatrix,
    out: Columns<'a>,
}

impl<'a> Product<'a> {
    /// `out`: x · Wᵀ for all rows of x, [rows, outputs].
    pub fn new(matrix: &'a QuantizedMatrix, out: &'a mut [f32]) -> Self {
        Product { matrix, out: Columns { start: out.as_mut_ptr(), len: out.len(), out: PhantomData } }
    }
}

/// Products of the same rows with several matrices.
///
/// # Panics
/// A matrix of another width than the rows, or a result of another size than rows × outputs.
pub fn products(pool: &Pool, x: &QuantizedRows, products: &[Product<'_>]) {
    products_with(Instructions::best(), pool, x, products);
}

pub(super) fn products_with(instructions: Instructions, pool: &Pool, x: &QuantizedRows, products: &[Product<'_>]) {
    for Product { matrix, out } in products {
        assert_eq!(matrix.width(), x.width(), "rows of one width meet a matrix of another");
        assert_eq!(out.len, x.rows() * matrix.outputs(), "the result has another size than rows × outputs");
    }
    let tasks_of = |matrix: &QuantizedMatrix| matrix.tiles().div_ceil(tiles_of_task(matrix));
    pool.run(products.iter().map(|product| tasks_of(product.matrix)).sum(), &|mut task| {
        for Product { matrix, out } in products {
            let tasks = tasks_of(matrix);
            if task < tasks {
                let size = tiles_of_task(matrix);
                let tiles = task * size..matrix.tiles().min((task + 1) * size);
                // SAFETY: no two tasks have a tile in common, so this one alone writes to the columns of its tiles; the
                // assertions above say that the result has room for all rows.
                tiles.for_each(|tile| unsafe { one_tile(instructions, x, matrix, tile, out) });
                return;
            }
            task -= tasks;
        }
    });
}

fn tiles_of_task(matrix: &QuantizedMatrix) -> usize {
    (TASK * matrix.tiles() / matrix.bytes().max(1)).max(1)
}

/// All rows times one tile.
///
/// # Safety
/// `out` has room for the product of all rows, and nobody else uses the tile's columns.
// SAFETY: see above.
unsafe fn one_tile(i: Instructions, x: &QuantizedRows, matrix: &QuantizedMatrix, tile: usize, out: &Columns<'_>) {
    let wide = TILE.min(matrix.outputs() - tile * TILE);
    for (first, rows, words) in x.parts() {
        let mut sums = [[0.0; TILE]; ROWS];
        let sums = &mut sums[..rows];
        rows_of_tile(i, matrix.tile(tile), words, sums);
        for (r, sums) in sums.iter().enumerate() {
            let at = (first + r) * matrix.outputs() + tile * TILE;
            // SAFETY: `at + wide` is at most rows × outputs, and the elements belong to this tile's columns.
            unsafe { out.start.add(at).copy_from_nonoverlapping(sums.as_ptr(), wide) };
        }
    }
}

/// 1 to [`ROWS`] rows times a tile.
pub(super) fn rows_of_tile(i: Instructions, tile: super::Tile<'_>, words: &[u32], sums: &mut [[f32; TILE]]) {
    match i {
        // SAFETY: `Instructions::all` names these only where the processor has them.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { super::avx512::rows(tile, words, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { super::avx2::rows(tile, words, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => unsafe { super::neon::rows(tile, words, sums) },
        Instructions::Plain => plain::rows(tile, words, sums),
    }
}

/// A result whose columns are written by several threads.
struct Columns<'a> {
    start: *mut f32,
    len: usize,
    out: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a unique borrow of plain numbers; `products` deals out disjoint columns.
unsafe impl Sync for Columns<'_> {}
