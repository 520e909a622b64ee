//! What can be asked of a generation.

use super::context::ContextSource;
use crate::logits::LogitsStage;
use crate::rating::Rating;
use crate::sampling::SamplingParams;
use crate::stop::StopStrings;

/// What to generate.
pub struct GenerationRequest {
    /// The prompt without rating token.
    pub prompt: Vec<u32>,
    /// The rating to condition on, for models with rating tokens; `None` leaves the text unconditioned.
    pub rating: Option<Rating>,
    /// Strength γ of the conditioning (classifier-free guidance, Sanchez et al. 2023):
    /// `log p = log p(unconditioned) + γ · (log p(conditioned) − log p(unconditioned))`. 1 is plain conditioning and
    /// costs no second pass; less would weaken the rating and is refused.
    pub guidance: f32,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Tokens to generate at most; with 0 the prompt is run, and scored where `score_prompt` asks for it.
    pub max_tokens: usize,
    /// Strings that end the answer; they are not part of it.
    pub stop: StopStrings,
    /// Whether end-of-sequence tokens are banned, so that the answer goes on to its limit.
    pub ignore_eos: bool,
    /// How many of the most probable tokens are named beside each token.
    pub top_logprobs: usize,
    /// Whether the tokens of the prompt are scored too.
    pub score_prompt: bool,
    /// Whether the answer may call tools: the markers of calls may be drawn, and are part of the text.
    pub may_call: bool,
    /// What else makes the distribution that log-probabilities are taken from, in order, behind the guidance: neighbour
    /// interpolation and the like. Applied to scored tokens of the prompt too. They may take their time: those of
    /// different sequences run side by side.
    pub distribution: Vec<Box<dyn LogitsStage>>,
    /// What chooses from the distribution, in order, before bias, penalties and bans: grammars, policies.
    pub stages: Vec<Box<dyn LogitsStage>>,
    /// Passages before the prompt.
    pub context: Option<Box<dyn ContextSource>>,
}

impl GenerationRequest {
    /// A request for `max_tokens` tokens behind a prompt, everything else neutral.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Self {
        GenerationRequest {
            prompt,
            rating: None,
            guidance: 1.0,
            sampling: SamplingParams::default(),
            max_tokens,
            stop: StopStrings::default(),
            ignore_eos: false,
            top_logprobs: 0,
            score_prompt: false,
            may_call: false,
            distribution: Vec::new(),
            stages: Vec::new(),
            context: None,
        }
    }
}
