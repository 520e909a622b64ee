//! What retrieval does to generations: stages that look at keys and scores, and passages that change on the way. Alone and
//! in company, in any pieces, the bits are the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use safelmm_model::{
    Checkpoint, ContextSource, GenerateError, Generation, GenerationRequest, History, KvCache, KvPool, LogitsStage,
    Progress, Rating, SamplingParams, Segment, StageError, Work, step, step_each,
};

fn demo() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint")).unwrap()
}

fn tokens(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32).map(|i| 300 + (i * 7919 + seed * 104_729 + i * i % 13) % 7000).collect()
}

fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
}

/// What a stage was told: the length of the text, the bits of the key, the token and the bits of its score.
type Seen = Arc<Mutex<Vec<(usize, u64, u32, u32)>>>;

/// Depends on all it can see.
struct Neighbours {
    seen: Seen,
    now: (usize, u64),
    state: u64,
    fails_at: usize,
}

impl Neighbours {
    fn stage(seen: &Seen, fails_at: usize) -> Box<dyn LogitsStage> {
        Box::new(Neighbours { seen: Arc::clone(seen), now: (0, 0), state: 7, fails_at })
    }
}

impl LogitsStage for Neighbours {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        let length = history.prompt.len() + history.generated.len();
        if length == self.fails_at {
            return Err(StageError::Failed("as the test says".into()));
        }
        let key = history.key.ok_or_else(|| StageError::Failed("no key".into()))?;
        let key = key.iter().fold(1, |hash, x| mix(hash, u64::from(x.to_bits())));
        let text = history.prompt.iter().chain(history.generated).fold(key, |hash, t| mix(hash, u64::from(*t)));
        self.now = (length, key);
        let chosen = mix(text, self.state) as usize % logits.len();
        logits[chosen] += 4.0;
        Ok(())
    }

    fn wants_key(&self) -> bool {
        true
    }

    fn drawn(&mut self, token: u32, logprob: f32) {
        self.state = mix(self.state, u64::from(token) << 32 | u64::from(logprob.to_bits()));
        self.seen.lock().unwrap().push((self.now.0, self.now.1, token, logprob.to_bits()));
    }
}

/// Passages that depend on the text so far; now and then there is nothing new.
#[derive(Clone)]
struct Library {
    stride: usize,
    most: usize,
    asked: Arc<Mutex<Vec<usize>>>,
    stale: Arc<AtomicBool>,
}

impl Library {
    fn new(stride: usize, most: usize) -> Self {
        Library { stride, most, asked: Arc::default(), stale: Arc::default() }
    }

    fn passages(&self, so_far: &[u32]) -> Option<Vec<u32>> {
        let hash = so_far.iter().rev().take(5).fold(3, |hash, token| mix(hash, u64::from(*token)));
        let length = hash as usize % (self.most + 1);
        (hash >> 40 & 3 != 0).then(|| tokens(length, hash as u32 % 97))
    }
}

impl ContextSource for Library {
    fn stride(&self) -> usize {
        self.stride
    }

    fn most_tokens(&self) -> usize {
        self.most
    }

    fn retrieve(&mut self, so_far: &[u32]) -> Result<Option<Vec<u32>>, StageError> {
        self.asked.lock().unwrap().push(so_far.len());
        if self.stale.load(Ordering::Relaxed) { Ok(None) } else { Ok(self.passages(so_far)) }
    }

    fn stale(&mut self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy)]
struct Ask {
    prompt: usize,
    rating: Option<Rating>,
    guidance: f32,
    scored: bool,
    stage: bool,
    /// Stride and most tokens.
    passages: Option<(usize, usize)>,
    max_tokens: usize,
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    scored: Vec<(u32, u32)>,
    drawn: Vec<(u32, u32)>,
    text: String,
    seen: Vec<(usize, u64, u32, u32)>,
    asked: Vec<usize>,
}

impl Outcome {
    fn take(&mut self, progress: Progress) {
        self.scored.extend(progress.scored.iter().map(|t| (t.token, t.logprob.to_bits())));
        if let Some(step) = progress.step {
            self.drawn.push((step.token.token, step.token.logprob.to_bits()));
            self.text.push_str(&step.text);
        }
    }
}

const NONE: Ask =
    Ask { prompt: 90, rating: None, guidance: 1.0, scored: false, stage: false, passages: None, max_tokens: 12 };

