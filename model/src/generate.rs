//! Generation: running sequences, advanced together, prompts in pieces of any length and answers token by token.

use std::sync::Arc;

use candle_core::Tensor;

use crate::checkpoint::Checkpoint;
use crate::decoder::{BLOCK_TOKENS, KvBlock, KvCache, KvPool, Reservation, Segment};
use crate::kernels::log_sum_exp;
use crate::logits::{Guidance, History, LogitsStage, StageError, apply_all};
use crate::rating::Rating;
use crate::sampling::{Sampler, SamplingError, SamplingParams};
use crate::stop::{StopFilter, StopStrings};
use crate::tokenizer::{Detokenizer, Tokenizer, TokenizerError};

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
    /// What this request adds to the logits chain, in order.
    pub stages: Vec<Box<dyn LogitsStage>>,
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
            stages: Vec::new(),
        }
    }
}

/// A token of the prompt or the answer with its probability under the model: after rating guidance, before bias,
/// penalties, bans, temperature and truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Its natural log-probability.
    pub logprob: f32,
    /// The most probable tokens in its place with theirs, best first, as many as `top_logprobs` asked for. Where the
    /// token itself is among them it has the same float.
    pub top: Vec<(u32, f32)>,
}

/// What one step brought one sequence. A step that ran a part of a long prompt brings nothing, or scores.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Tokens of the prompt that were scored, in order; the first token of a sequence has no score. A rated model's
    /// rating token is not among the tokens of the prompt.
    pub scored: Vec<TokenLogprob>,
    /// The token drawn.
    pub step: Option<Step>,
    /// The embedding of the sequence, [hidden_size], where it was asked for.
    pub embedding: Option<Vec<f32>>,
    /// Set with the last step.
    pub finish: Option<FinishReason>,
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

/// A token drawn.
#[derive(Clone, Debug)]
pub struct Step {
    /// The token and its log-probability.
    pub token: TokenLogprob,
    /// Text that became certain with it: whole characters, and nothing that may turn out to begin a stop string.
    pub text: String,
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
    /// Scores of a prompt under guidance.
    #[error("the prompt cannot be scored under guidance: leave `guidance` out, or ask for no scores of the prompt")]
    GuidedScores,
    /// Guidance strengthens a rating, and none was named.
    #[error("guidance needs a rating to strengthen: name one, or leave guidance out")]
    GuidanceWithoutRating,
    /// A stage of the logits chain gave up.
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

/// A pass over the sequence.
struct Branch {
    /// All tokens: the start, the prompt, and what was generated.
    tokens: Vec<u32>,
    /// Made when the sequence starts, so that a waiting one holds no memory.
    cache: Option<KvCache>,
    /// Tokens that are run at most.
    capacity: usize,
}

impl Branch {
    fn new(tokens: Vec<u32>, max_tokens: usize) -> Self {
        // The last token is drawn but never run.
        Branch { cache: None, capacity: tokens.len() + max_tokens.saturating_sub(1), tokens }
    }

    /// Tokens that have been run.
    fn done(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::len)
    }

    fn pending(&self) -> usize {
        self.tokens.len() - self.done()
    }
}

