//! States beyond the European Union whose languages are served or whose numbers are often written.

use super::Number;
use super::checks::{is_date, number, value, verhoeff, weighted};
use crate::card::luhn;

/// The numbers, by country.
#[rustfmt::skip]
pub const NUMBERS: &[Number] = &[
    Number { what: "a US social security number", pattern: "999-99-9999", check: united_states, words: &[] },
    Number { what: "a US social security number", pattern: "999 99 9999", check: united_states, words: &["ssn", "social security", "seguro social"] },
    Number { what: "a UK national insurance number", pattern: "AA 99 99 99 A", check: national_insurance, words: &[] },
    Number { what: "a UK health service number", pattern: "999 999 9999", check: health_service, words: &["nhs"] },
    Number { what: "a Norwegian national identity number", pattern: "999999 99999", check: norway, words: &[] },
    Number { what: "an Icelandic identity number", pattern: "999999-9999", check: iceland, words: &[] },
    Number { what: "a Swiss social insurance number", pattern: "999.9999.9999.99", check: switzerland, words: &[] },
    Number { what: "a Swiss social insurance number", pattern: "9999999999999", check: switzerland, words: &["ahv", "avs"] },
    Number { what: "a Turkish identity number", pattern: "99999999999", check: turkey, words: &["kimlik", "tckn", "t.c.", "tc no"] },
    Number { what: "a Chinese identity number", pattern: "99999999999999999X", check: china, words: &[] },
    Number { what: "a Korean resident registration number", pattern: "999999-9999999", check: korea, words: &[] },
    Number { what: "a Japanese individual number", pattern: "9999 9999 9999", check: japan, words: &["マイナンバー", "個人番号", "my number"] },
    Number { what: "an Indian Aadhaar number", pattern: "9999 9999 9999", check: aadhaar, words: &["aadhaar", "aadhar", "आधार"] },
    Number { what: "an Indian PAN", pattern: "AAAAA9999A", check: pan, words: &[] },
    Number { what: "an Indonesian identity number", pattern: "9999999999999999", check: indonesia, words: &["nik|", "ktp|", "induk kependudukan"] },
    Number { what: "a Vietnamese citizen number", pattern: "999999999999", check: vietnam, words: &["cccd", "căn cước", "định danh"] },
    Number { what: "a Saudi identity number", pattern: "9999999999", check: saudi_arabia, words: &["الهوية", "هوية", "الإقامة", "iqama"] },
    Number { what: "an Egyptian national number", pattern: "99999999999999", check: egypt, words: &["الرقم القومي", "رقم قومي"] },
    Number { what: "a Brazilian CPF", pattern: "999.999.999-99", check: brazil, words: &[] },
    Number { what: "a Brazilian CPF", pattern: "99999999999", check: brazil, words: &["cpf"] },
];

fn united_states(d: &[u8]) -> bool {
    let area = number(&d[..3]);
    area != 0 && area != 666 && area < 900 && &d[3..5] != b"00" && &d[5..] != b"0000"
}

fn national_insurance(d: &[u8]) -> bool {
    let prefix = &d[..2];
    let excluded = [b"BG", b"GB", b"NK", b"KN", b"TN", b"NT", b"ZZ"];
    !b"DFIQUV".contains(&d[0])
        && !b"DFIQUVO".contains(&d[1])
        && !excluded.iter().any(|&e| prefix == e)
        && d[2..8].iter().all(u8::is_ascii_digit)
        && (b'A'..=b'D').contains(&d[8])
}

fn health_service(d: &[u8]) -> bool {
    let check = 11 - weighted(&d[..9], &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    check % 11 == value(d[9]) && check != 10
}

fn norway(d: &[u8]) -> bool {
    let check = |digits: &[u8], weights: &[u32]| (11 - weighted(digits, weights) % 11) % 11;
    // D numbers add 40 to the day.
    let day = number(&d[..2]) % 40;
    is_date(number(&d[4..6]), number(&d[2..4]), day)
        && check(&d[..9], &[3, 7, 6, 1, 8, 9, 4, 5, 2]) == value(d[9])
        && check(&d[..10], &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) == value(d[10])
}

fn iceland(d: &[u8]) -> bool {
    let check = (11 - weighted(&d[..8], &[3, 2, 7, 6, 5, 4, 3, 2]) % 11) % 11;
    is_date(number(&d[4..6]), number(&d[2..4]), number(&d[..2]))
        && check == value(d[8])
        && matches!(d[9], b'8' | b'9' | b'0')
}

fn switzerland(d: &[u8]) -> bool {
    let sum = weighted(&d[..12], &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3]);
    d.starts_with(b"756") && (10 - sum % 10) % 10 == value(d[12])
}

fn turkey(d: &[u8]) -> bool {
    let odd: u32 = d[..9].iter().step_by(2).map(|&digit| value(digit)).sum();
    let even: u32 = d[1..8].iter().step_by(2).map(|&digit| value(digit)).sum();
    let sum: u32 = d[..10].iter().map(|&digit| value(digit)).sum();
    d[0] != b'0' && (odd * 7 + 10 * 10 - even) % 10 == value(d[9]) && sum % 10 == value(d[10])
}

fn china(d: &[u8]) -> bool {
    let sum = weighted(&d[..17], &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let is_birth =
        matches!(&d[6..8], b"18" | b"19" | b"20") && is_date(number(&d[8..10]), number(&d[10..12]), number(&d[12..14]));
    is_birth && b"10X98765432"[(sum % 11) as usize] == d[17]
}

/// Since 2020 the last digits are drawn, without a check.
fn korea(d: &[u8]) -> bool {
    is_date(number(&d[..2]), number(&d[2..4]), number(&d[4..6]))
}

fn japan(d: &[u8]) -> bool {
    let rest = weighted(&d[..11], &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    (if rest <= 1 { 0 } else { 11 - rest }) == value(d[11])
}

fn aadhaar(d: &[u8]) -> bool {
    d[0] >= b'2' && verhoeff(d)
}

fn pan(d: &[u8]) -> bool {
    b"ABCFGHJLPT".contains(&d[3])
}

/// Province, regency, district, then the date of birth with 40 added to the day for women.
fn indonesia(d: &[u8]) -> bool {
    (11..=96).contains(&number(&d[..2])) && is_date(number(&d[10..12]), number(&d[8..10]), number(&d[6..8]) % 40)
}

fn vietnam(d: &[u8]) -> bool {
    (1..=96).contains(&number(&d[..3]))
}

fn saudi_arabia(d: &[u8]) -> bool {
    matches!(d[0], b'1' | b'2') && luhn(d)
}

fn egypt(d: &[u8]) -> bool {
    matches!(d[0], b'2' | b'3') && is_date(number(&d[1..3]), number(&d[3..5]), number(&d[5..7]))
}

fn brazil(d: &[u8]) -> bool {
    let check = |digits: &[u8], first: u32| {
        let sum: u32 = digits.iter().zip((2..=first).rev()).map(|(&digit, weight)| value(digit) * weight).sum();
        let rest = sum % 11;
        if rest < 2 { 0 } else { 11 - rest }
    };
    check(&d[..9], 10) == value(d[9]) && check(&d[..10], 11) == value(d[10])
}
