//! Numbers of payment cards: ISO/IEC 7812-1 (Luhn, annex B) with the issuers' prefixes and lengths.

use crate::kind::{Kind, Match};
use crate::text::Text;

/// Whether the Luhn sum of these digits is a multiple of ten.
pub fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            if place % 2 == 0 { digit } else { digit * 2 - if digit > 4 { 9 } else { 0 } }
        })
        .sum();
    sum % 10 == 0
}

/// The issuer, by prefix and length.
fn issuer(digits: &[u8]) -> Option<&'static str> {
    let prefix = |length: usize| digits[..length].iter().fold(0, |n, d| n * 10 + u32::from(d - b'0'));
    let length = digits.len();
    Some(match (prefix(1), prefix(2), prefix(3), prefix(4)) {
        (4, ..) if matches!(length, 13 | 16 | 19) => "a Visa card",
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) if length == 16 => "a Mastercard",
        (_, 34 | 37, ..) if length == 15 => "an American Express card",
        (_, _, 300..=305, _) | (_, 36 | 38 | 39, ..) if matches!(length, 14 | 16) => "a Diners Club card",
        (_, _, _, 3528..=3589) if (16..=19).contains(&length) => "a JCB card",
        (_, _, _, 6011) | (_, 65, ..) | (_, _, 644..=649, _) if (16..=19).contains(&length) => "a Discover card",
        (_, 62, ..) | (_, 81, ..) if (16..=19).contains(&length) => "a UnionPay card",
        (_, _, _, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761 | 6762 | 6763) if (12..=19).contains(&length) => {
            "a Maestro card"
        }
        (_, _, _, 2200..=2204) if length == 16 => "a Mir card",
        (_, 60, ..) if length == 16 => "a RuPay card",
        (_, _, _, 5019) if length == 16 => "a Dankort",
        (_, _, _, 9792) if length == 16 => "a Troy card",
        _ => return None,
    })
}

/// How the digits may stand in groups.
const GROUPS: &[&[usize]] = &[&[4, 4, 4, 4], &[4, 4, 4, 4, 3], &[4, 4, 4, 1], &[4, 6, 5], &[4, 6, 4]];

/// A card's number that begins with the digit at this byte.
pub fn at(text: &Text, start: usize) -> Option<Match> {
    if !text.left_clear(start) {
        return None;
    }
    let accept = |digits: &[u8], end: usize| {
        let what = issuer(digits)?;
        (luhn(digits) && text.right_clear(end)).then_some(Match { kind: Kind::Card, start, end, what, score: 0.97 })
    };
    let first = text.digits_end(start);
    if (12..=19).contains(&(first - start)) {
        return accept(&text.b[start..first], first);
    }
    let separator = text.byte(first);
    if first - start != 4 || !matches!(separator, b' ' | b'-' | b'.') {
        return None;
    }
    GROUPS.iter().rev().find_map(|groups| {
        let mut digits = Vec::with_capacity(19);
        let mut at = start;
        for (number, &length) in groups.iter().enumerate() {
            if number > 0 {
                if text.byte(at) != separator {
                    return None;
                }
                at += 1;
            }
            let end = text.digits_end(at);
            if end - at != length {
                return None;
            }
            digits.extend_from_slice(&text.b[at..end]);
            at = end;
        }
        accept(&digits, at)
    })
}
