//! Strided matrix products.
#![allow(unsafe_code)] // the `gemm` crate takes raw pointers; `matmul` checks every extent first

/// A borrowed `rows × cols` matrix with its strides, in elements.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `cols` contiguous elements, `row_stride` elements apart.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_extent(data.len(), rows, cols, row_stride);
        Matrix { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose: a view, nothing moves.
    pub fn t(self) -> Self {
        Matrix { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// A mutably borrowed `rows × cols` matrix, rows contiguous and `row_stride` elements apart.
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Rows of `cols` contiguous elements, `row_stride` elements apart.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_extent(data.len(), rows, cols, row_stride);
        MatrixMut { data, rows, cols, row_stride }
    }
}

fn check_extent(len: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(row_stride >= cols, "rows of {cols} elements overlap at a stride of {row_stride}");
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols };
    assert!(len >= needed, "a {rows} × {cols} matrix with row stride {row_stride} needs {needed} elements, got {len}");
}

/// How a product is spread over the thread pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// On the calling thread: for products inside a parallel loop.
    One,
    /// Over the current rayon pool.
    All,
}

/// `out = scale · a · b`, or `out += scale · a · b` when `accumulate` is set.
pub fn matmul(out: MatrixMut<'_>, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>, scale: f32, threads: Threads) {
    assert_eq!((out.rows, out.cols, a.cols), (a.rows, b.cols, b.rows), "matrix shapes do not fit");
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(rayon::current_num_threads()),
    };
    // SAFETY: `Matrix::new` and `MatrixMut::new` proved that every element addressed by these extents and strides lies
    // inside its slice; `out` is a unique borrow, so it aliases neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strided_product_with_transpose_and_accumulation() {
        // a is 2 × 3 inside rows of 4; b is given as its 2 × 3 transpose.
        let a = [1., 2., 3., 9., 4., 5., 6., 9.];
        let b = [1., 0., 1., 0., 1., 1.];
        let mut out = [10., 10., -1., 10., 10.];
        matmul(
            MatrixMut::new(&mut out, 2, 2, 3),
            true,
            Matrix::new(&a, 2, 3, 4),
            Matrix::new(&b, 2, 3, 3).t(),
            2.0,
            Threads::One,
        );
        assert_eq!(out, [18., 20., -1., 30., 32.]);
    }

    #[test]
    #[should_panic(expected = "needs 8 elements, got 7")]
    fn a_slice_that_is_too_short_is_caught() {
        let _ = Matrix::new(&[0.0; 7], 2, 4, 4);
    }
}
