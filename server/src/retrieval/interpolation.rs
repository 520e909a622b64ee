//! The stage of the logits chain that mixes the model's distribution with those of the stores:
//! `p(y) = (1 − λ_k − λ_n) p_model(y) + λ_k p_kNN(y) + λ_n p_∞(y)`.
//!
//! `p_kNN(y) ∝ Σ exp(−d²/τ)` over the neighbours whose next token is y (Khandelwal et al. 2020, equation 2);
//! `p_∞(y)` is the share of y among what followed the longest context that occurs (Liu et al. 2024, section 3).

use std::sync::Arc;

use safelmm_datastore::{Continuations, DocumentKey, Neighbour, Scratch, View, ViewCursor};
use safelmm_model::logits::{History, LogitsStage, StageError, log_sum_exp};

use super::evidence::{Kind, Recorder, Share};
use super::gate::{Gate, Signals, Weights};
use super::tuning::NgramTuning;

/// The longest context that is looked up in the n-gram index, in tokens.
pub const MAX_CONTEXT: usize = 64;
/// Documents with less of a token's probability are not told, but those that may be used only where they are named.
const LEAST_SHARE: f32 = 0.01;

/// How the weights of the sources are chosen.
#[derive(Clone, Debug)]
pub enum Mixing {
    /// Neighbours with one weight for every token.
    Neighbours {
        /// λ.
        lambda: f32,
    },
    /// N-grams with one weight for contexts that went on in one way, and one for the others.
    Ngram(NgramTuning),
    /// Both, with weights for what was found.
    Gated(Arc<Gate>),
}

/// How the neighbours are asked.
#[derive(Clone, Copy, Debug)]
pub struct NeighbourSettings {
    /// How many.
    pub k: usize,
    /// Divides their squared distances.
    pub temperature: f32,
}

/// The stage, for one sequence.
pub struct Interpolation {
    view: View,
    mixing: Mixing,
    neighbours: NeighbourSettings,
    recorder: Option<Recorder>,
    scratch: Scratch,
    near: Vec<Neighbour>,
    /// Follows the text, where n-grams are wanted, and how many of its tokens it has seen.
    cursor: Option<(ViewCursor, usize)>,
    /// What each token gets from the stores, [vocab_size]; all 0 between two tokens.
    mass: Vec<f32>,
    /// Tokens with something in `mass`.
    touched: Vec<u32>,
    /// What the documents gave to each token that they know, before it is known which one is drawn.
    parts: Vec<(u32, DocumentKey, Kind, f32)>,
    /// The probability of each touched token in the mixture.
    mixed: Vec<(u32, f32)>,
}

impl Interpolation {
    /// A stage that mixes so; what the documents gave is recorded where somebody asks.
    pub fn new(view: View, mixing: Mixing, neighbours: NeighbourSettings, recorder: Option<Recorder>) -> Interpolation {
        let follows = !matches!(mixing, Mixing::Neighbours { .. });
        let cursor = follows.then(|| (view.cursor(MAX_CONTEXT), 0));
        let (scratch, near, mass, touched, parts, mixed) = Default::default();
        Interpolation { view, mixing, neighbours, recorder, scratch, near, cursor, mass, touched, parts, mixed }
    }

    /// What followed the longest context that occurs; nothing where it is so common that the model knows it as well.
    fn matched(&mut self, history: &History<'_>) -> Continuations {
        let Some((cursor, seen)) = &mut self.cursor else { return Continuations::default() };
        for token in history.prompt.iter().chain(history.generated).skip(*seen) {
            cursor.push(*token);
            *seen += 1;
        }
        let found = cursor.continuations(None);
        if found.occurrences.is_empty() { Continuations::default() } else { found }
    }

    /// The neighbours' distribution over the nearest tokens: a probability for each of `near`, in their order.
    fn nearest(&mut self, history: &History<'_>) -> Result<Vec<f32>, StageError> {
        let key = history.key.ok_or_else(|| StageError::Failed("neighbours were asked for without a key".into()))?;
        self.view.neighbours(key, self.neighbours.k, None, &mut self.scratch, &mut self.near);
        Ok(neighbour_weights(self.near.iter().map(|near| near.distance), self.neighbours.temperature))
    }

