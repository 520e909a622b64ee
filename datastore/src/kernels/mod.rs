//! Distances between a query and many rows: AVX-512 with VNNI, AVX2, or portable code, chosen when the program runs.
//!
//! Every level gives the same bits: codes are summed as integers, floats in 32 lanes with fused multiply-adds and one fixed
//! order of adding the lanes up. So an index answers alike on every machine. `portable` is the safe twin of the others.
#![allow(unsafe_code)] // calls into functions compiled for features that `level` has found

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod prefetch;

use std::sync::LazyLock;

use half::f16;

pub use prefetch::prefetch;

/// Codes are padded with zeros to whole blocks of this many bytes: one AVX-512 register, one line of the cache.
pub const CODE_BLOCK: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

static LEVEL: LazyLock<Level> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni") {
            return Level::Avx512;
        }
        if has!("avx2") && has!("fma") && has!("f16c") {
            return Level::Avx2;
        }
    }
    Level::Portable
});

/// The length of a code of `dim` components: `dim` rounded up to whole blocks.
pub fn code_len(dim: usize) -> usize {
    dim.next_multiple_of(CODE_BLOCK)
}

macro_rules! dispatch {
    ($name:ident($($argument:expr),*)) => {
        match *LEVEL {
            // SAFETY: `LEVEL` has found every feature that the functions of this module are compiled for.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::$name($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::$name($($argument),*) },
            Level::Portable => portable::$name($($argument),*),
        }
    };
}

/// Σᵢ codeᵢ·queryᵢ for the rows `ids` of `codes`, rows being as long as `query`; rows ahead are prefetched.
///
/// # Panics
/// When a row lies outside `codes` or the lengths of `ids` and `out` differ: callers check ids that come from files.
pub fn gather_dots(codes: &[u8], ids: &[u32], query: &[i8], out: &mut [i32]) {
    assert_eq!(ids.len(), out.len());
    dispatch!(gather_dots(codes, ids, query, out));
}

/// Σᵢ codeᵢ·queryᵢ for each row of `codes` in turn.
pub fn scan_dots(codes: &[u8], query: &[i8], out: &mut [i32]) {
    assert_eq!(codes.len(), query.len() * out.len());
    dispatch!(scan_dots(codes, query, out));
}

/// Σᵢ (aᵢ − bᵢ)² of two codes.
pub fn squared_l2_codes(a: &[u8], b: &[u8]) -> u32 {
    assert_eq!(a.len(), b.len());
    dispatch!(squared_l2_codes(a, b))
}

/// Σᵢ (queryᵢ − rowᵢ)².
pub fn squared_l2(query: &[f32], row: &[f16]) -> f32 {
    assert_eq!(query.len(), row.len());
    dispatch!(squared_l2(query, row))
}

/// Adds 32 lanes up in the order that every level keeps: halves onto halves.
#[inline(always)]
fn fold(mut lanes: [f32; 32]) -> f32 {
    let mut width = 16;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// What is left of a row behind its whole blocks of 32, added to `sum` one by one.
#[inline(always)]
fn squared_l2_tail(mut sum: f32, query: &[f32], row: &[f16]) -> f32 {
    for (q, x) in query.iter().zip(row) {
        let difference = q - x.to_f32();
        sum = difference.mul_add(difference, sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every level that this machine has, beside the portable one.
    macro_rules! levels {
        ($name:ident($($argument:expr),*)) => {{
            let mut results = vec![portable::$name($($argument),*)];
            #[cfg(target_arch = "x86_64")]
            {
                if *LEVEL == Level::Avx512 {
                    // SAFETY: found by `LEVEL`.
                    results.push(unsafe { avx512::$name($($argument),*) });
                }
                if *LEVEL != Level::Portable {
                    // SAFETY: a machine that has AVX-512 has AVX2, FMA and F16C.
                    results.push(unsafe { avx2::$name($($argument),*) });
                }
            }
            results
        }};
    }

    proptest! {
        #[test]
        fn every_level_gives_the_same_distance(values in prop::collection::vec((-4.0_f32..4.0, -4.0_f32..4.0), 1..200)) {
            let query: Vec<f32> = values.iter().map(|v| v.0).collect();
            let row: Vec<f16> = values.iter().map(|v| f16::from_f32(v.1)).collect();
            let results = levels!(squared_l2(&query, &row));
            prop_assert!(results.iter().all(|r| r.to_bits() == results[0].to_bits()), "{results:?}");
            let exact: f64 = query.iter().zip(&row).map(|(q, x)| (f64::from(*q) - x.to_f64()).powi(2)).sum();
            prop_assert!((f64::from(results[0]) - exact).abs() <= 1e-5 * exact.max(1.0));
        }

        #[test]
        fn every_level_gives_the_same_code_distances(
            blocks in 1_usize..5,
            rows in 1_usize..12,
            bytes in prop::collection::vec(any::<u8>(), 64 * 4 * 13),
        ) {
            let len = blocks * CODE_BLOCK;
            let (query, codes) = bytes.split_at(len);
            let codes = &codes[..rows * len];
            let signed: Vec<i8> = query.iter().map(|&b| (b ^ 0x80) as i8).collect();
            let dot = |row: &[u8]| -> i32 { row.iter().zip(&signed).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum() };
            let square = |row: &[u8]| -> u32 {
                row.iter().zip(query).map(|(&a, &b)| u32::from(a.abs_diff(b)).pow(2)).sum()
            };
            let expected: Vec<i32> = codes.chunks(len).map(dot).collect();
            let mut out = vec![0; rows];
            for () in levels!(scan_dots(codes, &signed, &mut out)) {
                prop_assert_eq!(&out, &expected);
            }
            let ids: Vec<u32> = (0..rows as u32).rev().collect();
            let backwards: Vec<i32> = expected.iter().rev().copied().collect();
            for () in levels!(gather_dots(codes, &ids, &signed, &mut out)) {
                prop_assert_eq!(&out, &backwards);
            }
            for got in levels!(squared_l2_codes(&codes[..len], query)) {
                prop_assert_eq!(got, square(&codes[..len]));
            }
        }
    }

    #[test]
    fn codes_are_padded_to_whole_blocks() {
        assert_eq!([1, 64, 65, 384].map(code_len), [64, 64, 128, 384]);
    }
}
