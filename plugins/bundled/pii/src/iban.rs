//! International bank account numbers: ISO 13616 with the lengths of SWIFT's registry, ISO 7064 MOD 97-10.

use crate::kind::{Kind, Match};
use crate::text::Text;

/// Countries and the lengths of their numbers, in the order of the codes.
#[rustfmt::skip]
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22), (b"BH", 22),
    (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24), (b"DE", 22), (b"DJ", 27),
    (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FK", 18), (b"FO", 18), (b"FR", 27),
    (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HN", 28), (b"HR", 21), (b"HU", 28),
    (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28),
    (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22),
    (b"MK", 19), (b"MN", 20), (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24),
    (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SO", 23), (b"ST", 25), (b"SV", 28),
    (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30),
];

/// ISO 7064 MOD 97-10, the country and the check digits moved to the end.
fn mod97(number: &[u8]) -> u32 {
    number[4..].iter().chain(&number[..4]).fold(0, |rest, &c| match c {
        b'0'..=b'9' => (rest * 10 + u32::from(c - b'0')) % 97,
        _ => (rest * 100 + u32::from(c.to_ascii_uppercase() - b'A') + 10) % 97,
    })
}

/// A number whose country begins at this byte.
pub fn at(text: &Text, start: usize) -> Option<Match> {
    let country = [text.byte(start).to_ascii_uppercase(), text.byte(start + 1).to_ascii_uppercase()];
    let place = LENGTHS.binary_search_by(|(code, _)| code[..].cmp(&country[..])).ok()?;
    let length = LENGTHS[place].1;
    if !text.starts_word(start) {
        return None;
    }
    let mut number = Vec::with_capacity(length);
    let mut at = start;
    while number.len() < length {
        match text.byte(at) {
            c if c.is_ascii_alphanumeric() => number.push(c),
            // One between groups.
            b' ' | b'-' if at > start && text.byte(at + 1).is_ascii_alphanumeric() => {}
            _ => return None,
        }
        at += 1;
    }
    // In small letters it is written in one piece.
    if number.len() < at - start && number.iter().any(u8::is_ascii_lowercase) {
        return None;
    }
    let checked = number[2].is_ascii_digit() && number[3].is_ascii_digit() && mod97(&number) == 1;
    (checked && text.ends_word(at)).then_some(Match { kind: Kind::Iban, start, end: at, what: "an IBAN", score: 0.99 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_found_by_halves() {
        assert!(LENGTHS.is_sorted_by(|a, b| a.0 < b.0));
        // The longest may be held in a stream with a space between groups of four.
        assert!(LENGTHS.iter().all(|(_, length)| length + length / 4 < crate::open::NUMBER));
    }
}
