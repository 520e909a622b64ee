//! What a store asks of the model it belongs to.

use std::ops::Range;

/// Why a text cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the model cannot encode a document: {0}")]
pub struct EncodeError(pub String);

/// Token ids with the byte range of each in the text.
pub type Tokenized = (Vec<u32>, Vec<Range<usize>>);

/// The model of a store: its tokenizer, its keys and, where there is one, an encoder of passages.
pub trait StoreEncoder: Sync {
    /// Identifies the weights and the tokenizer; a store takes keys of one model only.
    fn fingerprint(&self) -> &str;

    /// Numbers in a key.
    fn dim(&self) -> usize;

    /// Token ids are less than this.
    fn vocab_size(&self) -> usize;

    /// Token ids and the byte range of each in `text`, in order.
    ///
    /// # Errors
    /// When the text cannot be tokenised.
    fn tokenize(&self, text: &str) -> Result<Tokenized, EncodeError>;

    /// Keys of several documents: `[Σ tokens, dim]`, where row p is the model's state before token p of its document
    /// and so predicts it. A document's keys must not depend on the others.
    ///
    /// # Errors
    /// When the model cannot run.
    fn keys(&self, documents: &[&[u32]]) -> Result<Vec<f32>, EncodeError>;

    /// A vector for each passage; `None` when there is no encoder of passages.
    ///
    /// # Errors
    /// When the encoder cannot run.
    fn embed(&self, texts: &[&str]) -> Result<Option<Vec<Vec<f32>>>, EncodeError>;
}
