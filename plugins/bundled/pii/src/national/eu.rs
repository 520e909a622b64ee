//! The 27 states of the European Union. Formats and check digits are those that the states publish, as the European
//! Commission lists them for tax numbers ("TIN algorithms, public", DG TAXUD) and the states' own laws and offices for
//! the others.

use super::Number;
use super::checks::{is_date, mod_11_10, number, value, verhoeff, weighted};
use crate::card::luhn;

/// Found wherever it stands.
const ANYWHERE: &[&str] = &[];

/// The numbers, by country.
#[rustfmt::skip]
pub const NUMBERS: &[Number] = &[
    Number { what: "an Austrian social insurance number", pattern: "9999 999999", check: austria,
        words: &["sozialversicherung", "svnr", "sv-n", "sv nr", "versicherungsnummer", "ssn"] },
    Number { what: "a Belgian national number", pattern: "99 99 99 999 99", check: belgium, words: ANYWHERE },
    Number { what: "a Bulgarian EGN", pattern: "9999999999", check: bulgaria, words: &["егн", "egn", "единен граждански номер", "граждански номер"] },
    Number { what: "a Cypriot tax number", pattern: "99999999A", check: cyprus, words: &["tic|", "α.φ.τ", "αφτ", "φορολογικ", "αριθμός φορολογικής"] },
    Number { what: "a Czech or Slovak birth number", pattern: "999999/9999", check: czechia, words: ANYWHERE },
    Number { what: "a Czech or Slovak birth number", pattern: "9999999999", check: czechia, words: &["rodné číslo", "rodne cislo", "rodného čísla", "rodným číslem", "r.č", "rč|", "r. č"] },
    Number { what: "a Czech or Slovak birth number", pattern: "999999/999", check: czechia_before_1954, words: &["rodné číslo", "rodne cislo", "rodného čísla", "rodným číslem", "r.č", "rč|", "r. č"] },
    Number { what: "a German tax identification number", pattern: "99 999 999 999", check: germany_tax,
        words: &["steuer-id", "steuerid", "steueridentifikationsnummer", "steuer-identifikationsnummer", "steuerliche identifikationsnummer", "idnr", "identifikationsnummer"] },
    Number { what: "a German pension insurance number", pattern: "99 999999 A 999", check: germany_pension, words: ANYWHERE },
    Number { what: "a Danish CPR number", pattern: "999999-9999", check: denmark, words: ANYWHERE },
    Number { what: "a Danish CPR number", pattern: "999999 9999", check: denmark, words: &["cpr", "personnummer"] },
    Number { what: "an Estonian or Lithuanian personal code", pattern: "99999999999", check: estonia_lithuania, words: ANYWHERE },
    Number { what: "a Spanish DNI", pattern: "99999999 A", check: spain_dni, words: ANYWHERE },
    Number { what: "a Spanish DNI", pattern: "99.999.999 A", check: spain_dni, words: ANYWHERE },
    Number { what: "a Spanish NIE", pattern: "A 9999999 A", check: spain_nie, words: ANYWHERE },
    Number { what: "a Finnish personal identity code", pattern: "999999-999X", check: finland, words: ANYWHERE },
    Number { what: "a Finnish personal identity code", pattern: "999999+999X", check: finland, words: ANYWHERE },
    Number { what: "a Finnish personal identity code", pattern: "999999A999X", check: finland_2000, words: ANYWHERE },
    Number { what: "a French social security number", pattern: "9 99 99 9X 999 999 99", check: france_nir, words: ANYWHERE },
    Number { what: "a French tax number", pattern: "99 99 999 999 999", check: france_tax, words: &["numéro fiscal", "n° fiscal", "spi|"] },
    Number { what: "a Greek tax number", pattern: "999999999", check: greece_afm, words: &["αφμ", "α.φ.μ", "afm|", "αριθμός φορολογικού μητρώου"] },
    Number { what: "a Greek AMKA", pattern: "99999999999", check: greece_amka, words: &["αμκα", "α.μ.κ.α", "amka"] },
    Number { what: "a Croatian OIB", pattern: "99999999999", check: mod_11_10, words: &["oib", "osobni identifikacijski broj"] },
    Number { what: "a Hungarian personal number", pattern: "9 999999 9999", check: hungary_personal, words: &["személyi szám", "személyi azonosító", "személyazonosító"] },
    Number { what: "a Hungarian tax number", pattern: "9999999999", check: hungary_tax, words: &["adóazonosító", "adószám"] },
    Number { what: "a Hungarian social insurance number", pattern: "999 999 999", check: hungary_taj, words: &["taj", "társadalombiztosítás"] },
    Number { what: "an Irish PPS number", pattern: "9999999A", check: ireland, words: ANYWHERE },
    Number { what: "an Irish PPS number", pattern: "9999999AA", check: ireland, words: ANYWHERE },
    Number { what: "an Italian tax code", pattern: "AAAAAAXXAXXAXXXA", check: italy, words: ANYWHERE },
    Number { what: "a Luxembourgish national number", pattern: "9999 99 99 999 99", check: luxembourg, words: ANYWHERE },
    Number { what: "a Latvian personal code", pattern: "999999-99999", check: latvia, words: ANYWHERE },
    Number { what: "a Latvian personal code", pattern: "99999999999", check: latvia, words: &["personas kod", "personas kods"] },
    Number { what: "a Maltese identity number", pattern: "9999999A", check: malta, words: &["karta tal-identità", "numru tal-identità", "id card", "identità", "taxxa"] },
    Number { what: "a Maltese identity number", pattern: "999999A", check: malta, words: &["karta tal-identità", "numru tal-identità", "id card", "identità", "taxxa"] },
    Number { what: "a Dutch citizen service number", pattern: "999 999 999", check: netherlands, words: &["bsn", "burgerservicenummer", "sofinummer", "sofi-nummer"] },
    Number { what: "a Dutch citizen service number", pattern: "9999 99 999", check: netherlands, words: &["bsn", "burgerservicenummer", "sofinummer", "sofi-nummer"] },
    Number { what: "a Polish PESEL", pattern: "99999999999", check: poland_pesel, words: &["pesel"] },
    Number { what: "a Polish tax number", pattern: "999 999 99 99", check: poland_nip, words: &["nip|", "numer identyfikacji podatkowej"] },
    Number { what: "a Polish tax number", pattern: "999 99 99 999", check: poland_nip, words: &["nip|", "numer identyfikacji podatkowej"] },
    Number { what: "a Portuguese tax number", pattern: "999 999 999", check: portugal_nif, words: &["nif|", "contribuinte", "número fiscal", "nº fiscal"] },
    Number { what: "a Portuguese citizen card number", pattern: "99999999 9 XX9", check: portugal_card, words: ANYWHERE },
    Number { what: "a Romanian CNP", pattern: "9999999999999", check: romania, words: ANYWHERE },
    Number { what: "a Swedish personal number", pattern: "999999-9999", check: sweden, words: ANYWHERE },
    Number { what: "a Swedish personal number", pattern: "999999+9999", check: sweden, words: ANYWHERE },
    Number { what: "a Swedish personal number", pattern: "99999999 9999", check: sweden_with_century, words: ANYWHERE },
    Number { what: "a Swedish personal number", pattern: "9999999999", check: sweden, words: &["personnummer", "pnr", "samordningsnummer", "persnr"] },
    Number { what: "a Slovenian EMŠO", pattern: "9999999999999", check: slovenia_emso, words: ANYWHERE },
    Number { what: "a Slovenian tax number", pattern: "99999999", check: slovenia_tax, words: &["davčna", "davčne", "davčno"] },
];

