//! Training of an n-gram model: counts, interpolated Witten–Bell smoothing, pruning, and the compact table.
//!
//! See [`safelmm_learned::language_model`] for the formula and its sources.

use std::collections::HashMap;

use safelmm_learned::LanguageModel;
use safelmm_learned::language_model::{BACKOFF_ZERO, ENTRY, Head, MAX_ORDER, SPACE, fingerprint, hashes, slot};

use super::PolicyModelError;

/// How a model is trained.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct NgramSettings {
    /// Length of the longest n-grams.
    pub order: usize,
    /// Places of the table, of four bytes each.
    pub slots: u32,
}

impl Default for NgramSettings {
    fn default() -> Self {
        NgramSettings { order: 5, slots: 80_000 }
    }
}

/// The share of places that n-grams take.
const LOAD: f64 = 0.85;
/// Characters that are equally likely below the unigrams: those of the basic plane.
const CHARACTERS: f64 = 65_536.0;
/// The steps of a quantised backoff, in bits.
const BACKOFF_STEP: f32 = 0.05;

/// What is known of an n-gram.
#[derive(Clone, Debug)]
struct Ngram {
    length: u8,
    count: u32,
    /// The n-gram without its last token; its own hash for unigrams.
    context: u64,
    /// The n-gram without its first token.
    suffix: u64,
    /// Different tokens seen behind it, and how often any.
    followers: u32,
    followed: u32,
    probability: f64,
    importance: f64,
}

/// An n-gram model of these texts, each a row of tokens ([`safelmm_learned::language_model::tokens`]).
///
/// # Errors
/// When there is no token.
pub fn train(texts: &[Vec<char>], settings: &NgramSettings) -> Result<Vec<u8>, PolicyModelError> {
    let order = settings.order.clamp(1, MAX_ORDER);
    let mut ngrams = count(texts, order);
    let total: u64 = ngrams.values().filter(|n| n.length == 1).map(|n| u64::from(n.count)).sum();
    if total == 0 {
        return Err(PolicyModelError::Data("there is no text to make an n-gram model of".into()));
    }
    let types = ngrams.values().filter(|n| n.length == 1).count();
    let unigrams = (total as f64, types as f64);
    smooth(&mut ngrams, order, unigrams);
    let kept = prune(&mut ngrams, order, (f64::from(settings.slots) * LOAD) as usize);
    let backoffs = backoffs(&ngrams, &kept);
    Ok(table(&ngrams, &kept, &backoffs, order, settings.slots))
}

fn count(texts: &[Vec<char>], order: usize) -> HashMap<u64, Ngram> {
    let mut ngrams: HashMap<u64, Ngram> = HashMap::new();
    let mut row = vec![SPACE];
    for text in texts {
        row.truncate(1);
        row.extend(text);
        let mut before: Vec<u64> = Vec::new();
        for end in 1..=row.len() {
            let now: Vec<u64> = hashes(&row[..end], order).collect();
            // The space that everything begins with is context, not text.
            for (place, hash) in now.iter().enumerate().take(if end == 1 { 0 } else { order }) {
                let context = if place == 0 { *hash } else { before[place - 1] };
                let suffix = if place == 0 { *hash } else { now[place - 1] };
                let ngram = ngrams.entry(*hash).or_insert(Ngram {
                    length: (place + 1) as u8,
                    count: 0,
                    context,
                    suffix,
                    followers: 0,
                    followed: 0,
                    probability: 0.0,
                    importance: 0.0,
                });
                ngram.count += 1;
            }
            before = now;
        }
    }
    let contexts: Vec<(u64, u32)> = ngrams.values().filter(|n| n.length > 1).map(|n| (n.context, n.count)).collect();
    for (context, count) in contexts {
        if let Some(context) = ngrams.get_mut(&context) {
            context.followers += 1;
            context.followed += count;
        }
    }
    ngrams
}