    /// Asks the sources that the mixing wants and adds up what they give. Returns what the model keeps.
    fn gather(&mut self, model: f32, history: &History<'_>) -> Result<f32, StageError> {
        let mixing = self.mixing.clone();
        let (matched, near, weights) = match &mixing {
            Mixing::Neighbours { lambda } => {
                let near = self.nearest(history)?;
                let neighbours = if near.is_empty() { 0.0 } else { *lambda };
                (Continuations::default(), near, Weights { neighbours, ngram: 0.0 })
            }
            Mixing::Ngram(NgramTuning { sparse, dense }) => {
                let matched = self.matched(history);
                let ngram = match matched.matched {
                    0 => 0.0,
                    _ if is_sparse(&matched) => *sparse,
                    _ => *dense,
                };
                (matched, Vec::new(), Weights { neighbours: 0.0, ngram })
            }
            Mixing::Gated(gate) => {
                let matched = self.matched(history);
                let sparse = is_sparse(&matched);
                let signals = Signals { matched: matched.matched, sparse, neighbours: None, model };
                let near = if gate.wants_neighbours(&signals) { self.nearest(history)? } else { Vec::new() };
                let sure = self.greatest(&near);
                let weights = gate.weights(&Signals { neighbours: sure, ..signals });
                (matched, near, weights)
            }
        };
        for (i, probability) in near.iter().enumerate() {
            let Neighbour { token, document, .. } = self.near[i];
            self.add(token, document, Kind::Neighbour, weights.neighbours * probability);
        }
        let each = weights.ngram / matched.occurrences.len().max(1) as f32;
        for occurrence in &matched.occurrences {
            self.add(occurrence.token, occurrence.document, Kind::Ngram, each);
        }
        Ok(1.0 - weights.neighbours - weights.ngram)
    }

    /// The greatest probability that the neighbours give to a token; none where there are none.
    fn greatest(&mut self, near: &[f32]) -> Option<f32> {
        for (near, probability) in self.near.iter().zip(near) {
            let Some(mass) = self.mass.get_mut(near.token as usize) else { continue };
            if *mass == 0.0 {
                self.touched.push(near.token);
            }
            *mass += probability;
        }
        let greatest = self.touched.iter().map(|token| self.mass[*token as usize]).reduce(f32::max);
        self.clear();
        greatest
    }

    fn add(&mut self, token: u32, document: DocumentKey, kind: Kind, mass: f32) {
        let Some(sum) = self.mass.get_mut(token as usize).filter(|_| mass > 0.0) else { return };
        if *sum == 0.0 {
            self.touched.push(token);
        }
        *sum += mass;
        if self.recorder.is_some() {
            self.parts.push((token, document, kind, mass));
        }
    }

    fn clear(&mut self) {
        for token in self.touched.drain(..) {
            self.mass[token as usize] = 0.0;
        }
    }
}

/// `exp(−d²/τ)` for each squared distance, as shares of their sum.
pub fn neighbour_weights(distances: impl Iterator<Item = f32> + Clone, temperature: f32) -> Vec<f32> {
    let nearest = distances.clone().fold(f32::INFINITY, f32::min);
    let mut weights: Vec<f32> = distances.map(|d| ((nearest - d) / temperature).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// Whether a context always went on with the same token.
pub fn is_sparse(found: &Continuations) -> bool {
    found.occurrences.windows(2).all(|pair| pair[0].token == pair[1].token)
}

impl LogitsStage for Interpolation {
    fn apply(&mut self, logits: &mut [f32], history: &History<'_>) -> Result<(), StageError> {
        self.mass.resize(logits.len(), 0.0);
        self.parts.clear();
        self.mixed.clear();
        let sum = log_sum_exp(logits);
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let kept = self.gather((greatest - sum).exp(), history)?;
        if kept < f32::EPSILON {
            // Everything comes from the stores.
            logits.fill(f32::NEG_INFINITY);
        }
        for token in &self.touched {
            let mass = self.mass[*token as usize];
            let logit = &mut logits[*token as usize];
            // The others stay as they are: the factor that all have in common makes no difference to a distribution.
            let (model, scale) = if kept < f32::EPSILON { (0.0, 1.0) } else { ((*logit - sum).exp(), kept) };
            *logit = sum + (model + mass / scale).ln();
            self.mixed.push((*token, model * scale + mass));
        }
        self.clear();
        Ok(())
    }

    fn wants_key(&self) -> bool {
        !matches!(self.mixing, Mixing::Ngram(_))
    }

    fn drawn(&mut self, token: u32, _logprob: f32) {
        let Some(recorder) = &self.recorder else { return };
        let whole = self.mixed.iter().find(|(mixed, _)| *mixed == token).map_or(1.0, |(_, whole)| *whole);
        let mut shares: Vec<Share> = Vec::new();
        for &(_, document, kind, mass) in self.parts.iter().filter(|part| part.0 == token) {
            match shares.iter_mut().find(|share| share.document == document && share.kind == kind) {
                Some(share) => share.weight += mass / whole,
                None => shares.push(Share { document, kind, weight: mass / whole }),
            }
        }
        shares.retain(|share| share.weight >= LEAST_SHARE || self.view.must_be_named(share.document));
        shares.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        recorder.record(|evidence| evidence.tokens.push(shares));
    }
}
