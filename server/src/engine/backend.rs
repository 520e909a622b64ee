//! What the engine thread drives.

use std::sync::Arc;

use safelmm_model::{BLOCK_TOKENS, Checkpoint, GenerateError, Generation, KvPool, Progress, Work};

use super::prefix::{CacheDomain, Chain, Claim, Found, PrefixCache};

/// Whether a sequence could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It takes part from now on; of its prompt, so many tokens need not be run.
    Running {
        /// Tokens found in the prefix cache.
        cached_tokens: usize,
    },
    /// There is no memory for it now.
    NoRoom,
    /// Another sequence is computing the beginning of this one.
    Later,
}

/// How memory stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Blocks that there can be.
    pub capacity: usize,
    /// Blocks that exist or are promised to running sequences.
    pub taken: usize,
    /// Blocks that the prefix cache holds, whether a sequence uses them or not.
    pub cached: usize,
}

/// What a step brings: for each sequence its progress or why it cannot go on, or why the whole step failed.
pub type Stepped = Result<Vec<Result<Progress, GenerateError>>, GenerateError>;

/// What the engine thread drives: sequences that are started, advanced together, and dropped.
///
/// The one real backend is the [`Decoder`]; the scheduler's tests use one that panics and stalls on demand.
pub trait Backend: Send + 'static {
    /// One sequence and its state.
    type Sequence: Send + 'static;

    /// Gives a sequence what it needs to run.
    fn start(&mut self, sequence: &mut Self::Sequence) -> Started;

    /// How many tokens of a started sequence are to be run before its next token can be drawn, and whether its prompt is
    /// still among them.
    fn pending(&self, sequence: &Self::Sequence) -> Pending;

    /// One step: of each sequence at most so many tokens are run, all passes together, but at least one of each. The
    /// results are in the order of `work`; an error in one of them ends that sequence alone.
    fn step(&mut self, work: &mut [(&mut Self::Sequence, usize)]) -> Stepped;

    /// How memory stands.
    fn memory(&self) -> Memory {
        Memory::default()
    }
}

/// What a sequence has before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// So many tokens of its prompt, or of its whole text where other passages have come before it.
    Prompt(usize),
    /// Its next token.
    Token,
}

/// A sequence of the decoder, within its domain of the prefix cache.
pub struct Sequence {
    generation: Generation,
    passes: Vec<Pass>,
    /// Held while the prompt is computed.
    claim: Option<Claim>,
}

/// What the prefix cache knows of one pass.
struct Pass {
    chain: Chain,
    kept: usize,
}

impl Sequence {
    /// A generation that shares finished blocks within `domain`.
    pub fn new(generation: Generation, domain: &CacheDomain) -> Self {
        let passes = (0..generation.passes()).map(|_| Pass { chain: Chain::new(domain.clone()), kept: 0 }).collect();
        Sequence { generation, passes, claim: None }
    }

    /// Tokens of the prompt, of the longest passages before it, and of the longest answer.
    pub fn tokens(&self) -> usize {
        let Sequence { generation, .. } = self;
        generation.prompt_tokens() + generation.most_passage_tokens() + generation.max_tokens()
    }
}

/// A checkpoint with the memory for its sequences.
pub struct Decoder {
    checkpoint: Arc<Checkpoint>,
    pool: KvPool,
    prefixes: PrefixCache,
    /// The longest sequence whose keys do not depend on its length: longer ones share no blocks.
    shareable: usize,
}

impl Decoder {
    /// The backend for a checkpoint, with at most `kv_cache_bytes` for keys and values, but never less than one sequence
    /// of the whole context needs under guidance.
    pub fn new(checkpoint: Arc<Checkpoint>, kv_cache_bytes: usize) -> Self {
        let (config, block_bytes) = (checkpoint.config(), KvPool::block_bytes(checkpoint.config()).max(1));
        let passes = 1 + usize::from(checkpoint.rated()); // guidance needs ratings
        let least = passes * config.context_length().div_ceil(BLOCK_TOKENS);
        let capacity = (kv_cache_bytes / block_bytes).max(least);
        if capacity * block_bytes > kv_cache_bytes {
            let (configured, needed) = (kv_cache_bytes >> 20, (capacity * block_bytes) >> 20);
            tracing::warn!(
                configured_mib = configured,
                needed_mib = needed,
                "the key-value cache must hold one sequence"
            );
        }
        let pool = KvPool::new(config, capacity);
        let shareable = config.fixed_positions();
        Decoder { checkpoint, pool, prefixes: PrefixCache::default(), shareable }
    }
}

impl Backend for Decoder {
    type Sequence = Sequence;

    fn start(&mut self, sequence: &mut Sequence) -> Started {
        loop {
            let Sequence { generation, passes, .. } = &mut *sequence;
            let (mut chains, mut under_way) = (passes.iter_mut(), false);
            let started = generation.start(&self.pool, |tokens| {
                if tokens.len() > self.shareable {
                    return Vec::new();
                }
                // The last token is always run: the next one is drawn from it.
                let most = (tokens.len() - 1) / BLOCK_TOKENS;
                match chains.next().map(|pass| self.prefixes.find(&mut pass.chain, tokens, most)) {
                    Some(Found::Blocks(blocks)) => blocks,
                    Some(Found::UnderWay) => {
                        under_way = true;
                        Vec::new()
                    }
                    None => Vec::new(),
                }
            });
            match started {
                // Whether there was memory or not: what it will need is much less.
                _ if under_way => {
                    generation.release();
                    return Started::Later;
                }
                Ok(cached_tokens) => {
                    self.claim(sequence);
                    return Started::Running { cached_tokens };
                }
                Err(missing) if self.prefixes.evict(missing) == 0 => return Started::NoRoom,
                Err(_) => {}
            }
        }
    }

