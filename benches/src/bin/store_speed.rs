//! What a store costs while text is written: tokens per second with a store of a million tokens, or of ten million
//! synthetic ones, beside those without, in the same rounds.
//!
//! `cargo run --release -p safelmm-benches --bin store_speed -- --corpora CORPORA --work WORK`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safelmm_benches::median;
use safelmm_benches::random_checkpoint::SMALL;
use safelmm_benches::stores::{KeysOnly, access, build, checkpoint};
use safelmm_benches::synthetic::{self, NearReal};
use safelmm_datastore::document::read_jsonl;
use safelmm_datastore::{Document, Neighbour, Scratch, Store, StoreEncoder, View};
use safelmm_model::{Checkpoint, Generation, GenerationRequest, SamplingParams, Work, step};
use safelmm_server::retrieval::{
    Mixing, ModelEncoder, NeighbourSettings, Retrieval, Task, Tuning, gated, store_settings, tune,
};

// The server's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Slowdowns that are aimed at, and that SILO reports for a store of 51M tokens.
const AIM: f64 = 1.25;
const SILO: f64 = 9.9;
/// Tokens of a prompt.
const PROMPT: usize = 64;
/// Tokens of a prompt that are run in one step.
const CHUNK: usize = 256;
/// Contexts whose keys stand behind those of synthetic stores.
const REAL_KEYS: usize = 4096;
/// One document in so many is not in the store: prompts and tuning come from these. A prime, so that it meets all corpora.
const HELD_OUT: usize = 11;
/// Characters that are taken of a document, so that whole books do not stand for all.
const DOCUMENT: usize = 20_000;

/// Measures the slowdown of generation by a store, with neighbours alone and with the gate. Generations are run in this
/// process, one at a time or several in a batch, with the same seeds in every mode; sources are recorded, as the server
/// does where nothing else is asked.
///
/// The demo's store has the keys of real texts. A random model of 110M parameters says nothing, and its keys would take an
/// hour: its store, and the one of --synthetic tokens, have real contexts' keys with noise.
#[derive(Parser)]
struct Args {
    /// The folder of corpora, .jsonl.gz
    #[arg(long)]
    corpora: PathBuf,
    /// Where stores are built, and found again by the next run
    #[arg(long)]
    work: PathBuf,
    /// Tokens of the store of real texts
    #[arg(long, default_value_t = 1_000_000)]
    tokens: usize,
    /// Tokens of a synthetic store beside it; 0 for none
    #[arg(long, default_value_t = 0)]
    synthetic: usize,
    /// Models: demo, 110m
    #[arg(long, value_delimiter = ',', default_value = "demo,110m")]
    models: Vec<String>,
    /// Tokens of an answer
    #[arg(long, default_value_t = 128)]
    answer: usize,
    /// Answers of a round
    #[arg(long, default_value_t = 4)]
    answers: usize,
    /// Answers that are written side by side
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Rounds; each has every mode, and the median of the slowdowns counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Tokens that the gate is tuned on
    #[arg(long, default_value_t = 16_384)]
    tuning_tokens: usize,
    /// Seed of answers, weights and synthetic keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let demo = checkpoint(None)?;
    let encoder = ModelEncoder::new(Arc::clone(&demo), None)?;
    let (inside, outside) = texts(&args.corpora, &demo, args.tokens)?;
    let real = build(
        &args.work.join("demo"),
        store_settings("demo", &encoder),
        inside.clone().into_iter(),
        &KeysOnly(&encoder),
    )?;
    ensure!(!outside.is_empty(), "--tokens {} leave no document for prompts and tuning: take more", args.tokens);
    let held: Vec<String> = outside.iter().map(|document| document.text.clone()).collect();
    let task =
        Task { store: &real, encoder: &encoder, access: &access(), texts: &held, most_tokens: args.tuning_tokens };
    let tuning = tune(&task, &|_, _| {}, &AtomicBool::new(false))?;
    println!("tuned: knn k {}, hybrid k {}", tuning.neighbours.k, tuning.hybrid.k);
    if let Some(found) = tuning.evaluation {
        println!(
            "perplexity of {} tokens: model {:.2}, knn {:.2}, ngram {:.2}, hybrid {:.2}, which asks neighbours for {:.0} % of \
             the tokens",
            found.tokens,
            found.model,
            found.neighbours,
            found.ngram,
            found.hybrid,
            100.0 * found.searched
        );
    }
    for model in &args.models {
        match &model[..] {
            "demo" => {
                measure("demo, 6.5M", &demo, &real, &tuning, &held, &args)?;
                if args.synthetic > 0 {
                    let store = synthetic_store(&demo, &held, &args)?;
                    measure("demo, 6.5M", &demo, &store, &tuning, &held, &args)?;
                }
            }
            "110m" => {
                let folder = args.work.join(format!("110m-seed-{}", args.seed));
                if !folder.join("config.json").is_file() {
                    SMALL.write(&folder, args.seed)?;
                }
                let random = checkpoint(Some(&folder))?;
                let keys = real_keys(&random, &held, args.seed)?;
                let near = NearReal::of_texts(&random, keys, args.seed)?;
                // A character is a token of this model.
                let mut room = args.tokens;
                let cut = inside.iter().cloned().map_while(|mut document| {
                    document.text = document.text.chars().filter(char::is_ascii).take(room).collect();
                    room -= document.text.len();
                    (!document.text.trim().is_empty()).then_some(document)
                });
                let settings = store_settings("random", &ModelEncoder::new(Arc::clone(&random), None)?);
                let store = build(&args.work.join("110m-store"), settings, cut, &near)?;
                measure("random, 110M", &random, &store, &tuning, &held, &args)?;
            }
            other => anyhow::bail!("--models {other}: expected demo or 110m"),
        }
    }
    Ok(())
}

