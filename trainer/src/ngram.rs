//! The baseline that a language model must beat: an interpolated n-gram model with modified Kneser–Ney discounts
//! (Chen and Goodman 1999, section 3), over the same tokens.

use std::collections::HashMap;

/// Order of the model: a token is predicted from the four before it.
pub const ORDER: usize = 5;

/// Up to [`ORDER`] tokens of 16 bits each, the oldest in the highest place.
type Gram = u128;

/// What is known of the continuations of one context.
#[derive(Clone, Copy, Default)]
struct Context {
    total: u32,
    /// Continuations seen once, twice, and more often.
    kinds: [u32; 3],
}

/// Counts and contexts of one order.
#[derive(Default)]
struct Order {
    counts: HashMap<Gram, u32>,
    contexts: HashMap<Gram, Context>,
    /// What is taken from a count of one, two, and more.
    discounts: [f64; 3],
}

/// A trained model.
pub struct NGram {
    orders: Vec<Order>,
    vocab_size: usize,
}

fn pack(tokens: &[u32]) -> Gram {
    tokens.iter().fold(0, |gram, token| (gram << 16) | Gram::from(*token))
}

/// The gram without its oldest token, of `n` tokens.
fn without_oldest(gram: Gram, n: usize) -> Gram {
    gram & ((1 << (16 * (n - 1))) - 1)
}

fn padded(tokens: &[u32], start: u32) -> Vec<u32> {
    std::iter::repeat_n(start, ORDER - 1).chain(tokens.iter().copied()).collect()
}

impl NGram {
    /// Counts the sequences; `start` stands before each. Tokens must be below 65,536.
    pub fn train<'a>(sequences: impl Iterator<Item = &'a [u32]>, start: u32, vocab_size: usize) -> NGram {
        let mut orders: Vec<Order> = (0..ORDER).map(|_| Order::default()).collect();
        for tokens in sequences {
            for window in padded(tokens, start).windows(ORDER) {
                *orders[ORDER - 1].counts.entry(pack(window)).or_default() += 1;
                // Nothing different can stand before the beginning: grams there are counted as often as they occur.
                for n in 2..ORDER {
                    let gram = &window[ORDER - n..];
                    if gram[0] == start {
                        *orders[n - 1].counts.entry(pack(gram)).or_default() += 1;
                    }
                }
            }
        }
        // Elsewhere lower orders count in how many different contexts a gram occurs.
        for n in (2..=ORDER).rev() {
            let (lower, higher) = orders.split_at_mut(n - 1);
            let lower = &mut lower[n - 2].counts;
            for gram in higher[0].counts.keys().map(|gram| without_oldest(*gram, n)) {
                let begins = n > 2 && gram >> (16 * (n - 2)) == Gram::from(start);
                if !begins {
                    *lower.entry(gram).or_default() += 1;
                }
            }
        }
        for order in &mut orders {
            order.finish();
        }
        NGram { orders, vocab_size }
    }

    /// Natural log-probability of a sequence after `start`.
    pub fn log_probability(&self, tokens: &[u32], start: u32) -> f64 {
        padded(tokens, start).windows(ORDER).map(|window| self.probability(window).ln()).sum()
    }

    /// The probability of the last token of a window after the ones before it.
    fn probability(&self, window: &[u32]) -> f64 {
        let mut p = 1.0 / self.vocab_size as f64;
        for (n, order) in (1..=ORDER).zip(&self.orders) {
            let gram = pack(&window[ORDER - n..]);
            let Some(context) = order.contexts.get(&(gram >> 16)) else { break };
            let count = order.counts.get(&gram).copied().unwrap_or(0);
            let discounted = f64::from(count) - order.discount(count);
            let kept: f64 = context.kinds.iter().zip(order.discounts).map(|(n, d)| f64::from(*n) * d).sum();
            p = (discounted + kept * p) / f64::from(context.total);
        }
        p
    }
}

impl Order {
    fn finish(&mut self) {
        let mut of_count = [0.0_f64; 5];
        for (gram, &count) in &self.counts {
            let context = self.contexts.entry(gram >> 16).or_default();
            context.total += count;
            context.kinds[count.clamp(1, 3) as usize - 1] += 1;
            if count < 5 {
                of_count[count as usize] += 1.0;
            }
        }
        let [_, n1, n2, n3, n4] = of_count;
        let y = n1 / (n1 + 2.0 * n2);
        self.discounts = [1.0 - 2.0 * y * n2 / n1, 2.0 - 3.0 * y * n3 / n2, 3.0 - 4.0 * y * n4 / n3];
        for (i, discount) in self.discounts.iter_mut().enumerate() {
            // Too few grams for an estimate: take half a count.
            let usable = discount.is_finite() && (0.0..=(i + 1) as f64).contains(discount);
            *discount = if usable { *discount } else { 0.5 };
        }
    }

    fn discount(&self, count: u32) -> f64 {
        match count {
            0 => 0.0,
            count => self.discounts[count.min(3) as usize - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> (NGram, Vec<Vec<u32>>) {
        let sequences: Vec<Vec<u32>> =
            (0..300_u32).map(|i| (0..20).map(|j| 1 + (i * 7 + j * j) % 11 + (i % 3) * (j % 2)).collect()).collect();
        (NGram::train(sequences.iter().map(Vec::as_slice), 0, 20), sequences)
    }

    #[test]
    fn probabilities_sum_to_one_after_seen_and_unseen_contexts() {
        let (model, sequences) = model();
        for context in [[0, 0, 0, 0], [1, 2, 3, 4], [19, 19, 19, 19], [0, 0, sequences[5][0], sequences[5][1]]] {
            let sum: f64 = (0..20).map(|t| model.probability(&[&context[..], &[t]].concat())).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{context:?}: {sum}");
        }
    }

    #[test]
    fn it_prefers_what_it_has_seen() {
        let (model, sequences) = model();
        let seen = model.log_probability(&sequences[17], 0);
        let mut shuffled = sequences[17].clone();
        shuffled.reverse();
        assert!(seen > model.log_probability(&shuffled, 0) + 5.0);
        assert!(seen / 20.0 > -(20.0_f64).ln());
    }
}
