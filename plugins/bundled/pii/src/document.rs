//! Numbers of passports, driving licenses and identity cards: most have no check digits, so the words before them tell.

use crate::context::{Context, List, REACH};
use crate::kind::{Kind, Match};
use crate::text::Text;

/// How far before a number the name of an identity number may stand, in bytes. Behind it such a number is taken even if its
/// check digits are wrong.
const NEAR: usize = 20;

/// A number that begins with the token at this byte.
pub fn at(text: &Text, start: usize, context: &Context) -> Option<Match> {
    if !text.left_clear(start) && text.before(start) != Some('/') {
        return None;
    }
    let (end, digits, letters) = extent(text, start)?;
    let kinds = [
        (Kind::Passport, List::Passport, 6..=10, REACH, "a passport number"),
        (Kind::DrivingLicense, List::Driving, 5..=18, REACH, "a driving license number"),
        (Kind::NationalId, List::IdentityCard, 7..=14, REACH, "an identity card's number"),
        (Kind::NationalId, List::Named, 8..=15, NEAR, "an identity number"),
    ];
    // The nearest word wins: in "passport or driving licence no. ...", the latter.
    kinds
        .into_iter()
        .filter(|(_, _, lengths, ..)| lengths.contains(&(digits + letters)))
        .filter_map(|(kind, list, _, reach, what)| {
            let distance = context.distance(list, 5).filter(|&distance| distance <= reach)?;
            Some((distance, kind, what))
        })
        .min_by_key(|(distance, ..)| *distance)
        .map(|(_, kind, what)| Match { kind, start, end, what, score: 0.8 })
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
    while let Some(&end) = ends.last().filter(|_| ends.len() < 8) {
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
