//! The logits chain: what happens between the decoder's output and the draw, one small stage after another.
//!
//! Order: rating guidance → what the request adds (a grammar; later neighbour interpolation and policies) → bias →
//! penalties → bans → the draw ([`Sampler`](crate::Sampler)).

/// What a stage may look at beside the logits.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The prompt as the decoder saw it, its rating token included.
    pub prompt: &'a [u32],
    /// The tokens drawn so far.
    pub generated: &'a [u32],
}

/// One stage of the chain.
pub trait LogitsStage: Send {
    /// Changes the logits of the next token, `[vocab_size]`, in place; −∞ forbids a token. Called once for each token
    /// that is drawn, so that `history.generated` is one token longer each time.
    ///
    /// # Errors
    /// A [`StageError`] ends the sequence with an error; the text is for the log.
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError>;
}

/// Why a stage cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StageError(pub String);
