//! Why a generation cannot start or go on.

use crate::logits::StageError;
use crate::sampling::SamplingError;
use crate::tokenizer::TokenizerError;

/// Why a generation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Prompt and answer do not fit the context.
    #[error(
        "This model's maximum context length is {maximum} tokens. However, you requested {} tokens ({prompt} in the \
         prompt, {requested} for the answer{}). Shorten the prompt or ask for fewer tokens.",
        prompt.saturating_add(*requested).saturating_add(*passages),
        if *passages > 0 { format!(", {passages} for retrieved passages") } else { String::new() }
    )]
    ContextOverflow {
        /// Tokens of the context.
        maximum: usize,
        /// Tokens of the prompt, its rating token included.
        prompt: usize,
        /// Tokens asked for.
        requested: usize,
        /// Tokens that retrieved passages may take.
        passages: usize,
    },
    /// Nothing to continue.
    #[error("the prompt is empty: expected at least one token")]
    EmptyPrompt,
    /// A token id that the model has no row for.
    #[error("token id {token} is outside the vocabulary of {vocab_size} tokens")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Ids run from 0 to this, exclusive.
        vocab_size: usize,
    },
    /// A rating or guidance was asked of a model that was not trained with ratings.
    #[error("the model {0:?} was not trained with content ratings: leave `rating` and `guidance` out")]
    Unrated(String),
    /// A guidance strength that is none, or that would weaken the rating.
    #[error("guidance is {0}: expected a number from 1 to 10")]
    Guidance(f32),
    /// Scores of a prompt under guidance.
    #[error("the prompt cannot be scored under guidance: leave `guidance` out, or ask for no scores of the prompt")]
    GuidedScores,
    /// Guidance strengthens a rating, and none was named.
    #[error("guidance needs a rating to strengthen: name one, or leave guidance out")]
    GuidanceWithoutRating,
    /// A stage of the logits chain, or the source of passages, gave up.
    #[error("the answer cannot go on: {0}")]
    Stage(#[from] StageError),
    /// The sampling settings, or what became of them.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The tokenizer failed on generated tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The decoder failed.
    #[error("the decoder failed: {0}")]
    Decoder(#[from] candle_core::Error),
}

impl GenerateError {
    /// The request's parameter that is at fault, by its name in the HTTP API.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            GenerateError::ContextOverflow { .. } => Some("max_tokens"),
            GenerateError::EmptyPrompt | GenerateError::TokenOutOfRange { .. } => Some("prompt"),
            GenerateError::Unrated(_) => Some("safelmm.rating"),
            GenerateError::Guidance(_) | GenerateError::GuidanceWithoutRating | GenerateError::GuidedScores => {
                Some("safelmm.guidance")
            }
            GenerateError::Sampling(e) => Some(e.param()).filter(|param| *param != "logits"),
            GenerateError::Stage(_) | GenerateError::Tokenizer(_) | GenerateError::Decoder(_) => None,
        }
    }
}