/// `yymmdd`.
fn is_year_first(d: &[u8]) -> bool {
    is_date(number(&d[..2]), number(&d[2..4]), number(&d[4..6]))
}

/// `ddmmyy`.
fn is_day_first(d: &[u8]) -> bool {
    is_date(number(&d[4..6]), number(&d[2..4]), number(&d[..2]))
}

fn austria(d: &[u8]) -> bool {
    let rest = weighted(&d[..3], &[3, 7, 9]) + weighted(&d[4..], &[5, 8, 4, 2, 1, 6]);
    // Months 13 to 15 stand in for an unknown date of birth.
    let month = number(&d[6..8]);
    let is_birth = is_day_first(&d[4..]) || ((13..=15).contains(&month) && (1..=31).contains(&number(&d[4..6])));
    d[0] != b'0' && is_birth && rest % 11 == value(d[3])
}

fn belgium(d: &[u8]) -> bool {
    let (first, check) = (number(&d[..9]), number(&d[9..]));
    // Bis numbers add 20 or 40 to the month; 0 stands for unknown.
    let (month, day) = (number(&d[2..4]) % 20, number(&d[4..6]));
    let is_birth = is_date(number(&d[..2]), month, day) || (month <= 12 && (day == 0 || month == 0));
    let is_month = number(&d[2..4]) <= 52;
    is_birth && is_month && [first, 2_000_000_000 + first].iter().any(|n| 97 - n % 97 == check)
}

