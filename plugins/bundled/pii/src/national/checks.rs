//! Check digits.

/// The value of a digit or capital letter: 0 to 9, then 10 for A.
pub fn value(c: u8) -> u32 {
    match c {
        b'0'..=b'9' => u32::from(c - b'0'),
        _ => u32::from(c.to_ascii_uppercase().wrapping_sub(b'A')) + 10,
    }
}

/// Digits as a number.
pub fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |n, &d| n * 10 + u64::from(value(d)))
}

/// The sum of digits times weights.
pub fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(&digit, weight)| value(digit) * weight).sum()
}

/// ISO 7064 MOD 11,10: whether the last digit checks the others.
pub fn mod_11_10(digits: &[u8]) -> bool {
    let Some((last, digits)) = digits.split_last() else { return false };
    let rest = digits.iter().fold(10, |rest, &digit| {
        let sum = (rest + value(digit)) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - rest) % 10 == value(*last)
}

/// Verhoeff (1969): whether the digits, the check digit last, are consistent.
pub fn verhoeff(digits: &[u8]) -> bool {
    // Multiplication in the dihedral group of order ten, and the permutation of a place.
    let multiply = |a: u32, b: u32| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b) % 5,
        (false, true) => 5 + (a + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const PERMUTATION: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let rest = digits.iter().rev().enumerate().fold(0, |rest, (place, &digit)| {
        let permuted = (0..place % 8).fold(value(digit), |digit, _| PERMUTATION[digit as usize]);
        multiply(rest, permuted)
    });
    rest == 0
}

/// Whether day, month and a year of two digits are a date; leap years are those of either century.
pub fn is_date(year: u64, month: u64, day: u64) -> bool {
    let longest = match month {
        2 if year % 4 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=longest).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verhoeff_finds_every_wrong_digit_and_swapped_neighbours() {
        // The example of the method: 236, check digit 3.
        assert!(verhoeff(b"2363"));
        for wrong in [b"2364", b"3263", b"2633", b"1363"] {
            assert!(!verhoeff(wrong));
        }
    }

    #[test]
    fn mod_11_10_is_that_of_the_standard() {
        // ISO 7064, the example of MOD 11,10: 0794, check digit 5.
        assert!(mod_11_10(b"07945"));
        assert!(!mod_11_10(b"07944"));
    }
}
