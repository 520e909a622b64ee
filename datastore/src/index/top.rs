//! Keeping the nearest: keys are a distance in the upper 32 bits and a row in the lower ones, so that one comparison of
//! integers orders by distance and then by row.

/// The key of a row at a distance that is not negative: the bits of such floats grow with them.
#[inline(always)]
pub fn float_key(distance: f32, row: u32) -> u64 {
    // Adding 0 turns −0 into 0.
    u64::from((distance.max(0.0) + 0.0).to_bits()) << 32 | u64::from(row)
}

/// The key of a row at an integer distance.
#[inline(always)]
pub fn key(distance: u32, row: u32) -> u64 {
    u64::from(distance) << 32 | u64::from(row)
}

/// The row of a key.
#[inline(always)]
pub fn row(key: u64) -> u32 {
    key as u32
}

/// The distance of a key made by [`float_key`].
#[inline(always)]
pub fn distance(key: u64) -> f32 {
    f32::from_bits((key >> 32) as u32)
}

/// The `k` smallest of many keys, in no order: a buffer that is cut to `k` whenever it is full.
#[derive(Default)]
pub struct Smallest {
    keys: Vec<u64>,
    k: usize,
    /// Keys from here on are of no use.
    limit: u64,
}

impl Smallest {
    /// Begins anew.
    pub fn start(&mut self, k: usize) {
        self.keys.clear();
        self.k = k;
        self.limit = if k == 0 { 0 } else { u64::MAX };
    }

    /// Keys from here on would be dropped.
    #[inline(always)]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Keys kept, up to `k`.
    pub fn len(&self) -> usize {
        self.keys.len().min(self.k)
    }

    #[inline(always)]
    pub fn push(&mut self, key: u64) {
        if key < self.limit {
            self.keys.push(key);
            if self.keys.len() >= 3 * self.k + 64 {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        if self.keys.len() > self.k {
            let (_, largest, _) = self.keys.select_nth_unstable(self.k - 1);
            self.limit = *largest;
            self.keys.truncate(self.k);
        }
    }

    /// The keys kept, in no order.
    pub fn finish(&mut self) -> &mut Vec<u64> {
        if self.k > 0 {
            self.cut();
        }
        &mut self.keys
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_smallest_are_kept(mut keys in prop::collection::hash_set(any::<u64>(), 0..600), k in 0_usize..40) {
            let mut smallest = Smallest::default();
            smallest.start(k);
            keys.remove(&u64::MAX);
            keys.iter().for_each(|&key| smallest.push(key));
            let mut sorted: Vec<u64> = keys.into_iter().collect();
            sorted.sort_unstable();
            sorted.truncate(k);
            let mut kept = smallest.finish().clone();
            kept.sort_unstable();
            prop_assert_eq!(kept, sorted);
        }
    }

    #[test]
    fn keys_order_by_distance_then_row() {
        assert!(float_key(0.5, 9) < float_key(0.75, 1));
        assert!(float_key(0.5, 1) < float_key(0.5, 2));
        assert_eq!(float_key(-0.0, 3), float_key(0.0, 3));
        assert_eq!((distance(float_key(0.25, 7)), row(float_key(0.25, 7))), (0.25, 7));
    }
}