/// Documents of all corpora in an order that mixes them, up to some tokens; and those that are held out.
fn texts(corpora: &Path, model: &Checkpoint, tokens: usize) -> Result<(Vec<Document>, Vec<Document>)> {
    let entries = std::fs::read_dir(corpora).with_context(|| format!("{} cannot be read", corpora.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".jsonl.gz"));
    files.sort();
    ensure!(!files.is_empty(), "{} has no .jsonl.gz", corpora.display());
    let (mut inside, mut outside, mut found) = (Vec::new(), Vec::new(), 0);
    let mut sources = files.iter().map(|file| Ok(read_jsonl(file)?)).collect::<Result<Vec<_>>>()?;
    let mut number = 0;
    while found < tokens {
        let before = number;
        for (source, file) in sources.iter_mut().zip(&files) {
            let Some(document) = source.next() else { continue };
            let mut document = document?;
            number += 1;
            if document.text.trim().is_empty() {
                continue;
            }
            document.text = document.text.chars().take(DOCUMENT).collect();
            // Ids are unique within a collection.
            document.id = format!("{}/{}", file.file_stem().unwrap_or_default().to_string_lossy(), document.id);
            if number % HELD_OUT == 0 {
                outside.push(document);
            } else if document.retrieve() && found < tokens {
                found += model.tokenizer.encode(&document.text, false)?.len();
                inside.push(document);
            }
        }
        ensure!(number > before, "the corpora have {found} tokens, --tokens asks for {tokens}");
    }
    Ok((inside, outside))
}

/// Keys of contexts of held-out text.
fn real_keys(model: &Arc<Checkpoint>, held: &[String], seed: u64) -> Result<Vec<f32>> {
    let mut keys = Vec::new();
    let encoder = ModelEncoder::new(Arc::clone(model), None)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dim = encoder.dim();
    for text in held {
        let mut tokens = model.tokenizer.encode(text, false)?;
        let at = random.next_u64() as usize % tokens.len().max(1);
        tokens = tokens.split_off(at);
        tokens.truncate(model.context_length().min(256));
        keys.extend(encoder.keys(&[&tokens])?);
        if keys.len() >= REAL_KEYS * dim {
            break;
        }
    }
    Ok(keys)
}

fn synthetic_store(demo: &Arc<Checkpoint>, held: &[String], args: &Args) -> Result<Store> {
    let near = NearReal::of_letters(demo, real_keys(demo, held, args.seed)?, args.seed)?;
    let settings = store_settings("synthetic", &ModelEncoder::new(Arc::clone(demo), None)?);
    let folder = args.work.join(format!("synthetic-{}", args.synthetic));
    build(&folder, settings, synthetic::documents(args.synthetic, args.seed), &near)
}

