//! What the sources gave to each token of an answer.

use std::sync::{Arc, Mutex, PoisonError};

use safelmm_datastore::DocumentKey;

/// The way in which a document took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its contexts are near that of the answer.
    Neighbour,
    /// The answer's context stands in it.
    Ngram,
    /// A passage of it stood before the prompt.
    Passage,
    /// The answer, or a part of it, stands in it word for word.
    Verbatim,
}

/// A document's part in the probability of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The document.
    pub document: DocumentKey,
    /// By which index.
    pub kind: Kind,
    /// From 0 to 1: how much of the token's probability came from it.
    pub weight: f32,
}

/// Passages that stood before the prompt from some token on.
#[derive(Clone, Debug, PartialEq)]
pub struct InContext {
    /// The first token of the text, prompt and answer, that was written with them in view.
    pub from: usize,
    /// Their documents, with the passages' scores.
    pub documents: Vec<(DocumentKey, f32)>,
}

/// Everything recorded of one sequence.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// For each token that was scored or drawn, in order, the documents that had a part in it.
    pub tokens: Vec<Vec<Share>>,
    /// The passages in the context, in the order in which they came.
    pub passages: Vec<InContext>,
}

/// Where the stages of a sequence write, and the answer reads.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Evidence>>);

impl Recorder {
    /// Changes what is recorded.
    pub fn record(&self, change: impl FnOnce(&mut Evidence)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes what was recorded.
    pub fn take(&self) -> Evidence {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
