//! All detectors over a text.

use crate::kind::{Kind, Match};
use crate::text::Text;
use crate::{card, document, email, iban, ip, national, phone, secret, words};

/// Which kinds are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kinds(u16);

impl Kinds {
    /// These.
    pub fn of(kinds: &[Kind]) -> Self {
        Kinds(kinds.iter().fold(0, |all, &kind| all | 1 << kind as u16))
    }

    /// Whether this one is among them.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

/// What is found in a folded text from the byte `from` on, in its order, none over another. The text before is only
/// context. A private key's match is its first line alone.
pub fn scan(text: &Text, from: usize, kinds: Kinds) -> Vec<Match> {
    let mut found = Vec::new();
    let mut at = from;
    while at < text.b.len() {
        let b = text.b[at];
        let begins = at == 0 || !text.b[at - 1].is_ascii_alphanumeric();
        match b {
            b'@' if kinds.has(Kind::Email) => found.extend(email::around(text, at).filter(|m| m.start >= from)),
            b'0'..=b'9' if begins => number(text, at, kinds, &mut found),
            b'A'..=b'Z' | b'a'..=b'z' if begins => word(text, at, kinds, &mut found),
            b'+' | b'(' if kinds.has(Kind::Phone) => found.extend(phone::at(text, at)),
            b':' => {
                if kinds.has(Kind::Ip) && text.byte(at + 1) == b':' && begins {
                    found.extend(ip::v6(text, at));
                }
                if kinds.has(Kind::Secret) && text.b[at..].starts_with(b"://") {
                    found.extend(secret::in_address(text, at).filter(|m| m.start >= from));
                }
            }
            b'-' if kinds.has(Kind::Secret) => {
                found.extend(secret::key_header(text, at).map(|end| Match {
                    kind: Kind::Secret,
                    start: at,
                    end,
                    what: PRIVATE_KEY,
                    score: 1.0,
                }));
            }
            _ => {}
        }
        let opens_value = kinds.has(Kind::Secret) && b.is_ascii_graphic() && may_open_value(text, at);
        if opens_value {
            found.extend(secret::announced(text, at));
        }
        at += 1;
    }
    without_overlaps(found)
}

/// What the match of a private key's first line says.
pub const PRIVATE_KEY: &str = "a private key";

fn number(text: &Text, at: usize, kinds: Kinds, found: &mut Vec<Match>) {
    if !text.starts_word(at) {
        return;
    }
    let end = text.token_end(at);
    if kinds.has(Kind::Ip) {
        if text.byte(end) == b'.' {
            found.extend(ip::v4(text, at));
        } else if text.byte(end) == b':' {
            found.extend(ip::v6(text, at));
        }
    }
    if kinds.has(Kind::Card) {
        found.extend(card::at(text, at));
    }
    if kinds.has(Kind::NationalId) {
        found.extend(national::at(text, at));
    }
    if kinds.has(Kind::Phone) {
        found.extend(phone::at(text, at));
    }
    documents(text, at, kinds, found);
    if kinds.has(Kind::Secret) && end - at >= 8 {
        found.extend(secret::random(text, at));
    }
}

fn word(text: &Text, at: usize, kinds: Kinds, found: &mut Vec<Match>) {
    if kinds.has(Kind::Secret) {
        if let Some(secret) = secret::prefixed(text, at) {
            found.push(secret);
            return;
        }
        if text.token_end(at) - at >= 6 {
            found.extend(secret::random(text, at));
        }
    }
    if !text.starts_word(at) {
        return;
    }
    let end = text.token_end(at);
    let is_upper = text.b[at].is_ascii_uppercase();
    if kinds.has(Kind::Iban) && text.byte(at + 1).is_ascii_alphabetic() && text.byte(at + 2).is_ascii_digit() {
        found.extend(iban::at(text, at));
    }
    if kinds.has(Kind::Ip)
        && end - at <= 4
        && text.byte(end) == b':'
        && text.b[at..end].iter().all(u8::is_ascii_hexdigit)
    {
        found.extend(ip::v6(text, at));
    }
    // `AB 123456` and `X1234567`: a number within a few bytes.
    let has_number = text.b[at..].iter().take(7).any(u8::is_ascii_digit);
    if is_upper && has_number {
        if kinds.has(Kind::NationalId) {
            found.extend(national::at(text, at));
        }
        documents(text, at, kinds, found);
    }
}

fn documents(text: &Text, at: usize, kinds: Kinds, found: &mut Vec<Match>) {
    if [Kind::Passport, Kind::DrivingLicense, Kind::NationalId].iter().any(|&kind| kinds.has(kind)) {
        found.extend(document::at(text, at).filter(|m| kinds.has(m.kind)));
    }
}

/// Whether what stands before could be `password: `, `password=` or `password is `.
fn may_open_value(text: &Text, at: usize) -> bool {
    match text.b[..at].last() {
        None => false,
        Some(b'=' | b':' | b'"' | b'\'' | b'`') => true,
        Some(b' ') => {
            let before = text.s[..at].trim_end_matches(' ');
            let from = before.len() - before.bytes().rev().take(13).take_while(|&b| b != b' ' && b != b'\n').count();
            let last = before.get(from..).unwrap_or_default();
            last.ends_with(['=', ':', '：']) || words::IS.iter().any(|is| is.eq_ignore_ascii_case(last))
        }
        // Japanese, Chinese and Korean have no space there.
        Some(b) => !b.is_ascii() && text.b[at].is_ascii_alphanumeric(),
    }
}

/// The matches in their order; of two that overlap the one of the kind that comes first, then the longer.
fn without_overlaps(mut found: Vec<Match>) -> Vec<Match> {
    found.sort_by_key(|m| (m.kind, m.start, usize::MAX - m.end));
    let mut kept: Vec<Match> = Vec::with_capacity(found.len());
    for m in found {
        if kept.iter().all(|k| m.end <= k.start || k.end <= m.start) {
            kept.push(m);
        }
    }
    kept.sort_by_key(|m| m.start);
    kept
}
