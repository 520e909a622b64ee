//! The terms of a text: what BM25 counts.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Characters of a term that count; the rest of a longer one (a base64 block, a key) is left out.
const MOST_CHARACTERS: usize = 64;

/// Calls `found` with each term, in order.
///
/// Text is brought to NFKC and case-folded. A term is a run of letters, marks and digits; where a script puts no spaces
/// between words, or glues particles to them (Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese), each two neighbouring
/// characters are one, and a character alone is one. Arabic vowel signs and the tatweel, and joiners, are left out.
pub(super) fn for_each(text: &str, mut found: impl FnMut(&str)) {
    let mut word = String::new();
    let mut characters = 0;
    let mut run: Vec<char> = Vec::new();
    let mut term = String::new();
    let mut flush_run = |run: &mut Vec<char>, found: &mut dyn FnMut(&str)| {
        for pair in run.windows(2) {
            term.clear();
            term.extend(pair);
            found(&term);
        }
        if let [alone] = run[..] {
            term.clear();
            term.push(alone);
            found(&term);
        }
        run.clear();
    };
    for c in text.nfkc().flat_map(fold).nfc() {
        if is_ignored(c) {
            continue;
        }
        if is_unspaced(c) {
            if characters > 0 {
                found(&word);
                word.clear();
                characters = 0;
            }
            run.push(c);
        } else if c.is_alphanumeric() || (is_combining_mark(c) && (characters > 0 || !run.is_empty())) {
            if is_combining_mark(c) && characters == 0 {
                continue; // a mark on a character of an unspaced script
            }
            flush_run(&mut run, &mut found);
            if characters < MOST_CHARACTERS {
                word.push(c);
            }
            characters += 1;
        } else {
            flush_run(&mut run, &mut found);
            if characters > 0 {
                found(&word);
                word.clear();
                characters = 0;
            }
        }
    }
    flush_run(&mut run, &mut found);
    if characters > 0 {
        found(&word);
    }
}

/// The terms of a text and how often each occurs, ascending.
pub(super) fn count(text: &str) -> BTreeMap<String, u32> {
    let mut terms: BTreeMap<String, u32> = BTreeMap::new();
    for_each(text, |term| match terms.get_mut(term) {
        Some(count) => *count += 1,
        None => {
            terms.insert(term.to_owned(), 1);
        }
    });
    terms
}

/// Full case folding, near enough: upper case and back also unites ß with ss and ς with σ.
fn fold(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

fn is_ignored(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' // soft hyphen, zero width, direction
        | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}') // tatweel, vowel signs
}

fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // kana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' | '\u{3005}'..='\u{3007}' // Han
        | '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}' // Hangul
        | '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}') // Thai, Lao, Burmese, Khmer
        && (c.is_alphanumeric() || is_combining_mark(c))
}
