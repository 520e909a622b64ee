//! A character n-gram model in a few hundred kilobytes.
//!
//! Tokens are folded characters ([`crate::fold`]), words set apart by one space. Smoothing is interpolated Witten–Bell
//! (Chen & Goodman 1999, "An Empirical Study of Smoothing Techniques for Language Modeling", section 2.4):
//!
//! ```text
//! p(w | h) = (c(h w) + T(h) · p(w | h')) / (c(h) + T(h))
//! ```
//!
//! with *c* the counts, *T(h)* the number of different tokens seen behind *h*, and *h'* the context *h* without its oldest token; below
//! the unigrams every character of the 65,536 of the basic plane is equally likely. N-grams that matter little are pruned by
//! weighted difference (Seymore & Rosenfeld 1996), and the rest is kept as in KenLM (Heafield 2011): a hash table with a
//! fingerprint, a quantised log-probability and a quantised backoff weight for each n-gram.

use std::borrow::Cow;

use crate::bytes::{ModelError, Reader};
use crate::fold::{Unit, units};
use crate::hash::{START, below, mix};

/// How a file begins: its kind and version.
pub const MAGIC: &[u8; 8] = b"SLMNGRM1";
/// The longest n-grams that a model may have.
pub const MAX_ORDER: usize = 8;
/// Bytes of an entry: fingerprint (2), log-probability, backoff.
pub const ENTRY: usize = 4;
/// The quantised backoff of 0 bits: weights above one are possible, if rare.
pub const BACKOFF_ZERO: u8 = 32;
/// What stands between words, and before the first.
pub const SPACE: char = ' ';

/// The model.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    bytes: Cow<'static, [u8]>,
    entries: usize,
    head: Head,
}

/// The numbers before the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Length of the longest n-grams.
    pub order: u32,
    /// Places of the table.
    pub slots: u32,
    /// Bits of a step of log-probability.
    pub step: f32,
    /// Bits of a step of backoff.
    pub backoff_step: f32,
    /// Bits of a character that the model does not know.
    pub unknown: f32,
}

/// The text as the model sees it.
pub fn tokens(text: &str) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    units(text, |unit| match unit {
        Unit::Word(word) => {
            out.extend_from_slice(word);
            out.push(SPACE);
        }
        Unit::Character(c) => out.push(c),
    });
    out
}

/// The hashes of the n-grams that end at the last of `tokens`, from the unigram on: the last token is mixed in first.
pub fn hashes(tokens: &[char], order: usize) -> impl Iterator<Item = u64> + '_ {
    tokens.iter().rev().take(order).scan(START, |hash, token| {
        *hash = mix(*hash, *token as u32);
        Some(*hash)
    })
}

/// What tells n-grams of one place apart; never 0, which marks an empty one.
pub fn fingerprint(hash: u64) -> u16 {
    (hash.wrapping_mul(0xa076_1d64_78bd_642f) >> 48) as u16 | 1
}

/// The first place where an n-gram may lie.
pub fn slot(hash: u64, slots: u32) -> u32 {
    below(hash, slots)
}