/// Hashes by the length of their n-grams, in an order that does not depend on the map's.
fn by_length(ngrams: &HashMap<u64, Ngram>, length: usize) -> Vec<u64> {
    let mut hashes: Vec<u64> =
        ngrams.iter().filter(|(_, n)| usize::from(n.length) == length).map(|(hash, _)| *hash).collect();
    hashes.sort_unstable();
    hashes
}

fn smooth(ngrams: &mut HashMap<u64, Ngram>, order: usize, (total, types): (f64, f64)) {
    for length in 1..=order {
        for hash in by_length(ngrams, length) {
            let Some(ngram) = ngrams.get(&hash) else { continue };
            let (followed, followers, lower) = match length {
                1 => (total, types, 1.0 / CHARACTERS),
                _ => {
                    // A context that stood only at the beginning, where it was not counted, has no followers of its own.
                    let context = ngrams.get(&ngram.context);
                    let (followed, followers) = context
                        .map_or((f64::from(ngram.count), 1.0), |c| (f64::from(c.followed), f64::from(c.followers)));
                    (followed, followers, ngrams.get(&ngram.suffix).map_or(1.0 / CHARACTERS, |s| s.probability))
                }
            };
            let probability = (f64::from(ngram.count) + followers * lower) / (followed + followers);
            let importance = f64::from(ngram.count) * (probability / lower).ln().abs();
            if let Some(ngram) = ngrams.get_mut(&hash) {
                (ngram.probability, ngram.importance) = (probability, importance);
            }
        }
    }
}

/// The most important n-grams, with every context and suffix of what is kept.
fn prune(ngrams: &mut HashMap<u64, Ngram>, order: usize, most: usize) -> Vec<u64> {
    for length in (2..=order).rev() {
        for hash in by_length(ngrams, length) {
            let Some(Ngram { context, suffix, importance, .. }) = ngrams.get(&hash).cloned() else { continue };
            for needed in [context, suffix] {
                if let Some(needed) = ngrams.get_mut(&needed) {
                    needed.importance = needed.importance.max(importance);
                }
            }
        }
    }
    let mut all: Vec<(u8, f64, u64)> = ngrams
        .iter()
        .filter(|(_, n)| n.length == 1 || ngrams.contains_key(&n.context))
        .map(|(hash, n)| (n.length, n.importance, *hash))
        .collect();
    // What is needed comes before what needs it: of equal importance, the shorter first.
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)).then(a.2.cmp(&b.2)));
    all.truncate(most);
    let mut kept: Vec<u64> = all.into_iter().map(|(_, _, hash)| hash).collect();
    kept.sort_unstable();
    kept
}

