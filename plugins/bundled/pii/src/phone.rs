//! Telephone numbers: international ones by their country code (ITU-T E.164), national ones by how they are written or by
//! the words before them.

use crate::kind::{Kind, Match};
use crate::text::{Text, has_word};
use crate::words;

/// Country codes of one and two digits; all others have three. ITU-T E.164, list of assigned codes.
#[rustfmt::skip]
const SHORT_CODES: &[u16] = &[
    1, 7, 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56, 57, 58, 60, 61,
    62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
];

/// Groups of three digits that are assigned, by their first two digits.
const LONG_CODES: &[u16] =
    &[21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99];

/// The longest number with its separators, in bytes.
const LONGEST: usize = 32;

/// Digits in groups, from a `+`, a parenthesis or a digit on.
struct Groups {
    groups: Vec<(usize, usize)>,
    separators: Vec<u8>,
}

/// Groups of digits with a space, a dot, a hyphen, a slash or a parenthesis between them.
fn groups(text: &Text, start: usize) -> Groups {
    let mut found = Groups { groups: Vec::new(), separators: Vec::new() };
    let mut at = start;
    while at - start < LONGEST {
        let end = text.digits_end(at);
        if end == at {
            break;
        }
        found.groups.push((at, end));
        let rest = &text.b[end..];
        // `(0)` of `+49 (0)30`, `) ` and ` (`.
        let (separator, length) = match rest {
            [b' ', b'(', b'0', b')', b' ', ..] => (b'(', 5),
            [b' ', b'(', b'0', b')', ..] | [b'(', b'0', b')', b' ', ..] => (b'(', 4),
            [b'(', b'0', b')', ..] => (b'(', 3),
            [b' ', b'-' | b'/' | b'(', b' ', ..] => (rest[1], 3),
            [b' ', b'(', ..] | [b')', b' ' | b'-' | b'/', ..] => (b'(', 2),
            [b')' | b'(', ..] => (b'(', 1),
            [c @ (b' ' | b'.' | b'-' | b'/'), ..] => (*c, 1),
            _ => break,
        };
        if !text.byte(end + length).is_ascii_digit() {
            break;
        }
        found.separators.push(separator);
        at = end + length;
    }
    found
}

impl Groups {
    /// The digits of the first groups.
    fn digits(&self, text: &Text, count: usize) -> Vec<u8> {
        self.groups[..count].iter().flat_map(|&(start, end)| text.b[start..end].iter().copied()).collect()
    }

    fn lengths(&self, count: usize) -> Vec<usize> {
        self.groups[..count].iter().map(|(start, end)| end - start).collect()
    }

    /// Whether the separators of the first groups are those of a telephone number: all alike, or another one behind the
    /// first group or two, as in `030/123 456` and `+49 30 123-456`.
    fn is_regular(&self, count: usize) -> bool {
        let separators = &self.separators[..count - 1];
        let kinds = |separators: &[u8]| separators.windows(2).filter(|pair| pair[0] != pair[1]).count();
        kinds(separators) <= 2 && !(separators.contains(&b'.') && kinds(separators) > 0)
    }
}

/// Whether the digits behind a `+` or `00` are a country's code and a number of plausible length.
fn is_international(digits: &[u8]) -> bool {
    let prefix = |length: usize| digits.iter().take(length).fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    let code = match (prefix(1), prefix(2)) {
        (1 | 7, _) => 1,
        (_, two) if SHORT_CODES.contains(&two) => 2,
        (_, two) if LONG_CODES.contains(&two) => 3,
        _ => return false,
    };
    let Some(rest) = digits.get(code..) else { return false };
    match prefix(code) {
        // North America: ten digits, neither the area nor the exchange begins with 0 or 1.
        1 => rest.len() == 10 && rest[0] > b'1' && rest[3] > b'1',
        // Italy, San Marino, and a few with numbers that begin with 0.
        39 | 378 | 225 | 241 | 242 => (6..=12).contains(&rest.len()),
        _ => (6..=12).contains(&rest.len()) && rest[0] != b'0' && (8..=15).contains(&digits.len()),
    }
}

/// A number that begins at this byte: `+`, `(` or a digit.
pub fn at(text: &Text, start: usize) -> Option<Match> {
    let found = |end, score| Match { kind: Kind::Phone, start, end, what: "a telephone number", score };
    let left = text.left_clear(start);
    match text.byte(start) {
        b'+' => {
            let is_free = text.starts_word(start) && text.before(start) != Some('+');
            let first = start + 1 + usize::from(matches!(text.byte(start + 1), b' ' | b'('));
            return longest(text, first, is_free, is_international).map(|end| found(end, 0.97));
        }
        b'(' => {
            let groups = groups(text, start + 1);
            if !left || groups.separators.first() != Some(&b'(') {
                return None;
            }
            let first = groups.groups.first().map_or(0, |(start, end)| end - start);
            let is_national = |digits: &[u8]| match digits {
                [b'0', b'0', ..] => is_international(&digits[2..]),
                [b'0', ..] => (9..=12).contains(&digits.len()),
                [b'2'..=b'9', _, _, b'2'..=b'9', ..] => first == 3 && digits.len() == 10,
                _ => false,
            };
            return longest(text, start + 1, true, is_national).map(|end| found(end, 0.9));
        }
        b'0' if text.byte(start + 1) == b'0' && left => {
            let end = longest(text, start, true, |digits| digits.len() > 10 && is_international(&digits[2..]));
            if let Some(end) = end {
                let is_grouped = text.s[start..end].contains([' ', '/', '-']);
                if is_grouped || is_announced(text, start) {
                    return Some(found(end, 0.9));
                }
            }
        }
        _ => {}
    }
    if !left || follows_number(text, start) {
        return None;
    }
    if let Some(end) = written_as_one(text, start) {
        return Some(found(end, 0.85));
    }
    let end = announced(text, start)?;
    (!is_date(text, start) && is_announced(text, start)).then(|| found(end, 0.85))
}