    fn pending(&self, sequence: &Sequence) -> Pending {
        match sequence.generation.pending() {
            pending if pending > sequence.generation.passes() => Pending::Prompt(pending),
            _ => Pending::Token,
        }
    }

    fn step(&mut self, work: &mut [(&mut Sequence, usize)]) -> Stepped {
        let mut generations: Vec<Work<'_>> = work
            .iter_mut()
            .map(|(Sequence { generation, .. }, tokens)| Work {
                tokens: tokens.div_ceil(generation.passes()),
                generation,
            })
            .collect();
        let progress = safelmm_model::step_each(&self.checkpoint, &mut generations)?;
        for (sequence, _) in work {
            self.keep(sequence);
        }
        Ok(progress)
    }

    fn memory(&self) -> Memory {
        Memory { capacity: self.pool.capacity(), taken: self.pool.taken(), cached: self.prefixes.len() }
    }
}

impl Decoder {
    /// Announces the blocks that a sequence is about to compute.
    fn claim(&mut self, sequence: &mut Sequence) {
        if !sequence.generation.shares_blocks() {
            return;
        }
        let claim = sequence.claim.insert(Claim::default());
        for (pass, (tokens, done)) in sequence.passes.iter_mut().zip(sequence.generation.tokens()) {
            if tokens.len() <= self.shareable {
                self.prefixes.claim(&mut pass.chain, tokens, done / BLOCK_TOKENS, claim);
            }
        }
    }

    /// Puts the finished blocks of a sequence into the prefix cache.
    fn keep(&mut self, sequence: &mut Sequence) {
        let shareable = sequence.generation.shares_blocks()
            && sequence.generation.tokens().all(|(tokens, _)| tokens.len() <= self.shareable);
        let finished = sequence.generation.finished_blocks().filter(|_| shareable);
        for (pass, (tokens, blocks)) in sequence.passes.iter_mut().zip(finished) {
            self.prefixes.keep(&mut pass.chain, tokens, blocks, &mut pass.kept);
        }
        if self.pending(sequence) == Pending::Token {
            sequence.claim = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use safelmm_model::{ContextSource, GenerationRequest, StageError};

    use super::*;

    /// Every four tokens as many passages as there are tokens of the text, up to 64.
    struct Growing;

    impl ContextSource for Growing {
        fn stride(&self) -> usize {
            4
        }

        fn most_tokens(&self) -> usize {
            64
        }

        fn retrieve(&mut self, so_far: &[u32]) -> Result<Option<Vec<u32>>, StageError> {
            Ok(Some((0..so_far.len().min(64) as u32).map(|i| 400 + i).collect()))
        }
    }

    fn sequence(decoder: &Decoder, passages: bool) -> Sequence {
        let context = passages.then(|| Box::new(Growing) as Box<dyn ContextSource>);
        let request = GenerationRequest::new((1000..1050).collect(), 10);
        let request = GenerationRequest { context, ignore_eos: true, ..request };
        Sequence::new(Generation::new(&decoder.checkpoint, request).unwrap(), &CacheDomain::new(["a"]))
    }

    #[test]
    fn sequences_behind_passages_share_no_blocks_and_give_all_of_them_back() {
        let mut decoder = Decoder::new(Arc::new(crate::demo::open().unwrap()), 1 << 30);
        let run = |decoder: &mut Decoder, mut sequence: Sequence| {
            let (mut pending, mut tokens) = (Vec::new(), 0);
            while !sequence.generation.is_finished() {
                let now = decoder.pending(&sequence);
                let most = match now {
                    Pending::Prompt(tokens) => tokens.min(48),
                    Pending::Token => 1,
                };
                pending.push(now);
                let progress = decoder.step(&mut [(&mut sequence, most)]).unwrap().remove(0).unwrap();
                tokens += usize::from(progress.step.is_some());
            }
            assert_eq!(tokens, 10);
            pending
        };
        let mut plain = sequence(&decoder, false);
        assert_eq!(decoder.start(&mut plain), Started::Running { cached_tokens: 0 });
        let mut beside = sequence(&decoder, true);
        assert_eq!(decoder.start(&mut beside), Started::Running { cached_tokens: 0 }, "it waits for nobody");
        let pending = run(&mut decoder, plain);
        assert_eq!(pending.iter().filter(|pending| **pending != Pending::Token).count(), 2);
        let cached = decoder.memory().cached;
        assert!(cached > 0);
        let pending = run(&mut decoder, beside);
        // The prompt; with the passages, which the first step brings; and twice all of it anew.
        let prompts: Vec<_> = pending.iter().filter(|pending| **pending != Pending::Token).collect();
        assert_eq!(*prompts[0], Pending::Prompt(51));
        assert!(prompts.len() >= 6, "{pending:?}");
        let mut again = sequence(&decoder, true);
        assert_eq!(decoder.start(&mut again), Started::Running { cached_tokens: 0 }, "nothing is found");
        drop(again);
        let memory = decoder.memory();
        assert_eq!((memory.cached, memory.taken), (cached, cached), "nothing is kept");
        assert_eq!(decoder.start(&mut sequence(&decoder, false)), Started::Running { cached_tokens: 32 });
    }
}
