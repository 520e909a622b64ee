//! Finding the parameters of retrieval for a store: how many neighbours, at which temperature, and which weights make text
//! most probable that is not in the store.
//!
//! Held-out text is either given, or made of the store's own documents, each of which is left out of the store while it is
//! looked at. Every token is seen once, as a scored prompt sees it; the search over parameters needs no further pass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use safelmm_datastore::{Access, Neighbour, Scratch, Store, StoreEncoder, View, ViewCursor};
use safelmm_model::logits::{History, LogitsStage, StageError, log_sum_exp};
use safelmm_model::{GenerateError, Generation, GenerationRequest, Work, step};

use super::encoder::ModelEncoder;
use super::gate::{Gate, Observation, Signals, fit_lambda};
use super::interpolation::{MAX_CONTEXT, is_sparse, neighbour_weights};
use super::tuning::{Evaluation, HybridTuning, NeighbourTuning, NgramTuning, Tuning};

/// Numbers of neighbours that are tried (kNN-LM, figure 5, finds 1024 the best of those it tries).
const KS: [usize; 4] = [16, 64, 256, 1024];
/// More neighbours take more time: of the numbers tried it is the least under which the text is at most this many times as
/// perplexing as under the best.
const TOLERANCE: f64 = 1.01;
/// Temperatures that are tried, as multiples of the mean squared distance of the nearest neighbour.
const TEMPERATURES: [f32; 8] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// The most tokens of one document.
const DOCUMENT_TOKENS: usize = 2048;
/// Tokens of a prompt that are run in one step.
const CHUNK: usize = 256;

/// Why no parameters were found.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// Nothing to tune on.
    #[error(
        "there is too little text to tune on ({0} tokens, expected at least {1}): add documents, or give other text of the \
         same kind with --text"
    )]
    TooLittle(usize, usize),
    /// The model or the tokenizer failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A text cannot be encoded.
    #[error(transparent)]
    Encode(#[from] safelmm_datastore::EncodeError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] safelmm_datastore::StoreError),
    /// The caller asked to stop.
    #[error("stopped; the store's parameters are as they were")]
    Stopped,
}

/// The least number of tokens that anything can be found on.
const LEAST_TOKENS: usize = 256;

/// What one token of held-out text showed.
struct Seen {
    /// The model's probability of the token, and its greatest one.
    model: (f32, f32),
    /// Squared distances of the neighbours, nearest first, with their tokens.
    near: Vec<(f32, u32)>,
    /// Tokens of the matched context, whether it was sparse, and the share of the token.
    matched: (usize, bool, f32),
    token: u32,
    /// Which half of the documents it belongs to.
    fold: bool,
}

/// A stage that changes nothing and keeps what the sources say of the token that comes.
struct Watcher {
    view: View,
    tokens: Arc<[u32]>,
    cursor: ViewCursor,
    seen_tokens: usize,
    scratch: Scratch,
    near: Vec<Neighbour>,
    fold: bool,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl LogitsStage for Watcher {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        // The token that begins the text is none of its own.
        let at = (history.prompt.len() + history.generated.len()).saturating_sub(1);
        let Some(&token) = self.tokens.get(at) else { return Ok(()) };
        let key = history.key.ok_or_else(|| StageError::Failed("the watcher was given no key".into()))?;
        self.view.neighbours(key, KS[KS.len() - 1], None, &mut self.scratch, &mut self.near);
        let near = self.near.iter().map(|near| (near.distance, near.token)).collect();
        self.tokens[self.seen_tokens..at].iter().for_each(|token| self.cursor.push(*token));
        self.seen_tokens = at;
        let found = self.cursor.continuations(None);
        let count = found.occurrences.iter().filter(|next| next.token == token).count();
        let share = count as f32 / found.occurrences.len().max(1) as f32;
        let length = if found.occurrences.is_empty() { 0 } else { found.matched };
        let sum = log_sum_exp(logits);
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let model = logits.get(token as usize).map_or(0.0, |logit| (logit - sum).exp());
        let seen = Seen {
            model: (model, (greatest - sum).exp()),
            near,
            matched: (length, is_sparse(&found), share),
            token,
            fold: self.fold,
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        Ok(())
    }

    fn wants_key(&self) -> bool {
        true
    }
}

/// A document to look at, and what may be used while it is.
struct HeldOut {
    tokens: Vec<u32>,
    view: View,
}

/// What parameters are sought for.
pub struct Task<'a> {
    /// The store.
    pub store: &'a Store,
    /// Its model.
    pub encoder: &'a ModelEncoder,
    /// The documents that requests of this kind may use.
    pub access: &'a Access,
    /// Text that is not in the store; where there is none, the store's own documents, each without itself.
    pub texts: &'a [String],
    /// The most tokens to look at.
    pub most_tokens: usize,
}

