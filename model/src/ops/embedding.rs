//! Rows of the embedding.

use candle_core::{DType, Result, Tensor};

use super::tape::composed;

/// The rows `ids` of `table`, [vocab, hidden], in the type of activations: [ids, hidden]. Gradients reach the table.
///
/// # Errors
/// An id outside the table.
pub fn embedding(table: &Tensor, ids: &[u32], dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(rows) = super::cuda::embedding(table, ids, dtype)? {
        return Ok(rows);
    }
    let rows = Tensor::from_slice(ids, ids.len(), table.device())?;
    composed([table], |[table]| table.index_select(&rows, 0)?.to_dtype(dtype))
}