fn asks() -> Vec<Ask> {
    let (stage, scored, rating) = (true, true, Some(Rating::PG));
    vec![
        NONE,
        Ask { stage, ..NONE },
        Ask { stage, scored, ..NONE },
        Ask { stage, scored, passages: Some((16, 60)), ..NONE },
        Ask { scored, passages: Some((5, 40)), max_tokens: 0, prompt: 31, ..NONE },
        Ask { stage, passages: Some((4, 70)), rating, ..NONE },
        Ask { stage, passages: Some((3, 33)), rating, guidance: 2.0, ..NONE },
        Ask { stage, rating, guidance: 1.5, prompt: 3, ..NONE },
        Ask { stage, scored, passages: Some((1, 8)), prompt: 9, ..NONE },
    ]
}

fn generation(checkpoint: &Checkpoint, ask: &Ask, seen: &Seen, library: &Option<Library>) -> Generation {
    let request = GenerationRequest {
        rating: ask.rating,
        guidance: ask.guidance,
        sampling: SamplingParams { seed: Some(5), ..SamplingParams::default() },
        ignore_eos: true,
        score_prompt: ask.scored,
        distribution: if ask.stage { vec![Neighbours::stage(seen, 0)] } else { Vec::new() },
        context: library.clone().map(|library| Box::new(library) as Box<dyn ContextSource>),
        ..GenerationRequest::new(tokens(ask.prompt, 1), ask.max_tokens)
    };
    Generation::new(checkpoint, request).unwrap()
}

/// All of them as one batch that runs pieces of at most so many tokens.
fn run(checkpoint: &Checkpoint, asks: &[Ask], piece: usize) -> Vec<Outcome> {
    let libraries: Vec<_> = asks.iter().map(|ask| ask.passages.map(|(s, most)| Library::new(s, most))).collect();
    let seen: Vec<Seen> = asks.iter().map(|_| Seen::default()).collect();
    let mut all: Vec<Generation> = asks
        .iter()
        .zip(&seen)
        .zip(&libraries)
        .map(|((ask, seen), library)| generation(checkpoint, ask, seen, library))
        .collect();
    let mut outcomes: Vec<Outcome> = asks.iter().map(|_| Outcome::default()).collect();
    // Memory for the longest courses and not a block more.
    let blocks = |ask: &Ask| {
        let tokens = 1 + ask.prompt + ask.passages.map_or(0, |(_, most)| most) + ask.max_tokens.saturating_sub(1);
        tokens.div_ceil(safelmm_model::BLOCK_TOKENS) * if ask.guidance > 1.0 { 2 } else { 1 }
    };
    let pool = KvPool::new(checkpoint.config(), asks.iter().map(blocks).sum());
    all.iter_mut().for_each(|generation| assert_eq!(generation.start(&pool, |_| Vec::new()), Ok(0)));
    while all.iter().any(|generation| !generation.is_finished()) {
        let mut running: Vec<(usize, &mut Generation)> =
            all.iter_mut().enumerate().filter(|(_, generation)| !generation.is_finished()).collect();
        let mut work: Vec<Work<'_>> =
            running.iter_mut().map(|(_, generation)| Work { generation, tokens: piece }).collect();
        let progress = step(checkpoint, &mut work).unwrap();
        for ((i, _), progress) in running.iter().zip(progress) {
            outcomes[*i].take(progress);
        }
    }
    drop(all);
    assert_eq!(pool.taken(), 0);
    for (outcome, (seen, library)) in outcomes.iter_mut().zip(seen.iter().zip(libraries)) {
        outcome.seen = std::mem::take(&mut seen.lock().unwrap());
        outcome.asked = library.map_or_else(Vec::new, |library| library.asked.lock().unwrap().clone());
    }
    outcomes
}

#[test]
fn the_bits_are_the_same_in_any_company_and_in_any_pieces() {
    let checkpoint = demo();
    let asks = asks();
    let alone: Vec<Outcome> = asks.iter().map(|ask| run(&checkpoint, &[*ask], 4096).remove(0)).collect();
    for (ask, outcome) in asks.iter().zip(&alone) {
        let scored = if ask.scored { ask.prompt } else { 0 };
        assert_eq!((outcome.scored.len(), outcome.drawn.len()), (scored, ask.max_tokens));
        assert_eq!(outcome.seen.len(), if ask.stage { scored + ask.max_tokens } else { 0 });
        // In order, each place once, and told the score that was reported.
        let first = 1 + ask.prompt - scored;
        assert!(outcome.seen.iter().enumerate().all(|(i, seen)| seen.0 == first + i));
        let reported: Vec<_> = outcome.scored.iter().chain(&outcome.drawn).copied().collect();
        assert!(outcome.seen.iter().zip(&reported).all(|(seen, reported)| (seen.2, seen.3) == *reported));
    }
    for piece in [1, 7, 64] {
        for (ask, outcome) in asks.iter().zip(&alone) {
            assert_eq!(run(&checkpoint, &[*ask], piece).remove(0), *outcome, "alone in pieces of {piece}");
        }
    }
    for (batch, piece) in [(2, 5), (2, 64), (16, 1), (16, 33)] {
        for first in (0..asks.len()).step_by(batch.clamp(2, 8)) {
            let members: Vec<usize> = (0..batch).map(|i| (first + i) % asks.len()).collect();
            let company: Vec<Ask> = members.iter().map(|m| asks[*m]).collect();
            for (member, outcome) in members.iter().zip(run(&checkpoint, &company, piece)) {
                assert_eq!(outcome, alone[*member], "sequence {member} in a batch of {batch}, pieces of {piece}");
            }
        }
    }
}

