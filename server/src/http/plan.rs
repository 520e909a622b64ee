//! From checked parameters to the sequences that the engine will run.

use safelmm_model::{Checkpoint, Generation, GenerationRequest, Rating};

use super::error::ApiError;
use super::extension::Extension;
use super::sampling::Sampling;
use crate::app::App;

/// The most sequences (prompts times `n`) of one request.
const MAX_SEQUENCES: usize = 256;

/// The prompts of a request, as tokens.
pub struct Prompts {
    /// One for each prompt; each gets `n` choices.
    pub tokens: Vec<Vec<u32>>,
    /// What the endpoint calls them: `prompt` or `messages`.
    pub param: &'static str,
}

/// How long an answer may get.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// As the request says; an answer for which the context has no room is refused.
    Exactly(usize),
    /// The request says nothing: this many tokens, or as many as the context has room for.
    UpTo(usize),
}

/// What the engine is to run for one request.
pub struct Plan {
    /// The sequences: all choices of the first prompt, then those of the second, and so on.
    pub generations: Vec<Generation>,
    /// The tokens of all prompts, each counted once.
    pub prompt_tokens: usize,
    /// The most tokens that all answers together can have.
    pub max_tokens: usize,
}

impl Plan {
    /// Checks the prompts against the model and prepares every sequence; nothing is computed yet.
    pub fn new(
        app: &App,
        prompts: Prompts,
        length: Length,
        sampling: &Sampling,
        extension: Extension,
    ) -> Result<Self, ApiError> {
        let Prompts { tokens: prompts, param } = prompts;
        let sequences = prompts.len().saturating_mul(sampling.n);
        if sequences > MAX_SEQUENCES {
            let message = format!("'{param}' asks for {sequences} choices: one request can have {MAX_SEQUENCES}");
            return Err(ApiError::parameter(param, message));
        }
        let mut plan = Plan { generations: Vec::with_capacity(sequences), prompt_tokens: 0, max_tokens: 0 };
        for prompt in &prompts {
            let max_tokens = length.tokens(prompt, app.checkpoint(), extension.rating);
            for index in 0..sampling.n {
                let request = GenerationRequest {
                    prompt: prompt.clone(),
                    rating: extension.rating,
                    guidance: extension.guidance,
                    sampling: sampling.params_of(index),
                    max_tokens,
                    stop: sampling.stop.clone(),
                    ignore_eos: sampling.ignore_eos,
                };
                let generation = Generation::new(app.checkpoint(), request)
                    .map_err(|source| ApiError::Generate { source, prompt_param: param })?;
                if index == 0 {
                    plan.prompt_tokens += generation.prompt_tokens();
                }
                plan.max_tokens = plan.max_tokens.saturating_add(max_tokens);
                plan.generations.push(generation);
            }
        }
        Ok(plan)
    }
}

impl Length {
    fn tokens(self, prompt: &[u32], checkpoint: &Checkpoint, rating: Option<Rating>) -> usize {
        match self {
            Length::Exactly(tokens) => tokens,
            Length::UpTo(tokens) => {
                let taken = prompt.len() + usize::from(rating.is_some());
                // At least one, so that a prompt which fills the context is refused as such.
                tokens.min(checkpoint.context_length().saturating_sub(taken)).max(1)
            }
        }
    }
}
