//! National identity, tax and social security numbers.
//!
//! Each is a pattern and a check. Where pattern, date and check digits together leave fewer than about one in two hundred
//! of random numbers, it is found wherever it stands; the others only behind a word that announces them.

pub mod checks;
mod eu;
mod world;

use crate::kind::{Kind, Match};
use crate::text::{Text, has_word};
use crate::words;

/// A kind of number.
pub struct Number {
    /// What it is called, for people.
    pub what: &'static str,
    /// `9` stands for a digit, `A` for a capital letter, `X` for either; a space for an optional space, dot, hyphen or slash;
    /// anything else for itself.
    pub pattern: &'static str,
    /// Whether letters and digits, without what stands between, are such a number.
    pub check: fn(&[u8]) -> bool,
    /// Words before it; none where it is found without them.
    pub words: &'static [&'static str],
}

/// How far before a number its word may stand, in bytes.
const REACH: usize = 72;

/// A number that begins at this byte.
pub fn at(text: &Text, start: usize) -> Option<Match> {
    if !text.left_clear(start) {
        return None;
    }
    let mut context: Option<String> = None;
    let mut best: Option<Match> = None;
    for number in eu::NUMBERS.iter().chain(world::NUMBERS) {
        let mut found = [0; 24];
        let Some((end, length)) = follow(text, start, number.pattern, &mut found) else { continue };
        if best.as_ref().is_some_and(|best| best.end >= end) || !text.right_clear(end) {
            continue;
        }
        let found = &found[..length];
        // 000000000 has every check digit right.
        let is_one_digit = found.iter().all(|b| *b == found[0]);
        if is_one_digit || !(number.check)(found) {
            continue;
        }
        let announced = number.words.is_empty() || {
            let context = context.get_or_insert_with(|| undisturbed(text.context(start, REACH)));
            has_word(context, number.words) || has_word(context, words::IDENTITY)
        };
        if announced {
            let score = if number.words.is_empty() { 0.95 } else { 0.9 };
            best = Some(Match { kind: Kind::NationalId, start, end, what: number.what, score });
        }
    }
    best
}

/// The context behind the last number in it: what announced that one does not announce the next.
fn undisturbed(context: String) -> String {
    match context.rfind(|c: char| c.is_ascii_digit()) {
        Some(digit) => context[digit + 1..].to_owned(),
        None => context,
    }
}

/// The end of what the pattern describes, with its letters and digits.
fn follow(text: &Text, start: usize, pattern: &str, found: &mut [u8; 24]) -> Option<(usize, usize)> {
    let (mut at, mut length) = (start, 0);
    for p in pattern.bytes() {
        let b = text.byte(at);
        let fits = match p {
            b'9' => b.is_ascii_digit(),
            b'A' => b.is_ascii_uppercase(),
            b'X' => b.is_ascii_digit() || b.is_ascii_uppercase(),
            b' ' => {
                at += usize::from(matches!(b, b' ' | b'.' | b'-' | b'/'));
                continue;
            }
            _ => {
                if b != p {
                    return None;
                }
                at += 1;
                continue;
            }
        };
        if !fits {
            return None;
        }
        *found.get_mut(length)? = b;
        length += 1;
        at += 1;
    }
    Some((at, length))
}

#[cfg(test)]
mod tests;
