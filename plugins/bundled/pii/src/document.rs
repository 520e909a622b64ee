//! Numbers of passports, driving licenses and identity cards: most have no check digits, so the words before them tell.

use crate::kind::{Kind, Match};
use crate::text::{Text, has_word};
use crate::words;

/// How far before a number its word may stand, in bytes: that of a passport, and the name of an identity number, behind
/// which such a number is taken even if its check digits are wrong.
const REACH: usize = 72;
const NEAR: usize = 20;

/// A number that begins with the token at this byte.
pub fn at(text: &Text, start: usize) -> Option<Match> {
    if !text.left_clear(start) && text.before(start) != Some('/') {
        return None;
    }
    let (end, digits, letters) = extent(text, start)?;
    let context = text.context(start, REACH);
    // What announced a number announces that one alone.
    let mut digits_before = 0;
    let number = context.char_indices().rev().find_map(|(at, c)| {
        digits_before = if c.is_ascii_digit() { digits_before + 1 } else { 0 };
        (digits_before == 5).then_some(at + 5)
    });
    let context = &context[number.unwrap_or(0)..];
    // The nearest word wins: in "passport or driving licence no. ...", the latter.
    let kinds = [
        (Kind::Passport, words::PASSPORT, 6..=10, REACH, "a passport number"),
        (Kind::DrivingLicense, words::DRIVING, 5..=18, REACH, "a driving license number"),
        (Kind::NationalId, words::IDENTITY_CARD, 7..=14, REACH, "an identity card's number"),
        (Kind::NationalId, words::NAMED, 8..=15, NEAR, "an identity number"),
    ];
    kinds
        .into_iter()
        .filter(|(_, _, lengths, ..)| lengths.contains(&(digits + letters)))
        .filter_map(|(kind, words, _, reach, what)| {
            let place = nearest(context, words)?;
            (context.len() - place <= reach).then_some((place, kind, what))
        })
        .max_by_key(|(place, ..)| *place)
        .map(|(_, kind, what)| Match { kind, start, end, what, score: 0.8 })
}

/// Where the last of the words ends in the text.
fn nearest(context: &str, words: &[&str]) -> Option<usize> {
    let found = words.iter().filter(|word| has_word(context, &[word]));
    let end = |word: &&&str| {
        let word = word.trim_end_matches('|');
        context.rfind(word).map(|at| at + word.len())
    };
    found.filter_map(|word| end(&word)).max()
}

/// The end of a number of capital letters and digits, with hyphens, or where its groups are short spaces, before further
/// digits, and how many of each it has; none where it has fewer than four digits or could be a word, a date or a price.
fn extent(text: &Text, start: usize) -> Option<(usize, usize, usize)> {
    let mut ends = vec![text.token_end(start)];
    let first = &text.b[start..ends[0]];
    // `AB 123456`: up to three letters and a space.
    let is_series = first.len() <= 3 && first.iter().all(u8::is_ascii_uppercase);
    if is_series && matches!(text.byte(ends[0]), b' ' | b'-') {
        ends = vec![text.token_end(ends[0] + 1)];
    }
    let has_short_groups = first.len() <= 5;
    while let Some(&end) = ends.last().filter(|_| ends.len() < 6) {
        let separator = text.byte(end);
        if !(separator == b'-' || (separator == b' ' && has_short_groups)) || !text.byte(end + 1).is_ascii_digit() {
            break;
        }
        ends.push(text.token_end(end + 1));
    }
    ends.into_iter().rev().find_map(|end| {
        let token = &text.s[start..end];
        let count = |is: fn(&u8) -> bool| token.bytes().filter(is).count();
        let (digits, letters) = (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase));
        // A year and a month in eight digits.
        let is_date = letters == 0
            && token.len() == 8
            && ["18", "19", "20"].iter().any(|century| token.starts_with(century))
            && ("01"..="12").contains(&&token[4..6]);
        let is_number = digits >= 4 && digits + letters >= 5 && count(u8::is_ascii_lowercase) == 0;
        (is_number && !is_date && text.right_clear(end)).then_some((end, digits, letters))
    })
}
