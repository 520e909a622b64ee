//! An answer is the same bit for bit alone and in any company, with a cold and a warm prefix cache, whatever the sizes of
//! the engine: random mixes of random requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use safelmm_model::{
    Checkpoint, Generation, GenerationRequest, Grammar, Grammars, Rating, SamplingParams, StopStrings,
};
use safelmm_server::engine::{CacheDomain, Decoder, Engine, EngineConfig, Event, Sequence};
use safelmm_server::{demo, metrics::Metrics};
use serde_json::{Value, json};

use crate::support::PATIENCE;

/// What can be asked, in numbers that make it again.
#[derive(Clone, Debug)]
struct Ask {
    prompt: Vec<u32>,
    rating: Option<Rating>,
    guidance: f32,
    sampling: SamplingParams,
    /// Which of the [`forms`] the answer has.
    form: Option<usize>,
    max_tokens: usize,
    top_logprobs: usize,
    score_prompt: bool,
    embed: bool,
    domain: &'static str,
}

/// A token and the bits of its log-probability.
type Scored = (u32, u32);

/// Everything that came back: tokens, the bits of every float, and the text.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    scored: Vec<Scored>,
    /// Each with its rivals.
    drawn: Vec<(Scored, Vec<Scored>)>,
    embedding: Vec<u32>,
    text: String,
}

/// Forms that an answer may be asked to have.
fn forms(checkpoint: &Checkpoint) -> Vec<Grammar> {
    let grammars = Grammars::new(&checkpoint.tokenizer, checkpoint.config().vocab_size).unwrap();
    let schema = json!({"type": "object", "required": ["name", "age"], "additionalProperties": false, "properties":
                        {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"enum": ["a", "b"]}}});
    vec![grammars.json_object().unwrap(), grammars.json_schema(&schema).unwrap()]
}

fn sampling(random: &mut StdRng, prompt: &[u32], vocab: u32) -> SamplingParams {
    let temperature = [0.0, 0.7, 1.0][random.random_range(0..3)];
    let mut sampling = SamplingParams { seed: Some(random.random()), temperature, ..SamplingParams::default() };
    if random.random_bool(0.4) {
        sampling.repetition_penalty = [0.8, 1.3][random.random_range(0..2)];
        sampling.presence_penalty = random.random_range(-2.0..2.0);
        sampling.frequency_penalty = random.random_range(-2.0..2.0);
    }
    if random.random_bool(0.3) {
        sampling.logit_bias = vec![(prompt[0], 4.0), (random.random_range(300..vocab), -100.0)];
    }
    if random.random_bool(0.3) {
        (sampling.top_k, sampling.top_p, sampling.min_p) = (Some(50), 0.9, 0.01);
    }
    sampling
}

/// Requests that begin alike more often than not.
fn asks(random: &mut StdRng, vocab: u32, number: usize) -> Vec<Ask> {
    let stems: Vec<Vec<u32>> = (0..3).map(|_| (0..200).map(|_| random.random_range(300..vocab)).collect()).collect();
    (0..number)
        .map(|_| {
            let stem = &stems[random.random_range(0..stems.len())];
            let mut prompt = stem[..random.random_range(0..=stem.len())].to_vec();
            prompt.extend((0..random.random_range(1..40)).map(|_| random.random_range(300..vocab)));
            let rating = [Some(Rating::G), Some(Rating::R), None][random.random_range(0..3)];
            let score_prompt = random.random_bool(0.2);
            let guided = rating.is_some() && !score_prompt && random.random_bool(0.3);
            let embed = random.random_bool(0.1);
            Ask {
                sampling: sampling(random, &prompt, vocab),
                form: random.random_bool(0.3).then(|| random.random_range(0..2)).filter(|_| !embed && !score_prompt),
                prompt,
                rating,
                guidance: if guided { 2.0 } else { 1.0 },
                max_tokens: random.random_range(if score_prompt { 0 } else { 1 }..30),
                top_logprobs: [0, 3][random.random_range(0..2)],
                score_prompt,
                embed,
                domain: ["a", "b"][random.random_range(0..2)],
            }
        })
        .collect()
}

fn sequence(checkpoint: &Checkpoint, forms: &[Grammar], ask: &Ask) -> Sequence {
    let generation = if ask.embed {
        Generation::embedding(checkpoint, ask.prompt.clone())
    } else {
        let request = GenerationRequest {
            rating: ask.rating,
            guidance: ask.guidance,
            sampling: ask.sampling.clone(),
            stop: StopStrings::new(vec!["ever after".into()]).unwrap(),
            top_logprobs: ask.top_logprobs,
            score_prompt: ask.score_prompt,
            stages: ask.form.iter().map(|form| forms[*form].stage()).collect(),
            ..GenerationRequest::new(ask.prompt.clone(), ask.max_tokens)
        };
        Generation::new(checkpoint, request)
    };
    Sequence::new(generation.unwrap(), &CacheDomain::new([ask.domain]))
}

