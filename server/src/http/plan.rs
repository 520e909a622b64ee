//! From checked parameters to the sequences that the engine will run.

use std::sync::Arc;

use safelmm_model::{Checkpoint, Generation, GenerationRequest, LogitsStage, StopStrings};
use safelmm_plugins::{Answer, Guard, Scope};

use super::answer::Ranking;
use super::attachment::Traced;
use super::error::ApiError;
use super::extension::Extension;
use super::sampling::Sampling;
use crate::app::App;
use crate::policies::PolicyStage;

/// The most sequences (prompts times candidates) of one request.
const MAX_SEQUENCES: usize = 256;

/// The fewest tokens of context that passages are given.
const LEAST_PASSAGE: usize = 32;

/// One prompt, and the state with which each of its choices begins.
pub struct Prompt<S> {
    /// Its tokens, without what the model puts in front.
    pub tokens: Vec<u32>,
    /// Makes the state of one more choice.
    pub shape: Box<dyn Fn() -> S + Send>,
}

/// The prompts of a request.
pub struct Prompts<S> {
    /// Each of them.
    pub prompts: Vec<Prompt<S>>,
    /// What the endpoint calls them.
    pub param: &'static str,
    /// How long an answer may get.
    pub length: Length,
    /// How many candidates each gets, where that is not the number of choices.
    pub best_of: Option<usize>,
}

/// What an endpoint asks of each sequence.
#[derive(Default)]
pub struct Wanted {
    /// How many of the most probable tokens are told in each place.
    pub top_logprobs: usize,
    /// Whether the tokens of the prompt are scored too.
    pub score_prompt: bool,
    /// Whether the answer may call functions.
    pub may_call: bool,
    /// Makes what one more sequence adds to the logits chain.
    pub stages: Option<Stages>,
}

/// Makes stages of the logits chain, for one sequence after another.
pub type Stages = Box<dyn Fn() -> Vec<Box<dyn LogitsStage>> + Send>;

/// How long an answer may get.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// As the request says; an answer for which the context has no room is refused.
    Exactly(usize),
    /// The request says nothing: this many tokens, or as many as the context and the key's limits have room for.
    UpTo(usize),
}

/// What the engine is to run for one request.
pub struct Plan<S> {
    /// The sequences: all candidates of the first prompt, then those of the second, and so on.
    pub generations: Vec<Generation>,
    /// The state of each sequence's answer.
    pub shapes: Vec<S>,
    /// What the text of each sequence goes through before it leaves.
    pub guards: Vec<Guard>,
    /// What will be known of each sequence, for those who ask where it comes from.
    pub traced: Vec<Traced>,
    /// Which candidates become choices.
    pub ranking: Ranking,
    /// The tokens of all prompts, each counted once.
    pub prompt_tokens: usize,
    /// The most tokens that all answers together can have.
    pub max_tokens: usize,
}

