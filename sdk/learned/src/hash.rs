//! The one hash of features and n-grams. Weights are stored by it: changing it makes every model void.

/// The hash of nothing.
pub const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with one character or number. A multiplication by the golden ratio and a fold of the high half.
#[inline]
pub fn mix(hash: u64, value: u32) -> u64 {
    let mixed = (hash ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// A number below `bound`, evenly spread (Lemire 2019, "Fast random integer generation in an interval").
#[inline]
pub fn below(hash: u64, bound: u32) -> u32 {
    // The hash is mixed once more, so that its high bits depend on all that went in.
    let high = hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    ((high * u64::from(bound)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_what_they_were_and_spread_evenly() {
        assert_eq!(mix(mix(START, 0x61), 0x62), 4_356_730_556_454_398_166);
        let mut counts = [0_u32; 100];
        for i in 0..100_000 {
            counts[below(mix(START, i), 100) as usize] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }
}
