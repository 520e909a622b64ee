//! Which end of a text is not decided yet: what follows could make a match of it, or a longer one, or none.

use crate::secret::may_be_key_header;
use crate::text::{Text, is_word};

/// The longest number with its separators, in bytes: an IBAN of 33 characters in groups of four, or a telephone number.
pub const NUMBER: usize = 48;

/// The longest word, in bytes: an address of 64 + 1 + 255 characters, or a token. What is longer is decided early.
pub const WORD: usize = 512;

/// Where the undecided end begins; the length of the text where all of it is decided.
pub fn begins(text: &Text) -> usize {
    word(text).min(number(text)).min(key_header(text))
}

/// Characters of which a word that is looked at may consist: addresses, tokens, passwords.
fn is_run(c: char) -> bool {
    match c {
        '"' | '`' | '<' | '>' | '(' | ')' | '[' | ']' | '{' | '}' | ',' | ';' | '|' => false,
        c if c.is_ascii() => c.is_ascii_graphic(),
        c => is_word(c),
    }
}

/// The word that the text ends with.
fn word(text: &Text) -> usize {
    let run = text.s.chars().rev().take_while(|&c| is_run(c)).map(char::len_utf8).sum::<usize>();
    text.s.len() - run
}

/// The groups of digits, and of capital letters between them, that the text ends with.
fn number(text: &Text) -> usize {
    let length = text.s.len();
    let (mut begins, mut at) = (length, length - unit(text));
    loop {
        let separators = text.b[..at].iter().rev().take(4).take_while(|b| b" -./()+,:%".contains(b)).count();
        let end = at - separators;
        let group = text.b[..end].iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
        let start = end - group;
        let bytes = &text.b[start..end];
        let has_digit = bytes.iter().any(u8::is_ascii_digit);
        let is_between = group <= 6 && bytes.iter().all(u8::is_ascii_uppercase);
        // More separators than three are not in a number.
        if separators == 4 || group == 0 || !(has_digit || is_between) || length - start > NUMBER + WORD {
            return with_sign(text, begins);
        }
        if has_digit || begins < length || is_series(bytes, length - end) {
            begins = start;
        }
        at = start;
    }
}

/// The bytes of a word that the text ends with, right behind a number: it may be a unit or currency, which makes the
/// number an amount.
fn unit(text: &Text) -> usize {
    let word = text.s.chars().rev().take_while(|c| !c.is_ascii_digit() && !c.is_whitespace()).take(7);
    let (characters, bytes) = word.fold((0, 0), |(n, bytes), c| (n + 1, bytes + c.len_utf8()));
    let before = text.s[..text.s.len() - bytes].trim_end_matches(' ');
    if characters < 7 && before.ends_with(|c: char| c.is_ascii_digit()) { text.s.len() - before.len() } else { 0 }
}

/// A sign or parenthesis before the first group belongs to it; one at the end of the text may.
fn with_sign(text: &Text, begins: usize) -> usize {
    match &text.b[..begins] {
        [.., b'+', b' ' | b'('] => begins - 2,
        [.., b'+' | b'('] => begins - 1,
        _ => begins,
    }
}

/// Whether letters may begin a number, such as `AB 123456`: up to three, and at most a separator behind them.
fn is_series(letters: &[u8], behind: usize) -> bool {
    letters.len() <= 3 && letters.iter().all(u8::is_ascii_uppercase) && behind <= 1
}

/// The first line of a private key.
fn key_header(text: &Text) -> usize {
    let mut from = text.s.len().saturating_sub(80);
    while !text.s.is_char_boundary(from) {
        from += 1;
    }
    let tail = &text.s[from..];
    tail.match_indices("-----B")
        .map(|(at, _)| from + at)
        .find(|&at| may_be_key_header(&text.s[at..]))
        .unwrap_or(text.s.len())
}
