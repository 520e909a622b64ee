//! The part of a decoder that one of several workers holds: some of its layers, and of each layer a share of its
//! matrices.

use std::ops::Range;
use std::sync::Arc;

use crate::config::{Config, QkNorm};
use crate::ops::TensorGroup;

/// What a worker holds.
#[derive(Clone)]
pub struct Part {
    /// Its layers. Who has the first one has the embedding, who has the last one the last norm and the output
    /// projection, which is the embedding too where they are tied.
    pub layers: Range<usize>,
    /// Those that share each layer; none where it is whole.
    pub tensor: Option<Arc<dyn TensorGroup>>,
}

/// Rows or columns of a matrix, or values of a vector, that a worker holds: the `index`th of `count` equal runs along
/// `dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The dimension that is divided.
    pub dim: usize,
    /// Which of the runs.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Slice {
    /// The shape of the run, out of the whole's.
    pub fn shape(&self, whole: &[usize]) -> Vec<usize> {
        let mut shape = whole.to_vec();
        shape[self.dim] /= self.count;
        shape
    }
}

/// A decoder that cannot be divided as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} workers cannot share a layer: {what} is {got}: expected {expected}")]
pub struct PartError {
    count: usize,
    what: &'static str,
    got: String,
    expected: String,
}

impl Part {
    /// All of a decoder.
    pub fn whole(config: &Config) -> Part {
        Part { layers: 0..config.n_layers, tensor: None }
    }

    /// Workers that share each layer.
    pub(super) fn workers(&self) -> usize {
        self.tensor.as_ref().map_or(1, |group| group.size())
    }

    /// The share of what is divided along `dim`; none where it is whole.
    pub(super) fn slice(&self, dim: usize) -> Option<Slice> {
        self.tensor.as_ref().map(|group| Slice { dim, index: group.rank(), count: group.size() })
    }

    /// Refuses what cannot be divided among `count` workers.
    ///
    /// # Errors
    /// Names the number that `count` does not divide, or the norm that looks at all heads at once.
    pub fn check(config: &Config, count: usize) -> Result<(), PartError> {
        let refuse = |what, got: String, expected| Err(PartError { count, what, got, expected });
        for (what, got) in [
            ("the number of heads", config.n_heads),
            ("the number of key and value heads", config.n_kv_heads),
            ("the width of the feed-forward layer", config.intermediate_size),
        ] {
            if !got.is_multiple_of(count.max(1)) {
                return refuse(what, got.to_string(), format!("a multiple of {count}"));
            }
        }
        match config.qk_norm {
            QkNorm::WholeProjection if count > 1 => {
                let (got, expected) = ("over all heads at once".to_owned(), "one over each head, or none".to_owned());
                refuse("the norm of queries and keys", got, expected)
            }
            _ => Ok(()),
        }
    }
}
