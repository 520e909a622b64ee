//! Generation: running sequences, advanced together one token at a time.

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::decoder::{KvCache, Segment};
use crate::rating::Rating;
use crate::sampling::{Sampled, Sampler, SamplingError, SamplingParams, log_softmax};
use crate::tokenizer::{Detokenizer, Tokenizer, TokenizerError};

/// What to generate.
#[derive(Clone, Debug)]
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
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Strings that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether end-of-sequence tokens are generated like any other and do not end the answer.
    pub ignore_eos: bool,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// The limit on tokens.
    Length,
}

impl FinishReason {
    /// The name in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// One step of one sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// The token drawn.
    pub token: u32,
    /// Its natural log-probability, before temperature and truncation.
    pub logprob: f32,
    /// Text that became certain with it: whole characters, and nothing that may turn out to begin a stop string.
    pub text: String,
    /// Set with the last step.
    pub finish: Option<FinishReason>,
}

/// Why a generation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Prompt and answer do not fit the context.
    #[error(
        "This model's maximum context length is {maximum} tokens. However, you requested {} tokens ({prompt} in the \
         prompt, {requested} for the answer). Shorten the prompt or ask for fewer tokens.",
        prompt.saturating_add(*requested)
    )]
    ContextOverflow {
        /// Tokens of the context.
        maximum: usize,
        /// Tokens of the prompt, its rating token included.
        prompt: usize,
        /// Tokens asked for.
        requested: usize,
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
    /// Guidance strengthens a rating, and none was named.
    #[error("guidance needs a rating to strengthen: name one, or leave guidance out")]
    GuidanceWithoutRating,
    /// An empty stop string would end every answer at once.
    #[error("a stop string is empty: expected at least one character")]
    EmptyStop,
    /// A limit of zero tokens.
    #[error("max_tokens is 0: expected at least 1")]
    NoTokens,
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
            GenerateError::Guidance(_) | GenerateError::GuidanceWithoutRating => Some("safelmm.guidance"),
            GenerateError::EmptyStop => Some("stop"),
            GenerateError::NoTokens => Some("max_tokens"),
            GenerateError::Sampling(e) => Some(e.param()).filter(|param| *param != "logits"),
            GenerateError::Tokenizer(_) | GenerateError::Decoder(_) => None,
        }
    }
}

/// A pass over the sequence: tokens not yet run, and the cache of those that were.
struct Branch {
    pending: Vec<u32>,
    /// Made with the first step, so that a waiting sequence holds no memory.
    cache: Option<KvCache>,
    capacity: usize,
}

/// One running sequence.
pub struct Generation {
    conditioned: Branch,
    /// The pass without the rating, where guidance asks for it, with its strength γ.
    unconditioned: Option<(Branch, f32)>,
    sampler: Sampler,
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: StopStrings,
    eos: Vec<u32>,
    prompt_tokens: usize,
    generated: usize,
    max_tokens: usize,
    finish: Option<FinishReason>,
}