/// What each kept context multiplies the probabilities of shorter contexts by, so that all sum to one.
fn backoffs(ngrams: &HashMap<u64, Ngram>, kept: &[u64]) -> HashMap<u64, f64> {
    let mut sums: HashMap<u64, (f64, f64)> = HashMap::new();
    for ngram in kept.iter().filter_map(|hash| ngrams.get(hash)).filter(|n| n.length > 1) {
        let lower = ngrams.get(&ngram.suffix).map_or(0.0, |s| s.probability);
        let sum = sums.entry(ngram.context).or_default();
        *sum = (sum.0 + ngram.probability, sum.1 + lower);
    }
    sums.into_iter().map(|(context, (own, lower))| (context, (1.0 - own).max(1e-9) / (1.0 - lower).max(1e-9))).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to a byte
fn table(
    ngrams: &HashMap<u64, Ngram>,
    kept: &[u64],
    backoffs: &HashMap<u64, f64>,
    order: usize,
    slots: u32,
) -> Vec<u8> {
    let kept: Vec<(u64, &Ngram)> = kept.iter().filter_map(|hash| Some((*hash, ngrams.get(hash)?))).collect();
    let bits = |n: &Ngram| -n.probability.log2();
    let step = kept.iter().map(|(_, n)| bits(n)).fold(0.0, f64::max) / 255.0;
    let known: f64 = kept.iter().filter(|(_, n)| n.length == 1).map(|(_, n)| n.probability).sum();
    let unknown = -((1.0 - known).max(1e-9) / CHARACTERS).log2();
    let mut table = vec![[0_u8; ENTRY]; slots as usize];
    for (hash, ngram) in kept {
        let quantised = (bits(ngram) / step).round().clamp(0.0, 255.0) as u8;
        let backoff = -backoffs.get(&hash).copied().unwrap_or(1.0).log2() / f64::from(BACKOFF_STEP);
        let backoff = (backoff.round() + f64::from(BACKOFF_ZERO)).clamp(0.0, 255.0) as u8;
        let [low, high] = fingerprint(hash).to_le_bytes();
        let mut place = slot(hash, slots) as usize;
        while table[place] != [0; ENTRY] {
            place = (place + 1) % table.len();
        }
        table[place] = [low, high, quantised, backoff];
    }
    let head =
        Head { order: order as u32, slots, step: step as f32, backoff_step: BACKOFF_STEP, unknown: unknown as f32 };
    LanguageModel::write(&head, &table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safelmm_learned::language_model::tokens;

    const TEXT: &str = "the cat sat on the mat and the dog sat on the log while the rat ran round the mat with the cat";

    fn model(order: usize, slots: u32) -> LanguageModel {
        let texts = vec![tokens(TEXT), tokens("the end of the cat")];
        LanguageModel::read(train(&texts, &NgramSettings { order, slots }).unwrap()).unwrap()
    }

    #[test]
    fn probabilities_of_what_may_follow_sum_to_one() {
        for (order, slots) in [(1, 64), (2, 400), (5, 2000), (5, 300)] {
            let model = model(order, slots);
            for context in ["", "the ", "the ca", "xq", "s"] {
                let context: Vec<char> = context.chars().collect();
                let base = model.bits(&context);
                let next = |c: char| {
                    let mut row = context.clone();
                    row.push(c);
                    f64::from(base - model.bits(&row)).exp2()
                };
                let letters: f64 = ('a'..='z').chain([SPACE]).map(next).sum();
                // All others are alike.
                let sum = letters + next('\u{4e00}') * (CHARACTERS - 27.0);
                assert!((sum - 1.0).abs() < 0.06, "order {order}, {slots} places, behind {context:?}: {sum}");
            }
        }
    }

    #[test]
    fn witten_bell_by_hand() {
        // "ab ab": after the first space a b _ a b _; c(a)=2 of 6 tokens, 3 types.
        let texts = vec!["ab ab ".chars().collect::<Vec<char>>()];
        let model = LanguageModel::read(train(&texts, &NgramSettings { order: 2, slots: 64 }).unwrap()).unwrap();
        let a = (2.0 + 3.0 / CHARACTERS) / (6.0 + 3.0);
        // " a" twice, but the context " " is counted once: the first stands before the text. " " follows "b" twice.
        let b_after_a = (2.0 + 1.0 * a) / (2.0 + 1.0);
        let bits = |text: &str| f64::from(model.bits(&text.chars().collect::<Vec<_>>()));
        assert!((bits("ab") - bits("a") + f64::log2(b_after_a)).abs() < 0.1, "{}", bits("ab") - bits("a"));
        assert!(bits("zz") > bits("ab") + 20.0);
    }

    #[test]
    fn likely_text_costs_less_and_training_is_deterministic() {
        let model = model(5, 2000);
        let per = |text: &str| model.bits(&tokens(text)) / tokens(text).len() as f32;
        assert!(per("the cat sat on the mat") < 2.0, "{}", per("the cat sat on the mat"));
        assert!(per("quiz jump vex") > 6.0, "{}", per("quiz jump vex"));
        let texts = vec![tokens(TEXT)];
        let settings = NgramSettings { order: 5, slots: 300 };
        assert_eq!(train(&texts, &settings).unwrap(), train(&texts, &settings).unwrap());
        assert!(train(&[], &settings).is_err());
    }
}
