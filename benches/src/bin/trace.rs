//! The suffix array of a store: how long the verbatim matches of an answer take to find, and n-gram lookups per second.
//!
//! `cargo run --release -p safelmm-benches --bin trace`

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safelmm_benches::{median, percentile};
use safelmm_datastore::suffix::{SuffixCursor, SuffixIndex};

/// What an answer's trace may take, in milliseconds.
const AIM: f64 = 50.0;
/// Tokens of a document, on average.
const DOCUMENT: usize = 1000;

/// Measures the suffix array on a synthetic store: tokens drawn by Zipf's law, a third of the text copied from what came
/// before. Answers are half copied from the store, in pieces, and half drawn anew.
#[derive(Parser)]
struct Args {
    /// Tokens of the store
    #[arg(long, default_value_t = 10_000_000)]
    tokens: usize,
    /// Tokens of the vocabulary
    #[arg(long, default_value_t = 50_000)]
    vocab: usize,
    /// Tokens of an answer; OLMoTrace reports 4.46 s for 458 against 4.6T tokens on a cluster's disks
    #[arg(long, default_value_t = 458)]
    answer: usize,
    /// Answers to trace
    #[arg(long, default_value_t = 200)]
    answers: usize,
    /// Least tokens of a match
    #[arg(long, default_value_t = 8)]
    min_len: usize,
    /// One document in this many is removed, so that every occurrence is checked
    #[arg(long, default_value_t = 100)]
    removed: u32,
    /// Seed of store and answers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let zipf = Zipf::new(args.vocab);
    let (tokens, starts) = store(&args, &zipf, &mut random);
    let folder = tempfile::tempdir()?;
    let started = Instant::now();
    SuffixIndex::build(folder.path(), &tokens, &starts, &AtomicBool::new(false))?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} tokens in {} documents, built in {seconds:.1} s: {:.2}M tokens/s",
        tokens.len(),
        starts.len(),
        tokens.len() as f64 / seconds / 1e6
    );
    let tokens = Arc::new(tokens);
    let index = SuffixIndex::open(folder.path(), tokens.clone(), &starts)?;
    let answers: Vec<Vec<u32>> = (0..args.answers).map(|_| answer(&args, &tokens, &zipf, &mut random)).collect();
    let live = |document: u32| !document.is_multiple_of(args.removed);
    for (name, allowed) in [("all documents", None), ("some removed", Some(&live as &dyn Fn(u32) -> bool))] {
        trace(&args, name, &index, &answers, allowed);
        lookups(name, &index, &answers, allowed);
    }
    Ok(())
}

fn trace(args: &Args, name: &str, index: &SuffixIndex, answers: &[Vec<u32>], allowed: Option<&dyn Fn(u32) -> bool>) {
    let mut found = 0;
    let times: Vec<f64> = answers
        .iter()
        .map(|answer| {
            let started = Instant::now();
            found += index.trace(answer, args.min_len, 10, allowed).len();
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let (middle, high) = (median(times.clone()), percentile(times, 0.95));
    println!(
        "{name}: trace of {} tokens: median {middle:.2} ms, p95 {high:.2} ms, {:.1} matches; aim {AIM} ms, p95 / aim {:.3}",
        args.answer,
        found as f64 / answers.len() as f64,
        high / AIM
    );
}

/// The continuations of every prefix of the answers, as generation asks for them.
fn lookups(name: &str, index: &SuffixIndex, answers: &[Vec<u32>], allowed: Option<&dyn Fn(u32) -> bool>) {
    let (mut matched, mut count) = (0, 0);
    let started = Instant::now();
    for answer in answers {
        let mut cursor = SuffixCursor::new(index, 256);
        for &token in answer {
            cursor.push(token);
            matched += cursor.continuations(allowed, safelmm_datastore::suffix::DEFAULT_LIMIT).matched;
            count += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{name}: {:.0} n-gram lookups/s ({:.1} µs each), {:.1} tokens matched on average",
        f64::from(count) / seconds,
        seconds * 1e6 / f64::from(count),
        matched as f64 / f64::from(count)
    );
}

/// Tokens by Zipf's law with exponent 1.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(vocab: usize) -> Zipf {
        let mut sum = 0.0;
        Zipf(
            (1..=vocab)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> u32 {
        let all = self.0.last().copied().unwrap_or(1.0);
        let at = random.random::<f64>() * all;
        self.0.partition_point(|&sum| sum < at) as u32
    }
}

/// The tokens of the store and where its documents start.
fn store(args: &Args, zipf: &Zipf, random: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
    let mut tokens: Vec<u32> = Vec::with_capacity(args.tokens);
    while tokens.len() < args.tokens {
        let room = args.tokens - tokens.len();
        if tokens.len() > DOCUMENT && random.random::<f64>() < 1.0 / 3.0 {
            let length = random.random_range(20..200).min(room);
            let from = random.random_range(0..tokens.len() - length);
            tokens.extend_from_within(from..from + length);
        } else {
            let length = random.random_range(20..200).min(room);
            tokens.extend((0..length).map(|_| zipf.draw(random)));
        }
    }
    let mut starts = vec![0];
    while let Some(&last) = starts.last()
        && (last as usize) + 2 * DOCUMENT < tokens.len()
    {
        starts.push(last + random.random_range(1..2 * DOCUMENT as u32));
    }
    (tokens, starts)
}

/// An answer: pieces of the store and tokens of its own in turn.
fn answer(args: &Args, tokens: &[u32], zipf: &Zipf, random: &mut ChaCha8Rng) -> Vec<u32> {
    let mut answer = Vec::with_capacity(args.answer);
    while answer.len() < args.answer {
        let length = random.random_range(5..40).min(args.answer - answer.len()).min(tokens.len());
        if random.random() {
            let from = random.random_range(0..=tokens.len() - length);
            answer.extend_from_slice(&tokens[from..from + length]);
        } else {
            answer.extend((0..length).map(|_| zipf.draw(random)));
        }
    }
    answer
}