impl LanguageModel {
    /// Reads a model.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, ModelError> {
        let bytes = bytes.into();
        let mut reader = Reader::new(&bytes, MAGIC, "n-gram model")?;
        let order = reader.count("the order", 1, MAX_ORDER as u32, "1 to 8")?;
        let slots = reader.count("the number of places", 1, 1 << 24, "1 to 16777216")?;
        let step = reader.number("a step of log-probability", 0.0, 8.0, "0 to 8 bits")?;
        let backoff_step = reader.number("a step of backoff", 0.0, 8.0, "0 to 8 bits")?;
        let unknown = reader.number("the cost of an unknown character", 0.0, 1000.0, "0 to 1000 bits")?;
        let entries = reader.end(u64::from(slots) * ENTRY as u64)?;
        let model = LanguageModel { entries, head: Head { order, slots, step, backoff_step, unknown }, bytes };
        // A lookup ends at an empty place.
        match model.table().chunks_exact(ENTRY).any(|entry| entry[0] == 0 && entry[1] == 0) {
            true => Ok(model),
            false => Err(ModelError::Value { what: "the table", value: "full".into(), expected: "an empty place" }),
        }
    }

    /// The file of a model with this table.
    pub fn write(head: &Head, table: &[[u8; ENTRY]]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(head.order.to_le_bytes());
        out.extend(head.slots.to_le_bytes());
        for number in [head.step, head.backoff_step, head.unknown] {
            out.extend(number.to_le_bytes());
        }
        out.extend(table.iter().flatten());
        out
    }

    /// The numbers before the table.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The sum of -log2 p over tokens that follow a space, in bits.
    pub fn bits(&self, tokens: &[char]) -> f32 {
        let order = self.head.order as usize;
        let mut before = [0_u8; MAX_ORDER + 1];
        let mut known = 0;
        // The context that everything begins with.
        let start = [SPACE];
        for (place, hash) in hashes(&start, 1).enumerate() {
            if let Some((_, backoff)) = self.find(hash) {
                before[place + 1] = backoff;
                known = place + 1;
            }
        }
        let (mut cost, mut backoffs, mut unknown) = (0_u64, 0_i64, 0_u32);
        for end in 1..=tokens.len() {
            let mut now = [0_u8; MAX_ORDER + 1];
            let (mut found, mut quantised) = (0, None);
            for (place, hash) in self.hashes_with_start(&tokens[..end], order).enumerate() {
                // Tables hold every suffix of what they hold.
                let Some((probability, backoff)) = self.find(hash) else { break };
                found = place + 1;
                now[found] = backoff;
                quantised = Some(probability);
            }
            match quantised {
                Some(q) => cost += u64::from(q),
                None => unknown += 1,
            }
            // Contexts longer than what was found: as many as are known, below the order.
            for backoff in before.iter().take(known.min(order - 1) + 1).skip(found.max(1)) {
                backoffs += i64::from(*backoff) - i64::from(BACKOFF_ZERO);
            }
            (before, known) = (now, found);
        }
        cost as f32 * self.head.step + backoffs as f32 * self.head.backoff_step + unknown as f32 * self.head.unknown
    }

    /// [`hashes`], with a space before the first token.
    fn hashes_with_start<'a>(&self, tokens: &'a [char], order: usize) -> impl Iterator<Item = u64> + 'a {
        tokens.iter().rev().chain(std::iter::once(&SPACE)).take(order).scan(START, |hash, token| {
            *hash = mix(*hash, *token as u32);
            Some(*hash)
        })
    }

    fn table(&self) -> &[u8] {
        self.bytes.get(self.entries..).unwrap_or_default()
    }

    /// The quantised log-probability and backoff of an n-gram.
    fn find(&self, hash: u64) -> Option<(u8, u8)> {
        let [low, high] = fingerprint(hash).to_le_bytes();
        let mut place = slot(hash, self.head.slots) as usize;
        let table = self.table();
        loop {
            let entry = table.get(place * ENTRY..place * ENTRY + ENTRY)?;
            if entry[0] == low && entry[1] == high {
                return Some((entry[2], entry[3]));
            }
            if entry[0] == 0 && entry[1] == 0 {
                return None;
            }
            place = if place + 1 == self.head.slots as usize { 0 } else { place + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of these n-grams, each with its probability and backoff in steps.
    fn model(ngrams: &[(&str, u8, u8)]) -> LanguageModel {
        let head = Head { order: 3, slots: 64, step: 0.1, backoff_step: 0.1, unknown: 20.0 };
        let mut table = [[0; ENTRY]; 64];
        for (ngram, probability, backoff) in ngrams {
            let characters: Vec<char> = ngram.chars().collect();
            let hash = hashes(&characters, 3).last().unwrap();
            let mut place = slot(hash, 64) as usize;
            while table[place] != [0; ENTRY] {
                place = (place + 1) % 64;
            }
            let [low, high] = fingerprint(hash).to_le_bytes();
            table[place] = [low, high, *probability, BACKOFF_ZERO + *backoff];
        }
        LanguageModel::read(LanguageModel::write(&head, &table)).unwrap()
    }

    #[test]
    fn the_longest_known_ngram_counts_and_contexts_pay_their_backoff() {
        let model = model(&[("a", 30, 1), ("b", 40, 2), (" ", 20, 3), (" a", 10, 5), ("ab", 15, 0), (" ab", 5, 0)]);
        let bits = |text: &str| model.bits(&text.chars().collect::<Vec<_>>());
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-4, "{a} is not {b}");
        near(bits("a"), 1.0); // " a"
        near(bits("ab"), 1.0 + 0.5); // " a", " ab"
        near(bits("b"), 0.3 + 4.0); // backoff of " ", then "b"
        // " ab", then "a" behind the contexts "ab" and "b", neither of which goes on with it.
        near(bits("aba"), 1.5 + 0.2 + 3.0);
        near(bits("z"), 0.3 + 20.0);
        near(bits(""), 0.0);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        let good = LanguageModel::write(
            &Head { order: 3, slots: 4, step: 0.1, backoff_step: 0.1, unknown: 20.0 },
            &[[0; ENTRY]; 4],
        );
        assert!(LanguageModel::read(good.clone()).is_ok());
        assert!(matches!(LanguageModel::read(good[..30].to_vec()), Err(ModelError::Length { .. })));
        assert!(matches!(LanguageModel::read(b"SLMNGRM2".to_vec()), Err(ModelError::Kind { .. })));
        let full = LanguageModel::write(
            &Head { order: 3, slots: 4, step: 0.1, backoff_step: 0.1, unknown: 20.0 },
            &[[1; ENTRY]; 4],
        );
        assert!(matches!(LanguageModel::read(full), Err(ModelError::Value { .. })), "a lookup would never end");
        let mut bad = good;
        bad[8] = 9;
        assert!(LanguageModel::read(bad).unwrap_err().to_string().contains("the order is 9"));
    }
}
