//! Probabilities of given text by the way that the server takes: a prompt that is scored, with what a request's retrieval
//! adds to its sequence.

use std::sync::Arc;

use anyhow::Result;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use safelmm_datastore::DocumentKey;
use safelmm_model::{Checkpoint, Generation, GenerationRequest, Work, step};
use safelmm_server::retrieval::Retrieval;

/// Sequences that are scored side by side.
const BATCH: usize = 4;
/// Tokens of a prompt that are run in one step.
const CHUNK: usize = 128;

/// A stretch of a document that is scored at once, behind the start token.
#[derive(Clone, Debug)]
pub struct Window {
    /// The document's number in the list that it was cut from.
    pub document: usize,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// What scoring a window gave.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    /// The natural log-probability of each token.
    pub logprobs: Vec<f32>,
    /// What store documents gave to each token, where it is recorded: probability mass as a share of the token's.
    pub shares: Vec<(DocumentKey, f32)>,
}

/// Texts as windows of at most `length` tokens one after another, of which some are drawn, whole, up to `most` tokens.
///
/// # Errors
/// A text that cannot be tokenised.
pub fn windows(checkpoint: &Checkpoint, texts: &[&str], length: usize, most: usize, seed: u64) -> Result<Vec<Window>> {
    let mut all = Vec::new();
    for (document, text) in texts.iter().enumerate() {
        let tokens = checkpoint.tokenizer.encode(text, false)?;
        all.extend(tokens.chunks(length.max(1)).map(|tokens| Window { document, tokens: tokens.to_vec() }));
    }
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut room = most;
    all.retain(|window| {
        let taken = window.tokens.len() <= room;
        room -= if taken { window.tokens.len() } else { 0 };
        taken
    });
    Ok(all)
}

/// Scores windows, with retrieval or without.
///
/// # Errors
/// When the model or a stage fails.
pub fn score(checkpoint: &Arc<Checkpoint>, windows: &[Window], retrieval: Option<&Retrieval>) -> Result<Vec<Scores>> {
    let mut all = Vec::with_capacity(windows.len());
    for batch in windows.chunks(BATCH) {
        let mut recorders = Vec::new();
        let mut generations = Vec::new();
        for window in batch {
            let prompt = prompt(checkpoint, &window.tokens);
            let room = checkpoint.context_length().saturating_sub(prompt.len() + 1);
            let added = retrieval.map(|retrieval| retrieval.add(checkpoint, room, None)).unwrap_or_default();
            recorders.push(added.recorder);
            let (distribution, context) = (added.distribution, added.context);
            let request =
                GenerationRequest { score_prompt: true, distribution, context, ..GenerationRequest::new(prompt, 0) };
            generations.push(Generation::new(checkpoint, request)?);
        }
        let first = all.len();
        all.resize_with(first + batch.len(), Scores::default);
        loop {
            let (places, mut work): (Vec<usize>, Vec<Work<'_>>) = generations
                .iter_mut()
                .enumerate()
                .filter(|(_, generation)| !generation.is_finished())
                .map(|(i, generation)| (first + i, Work { generation, tokens: CHUNK }))
                .unzip();
            if work.is_empty() {
                break;
            }
            for (place, progress) in places.into_iter().zip(step(checkpoint, &mut work)?) {
                all[place].logprobs.extend(progress.scored.iter().map(|scored| scored.logprob));
            }
        }
        for (scores, recorder) in all[first..].iter_mut().zip(recorders) {
            let Some(recorder) = recorder else { continue };
            for share in recorder.take().tokens.into_iter().flatten() {
                match scores.shares.iter_mut().find(|(document, _)| *document == share.document) {
                    Some((_, sum)) => *sum += share.weight,
                    None => scores.shares.push((share.document, share.weight)),
                }
            }
        }
    }
    Ok(all)
}

/// The tokens behind a start, so that the first one is scored too. A rated model's sequence gets one by itself.
fn prompt(checkpoint: &Checkpoint, tokens: &[u32]) -> Vec<u32> {
    let begun = checkpoint.rated() && checkpoint.tokenizer.bos_id().is_some();
    let start = checkpoint.neutral_start().filter(|_| !begun);
    start.into_iter().chain(tokens.iter().copied()).collect()
}

/// The mean of the negated log-probabilities, in nats: the logarithm of the perplexity.
pub fn nats(scores: &[Scores]) -> f64 {
    let all = || scores.iter().flat_map(|scores| &scores.logprobs);
    -all().map(|logprob| f64::from(*logprob)).sum::<f64>() / (all().count() as f64).max(1.0)
}

/// The share of tokens that are less probable than `without` by more than `least` nats.
pub fn hurt(scores: &[Scores], without: &[Scores], least: f32) -> f64 {
    let all = |scores: &[Scores]| scores.iter().flat_map(|scores| scores.logprobs.clone()).collect::<Vec<f32>>();
    let (scores, without) = (all(scores), all(without));
    let hurt = scores.iter().zip(&without).filter(|(with, without)| **with < **without - least).count();
    hurt as f64 / (scores.len() as f64).max(1.0)
}
