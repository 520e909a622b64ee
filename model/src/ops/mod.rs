//! Differentiable operations with analytic gradients: what candle's own fused operations lack.
//!
//! Each operation is a function over tensors. On the CPU it runs a fused kernel with its own backward, on NVIDIA's GPUs
//! one of `cuda/`; on any other device it is composed of candle's differentiable operations (`reference`), which the tests
//! also compare with. Activations may be bf16 there: weights, statistics, softmax, loss and angles are f32 all the same.

mod attention;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
mod embedding;
mod linear;
mod optimizer;
pub mod reference;
mod rms_norm;
mod rope;
mod seeded;
mod storage;
mod swiglu;
mod tape;
mod tensor_parallel;
mod types;

pub use attention::{attention, largest_attention_logit};
pub use cross_entropy::{cross_entropy, token_log_probs};
pub use embedding::embedding;
pub use linear::{frozen_linear, linear};
pub use optimizer::{Update, adamw, add_to, squares};
pub use rms_norm::rms_norm;
pub use rope::{norm_rope, rope};
pub(crate) use storage::with_slice;
pub use swiglu::swiglu;
pub use tape::{Tape, add, add_bias, record, reshape, scaled};
pub use tensor_parallel::{TensorGroup, from_divided, to_divided};
pub use types::{Angles, CrossEntropy, IGNORE, Rotation, Span, Spans};

/// Rows handed to one parallel task: enough work to pay for the hand-over, and a fixed number, so that sums over rows
/// are taken in the same order on any number of threads.
const ROWS_PER_TASK: usize = 64;

#[cfg(test)]
mod finite_differences;