/// The logits behind a sequence that is run alone and from its start, and the key of its last row.
fn fresh(checkpoint: &Checkpoint, tokens: &[u32]) -> (Vec<f32>, Vec<f32>) {
    let decoder = &checkpoint.decoder;
    let mut cache = KvCache::unpooled(checkpoint.config(), tokens.len());
    let segment = Segment { tokens, cache: &mut cache, total: tokens.len() };
    let hidden = decoder.forward_cached(&mut [segment]).unwrap();
    let last = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
    let keys: Vec<Vec<f32>> = decoder.keys(&[tokens]).unwrap().to_vec2().unwrap();
    (decoder.logits(&last).unwrap().to_vec2().unwrap().remove(0), keys.into_iter().next_back().unwrap())
}

fn logprob(logits: &[f32], token: u32) -> f64 {
    let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    f64::from(logits[token as usize]) - sum.ln()
}

/// Every token against a sequence made anew of the start, the passages that belong there, and the text.
#[test]
fn tokens_are_scored_and_drawn_behind_the_passages_of_their_window() {
    let checkpoint = demo();
    let start = checkpoint.neutral_start().unwrap();
    for (stride, scored, prompt) in [(4, true, 22), (7, false, 40), (1, true, 6), (50, true, 20)] {
        let ask = Ask { scored, prompt, passages: Some((stride, 40)), max_tokens: 15, ..NONE };
        let outcome = run(&checkpoint, &[ask], 9).remove(0);
        let library = Library::new(stride, 40);
        let mut text = tokens(prompt, 1);
        text.extend(outcome.drawn.iter().map(|drawn| drawn.0));
        let first = if scored { 0 } else { prompt };
        let (mut passages, mut asked, mut until) = (Vec::new(), Vec::new(), first);
        let reported = outcome.scored.iter().chain(&outcome.drawn);
        for (place, (token, bits)) in (first..text.len()).zip(reported) {
            if place == until || place == prompt {
                asked.push(place);
                passages = library.passages(&text[..place]).unwrap_or(passages);
                until = place + stride;
            }
            let (logits, _) = fresh(&checkpoint, &[&[start], &passages[..], &text[..place]].concat());
            let want = logprob(&logits, text[place]);
            assert_eq!(*token, text[place]);
            assert!((f64::from(f32::from_bits(*bits)) - want).abs() < 1e-4, "place {place}, stride {stride}");
        }
        assert_eq!(outcome.asked, asked, "stride {stride}");
        assert!(asked.len() > 1);
    }
}

/// What ingest computes for a text is what a generation sees there.
#[test]
fn the_keys_of_ingest_are_those_of_running_sequences() {
    let checkpoint = demo();
    let ask = Ask { stage: true, scored: true, ..NONE };
    let outcome = run(&checkpoint, &[ask], 17).remove(0);
    let mut text = vec![checkpoint.neutral_start().unwrap()];
    text.extend(tokens(ask.prompt, 1));
    text.extend(outcome.drawn.iter().map(|drawn| drawn.0));
    let keys: Vec<Vec<f32>> = checkpoint.decoder.keys(&[&[5, 6], &text]).unwrap().to_vec2().unwrap();
    for (length, seen, ..) in &outcome.seen {
        let key = keys[2 + length - 1].iter().fold(1, |hash, x| mix(hash, u64::from(x.to_bits())));
        assert_eq!(key, *seen, "behind {length} tokens");
    }
}

