//! Control-token spellings: guarding message text against them, and finding the genuine ones in a rendered template.

use std::collections::BTreeSet;

/// A control token and how it meets the text around it.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub id: u32,
    pub text: String,
    /// Swallows whitespace on its left, and on its right.
    pub lstrip: bool,
    pub rstrip: bool,
    /// Counts only where no word character touches it.
    pub single_word: bool,
}

/// A part of a rendered template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Control(u32),
}

/// All control tokens of a tokenizer.
pub(super) struct Controls {
    tokens: Vec<Control>,
    /// For each first byte, positions in `tokens`, longest text first.
    by_first_byte: Vec<Vec<usize>>,
    /// The first visible character of each token, in both cases.
    openers: BTreeSet<char>,
}

impl Controls {
    pub fn new(mut tokens: Vec<Control>) -> Self {
        tokens.retain(|t| !t.text.is_empty());
        tokens.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        let mut by_first_byte = vec![Vec::new(); 256];
        let mut openers = BTreeSet::new();
        for (i, token) in tokens.iter().enumerate() {
            by_first_byte[usize::from(token.text.as_bytes()[0])].push(i);
            let opener = token.text.chars().find(|c| !c.is_whitespace()).or(token.text.chars().next());
            openers.extend(opener.iter().flat_map(|c| [c.to_ascii_lowercase(), c.to_ascii_uppercase()]));
        }
        Self { tokens, by_first_byte, openers }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Control> {
        self.tokens.iter()
    }

    /// `text` with `guard` where a control token could otherwise begin in it or run into it. Whitespace at the ends stays
    /// at the ends, an empty text stays empty, and a text without the tokens' first characters is most often unchanged, so
    /// that a template's tests and `trim` see what they would have seen.
    pub fn guarded(&self, text: &str, guard: char) -> String {
        let core = text.len() - text.trim_start().len();
        let mut out = String::with_capacity(text.len() + 8);
        for (at, c) in text.char_indices() {
            if (at == 0 || at == core) && self.may_continue_token(&text[at..]) {
                out.push(guard);
            }
            out.push(c);
            if self.openers.contains(&c) {
                out.push(guard);
            }
        }
        out
    }

    /// A control token in `text` that is a single visible character, which no guard can break.
    pub fn unguardable(&self, text: &str) -> Option<&str> {
        let single = |token: &&Control| token.text.trim().chars().count() < 2;
        self.tokens.iter().filter(single).map(|token| token.text.as_str()).find(|spelling| text.contains(spelling))
    }

    /// Whether a token that begins in the template could go on in `text`: `"rating:G"` in `'<|' + role + '|>'`.
    fn may_continue_token(&self, text: &str) -> bool {
        let trimmed = text.trim_end();
        self.tokens.iter().any(|token| {
            let spelling = token.text.as_str();
            let is_inside = |part: &str| {
                !part.is_empty()
                    && part.len() <= spelling.len()
                    && spelling.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
            };
            let ends_in = |tail: &str| {
                text.as_bytes().get(..tail.len()).is_some_and(|head| head.eq_ignore_ascii_case(tail.as_bytes()))
            };
            is_inside(text)
                || is_inside(trimmed)
                || spelling.char_indices().skip(1).any(|(i, _)| ends_in(&spelling[i..]))
        })
    }

    /// Splits a rendered template at its control tokens (the longest at each place, leftmost first) and drops the guards.
    /// Empty texts are left out.
    pub fn split(&self, rendered: &str, guard: char) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut strip_next = false;
        let flush = |text: &mut String, strip_start: bool, strip_end: bool, pieces: &mut Vec<Piece>| {
            let mut part: &str = text;
            if strip_start {
                part = part.trim_start();
            }
            if strip_end {
                part = part.trim_end();
            }
            if !part.is_empty() {
                pieces.push(Piece::Text(part.to_owned()));
            }
            text.clear();
        };
        let mut at = 0;
        while let Some(c) = rendered[at..].chars().next() {
            if let Some(token) = self.token_at(rendered, at) {
                flush(&mut text, strip_next, token.lstrip, &mut pieces);
                pieces.push(Piece::Control(token.id));
                strip_next = token.rstrip;
                at += token.text.len();
            } else {
                if c != guard {
                    text.push(c);
                }
                at += c.len_utf8();
            }
        }
        flush(&mut text, strip_next, false, &mut pieces);
        pieces
    }

    fn token_at(&self, text: &str, at: usize) -> Option<&Control> {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let rest = &text[at..];
        let candidates = &self.by_first_byte[usize::from(*rest.as_bytes().first()?)];
        candidates.iter().map(|&i| &self.tokens[i]).find(|token| {
            rest.starts_with(&token.text)
                && !(token.single_word
                    && (is_word(text[..at].chars().next_back()) || is_word(rest[token.text.len()..].chars().next())))
        })
    }
}