fn measure(
    name: &str,
    model: &Arc<Checkpoint>,
    store: &Store,
    tuning: &Tuning,
    held: &[String],
    args: &Args,
) -> Result<()> {
    let prompts = prompts(model, held, args.answers)?;
    let view = store.view(&access(), &[]);
    let info = store.info();
    println!("\n{name}, store of {} tokens in {} segments, {} at a time", info.tokens, info.segments, args.batch);
    let retrieval = |mixing: Mixing| {
        let (k, temperature) = match mixing {
            Mixing::Gated(_) => (tuning.hybrid.k, tuning.hybrid.temperature),
            _ => (tuning.neighbours.k, tuning.neighbours.temperature),
        };
        let mixing = Some((mixing, NeighbourSettings { k, temperature }));
        Retrieval { view: view.clone(), mixing, passages: None, recorded: true }
    };
    let modes = [
        ("none", None),
        ("hybrid", Some(retrieval(gated(&tuning.hybrid.gate)))),
        ("hybrid, untuned", Some(retrieval(gated(&Tuning::default().hybrid.gate)))),
        ("ngram", Some(retrieval(Mixing::Ngram(tuning.ngram)))),
        ("knn", Some(retrieval(Mixing::Neighbours { lambda: tuning.neighbours.lambda }))),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); modes.len()];
    for round in 0..=args.rounds {
        for ((_, retrieval), times) in modes.iter().zip(&mut times) {
            let seconds = generate(model, &prompts, retrieval.as_ref(), args)?;
            // The first round warms caches.
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    let tokens = (args.answer * prompts.len()) as f64;
    println!("{:<16} {:>10} {:>12} {:>10}", "mode", "tokens/s", "ms a token", "slowdown");
    for ((mode, _), own) in modes.iter().zip(&times) {
        let slowdown = median(own.iter().zip(&times[0]).map(|(own, none)| own / none).collect());
        let seconds = median(own.clone());
        let verdict = match *mode {
            "none" => String::new(),
            _ => format!(" (aim {AIM}, ratio to it {:.2}; SILO {SILO})", slowdown / AIM),
        };
        println!("{mode:<16} {:>10.1} {:>12.3} {slowdown:>10.2}{verdict}", tokens / seconds, 1e3 * seconds / tokens);
    }
    profile(model, &view, held, tuning, args)
}

fn prompts(model: &Checkpoint, held: &[String], count: usize) -> Result<Vec<Vec<u32>>> {
    let mut prompts = Vec::new();
    for text in held {
        let text: String = text.chars().take(PROMPT * 16).collect();
        let mut tokens = model.tokenizer.encode(&text, true)?;
        tokens.truncate(PROMPT);
        if tokens.len() == PROMPT {
            prompts.push(tokens);
        }
        if prompts.len() == count {
            break;
        }
    }
    ensure!(!prompts.is_empty(), "no held-out text has {PROMPT} tokens: take more --tokens");
    Ok(prompts)
}

/// Seconds that the answers take, prompts not counted.
fn generate(model: &Arc<Checkpoint>, prompts: &[Vec<u32>], retrieval: Option<&Retrieval>, args: &Args) -> Result<f64> {
    let mut seconds = 0.0;
    for (number, batch) in prompts.chunks(args.batch.max(1)).enumerate() {
        let mut running = Vec::new();
        let mut recorders = Vec::new();
        for (i, prompt) in batch.iter().enumerate() {
            let added = retrieval.map(|retrieval| retrieval.add(model, 0, None)).unwrap_or_default();
            recorders.push(added.recorder);
            let seed = args.seed + (number * args.batch + i) as u64;
            let request = GenerationRequest {
                sampling: SamplingParams { temperature: 1.0, seed: Some(seed), ..SamplingParams::default() },
                ignore_eos: true,
                distribution: added.distribution,
                ..GenerationRequest::new(prompt.clone(), args.answer + 1)
            };
            running.push(Generation::new(model, request)?);
        }
        // The prompt and the first token.
        let mut advance = |tokens| -> Result<bool> {
            let mut work: Vec<Work<'_>> = running
                .iter_mut()
                .filter(|generation| !generation.is_finished())
                .map(|generation| Work { generation, tokens })
                .collect();
            Ok(!work.is_empty() && step(model, &mut work).map(|_| true)?)
        };
        advance(CHUNK)?;
        let started = Instant::now();
        while advance(CHUNK)? {}
        seconds += started.elapsed().as_secs_f64();
    }
    Ok(seconds)
}

/// Where the time goes: one search for neighbours and one look at the suffixes.
fn profile(model: &Arc<Checkpoint>, view: &View, held: &[String], tuning: &Tuning, args: &Args) -> Result<()> {
    let encoder = ModelEncoder::new(Arc::clone(model), None)?;
    let text: Vec<String> = held.iter().rev().take(8).map(|text| text.chars().take(1000).collect()).collect();
    let mut tokens = model.tokenizer.encode(&text.concat(), false)?;
    tokens.truncate(args.answer.min(model.context_length()));
    let keys = encoder.keys(&[&tokens])?;
    let (mut scratch, mut near) = (Scratch::default(), Vec::<Neighbour>::new());
    for k in [tuning.hybrid.k, 16, 64, 256, 1024] {
        let mut times = Vec::new();
        for key in keys.chunks(encoder.dim()) {
            let started = Instant::now();
            view.neighbours(key, k, None, &mut scratch, &mut near);
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        println!("  search, k {k}: {:.0} µs", median(times));
    }
    let mut cursor = view.cursor(64);
    let mut times = Vec::new();
    for token in &tokens {
        let started = Instant::now();
        cursor.push(*token);
        cursor.continuations(None);
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    println!("  suffixes: {:.1} µs", median(times));
    Ok(())
}
