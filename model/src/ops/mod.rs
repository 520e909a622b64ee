//! Differentiable operations with analytic gradients: what candle's own fused operations lack.
//!
//! Each operation is a function over tensors. On the CPU it runs a fused kernel with its own backward; on any other
//! device it is composed of candle's differentiable operations (`reference`), which the tests also compare with.

mod attention;
mod cross_entropy;
mod linear;
pub mod reference;
mod rms_norm;
mod rope;
mod storage;
mod swiglu;
mod tensor_parallel;
mod types;

pub use attention::{attention, largest_attention_logit};
pub use cross_entropy::{cross_entropy, token_log_probs};
pub use linear::frozen_linear;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub(crate) use storage::with_slice;
pub use swiglu::swiglu;
pub use tensor_parallel::{TensorGroup, from_divided, to_divided};
pub use types::{CrossEntropy, IGNORE, Rotation, Span};

/// Rows handed to one parallel task: enough work to pay for the hand-over, and a fixed number, so that sums over rows
/// are taken in the same order on any number of threads.
const ROWS_PER_TASK: usize = 64;

#[cfg(test)]
mod finite_differences;