fn bulgaria(d: &[u8]) -> bool {
    // 20 is added to the month for those born before 1900, 40 from 2000 on.
    let month = number(&d[2..4]);
    let month = month
        - if month > 40 {
            40
        } else if month > 20 {
            20
        } else {
            0
        };
    let sum = weighted(d, &[2, 4, 8, 5, 10, 9, 7, 3, 6]);
    is_date(number(&d[..2]), month, number(&d[4..6])) && sum % 11 % 10 == value(d[9])
}

fn cyprus(d: &[u8]) -> bool {
    const ODD: [u32; 10] = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21];
    let sum: u32 = d[..8]
        .iter()
        .enumerate()
        .map(|(place, &digit)| if place % 2 == 0 { ODD[value(digit) as usize] } else { value(digit) })
        .sum();
    !d.starts_with(b"12") && sum % 26 + 10 == value(d[8])
}

/// 50 is added to the month for women, 20 where a day's numbers have run out.
fn czech_birth(d: &[u8]) -> bool {
    let month = number(&d[2..4]) % 50;
    is_date(number(&d[..2]), if month > 20 { month - 20 } else { month }, number(&d[4..6]))
}

fn czechia(d: &[u8]) -> bool {
    let check = number(&d[..9]) % 11 % 10;
    czech_birth(d) && check == u64::from(value(d[9]))
}

fn czechia_before_1954(d: &[u8]) -> bool {
    czech_birth(d) && number(&d[..2]) < 54
}

fn germany_tax(d: &[u8]) -> bool {
    // One digit stands twice or three times among the first ten, the others once at most.
    let mut counts = [0; 10];
    d[..10].iter().for_each(|&digit| counts[value(digit) as usize] += 1);
    let repeated: Vec<u32> = counts.into_iter().filter(|&n| n > 1).collect();
    d[0] != b'0' && matches!(repeated[..], [2 | 3]) && mod_11_10(d)
}

fn germany_pension(d: &[u8]) -> bool {
    let letter = value(d[8]) - 9;
    let mut digits = d[..8].to_vec();
    digits.extend([b'0' + (letter / 10) as u8, b'0' + (letter % 10) as u8, d[9], d[10]]);
    let sum: u32 = digits
        .iter()
        .zip([2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1])
        .map(|(&digit, weight)| value(digit) * weight)
        .map(|product| product / 10 + product % 10)
        .sum();
    // 50 may be added to the day.
    let day = number(&d[2..4]) % 50;
    is_date(number(&d[6..8]), number(&d[4..6]), day) && sum % 10 == value(d[11])
}

/// Since 2007 the last digits are not checked any more.
fn denmark(d: &[u8]) -> bool {
    is_day_first(d)
}