impl<S> Plan<S> {
    /// Checks the prompts against the model and prepares every sequence; nothing is computed yet. `policies` are those of
    /// the request; `most_tokens` is the most that the key's limits can ever let through, prompts and answers together.
    pub fn new(
        app: &App,
        Prompts { prompts, param, length, best_of }: Prompts<S>,
        sampling: &Sampling,
        wanted: &Wanted,
        extension: &Extension,
        policies: &Scope,
        most_tokens: Option<usize>,
    ) -> Result<Self, ApiError> {
        let best_of = best_of.unwrap_or(sampling.n);
        let sequences = prompts.len().saturating_mul(best_of);
        if sequences > MAX_SEQUENCES {
            let message = format!("'{param}' asks for {sequences} choices: one request can have {MAX_SEQUENCES}");
            return Err(ApiError::parameter(param, message));
        }
        let stop = StopStrings::new(sampling.stop.clone())
            .map_err(|error| ApiError::parameter("stop", format!("'stop' cannot be used: {error}")))?;
        let ranking = Ranking { best_of, n: sampling.n };
        let (generations, shapes, guards, traced) = Default::default();
        let mut plan = Plan { generations, shapes, guards, traced, ranking, prompt_tokens: 0, max_tokens: 0 };
        let retrieval = extension.attachment.as_ref().map(|attachment| &attachment.retrieval);
        let taken = |prompt: &Prompt<S>| prompt.tokens.len() + usize::from(extension.rating.is_some());
        let room = most_tokens.map_or(usize::MAX, |most| {
            let left = most.saturating_sub(prompts.iter().map(taken).sum());
            left / sequences.max(1)
        });
        for prompt in &prompts {
            let context = app.checkpoint().context_length();
            // Passages may take half of what the prompt leaves, where the request does not say how long its answer is.
            let passages = retrieval.map_or(0, |retrieval| retrieval.passage_tokens());
            let passages = passages.min(context.saturating_sub(taken(prompt)) / 2);
            let max_tokens = length.tokens(taken(prompt) + passages, app.checkpoint(), room);
            let left = context.saturating_sub(taken(prompt).saturating_add(max_tokens));
            if passages > 0 && left < LEAST_PASSAGE {
                let message = format!(
                    "'max_tokens' leaves {left} tokens of the context of {context} to passages: expected at least \
                     {LEAST_PASSAGE}. Ask for fewer tokens, shorten the prompt, or choose a mode without passages"
                );
                return Err(ApiError::parameter("max_tokens", message));
            }
            let text = text_for(policies, prompt, app, param)?;
            for index in 0..best_of {
                let added = retrieval.map(|retrieval| retrieval.add(app.checkpoint(), left, Some(policies)));
                let added = added.unwrap_or_default();
                let answer = Answer::new(policies.clone(), Arc::clone(&text));
                let mut stages = wanted.stages.as_ref().map_or_else(Vec::new, |stages| stages());
                if answer.adjusts() {
                    stages.push(Box::new(PolicyStage::new(answer.clone(), app.checkpoint().tokenizer.eos_ids())));
                }
                let request = GenerationRequest {
                    rating: extension.rating,
                    guidance: extension.guidance,
                    sampling: sampling.params_of(index),
                    stop: stop.clone(),
                    ignore_eos: sampling.ignore_eos,
                    top_logprobs: wanted.top_logprobs,
                    score_prompt: wanted.score_prompt,
                    may_call: wanted.may_call,
                    stages,
                    distribution: added.distribution,
                    context: added.context,
                    ..GenerationRequest::new(prompt.tokens.clone(), max_tokens)
                };
                let generation = Generation::new(app.checkpoint(), request)
                    .map_err(|source| ApiError::Generate { source, prompt_param: param })?;
                if index == 0 {
                    plan.prompt_tokens += generation.prompt_tokens();
                }
                plan.max_tokens = plan.max_tokens.saturating_add(max_tokens);
                let (recorder, prompt_tokens) = (added.recorder, generation.text_tokens());
                plan.generations.push(generation);
                plan.shapes.push((prompt.shape)());
                plan.guards.push(answer.guard());
                plan.traced.push(Traced { recorder, prompt_tokens, ..Traced::default() });
            }
        }
        Ok(plan)
    }
}

/// What policies that look at answers are told of the prompt: the text of its tokens, without control tokens.
fn text_for<S>(policies: &Scope, prompt: &Prompt<S>, app: &App, param: &'static str) -> Result<Arc<str>, ApiError> {
    if !policies.hooks().in_sessions() {
        return Ok(Arc::from(""));
    }
    let text = app.checkpoint().tokenizer.decode(&prompt.tokens, true);
    text.map(Arc::from).map_err(|source| ApiError::Tokenizer { source, param })
}

impl Length {
    /// For a prompt of so many tokens, by a key whose limits have `room` for so many more.
    fn tokens(self, prompt: usize, checkpoint: &Checkpoint, room: usize) -> usize {
        match self {
            Length::Exactly(tokens) => tokens,
            Length::UpTo(tokens) => {
                // At least one, so that a prompt which fills the context is refused as such.
                tokens.min(checkpoint.context_length().saturating_sub(prompt)).min(room).max(1)
            }
        }
    }
}