/// The parameters that suit a store.
///
/// # Errors
/// [`TuneError`].
pub fn tune(task: &Task<'_>, progress: &dyn Fn(usize, usize), stop: &AtomicBool) -> Result<Tuning, TuneError> {
    let documents = held_out(task)?;
    let total: usize = documents.iter().map(|document| document.tokens.len()).sum();
    if total < LEAST_TOKENS {
        return Err(TuneError::TooLittle(total, LEAST_TOKENS));
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut done = 0;
    for (index, document) in documents.into_iter().enumerate() {
        let context = task.encoder.checkpoint().context_length() - 1;
        for tokens in document.tokens.chunks(context) {
            if stop.load(Ordering::Relaxed) {
                return Err(TuneError::Stopped);
            }
            watch(task, tokens, document.view.clone(), index % 2 == 0, &seen)?;
            done += tokens.len();
            progress(done, total);
        }
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(fit(&seen))
}

fn watch(
    task: &Task<'_>,
    tokens: &[u32],
    view: View,
    fold: bool,
    seen: &Arc<Mutex<Vec<Seen>>>,
) -> Result<(), TuneError> {
    let watcher = Watcher {
        cursor: view.cursor(MAX_CONTEXT),
        view,
        tokens: tokens.into(),
        seen_tokens: 0,
        scratch: Scratch::default(),
        near: Vec::new(),
        fold,
        seen: Arc::clone(seen),
    };
    let checkpoint = task.encoder.checkpoint();
    // A rated model's sequence begins with its neutral token by itself, where it has one.
    let begun = checkpoint.rated() && checkpoint.tokenizer.bos_id().is_some();
    let start = checkpoint.neutral_start().filter(|_| !begun);
    let request = GenerationRequest {
        score_prompt: true,
        distribution: vec![Box::new(watcher)],
        ..GenerationRequest::new(start.into_iter().chain(tokens.iter().copied()).collect(), 0)
    };
    let mut generation = Generation::new(checkpoint, request)?;
    while !generation.is_finished() {
        step(checkpoint, &mut [Work { generation: &mut generation, tokens: CHUNK }])?;
    }
    Ok(())
}

fn held_out(task: &Task<'_>) -> Result<Vec<HeldOut>, TuneError> {
    let mut documents = Vec::new();
    let mut room = task.most_tokens;
    let mut take = |mut tokens: Vec<u32>, view: View, room: &mut usize| {
        tokens.truncate(DOCUMENT_TOKENS.min(*room));
        *room -= tokens.len();
        documents.push(HeldOut { tokens, view });
    };
    if !task.texts.is_empty() {
        let view = task.store.view(task.access, &[]);
        // Each gets an equal part of the room.
        let part = (task.most_tokens / task.texts.len()).max(DOCUMENT_TOKENS);
        for text in task.texts {
            let (tokens, _) = task.encoder.tokenize(text)?;
            for piece in tokens[..tokens.len().min(part)].chunks(DOCUMENT_TOKENS) {
                take(piece.to_vec(), view.clone(), &mut room);
            }
        }
        return Ok(documents);
    }
    let whole = task.store.view(task.access, &[]);
    let mut infos = task.store.documents()?;
    // In an order that has nothing to do with how they came in.
    infos.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    for info in infos {
        if room == 0 {
            break;
        }
        let Some(tokens) = own_tokens(&whole, &info.id) else { continue };
        let others = task.store.view(task.access, std::slice::from_ref(&info.id));
        if !others.is_empty() {
            take(tokens, others, &mut room);
        }
    }
    Ok(documents)
}

/// The tokens of a document; none where requests of this kind may not use it.
fn own_tokens(view: &View, id: &str) -> Option<Vec<u32>> {
    let key = view.find(id)?;
    let tokens = u32::try_from(view.document(key)?.tokens).ok()?;
    view.document_tokens(key, 0..tokens).map(<[u32]>::to_vec)
}

/// For each token the neighbours' probability of it, and their greatest one.
fn neighbours(seen: &[Seen], k: usize, temperature: f32) -> Vec<(f32, f32)> {
    seen.par_iter()
        .map(|seen| {
            let near = &seen.near[..seen.near.len().min(k)];
            let weights = neighbour_weights(near.iter().map(|(distance, _)| *distance), temperature);
            let mut by_token: Vec<(u32, f32)> = near.iter().map(|(_, token)| *token).zip(weights).collect();
            by_token.sort_by_key(|(token, _)| *token);
            let sums = by_token.chunk_by(|a, b| a.0 == b.0).map(|run| (run[0].0, run.iter().map(|(_, w)| w).sum()));
            let (mut own, mut greatest) = (0.0, 0.0f32);
            for (token, sum) in sums {
                greatest = greatest.max(sum);
                if token == seen.token {
                    own = sum;
                }
            }
            (own, greatest)
        })
        .collect()
}

fn perplexity(probabilities: impl Iterator<Item = f32>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for probability in probabilities {
        sum -= f64::from(probability.max(f32::MIN_POSITIVE)).ln();
        count += 1;
    }
    (sum / f64::from(count.max(1))).exp()
}

fn mix(lambda: f32, model: f32, own: f32) -> f32 {
    (1.0 - lambda) * model + lambda * own
}

/// What was seen of each token, with its half of the documents.
type Folded = Vec<(bool, Observation)>;

fn fit(seen: &[Seen]) -> Tuning {
    let nearest: Vec<f32> = seen.iter().filter_map(|seen| Some(seen.near.first()?.0)).collect();
    let mean = nearest.iter().sum::<f32>() / nearest.len().max(1) as f32;
    let scale = if mean > 0.0 { mean } else { 1.0 };
    let observe = |k: usize, temperature: f32| -> Folded {
        let near = neighbours(seen, k, temperature);
        seen.iter().zip(near).map(|(seen, near)| (seen.fold, observation(seen, near))).collect()
    };
    let tried: Vec<Tried> = KS
        .into_par_iter()
        .flat_map(|k| TEMPERATURES.into_par_iter().map(move |factor| (k, factor * scale)))
        .map(|(k, temperature)| {
            let all = observe(k, temperature);
            let neighbours = halves(&all, |known, unknown| {
                let lambda = fit_lambda(pairs(known, 1));
                pairs(unknown, 1).map(|(model, own)| mix(lambda, model, own)).collect()
            });
            let hybrid = halves(&all, |known, unknown| {
                let gate = Gate::fit(known);
                unknown.iter().map(|o| gate.probability(&gate.asked(o))).collect()
            });
            Tried { k, temperature, neighbours, hybrid }
        })
        .collect();
    let knn = least(&tried, |tried| tried.neighbours);
    let hybrid = least(&tried, |tried| tried.hybrid);
    let by_knn = unfolded(&observe(knn.k, knn.temperature));
    let by_hybrid = observe(hybrid.k, hybrid.temperature);
    let ngram = halves(&by_hybrid, |known, unknown| {
        let weights = best_ngram(known.iter());
        unknown.iter().map(|o| mix(ngram_weight(&weights, o), o.probabilities[0], o.probabilities[2])).collect()
    });
    let by_hybrid = unfolded(&by_hybrid);
    let gate = Gate::fit(&by_hybrid);
    let searched = by_hybrid.iter().filter(|o| gate.wants_neighbours(&o.without_neighbours().signals)).count();
    let evaluation = Evaluation {
        tokens: seen.len(),
        model: perplexity(seen.iter().map(|seen| seen.model.0)),
        neighbours: knn.neighbours,
        ngram,
        hybrid: hybrid.hybrid,
        searched: searched as f64 / seen.len().max(1) as f64,
    };
    let lambda = fit_lambda(pairs(&by_knn, 1));
    Tuning {
        neighbours: NeighbourTuning { k: knn.k, lambda, temperature: knn.temperature },
        ngram: best_ngram(by_hybrid.iter()),
        hybrid: HybridTuning { k: hybrid.k, temperature: hybrid.temperature, gate },
        evaluation: Some(evaluation),
    }
}

/// The perplexity of each half of the documents by what was found on the other: `by` has the known half and the unknown one,
/// and gives the probabilities of the latter's tokens.
fn halves(all: &Folded, by: impl Fn(&[Observation], &[Observation]) -> Vec<f32>) -> f64 {
    let half = |fold: bool| all.iter().filter(|seen| seen.0 == fold).map(|seen| seen.1).collect::<Vec<_>>();
    let (first, second) = (half(false), half(true));
    perplexity(by(&second, &first).into_iter().chain(by(&first, &second)))
}

/// How well some neighbours at some temperature did.
struct Tried {
    k: usize,
    temperature: f32,
    /// Perplexity with them alone.
    neighbours: f64,
    /// Perplexity with n-grams too.
    hybrid: f64,
}

/// The fewest neighbours that do about as well as the best, at the temperature that suits them.
fn least(tried: &[Tried], of: impl Fn(&Tried) -> f64) -> &Tried {
    let best = tried.iter().map(&of).fold(f64::INFINITY, f64::min);
    let enough = tried.iter().filter(|tried| of(tried) <= best * TOLERANCE);
    let fewest = enough.min_by(|a, b| a.k.cmp(&b.k).then(of(a).total_cmp(&of(b))));
    fewest.unwrap_or(&tried[0])
}

fn unfolded(all: &Folded) -> Vec<Observation> {
    all.iter().map(|(_, observation)| *observation).collect()
}

/// The model's probability of each token, with that of a source.
fn pairs(observations: &[Observation], source: usize) -> impl Iterator<Item = (f32, f32)> + Clone {
    observations.iter().map(move |o| (o.probabilities[0], o.probabilities[source]))
}

fn observation(seen: &Seen, (own, greatest): (f32, f32)) -> Observation {
    let (matched, sparse, share) = seen.matched;
    let neighbours = (!seen.near.is_empty()).then_some(greatest);
    let signals = Signals { matched, sparse, neighbours, model: seen.model.1 };
    Observation { signals, probabilities: [seen.model.0, own, share] }
}

fn best_ngram<'a>(observations: impl Iterator<Item = &'a Observation> + Clone) -> NgramTuning {
    let share = |sparse: bool| {
        let matched = observations.clone().filter(move |o| o.signals.matched > 0 && o.signals.sparse == sparse);
        fit_lambda(matched.map(|o| (o.probabilities[0], o.probabilities[2])))
    };
    NgramTuning { sparse: share(true), dense: share(false) }
}

fn ngram_weight(weights: &NgramTuning, observation: &Observation) -> f32 {
    match (observation.signals.matched, observation.signals.sparse) {
        (0, _) => 0.0,
        (_, true) => weights.sparse,
        (_, false) => weights.dense,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_beats_the_model_where_the_store_knows_more() {
        // Every third token is one that the neighbours know for sure, every third one the n-gram index does.
        let seen: Vec<Seen> = (0..3000)
            .map(|i| Seen {
                model: (0.1, 0.15),
                near: (0..20).map(|j| (1.0 + j as f32, if i % 3 == 0 { 7 } else { 8 + j })).collect(),
                matched: if i % 3 == 1 { (6, true, 1.0) } else { (1, false, 0.0) },
                token: 7,
                fold: i % 2 == 0,
            })
            .collect();
        let tuning = fit(&seen);
        let evaluation = tuning.evaluation.unwrap();
        assert!((evaluation.model - 10.0).abs() < 1e-3);
        assert!(evaluation.neighbours < evaluation.model && evaluation.ngram < evaluation.model, "{evaluation:?}");
        assert!(evaluation.hybrid < evaluation.neighbours.min(evaluation.ngram), "{evaluation:?}");
        assert!(tuning.ngram.sparse > 0.9 && tuning.ngram.dense < 0.05, "{:?}", tuning.ngram);
    }
}