fn estonia_lithuania(d: &[u8]) -> bool {
    let mut check = weighted(&d[..10], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]) % 11;
    if check == 10 {
        check = weighted(&d[..10], &[3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 11 % 10;
    }
    (b'1'..=b'6').contains(&d[0]) && is_year_first(&d[1..]) && check == value(d[10])
}

const SPAIN: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";

fn spain_dni(d: &[u8]) -> bool {
    SPAIN[(number(&d[..8]) % 23) as usize] == d[8]
}

fn spain_nie(d: &[u8]) -> bool {
    (b'X'..=b'Z').contains(&d[0])
        && SPAIN[((u64::from(d[0] - b'X') * 10_000_000 + number(&d[1..8])) % 23) as usize] == d[8]
}

fn finland(d: &[u8]) -> bool {
    let checked = number(&d[..9]) % 31;
    is_day_first(d) && number(&d[6..9]) > 1 && b"0123456789ABCDEFHJKLMNPRSTUVWXY"[checked as usize] == d[9]
}

/// Born from 2000 on, and since 2023 further letters in the place of the hyphen.
fn finland_2000(d: &[u8]) -> bool {
    let digits = [&d[..6], &d[7..]].concat();
    b"ABCDEFUVWXY".contains(&d[6]) && finland(&digits)
}

fn france_nir(d: &[u8]) -> bool {
    // Corsica: 2A counts as 19, 2B as 18.
    let mut digits = d[..13].to_vec();
    match &d[5..7] {
        b"2A" => digits[5..7].copy_from_slice(b"19"),
        b"2B" => digits[5..7].copy_from_slice(b"18"),
        other if other[1].is_ascii_digit() => {}
        _ => return false,
    }
    let month = number(&d[3..5]);
    let is_month = (1..=12).contains(&month) || (20..=42).contains(&month) || month >= 50;
    matches!(d[0], b'1'..=b'4' | b'7' | b'8') && is_month && 97 - number(&digits) % 97 == number(&d[13..])
}

fn france_tax(d: &[u8]) -> bool {
    d[0] <= b'3' && number(&d[..10]) % 511 == number(&d[10..])
}

fn greece_afm(d: &[u8]) -> bool {
    weighted(&d[..8], &[256, 128, 64, 32, 16, 8, 4, 2]) % 11 % 10 == value(d[8])
}

fn greece_amka(d: &[u8]) -> bool {
    is_day_first(d) && luhn(d)
}

fn hungary_personal(d: &[u8]) -> bool {
    let rising = weighted(&d[..10], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) % 11;
    let falling = weighted(&d[..10], &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]) % 11;
    (b'1'..=b'8').contains(&d[0]) && is_year_first(&d[1..]) && [rising, falling].contains(&value(d[10]))
}

fn hungary_tax(d: &[u8]) -> bool {
    d[0] == b'8' && weighted(&d[..9], &[1, 2, 3, 4, 5, 6, 7, 8, 9]) % 11 == value(d[9])
}

fn hungary_taj(d: &[u8]) -> bool {
    weighted(&d[..8], &[3, 7, 3, 7, 3, 7, 3, 7]) % 10 == value(d[8])
}

fn ireland(d: &[u8]) -> bool {
    let second = match d.get(8) {
        None | Some(b'W') => 0,
        Some(letter @ b'A'..=b'I') => value(*letter) - 9,
        Some(_) => return false,
    };
    let sum = weighted(&d[..7], &[8, 7, 6, 5, 4, 3, 2]) + second * 9;
    let letter = if sum % 23 == 0 { b'W' } else { b'@' + (sum % 23) as u8 };
    d[7] == letter
}

fn italy(d: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    // Letters may stand for digits where two persons' codes would be alike.
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(u64::from(c - b'0')),
        _ => b"LMNPQRSTUV".iter().position(|&letter| letter == c).map(|n| n as u64),
    };
    let two = |at: usize| Some(digit(d[at])? * 10 + digit(d[at + 1])?);
    let sum: u32 = d[..15]
        .iter()
        .enumerate()
        .map(|(place, &c)| {
            let plain = if c.is_ascii_digit() { u32::from(c - b'0') } else { u32::from(c - b'A') };
            if place % 2 == 0 { ODD[plain as usize] } else { plain }
        })
        .sum();
    // 40 is added to the day for women.
    let is_birth = b"ABCDEHLMPRST".contains(&d[8])
        && two(6).is_some()
        && two(9).is_some_and(|day| (1..=31).contains(&(day % 40)))
        && (12..15).all(|at| digit(d[at]).is_some());
    is_birth && sum % 26 == u32::from(d[15] - b'A')
}

