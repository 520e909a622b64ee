//! One running sequence: what it is made of, and its memory.

mod advance;
mod branch;

use std::sync::Arc;

pub(super) use advance::{Row, Rows, Share};
pub(super) use branch::Branch;

use super::context::Context;
use super::{FinishReason, GenerateError, GenerationRequest};
use crate::checkpoint::Checkpoint;
use crate::decoder::{BLOCK_TOKENS, KvBlock, KvCache, KvPool, Reservation};
use crate::logits::{Guidance, LogitsStage};
use crate::sampling::Sampler;
use crate::stop::StopFilter;
use crate::tokenizer::{Detokenizer, Tokenizer};

/// One running sequence.
pub struct Generation {
    /// The start, the prompt, and what was generated: what the conditioned pass runs, without passages.
    text: Vec<u32>,
    /// Tokens of the start: the rating token or the beginning-of-sequence token, where there is one.
    head: usize,
    /// Tokens of the conditioned prompt.
    prompt_tokens: usize,
    pub(super) max_tokens: usize,
    conditioned: Branch,
    /// The pass without the rating, where guidance asks for it.
    unconditioned: Option<Branch>,
    /// Passages between the start and the prompt.
    context: Option<Context>,
    /// Guidance, and what else makes the distribution.
    distribution: Vec<Box<dyn LogitsStage>>,
    /// What chooses from it.
    choice: Vec<Box<dyn LogitsStage>>,
    wants_key: bool,
    /// Whether retrieval takes part.
    costly: bool,
    sampler: Sampler,
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: StopFilter,
    eos: Vec<u32>,
    top_logprobs: usize,
    score_prompt: bool,
    /// The place in the text of the next token to score; behind the prompt when there is none.
    next_score: usize,
    /// The sum of the hidden states, where an embedding is asked for.
    pub(super) pooled: Option<Vec<f32>>,
    finish: Option<FinishReason>,
    /// Up to which length of a sequence what was run may serve another one.
    fixed_positions: usize,
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
        let guided = guided(checkpoint, &request)?;
        let first = match request.rating {
            Some(rating) => {
                let id = tokenizer.rating_id(rating).filter(|_| checkpoint.rated());
                Some(id.ok_or_else(|| GenerateError::Unrated(checkpoint.name().to_owned()))?)
            }
            None => neutral,
        };
        if let Some(&token) = request.prompt.iter().find(|&&t| t as usize >= vocab_size) {
            return Err(GenerateError::TokenOutOfRange { token, vocab_size });
        }
        let start =
            |first: Option<u32>| -> Vec<u32> { first.into_iter().chain(request.prompt.iter().copied()).collect() };
        let text = start(first);
        let (prompt_tokens, maximum) = (text.len(), checkpoint.context_length());
        if text.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let context = request.context.map(|source| Context::new(source, vocab_size));
        let passages = context.as_ref().map_or(0, |context| context.most_tokens);
        if prompt_tokens.saturating_add(request.max_tokens).saturating_add(passages) > maximum {
            let requested = request.max_tokens;
            return Err(GenerateError::ContextOverflow { maximum, prompt: prompt_tokens, requested, passages });
        }
        request.sampling.validate(vocab_size)?;
        let endings = if request.ignore_eos { &[][..] } else { tokenizer.eos_ids() };
        let markers = if request.may_call { tokenizer.tool_marker_ids() } else { &[] };
        let is_banned = |id: &u32| !endings.contains(id) && !markers.contains(id);
        let banned: Arc<[u32]> = tokenizer.control_ids().iter().copied().filter(is_banned).collect();
        let sampler = Sampler::new(&request.sampling)?;
        let costly = context.is_some() || !request.distribution.is_empty();
        let mut choice = request.stages;
        choice.extend(request.sampling.stages(banned));
        let mut distribution: Vec<Box<dyn LogitsStage>> = Vec::new();
        if guided {
            distribution.push(Box::new(Guidance { gamma: request.guidance }));
        }
        distribution.extend(request.distribution);
        // The last token is drawn but never run.
        let capacity = prompt_tokens + passages + request.max_tokens.saturating_sub(1);
        let branch = |tokens| Branch { tokens, cache: None, capacity };
        Ok(Generation {
            // Prompts of other models than rated ones have their start in them.
            head: usize::from(first.is_some() || tokenizer.bos_id().is_some_and(|bos| text[0] == bos)),
            unconditioned: guided.then(|| branch(start(neutral))),
            conditioned: branch(text.clone()),
            text,
            prompt_tokens,
            max_tokens: request.max_tokens,
            context,
            wants_key: distribution.iter().chain(&choice).any(|stage| stage.wants_key()),
            distribution,
            choice,
            costly,
            sampler,
            tokenizer: Arc::clone(tokenizer),
            detokenizer: if request.may_call { tokenizer.tool_detokenizer() } else { tokenizer.detokenizer() },
            stops: StopFilter::new(request.stop),
            eos: endings.to_vec(),
            top_logprobs: request.top_logprobs,
            score_prompt: request.score_prompt,
            // The first token has no score.
            next_score: if request.score_prompt { 1 } else { prompt_tokens },
            pooled: None,
            finish: None,
            fixed_positions: checkpoint.config().fixed_positions(),
        })
    }

    /// A sequence of which the embedding is wanted: the mean of the hidden states over its tokens, of length 1.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn embedding(checkpoint: &Checkpoint, text: Vec<u32>) -> Result<Generation, GenerateError> {
        let mut generation = Generation::new(checkpoint, GenerationRequest::new(text, 0))?;
        generation.pooled = Some(vec![0.0; checkpoint.config().hidden_size]);
        Ok(generation)
    }

    /// Tokens of the prompt, its rating token included, without passages.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens of the prompt without its start (a rating token or beginning-of-sequence token): what the source of passages
    /// is told of it.
    pub fn text_tokens(&self) -> usize {
        self.prompt_tokens - self.head
    }

    /// Tokens to generate at most.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Tokens that passages before the prompt may take.
    pub fn most_passage_tokens(&self) -> usize {
        self.context.as_ref().map_or(0, |context| context.most_tokens)
    }

    /// Whether the answer has ended.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// The tokens that would have to be run before the next one can be drawn, over all passes: 1 or 2 once the prompt is
    /// through, until passages change. Of a prompt that is scored behind passages, those of the present window.
    pub fn pending(&self) -> usize {
        self.branches().map(|branch| self.pending_of(branch)).sum()
    }

    pub(super) fn pending_of(&self, branch: &Branch) -> usize {
        self.goal().saturating_sub(branch.done())
    }

    /// How many tokens of a pass can be run: where the window of a scored prompt ends, other passages follow.
    fn goal(&self) -> usize {
        match &self.context {
            // The row of a token scores the one behind it.
            Some(context) if self.is_scoring() => {
                context.tokens + context.until.clamp(self.next_score + 1, self.prompt_tokens) - 1
            }
            _ => self.conditioned.tokens.len(),
        }
    }

    fn is_scoring(&self) -> bool {
        self.next_score < self.prompt_tokens
    }

    /// Passes of this sequence: one, or two under guidance.
    pub fn passes(&self) -> usize {
        1 + usize::from(self.unconditioned.is_some())
    }

    /// Takes memory for the whole sequence from a pool. `beginning` may know finished blocks of sequences that began
    /// with the same tokens: it is asked for each pass, and what it returns is not computed again. Returns the tokens so
    /// saved.
    ///
    /// # Errors
    /// The number of blocks that the pool lacks; the sequence is then as it was.
    pub fn start(
        &mut self,
        pool: &KvPool,
        mut beginning: impl FnMut(&[u32]) -> Vec<Arc<KvBlock>>,
    ) -> Result<usize, usize> {
        // Scores and embeddings need every position anew.
        let anew = self.score_prompt || !self.shares_blocks();
        let mut caches: Vec<KvCache> = Vec::with_capacity(self.passes());
        for branch in self.branches() {
            // At least the last token is run, since the next one is drawn from it.
            let most = if anew { 0 } else { (branch.tokens.len() - 1) / BLOCK_TOKENS };
            let mut blocks = if most == 0 { Vec::new() } else { beginning(&branch.tokens) };
            blocks.truncate(most);
            let needed = branch.capacity.div_ceil(BLOCK_TOKENS) - blocks.len();
            let reservation: Reservation = pool.reserve(needed)?;
            caches.push(KvCache::new(reservation, blocks));
        }
        let saved = caches.iter().map(KvCache::len).sum();
        for (branch, cache) in self.branches_mut().zip(caches) {
            branch.cache = Some(cache);
        }
        Ok(saved)
    }

    /// Whether finished blocks may be shared with other sequences: not those of embeddings, which could use none and would
    /// push out what others can use, nor those behind passages, which change.
    pub fn shares_blocks(&self) -> bool {
        self.pooled.is_none() && self.context.is_none()
    }

    /// Gives back the memory of a sequence that was started and has not been advanced since.
    pub fn release(&mut self) {
        self.branches_mut().for_each(|branch| branch.cache = None);
    }

    /// For each pass, its tokens as far as they are known, passages included, and how many of them have been run.
    pub fn tokens(&self) -> impl Iterator<Item = (&[u32], usize)> {
        self.branches().map(|branch| (&branch.tokens[..], branch.done()))
    }

    /// For each pass, the tokens of its finished blocks, and these. Only those of a sequence that
    /// [shares them](Self::shares_blocks) never change again.
    pub fn finished_blocks(&self) -> impl Iterator<Item = (&[u32], &[Arc<KvBlock>])> {
        self.branches().map(|branch| {
            let blocks = branch.cache.as_ref().map(KvCache::full_blocks).unwrap_or_default();
            (&branch.tokens[..blocks.len() * BLOCK_TOKENS], blocks)
        })
    }

    pub(super) fn branches(&self) -> impl Iterator<Item = &Branch> {
        std::iter::once(&self.conditioned).chain(&self.unconditioned)
    }

    pub(super) fn branches_mut(&mut self) -> impl Iterator<Item = &mut Branch> {
        std::iter::once(&mut self.conditioned).chain(&mut self.unconditioned)
    }

    /// Whether it is worth a thread of its own to draw the next token.
    pub(super) fn is_costly(&self) -> bool {
        self.costly
    }
}

/// Whether a second pass is needed. Refuses guidance that cannot be honoured.
fn guided(checkpoint: &Checkpoint, request: &GenerationRequest) -> Result<bool, GenerateError> {
    if !(1.0..=10.0).contains(&request.guidance) {
        return Err(GenerateError::Guidance(request.guidance));
    }
    match (request.guidance != 1.0, checkpoint.rated(), request.rating) {
        (false, _, _) => Ok(false),
        (true, false, _) => Err(GenerateError::Unrated(checkpoint.name().to_owned())),
        (true, true, None) => Err(GenerateError::GuidanceWithoutRating),
        (true, true, Some(_)) if request.score_prompt => Err(GenerateError::GuidedScores),
        (true, true, Some(_)) => Ok(true),
    }
}
