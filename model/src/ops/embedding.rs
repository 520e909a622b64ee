//! Rows of the embedding.

use candle_core::{DType, Result, Tensor};

/// The rows `ids` of `table`, [vocab, hidden], in the type of activations: [ids, hidden]. Gradients reach the table.
///
/// # Errors
/// An id outside the table.
pub fn embedding(table: &Tensor, ids: &[u32], dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(rows) = super::cuda::embedding(table, ids, dtype)? {
        return Ok(rows);
    }
    table.index_select(&Tensor::from_slice(ids, ids.len(), table.device())?, 0)?.to_dtype(dtype)
}