/// The end of what may be a number where words before say that one follows.
fn announced(text: &Text, start: usize) -> Option<usize> {
    let groups = groups(text, start);
    (1..=groups.groups.len()).rev().find_map(|count| {
        let lengths = groups.lengths(count);
        let digits: usize = lengths.iter().sum();
        let end = groups.groups[count - 1].1;
        let separators = &groups.separators[..count - 1];
        let is_number = match count {
            1 => (6..=13).contains(&digits),
            // 1.234.567 and 1299.99 are amounts.
            _ => (7..=13).contains(&digits) && lengths[0] > 1 && (count > 2 || !separators.contains(&b'.')),
        };
        (is_number && groups.is_regular(count) && text.right_clear(end) && !is_amount(text, end)).then_some(end)
    })
}

/// Whether a currency or a unit follows.
fn is_amount(text: &Text, end: usize) -> bool {
    const UNITS: &[&str] = &[
        "€", "$", "£", "¥", "₹", "₩", "₫", "°", "%", "eur", "usd", "gbp", "chf", "kč", "zł", "pln", "kr", "sek", "dkk",
        "ft", "huf", "lei", "ron", "лв", "bgn", "rs", "inr", "yen", "円", "元", "원", "vnd", "idr", "km", "kg", "mm",
        "mb", "gb", "kb", "mhz", "ghz", "bytes", "people", "users",
    ];
    let rest = text.s[end..].trim_start_matches(' ');
    let unit = &rest[..rest.char_indices().nth(6).map_or(rest.len(), |(at, _)| at)].to_lowercase();
    UNITS.iter().any(|of| unit.strip_prefix(of).is_some_and(|rest| !rest.starts_with(char::is_alphabetic)))
}

/// Whether these digits are a further group of what began before.
fn follows_number(text: &Text, start: usize) -> bool {
    let before = &text.b[..start];
    matches!(before, [.., digit, b' '] if digit.is_ascii_digit())
}

/// Whether words before say that a telephone number follows.
fn is_announced(text: &Text, start: usize) -> bool {
    has_word(&text.context(start, 56), words::PHONE)
}

/// The end of the most groups from here on whose digits are accepted.
fn longest(text: &Text, start: usize, is_free: bool, accepts: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let groups = groups(text, start);
    (1..=groups.groups.len()).rev().filter(|_| is_free).find_map(|count| {
        let end = groups.groups[count - 1].1;
        let fits = accepts(&groups.digits(text, count)) && groups.is_regular(count) && text.right_clear(end);
        // A dot or hyphen and a digit behind would belong to it; a space and more digits need not.
        fits.then_some(end)
    })
}

/// A national number that is written as nothing else is.
fn written_as_one(text: &Text, start: usize) -> Option<usize> {
    let groups = groups(text, start);
    (2..=groups.groups.len()).rev().find_map(|count| {
        let digits = groups.digits(text, count);
        let lengths = groups.lengths(count);
        let separators = &groups.separators[..count - 1];
        let alike = |c: u8| separators.iter().all(|&separator| separator == c);
        let dots_or_hyphens = alike(b'.') || alike(b'-');
        let is_number = match lengths[..] {
            // North America: 555-234-5678.
            [3, 3, 4] if dots_or_hyphens => digits[0] > b'1' && digits[3] > b'1',
            [1, 3, 3, 4] if dots_or_hyphens => digits[0] == b'1' && digits[1] > b'1' && digits[4] > b'1',
            // France: 06.12.34.56.78, 06 12 34 56 78.
            [2, 2, 2, 2, 2] if alike(b'.') || alike(b' ') || alike(b'-') => digits[0] == b'0' && digits[1] != b'0',
            // With a trunk prefix: 030 1234567, 0171/1234567, 020 7946 0018. A lone 0 begins an ISBN or a fraction.
            [2..=5, ..] if digits[0] == b'0' && digits[1] != b'0' => {
                (9..=12).contains(&digits.len())
                    && !separators.contains(&b'.')
                    && groups.is_regular(count)
                    && lengths.iter().filter(|&&length| length == 1).count() <= 1
            }
            _ => false,
        };
        let end = groups.groups[count - 1].1;
        (is_number && !is_date(text, start) && text.right_clear(end)).then_some(end)
    })
}

/// Whether a date begins here: 2024-01-31, 31.01.2024, 01/31/2024, 31 01 2024.
fn is_date(text: &Text, start: usize) -> bool {
    let groups = groups(text, start);
    let Some(&[a, b, c]) = groups.groups.get(..3).and_then(|g| <&[_; 3]>::try_from(g).ok()) else { return false };
    let number = |(start, end): (usize, usize)| text.s[start..end].parse::<u32>().unwrap_or(u32::MAX);
    let is_year = |group: (usize, usize)| group.1 - group.0 == 4 && (1800..2200).contains(&number(group));
    let is_day = |group: (usize, usize)| group.1 - group.0 <= 2 && (1..=31).contains(&number(group));
    groups.separators[0] == groups.separators[1]
        && is_day(b)
        && ((is_year(a) && is_day(c)) || (is_day(a) && is_year(c)))
}