impl Generation {
    /// Checks the request and prepares the sequence; nothing is computed yet.
    ///
    /// A rated model's sequence begins with the rating token, or with the beginning-of-sequence token when no rating is
    /// asked for, as its training passages do.
    ///
    /// # Errors
    /// Says which parameter is at fault ([`GenerateError::param`]).
    pub fn new(checkpoint: &Checkpoint, request: GenerationRequest) -> Result<Generation, GenerateError> {
        let tokenizer = &checkpoint.tokenizer;
        let vocab_size = checkpoint.config().vocab_size;
        let neutral = if checkpoint.rated() { tokenizer.bos_id() } else { None };
        let guided = request.guidance != 1.0 && request.rating.is_some();
        let unrated = || GenerateError::Unrated(checkpoint.name().to_owned());
        if !(1.0..=10.0).contains(&request.guidance) {
            return Err(GenerateError::Guidance(request.guidance));
        }
        if request.guidance != 1.0 && !checkpoint.rated() {
            return Err(unrated());
        }
        if request.guidance != 1.0 && !guided {
            return Err(GenerateError::GuidanceWithoutRating);
        }
        let first = match request.rating {
            Some(rating) => Some(tokenizer.rating_id(rating).filter(|_| checkpoint.rated()).ok_or_else(unrated)?),
            None => neutral,
        };
        if let Some(&token) = request.prompt.iter().find(|&&t| t as usize >= vocab_size) {
            return Err(GenerateError::TokenOutOfRange { token, vocab_size });
        }
        if request.max_tokens == 0 {
            return Err(GenerateError::NoTokens);
        }
        if request.stop.iter().any(String::is_empty) {
            return Err(GenerateError::EmptyStop);
        }
        let start =
            |first: Option<u32>| -> Vec<u32> { first.into_iter().chain(request.prompt.iter().copied()).collect() };
        let prompt = start(first);
        let (prompt_tokens, maximum) = (prompt.len(), checkpoint.context_length());
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt_tokens.saturating_add(request.max_tokens) > maximum {
            let requested = request.max_tokens;
            return Err(GenerateError::ContextOverflow { maximum, prompt: prompt_tokens, requested });
        }
        let sampler = {
            request.sampling.validate(vocab_size)?;
            let endings = if request.ignore_eos { &[][..] } else { tokenizer.eos_ids() };
            let banned: Vec<u32> = tokenizer.control_ids().iter().copied().filter(|id| !endings.contains(id)).collect();
            Sampler::new(request.sampling, banned.into(), &prompt)?
        };
        // The last token is drawn but never run.
        let branch =
            |pending: Vec<u32>| Branch { cache: None, capacity: pending.len() + request.max_tokens - 1, pending };
        Ok(Generation {
            unconditioned: guided.then(|| (branch(start(neutral)), request.guidance)),
            conditioned: branch(prompt),
            sampler,
            tokenizer: Arc::clone(tokenizer),
            detokenizer: tokenizer.detokenizer(),
            stops: StopStrings::new(request.stop),
            eos: if request.ignore_eos { Vec::new() } else { tokenizer.eos_ids().to_vec() },
            prompt_tokens,
            generated: 0,
            max_tokens: request.max_tokens,
            finish: None,
        })
    }

    /// Tokens of the prompt, its rating token included.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens drawn so far.
    pub fn generated_tokens(&self) -> usize {
        self.generated
    }

    /// Whether the answer has ended.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// The passes of this sequence: one, or two under guidance.
    fn branches(&mut self) -> impl Iterator<Item = &mut Branch> {
        std::iter::once(&mut self.conditioned).chain(self.unconditioned.as_mut().map(|(branch, _)| branch))
    }

    /// Draws the next token from the logits of this sequence's passes, in their order.
    fn advance(&mut self, mut logits: Vec<Vec<f32>>) -> Result<Step, GenerateError> {
        let unconditioned = if self.unconditioned.is_some() { logits.pop() } else { None };
        let mut logits = logits.pop().unwrap_or_default();
        if let (Some((_, gamma)), Some(unconditioned)) = (&self.unconditioned, unconditioned) {
            logits = guide(&logits, &unconditioned, *gamma);
        }
        let Sampled { token, logprob } = self.sampler.sample(&mut logits)?;
        for branch in self.branches() {
            branch.pending = vec![token];
        }
        self.generated += 1;
        let (mut text, mut finish) = (String::new(), None);
        if self.eos.contains(&token) {
            finish = Some(FinishReason::Stop);
        } else {
            let new = self.detokenizer.push(&self.tokenizer, token)?;
            if self.stops.push(&new, &mut text) {
                finish = Some(FinishReason::Stop);
            } else if self.generated == self.max_tokens {
                finish = Some(FinishReason::Length);
            }
        }
        if finish.is_some() {
            let tail = self.detokenizer.finish(&self.tokenizer)?;
            if self.stops.finish(&tail, &mut text) {
                finish = Some(FinishReason::Stop);
            }
            self.finish = finish;
        }
        Ok(Step { token, logprob, text, finish })
    }
}

/// `log p = log p(u) + γ · (log p(c) − log p(u))`, unnormalised.
fn guide(conditioned: &[f32], unconditioned: &[f32], gamma: f32) -> Vec<f32> {
    let (c, u) = (log_softmax(conditioned), log_softmax(unconditioned));
    c.iter().zip(u).map(|(c, u)| u + gamma * (c - u)).collect()
}