async fn answer(engine: &Engine<Sequence>, checkpoint: &Checkpoint, forms: &[Grammar], ask: &Ask) -> (Answer, usize) {
    let mut ticket = engine.submit(vec![sequence(checkpoint, forms, ask)], 1).unwrap();
    let (mut answer, mut cached) = (Answer::default(), 0);
    loop {
        let event = tokio::time::timeout(PATIENCE, ticket.next()).await.expect("no event").unwrap();
        let progress = match event {
            Event::Started { cached_tokens, .. } => {
                cached = cached_tokens;
                continue;
            }
            Event::Progress { progress, .. } => progress,
        };
        answer.scored.extend(progress.scored.iter().map(|t| (t.token, t.logprob.to_bits())));
        answer.embedding.extend(progress.embedding.iter().flatten().map(|x| x.to_bits()));
        if let Some(step) = progress.step {
            let top = step.token.top.iter().map(|(token, logprob)| (*token, logprob.to_bits())).collect();
            answer.drawn.push(((step.token.token, step.token.logprob.to_bits()), top));
            answer.text.push_str(&step.text);
        }
        if progress.finish.is_some() {
            return (answer, cached);
        }
    }
}

fn engine(checkpoint: &Arc<Checkpoint>, max_batch: usize, prefill_chunk: usize, kv_cache: usize) -> Engine<Sequence> {
    let config =
        EngineConfig { queue: 1000, queue_tokens: 1 << 30, max_batch, prefill_chunk, request_timeout: PATIENCE * 10 };
    Engine::start(Decoder::new(Arc::clone(checkpoint), kv_cache), config, Metrics::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_the_same_bits_in_any_mix() {
    same_bits_in_any_mix(Arc::new(demo::open().unwrap()), 20, 24).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_the_same_bits_in_any_mix_where_attention_has_a_window() {
    let folder = tempfile::tempdir().unwrap();
    windowed_checkpoint(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let windows = &checkpoint.config().windows;
    assert!(windows.contains(&Some(48)) && windows.contains(&None), "{windows:?}");
    same_bits_in_any_mix(Arc::new(checkpoint), 21, 12).await;
}

/// The demo, of which the upper layers see 48 tokens and no more.
fn windowed_checkpoint(into: &Path) {
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), into.join(file.file_name())).unwrap();
    }
    let path = into.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["use_sliding_window"] = json!(true);
    config["sliding_window"] = json!(48);
    config["max_window_layers"] = json!(2);
    fs::write(path, config.to_string()).unwrap();
}

async fn same_bits_in_any_mix(checkpoint: Arc<Checkpoint>, seed: u64, number: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let asks = asks(&mut random, checkpoint.config().vocab_size as u32, number);
    let has = |what: fn(&Ask) -> bool| asks.iter().any(what);
    assert!(has(|ask| ask.form.is_some()) && has(|ask| ask.sampling.repetition_penalty != 1.0), "{asks:?}");
    let forms = forms(&checkpoint);
    // Alone, each in an engine that has seen nothing, the prompt in one piece.
    let mut alone = Vec::new();
    for ask in &asks {
        let (answer, cached) = answer(&engine(&checkpoint, 1, 4096, 1 << 30), &checkpoint, &forms, ask).await;
        assert_eq!(cached, 0);
        assert!(ask.embed || answer.drawn.len() + answer.scored.len() > 0);
        alone.push(answer);
    }
    let mut found: BTreeMap<usize, usize> = BTreeMap::new();
    // The smallest cache has room for one guided sequence of the whole context: blocks are thrown out all the time.
    for (max_batch, prefill_chunk, kv_cache) in [(1, 64, 1 << 30), (2, 7, 0), (16, 32, 1 << 30), (16, 1, 8 << 20)] {
        let engine = engine(&checkpoint, max_batch, prefill_chunk, kv_cache);
        for _ in 0..2 {
            let mut order: Vec<usize> = (0..asks.len()).collect();
            order.shuffle(&mut random);
            let answers = join_all(order.iter().map(|i| answer(&engine, &checkpoint, &forms, &asks[*i]))).await;
            for (i, (answer, cached)) in order.into_iter().zip(answers) {
                assert!(answer == alone[i], "batch {max_batch}, chunk {prefill_chunk}: {:?}", asks[i]);
                *found.entry(max_batch).or_default() += cached;
            }
        }
    }
    assert!(found.values().all(|tokens| *tokens > 500), "the prefix cache was hardly used: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn domains_share_nothing_and_memory_comes_back() {
    let checkpoint = Arc::new(demo::open().unwrap());
    let engine = engine(&checkpoint, 4, 64, 1 << 30);
    let ask = |domain| Ask {
        prompt: (1000..1200).collect(),
        rating: None,
        guidance: 1.0,
        sampling: SamplingParams { seed: Some(1), temperature: 0.0, ..SamplingParams::default() },
        form: None,
        max_tokens: 3,
        top_logprobs: 0,
        score_prompt: false,
        embed: false,
        domain,
    };
    let cached = async |domain| answer(&engine, &checkpoint, &[], &ask(domain)).await.1;
    assert_eq!(cached("a").await, 0);
    assert_eq!(cached("b").await, 0, "what one caller computed must not be found by another");
    assert_eq!(cached("a").await, 192, "six full blocks of 32 tokens");
    // Two at once: the second waits for the first one's blocks and does not compute them again.
    let both = tokio::join!(cached("c"), cached("c"));
    assert_eq!((both.0.min(both.1), both.0.max(both.1)), (0, 192));
}
