//! What operations take and give beside tensors.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

/// One sequence inside packed tensors: which rows of the queries and which rows of the keys and values are its own.
///
/// The queries are the last positions of the sequence: with more keys than queries, the first keys are the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Rows of `q`.
    pub queries: Range<usize>,
    /// Rows of `k` and `v`.
    pub keys: Range<usize>,
}

/// The angles of a batch: cosines and sines, [rows, d/2], already times the attention factor of a scaled RoPE.
#[derive(Clone)]
pub struct Rotation {
    /// Cosines, row by row.
    pub cos: Arc<[f32]>,
    /// Sines, row by row.
    pub sin: Arc<[f32]>,
    /// d/2: the number of rotated pairs in one head.
    pub half: usize,
}

/// A target that takes no part in the loss.
pub const IGNORE: u32 = u32::MAX;

/// The loss of a batch and its parts.
pub struct CrossEntropy {
    /// `nll + z_loss`, a scalar to call `backward` on.
    pub loss: Tensor,
    /// Mean negative log-likelihood of the targets, in nats.
    pub nll: f64,
    /// `z_weight · mean(log² Z)` with Z = Σ exp(logits) (Chowdhery et al. 2022, section 5).
    pub z_loss: f64,
    /// Targets that were not [`IGNORE`].
    pub targets: usize,
}