/// One decoding step for every generation, as one batch: prompts are prefilled, running sequences get their next token.
/// Result `i` belongs to generation `i`; none may be finished.
///
/// # Errors
/// The first failure; the generations of the batch are then in no defined state and must be dropped.
pub fn step(checkpoint: &Checkpoint, generations: &mut [&mut Generation]) -> Result<Vec<Step>, GenerateError> {
    let rows = checkpoint.decoder.device().with_context(|| forward(checkpoint, generations))?;
    let mut rows = rows.into_iter();
    generations
        .iter_mut()
        .map(|generation| {
            let passes = generation.branches().count();
            let logits = rows.by_ref().take(passes).collect();
            generation.advance(logits)
        })
        .collect()
}

/// Logits after the last token of every pass, [passes][vocab].
fn forward(checkpoint: &Checkpoint, generations: &mut [&mut Generation]) -> Result<Vec<Vec<f32>>, candle_core::Error> {
    let decoder = &checkpoint.decoder;
    for branch in generations.iter_mut().flat_map(|g| g.branches()).filter(|branch| branch.cache.is_none()) {
        branch.cache = Some(KvCache::new(checkpoint.config(), branch.capacity, decoder.device())?);
    }
    let mut segments: Vec<Segment<'_>> = generations
        .iter_mut()
        .flat_map(|g| g.branches())
        .map(|branch| Segment { tokens: &branch.pending, cache: branch.cache.as_mut() })
        .collect();
    let mut end = 0;
    let last: Vec<u32> = segments
        .iter()
        .map(|segment| {
            end += segment.tokens.len() as u32;
            end - 1
        })
        .collect();
    let hidden = decoder.forward(&mut segments)?; // [rows, hidden]
    let last = candle_core::Tensor::from_vec(last, segments.len(), hidden.device())?;
    decoder.logits(&hidden.index_select(&last, 0)?)?.to_vec2()
}

/// Holds text back while it may still turn out to be the beginning of a stop string.
struct StopStrings {
    stops: Vec<String>,
    held: String,
    hit: bool,
}

impl StopStrings {
    fn new(stops: Vec<String>) -> Self {
        StopStrings { stops, held: String::new(), hit: false }
    }

    /// Adds new text and moves what is certain to `out`; true once a stop string is complete, and no text comes after it.
    fn push(&mut self, new: &str, out: &mut String) -> bool {
        if self.hit {
            return true;
        }
        self.held.push_str(new);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            out.push_str(&self.held[..at]);
            self.hit = true;
        } else {
            let longest = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
            out.extend(self.held.drain(..self.held.len() - longest));
        }
        self.hit
    }

    /// Adds the last text and releases what was held back, unless a stop string is complete: then true.
    fn finish(&mut self, tail: &str, out: &mut String) -> bool {
        let hit = self.push(tail, out);
        if !hit {
            out.push_str(&std::mem::take(&mut self.held));
        }
        hit
    }
}

/// The length in bytes of the longest end of `text` that begins `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len()).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut held = StopStrings::new(stops.iter().map(|s| s.to_string()).collect());
        let mut out = String::new();
        for piece in pieces {
            if held.push(piece, &mut out) {
                return (out, true);
            }
        }
        let hit = held.finish("", &mut out);
        (out, hit)
    }

    #[test]
    fn stop_strings_are_found_over_any_cut_and_never_leak() {
        let text = "one two\n\nthree";
        for cut in 0..=text.len() {
            for cut2 in cut..=text.len() {
                let pieces = [&text[..cut], &text[cut..cut2], &text[cut2..]];
                assert_eq!(run(&["\n\n", "threefold"], &pieces), ("one two".to_owned(), true));
                assert_eq!(run(&["\n\n\n", "threefold"], &pieces), (text.to_owned(), false));
            }
        }
        assert_eq!(run(&["äö"], &["xä", "ä", "öy"]), ("xä".to_owned(), true));
    }

    #[test]
    fn guidance_of_one_is_the_conditioned_distribution_and_more_sharpens_it() {
        let (c, u) = ([1.0, 0.0, -1.0], [0.0, 0.0, 0.0]);
        let one = log_softmax(&guide(&c, &u, 1.0));
        for (a, b) in one.iter().zip(log_softmax(&c)) {
            assert!((a - b).abs() < 1e-6);
        }
        let three = log_softmax(&guide(&c, &u, 3.0));
        assert!(three[0] > one[0] && three[2] < one[2]);
        let none = log_softmax(&guide(&c, &u, 0.0));
        assert!((none[0] - none[2]).abs() < 1e-6);
    }
}