#[test]
fn what_fails_in_retrieval_ends_its_sequence_alone() {
    struct Broken(Vec<u32>);
    impl ContextSource for Broken {
        fn stride(&self) -> usize {
            2
        }
        fn most_tokens(&self) -> usize {
            4
        }
        fn retrieve(&mut self, so_far: &[u32]) -> Result<Option<Vec<u32>>, StageError> {
            Ok((so_far.len() > 10).then(|| self.0.clone()))
        }
    }
    let checkpoint = demo();
    for (passages, words) in [(vec![1; 5], "at most 4"), (vec![99_999], "token 99999")] {
        let make = |context: Option<Box<dyn ContextSource>>, fails_at| {
            let distribution = vec![Neighbours::stage(&Seen::default(), fails_at)];
            let request = GenerationRequest { context, distribution, ..GenerationRequest::new(tokens(10, 1), 6) };
            Generation::new(&checkpoint, GenerationRequest { ignore_eos: true, ..request }).unwrap()
        };
        let mut all = [make(Some(Box::new(Broken(passages))), 0), make(None, 13), make(None, 0)];
        let (mut errors, mut drawn) = ([const { None }; 3], [0; 3]);
        for _ in 0..6 {
            let mut running: Vec<_> = all.iter_mut().enumerate().filter(|(i, _)| errors[*i].is_none()).collect();
            let mut work: Vec<_> = running.iter_mut().map(|(_, generation)| Work { generation, tokens: 64 }).collect();
            let results = step_each(&checkpoint, &mut work).unwrap();
            let indices: Vec<usize> = running.iter().map(|(i, _)| *i).collect();
            for (i, result) in indices.into_iter().zip(results) {
                match result {
                    Ok(progress) => drawn[i] += usize::from(progress.step.is_some()),
                    Err(error) => errors[i] = Some(error.to_string()),
                }
            }
        }
        assert_eq!(drawn, [2, 2, 6], "what was drawn before is delivered");
        assert!(errors[0].as_ref().unwrap().contains(words), "{errors:?}");
        assert!(errors[1].as_ref().unwrap().contains("as the test says") && errors[2].is_none(), "{errors:?}");
    }
}

#[test]
fn stale_passages_are_gone_at_the_next_step() {
    let checkpoint = demo();
    let library = Library::new(1000, 40);
    let ask = Ask { prompt: 41, passages: Some((1000, 40)), ..NONE };
    let mut generation = generation(&checkpoint, &ask, &Seen::default(), &Some(library.clone()));
    let mut outcome = Outcome::default();
    let mut lengths = Vec::new();
    while !generation.is_finished() {
        if outcome.drawn.len() == 5 {
            library.stale.store(true, Ordering::Relaxed);
        }
        let work = Work { generation: &mut generation, tokens: 4096 };
        outcome.take(step(&checkpoint, &mut [work]).unwrap().remove(0));
        lengths.push(generation.tokens().next().unwrap().0.len());
    }
    let passages = library.passages(&tokens(41, 1)).expect("the test wants passages at the start").len();
    assert!(passages > 0);
    assert_eq!(lengths[4], 1 + passages + 41 + 5);
    assert_eq!(lengths[5..], (6..=12).map(|drawn| 1 + 41 + drawn).collect::<Vec<_>>());
    let mut text = vec![checkpoint.neutral_start().unwrap()];
    text.extend(tokens(41, 1));
    text.extend(outcome.drawn.iter().take(7).map(|drawn| drawn.0));
    let (token, bits) = outcome.drawn[7];
    let want = logprob(&fresh(&checkpoint, &text).0, token);
    assert!((f64::from(f32::from_bits(bits)) - want).abs() < 1e-4);
}

#[test]
fn passages_count_in_the_context() {
    let checkpoint = demo();
    let room = checkpoint.context_length();
    let make = |prompt, max_tokens, most| {
        let context: Option<Box<dyn ContextSource>> = Some(Box::new(Library::new(8, most)));
        let request = GenerationRequest { context, ..GenerationRequest::new(tokens(prompt, 1), max_tokens) };
        Generation::new(&checkpoint, request)
    };
    let fits = make(100, room - 201, 100).unwrap();
    assert_eq!((fits.prompt_tokens(), fits.most_passage_tokens(), fits.shares_blocks()), (101, 100, false));
    let error = make(100, room - 200, 100).err().unwrap();
    assert!(matches!(error, GenerateError::ContextOverflow { passages: 100, .. }));
    let message = error.to_string();
    assert!(message.contains(&format!("requested {} tokens", room + 1)), "{message}");
    assert!(message.contains("100 for retrieved passages"), "{message}");
    assert!(make(100, 1, usize::MAX).is_err());
}