/// One running sequence.
pub struct Generation {
    conditioned: Branch,
    /// The pass without the rating, where guidance asks for it.
    unconditioned: Option<Branch>,
    /// Tokens of the conditioned prompt.
    prompt_tokens: usize,
    max_tokens: usize,
    /// Guidance, and what else makes the distribution.
    distribution: Vec<Box<dyn LogitsStage>>,
    /// What chooses from it.
    choice: Vec<Box<dyn LogitsStage>>,
    sampler: Sampler,
    tokenizer: Arc<Tokenizer>,
    detokenizer: Detokenizer,
    stops: StopFilter,
    eos: Vec<u32>,
    top_logprobs: usize,
    score_prompt: bool,
    /// The sum of the hidden states, where an embedding is asked for.
    pooled: Option<Vec<f32>>,
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
        let prompt = start(first);
        let (prompt_tokens, maximum) = (prompt.len(), checkpoint.context_length());
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if prompt_tokens.saturating_add(request.max_tokens) > maximum {
            let requested = request.max_tokens;
            return Err(GenerateError::ContextOverflow { maximum, prompt: prompt_tokens, requested });
        }
        request.sampling.validate(vocab_size)?;
        let endings = if request.ignore_eos { &[][..] } else { tokenizer.eos_ids() };
        let markers = if request.may_call { tokenizer.tool_marker_ids() } else { &[] };
        let is_banned = |id: &u32| !endings.contains(id) && !markers.contains(id);
        let banned: Arc<[u32]> = tokenizer.control_ids().iter().copied().filter(is_banned).collect();
        let sampler = Sampler::new(&request.sampling)?;
        let mut choice = request.stages;
        choice.extend(request.sampling.stages(banned));
        let distribution: Vec<Box<dyn LogitsStage>> =
            if guided { vec![Box::new(Guidance { gamma: request.guidance })] } else { Vec::new() };
        Ok(Generation {
            unconditioned: guided.then(|| Branch::new(start(neutral), request.max_tokens)),
            conditioned: Branch::new(prompt, request.max_tokens),
            prompt_tokens,
            max_tokens: request.max_tokens,
            distribution,
            choice,
            sampler,
            tokenizer: Arc::clone(tokenizer),
            detokenizer: if request.may_call { tokenizer.tool_detokenizer() } else { tokenizer.detokenizer() },
            stops: StopFilter::new(request.stop),
            eos: endings.to_vec(),
            top_logprobs: request.top_logprobs,
            score_prompt: request.score_prompt,
            pooled: None,
            finish: None,
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

    /// Tokens of the prompt, its rating token included.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens to generate at most.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Whether the answer has ended.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// The tokens that would have to be run before the next one can be drawn, over all passes: 1 or 2 once the prompt is
    /// through.
    pub fn pending(&self) -> usize {
        self.branches().map(Branch::pending).sum()
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
        let anew = self.score_prompt || self.pooled.is_some();
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

    /// Whether an embedding is wanted.
    pub fn is_embedding(&self) -> bool {
        self.pooled.is_some()
    }

    /// Gives back the memory of a sequence that was started and has not been advanced since.
    pub fn release(&mut self) {
        self.branches_mut().for_each(|branch| branch.cache = None);
    }

    /// For each pass, its tokens as far as they are known, and how many of them have been run.
    pub fn tokens(&self) -> impl Iterator<Item = (&[u32], usize)> {
        self.branches().map(|branch| (&branch.tokens[..], branch.done()))
    }

    /// For each pass, the tokens of its finished blocks, and these.
    pub fn finished_blocks(&self) -> impl Iterator<Item = (&[u32], &[Arc<KvBlock>])> {
        self.branches().map(|branch| {
            let blocks = branch.cache.as_ref().map(KvCache::full_blocks).unwrap_or_default();
            (&branch.tokens[..blocks.len() * BLOCK_TOKENS], blocks)
        })
    }

    fn branches(&self) -> impl Iterator<Item = &Branch> {
        std::iter::once(&self.conditioned).chain(&self.unconditioned)
    }

    fn branches_mut(&mut self) -> impl Iterator<Item = &mut Branch> {
        std::iter::once(&mut self.conditioned).chain(&mut self.unconditioned)
    }

    /// How many tokens of each pass a step runs that may run `most` of each. The passes come to their ends in the same
    /// step, so that their logits meet.
    fn portions(&self, most: usize) -> Vec<usize> {
        let ends = self.branches().all(|branch| branch.pending() <= most);
        self.branches().map(|branch| branch.pending().saturating_sub(usize::from(!ends)).min(most)).collect()
    }

    /// Scores of the tokens behind the rows of a piece of the prompt that ends at `end`.
    fn score(&self, rows: &[Vec<f32>], end: usize) -> Vec<TokenLogprob> {
        let first = end - rows.len();
        let tokens = &self.conditioned.tokens[first + 1..end + 1];
        rows.iter().zip(tokens).map(|(logits, token)| TokenLogprob::of(logits, *token, self.top_logprobs)).collect()
    }

    /// Draws the next token from the logits of this sequence's passes, in their order.
    fn draw(&mut self, mut logits: Vec<f32>, unconditioned: Option<&[f32]>) -> Result<Progress, GenerateError> {
        let (prompt, generated) = self.conditioned.tokens.split_at(self.prompt_tokens);
        let history = History { prompt, generated, unconditioned };
        apply_all(&mut self.distribution, &mut logits, &history)?;
        let distribution = logits.clone();
        apply_all(&mut self.choice, &mut logits, &history)?;
        let token = self.sampler.sample(&logits)?;
        self.branches_mut().for_each(|branch| branch.tokens.push(token));
        let generated = self.conditioned.tokens.len() - self.prompt_tokens;
        let (mut text, mut finish) = (String::new(), None);
        if self.eos.contains(&token) {
            finish = Some(FinishReason::Stop);
        } else {
            let new = self.detokenizer.push(&self.tokenizer, token)?;
            if self.stops.push(&new, &mut text) {
                finish = Some(FinishReason::Stop);
            } else if generated == self.max_tokens {
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
        let token = TokenLogprob::of(&distribution, token, self.top_logprobs);
        Ok(Progress { step: Some(Step { token, text }), finish, ..Progress::default() })
    }

    /// Ends a sequence of which nothing is generated.
    fn end(&mut self) -> Progress {
        self.finish = Some(FinishReason::Length);
        let embedding = self.pooled.take().map(|mut sum| {
            let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            sum.iter_mut().for_each(|x| *x /= norm);
            sum
        });
        Progress { finish: self.finish, embedding, ..Progress::default() }
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

impl TokenLogprob {
    /// The probability of a token under `logits`, [vocab_size], and its `top` rivals.
    fn of(logits: &[f32], token: u32, top: usize) -> TokenLogprob {
        let sum = log_sum_exp(logits);
        let mut best: Vec<(u32, f32)> = Vec::new();
        if top > 0 {
            let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
            best = (0u32..).zip(logits.iter().copied()).collect();
            if top < best.len() {
                best.select_nth_unstable_by(top, order);
                best.truncate(top);
            }
            best.sort_unstable_by(order);
            best.iter_mut().for_each(|(_, logprob)| *logprob -= sum);
        }
        let logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - sum);
        TokenLogprob { token, logprob, top: best }
    }
}

/// A generation that takes part in a step, and how much of it.
pub struct Work<'a> {
    /// The sequence.
    pub generation: &'a mut Generation,
    /// How many tokens of each of its passes may be run, at least 1.
    pub tokens: usize,
}

/// One step of many sequences as one batch: pieces of prompts are run, sequences whose prompt is through get their next
/// token. Result `i` belongs to `work[i]`; no sequence may be finished. A sequence that was not
/// [started](Generation::start) gets memory of its own.
///
/// # Errors
/// Of the decoder: the generations of the batch are then in no defined state and must be dropped. What one sequence cannot
/// go on with, because nothing is left to choose from or a stage gave up, is its own result and hurts no other.
pub fn step_each(
    checkpoint: &Checkpoint,
    work: &mut [Work<'_>],
) -> Result<Vec<Result<Progress, GenerateError>>, GenerateError> {
    checkpoint.decoder.device().with_context(|| advance(checkpoint, work))
}

/// [`step_each`], for those who end all sequences when one cannot go on.
///
/// # Errors
/// The first failure.
pub fn step(checkpoint: &Checkpoint, work: &mut [Work<'_>]) -> Result<Vec<Progress>, GenerateError> {
    step_each(checkpoint, work)?.into_iter().collect()
}

/// What becomes of the rows of one sequence in a step.
struct Share {
    /// Tokens of each pass that are run.
    portions: Vec<usize>,
    /// Rows of the first pass that are scored: the first ones.
    scored: usize,
    /// Whether a token is drawn.
    draws: bool,
}

fn advance(
    checkpoint: &Checkpoint,
    work: &mut [Work<'_>],
) -> Result<Vec<Result<Progress, GenerateError>>, GenerateError> {
    let decoder = &checkpoint.decoder;
    let mut shares = Vec::with_capacity(work.len());
    let mut wanted: Vec<u32> = Vec::new(); // rows of which logits are needed
    let mut row = 0;
    for Work { generation, tokens } in work.iter_mut() {
        for branch in generation.branches_mut().filter(|branch| branch.cache.is_none()) {
            branch.cache = Some(KvCache::unpooled(checkpoint.config(), branch.capacity));
        }
        let portions = generation.portions((*tokens).max(1));
        let ends = generation.branches().zip(&portions).all(|(branch, portion)| branch.pending() == *portion);
        let draws = ends && generation.max_tokens > 0;
        let done = generation.conditioned.done();
        // The row of a token scores the one behind it.
        let left = (generation.prompt_tokens - 1).saturating_sub(done);
        let scored = if generation.score_prompt { left.min(portions[0]) } else { 0 };
        wanted.extend(row..row + scored as u32);
        for portion in &portions {
            row += *portion as u32;
            wanted.extend(draws.then(|| row - 1));
        }
        shares.push(Share { portions, scored, draws });
    }
    let hidden = forward(checkpoint, work, &shares)?; // [rows, hidden]
    let mut logits = match wanted.len() {
        0 => Vec::new(),
        n => decoder.logits(&hidden.index_select(&Tensor::from_vec(wanted, n, hidden.device())?, 0)?)?.to_vec2()?,
    }
    .into_iter();
    let mut row = 0;
    let mut results = Vec::with_capacity(work.len());
    for (Work { generation, .. }, share) in work.iter_mut().zip(shares) {
        if let Some(sum) = &mut generation.pooled {
            let own = hidden.narrow(0, row, share.portions[0])?.to_vec2::<f32>()?;
            // Row by row, so that the sum is the same however the text was cut into pieces.
            own.iter().for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        }
        row += share.portions.iter().sum::<usize>();
        let rows: Vec<Vec<f32>> = logits.by_ref().take(share.scored).collect();
        let end = generation.conditioned.done() - (share.portions[0] - share.scored);
        let scored = generation.score(&rows, end);
        let progress = if share.draws {
            let first: Vec<f32> = logits.next().unwrap_or_default();
            let second = if generation.unconditioned.is_some() { logits.next() } else { None };
            generation.draw(first, second.as_deref())
        } else if generation.pending() == 0 {
            Ok(generation.end())
        } else {
            Ok(Progress::default())
        };
        results.push(progress.map(|progress| Progress { scored, ..progress }));
    }
    Ok(results)
}

/// Hidden states of the portions of all passes, [rows, hidden].
fn forward(checkpoint: &Checkpoint, work: &mut [Work<'_>], shares: &[Share]) -> Result<Tensor, candle_core::Error> {
    let mut segments = Vec::new();
    for (Work { generation, .. }, share) in work.iter_mut().zip(shares) {
        for (branch, portion) in generation.branches_mut().zip(&share.portions) {
            let Branch { tokens, cache: Some(cache), .. } = branch else { continue };
            if *portion > 0 {
                let done = cache.len();
                segments.push(Segment { tokens: &tokens[done..done + portion], cache, total: tokens.len() });
            }
        }
    }
    checkpoint.decoder.forward_cached(&mut segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_same_float_beside_its_rivals() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        let found = TokenLogprob::of(&logits, 3, 2);
        assert_eq!((found.top[0].0, found.top[1]), (1, (3, found.logprob)));
        assert_eq!(TokenLogprob::of(&logits, 0, 9).top.len(), 4);
        assert!(TokenLogprob::of(&logits, 0, 0).top.is_empty());
    }
}
