//! CPU kernels: loops over contiguous `f32` rows, compiled for several instruction sets and chosen at run time,
//! packed products for inference with weights in f32 or quantised, the threads that share them out, and a bounds-checked
//! door to the `gemm` crate. `cuda/` holds those of NVIDIA's GPUs.
//!
//! Every function here is deterministic: sums are taken in one fixed order, whatever the number of threads.

#[cfg(feature = "cuda")]
pub mod cuda;
mod matrix;
mod panels;
mod pool;
mod quantized;
mod rows;

pub use matrix::{Matrix, MatrixMut, Threads, matmul};
pub use panels::{KeyValueBlock, PANEL, PackedMatrix, TokenAttention};
pub use pool::Pool;
pub use quantized::{Format, Product, QuantizeError, QuantizedMatrix, QuantizedRows, products};
pub use rows::{dot, log_sum_exp, softmax_row, softmax_row_grad, swiglu_row, swiglu_row_grad, target_log_prob};
pub use rows::{rms_norm_row, rms_norm_row_grad};