fn luxembourg(d: &[u8]) -> bool {
    let with_verhoeff = [&d[..11], &d[12..]].concat();
    matches!(&d[..2], b"18" | b"19" | b"20") && is_year_first(&d[2..]) && luhn(&d[..12]) && verhoeff(&with_verhoeff)
}

fn latvia(d: &[u8]) -> bool {
    // Since 2017: 32 and no date.
    let sum = weighted(&d[..10], &[1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let check = (1101 - sum) % 11 % 10;
    d.starts_with(b"32") || (is_day_first(d) && d[6] <= b'2' && check == value(d[10]))
}

fn malta(d: &[u8]) -> bool {
    d.last().is_some_and(|letter| b"MGAPLHBZ".contains(letter))
}

fn netherlands(d: &[u8]) -> bool {
    weighted(&d[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) % 11 == value(d[8])
}

fn poland_pesel(d: &[u8]) -> bool {
    // The century is in the month: 80 for 18.., 20 for 20.., 40 for 21.., 60 for 22...
    let sum = weighted(&d[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    is_date(number(&d[..2]), number(&d[2..4]) % 20, number(&d[4..6])) && (10 - sum % 10) % 10 == value(d[10])
}

fn poland_nip(d: &[u8]) -> bool {
    weighted(&d[..9], &[6, 5, 7, 2, 3, 4, 5, 6, 7]) % 11 == value(d[9])
}

fn portugal_nif(d: &[u8]) -> bool {
    let rest = weighted(&d[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    matches!(d[0], b'1' | b'2' | b'3' | b'5' | b'6' | b'8' | b'9')
        && (if rest < 2 { 0 } else { 11 - rest }) == value(d[8])
}

fn portugal_card(d: &[u8]) -> bool {
    let sum: u32 = d
        .iter()
        .enumerate()
        .map(|(place, &c)| value(c) * if place % 2 == 0 { 2 } else { 1 })
        .enumerate()
        .map(|(place, product)| if place % 2 == 0 && product > 9 { product - 9 } else { product })
        .sum();
    d[9..11].iter().any(u8::is_ascii_uppercase) && sum % 10 == 0
}

fn romania(d: &[u8]) -> bool {
    let rest = weighted(&d[..12], &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    let county = number(&d[7..9]);
    let is_county = (1..=52).contains(&county) || county == 70 || (80..=83).contains(&county);
    d[0] != b'0' && is_year_first(&d[1..]) && is_county && (if rest == 10 { 1 } else { rest }) == value(d[12])
}

fn sweden(d: &[u8]) -> bool {
    // Coordination numbers add 60 to the day.
    let day = number(&d[4..6]);
    let day = if day > 60 { day - 60 } else { day };
    is_date(number(&d[..2]), number(&d[2..4]), day) && luhn(d)
}

fn sweden_with_century(d: &[u8]) -> bool {
    matches!(&d[..2], b"18" | b"19" | b"20") && sweden(&d[2..])
}

fn slovenia_emso(d: &[u8]) -> bool {
    let rest = weighted(&d[..12], &[7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if rest == 0 { 0 } else { 11 - rest };
    let is_birth = is_date(number(&d[5..7]), number(&d[2..4]), number(&d[..2])) && matches!(d[4], b'9' | b'0' | b'8');
    is_birth && check == value(d[12])
}

fn slovenia_tax(d: &[u8]) -> bool {
    let check = 11 - weighted(&d[..7], &[8, 7, 6, 5, 4, 3, 2]) % 11;
    d[0] != b'0' && check % 10 == value(d[7]) && check != 11
}
