//! The state of a best-first search: nodes still to be looked at, nearest first, and the nearest `ef` found so far.
//!
//! Two heaps would do, and with a thousand neighbours wanted they would cost more than the distances. Distances are
//! integers here, so both are kept in buckets whose width is at most 1/128 of the distance: adding and taking are a few
//! instructions each. Within a bucket nothing is ordered, so up to one bucket more than `ef` nodes is kept.

/// Buckets for an octave of distances.
const OCTAVE: usize = 128;
/// The bucket of the largest distance, and one.
const BUCKETS: usize = 26 * OCTAVE;
/// No node.
const END: u32 = u32::MAX;

/// Distances below 256 have a bucket each; above, the 8 leading bits decide.
#[inline(always)]
fn bucket(distance: u32) -> usize {
    let shift = 24_u32.saturating_sub(distance.leading_zeros());
    shift as usize * OCTAVE + (distance >> shift) as usize
}

/// The bucket of a key of `top.rs`.
fn bucket_of(key: u64) -> usize {
    bucket((key >> 32) as u32)
}

/// See the module.
pub struct Beam {
    /// The first node of each bucket that is occupied, as a place in `nodes`.
    heads: Vec<u32>,
    /// Rows, each with the place of the next one in its bucket.
    nodes: Vec<(u32, u32)>,
    /// One bit for each bucket that has nodes.
    occupied: [u64; BUCKETS / 64],
    /// The first word of `occupied` that may have a bit.
    first: usize,
    /// How many were found in each bucket up to `farthest`.
    counts: Vec<u32>,
    /// Keys of everything that was among the nearest when it was found.
    found: Vec<u64>,
    /// How many of `found` are in buckets up to `farthest`.
    total: usize,
    /// What is in a farther bucket is not among the nearest `ef`.
    farthest: usize,
    ef: usize,
}

impl Default for Beam {
    fn default() -> Self {
        Beam {
            heads: vec![END; BUCKETS],
            nodes: Vec::new(),
            occupied: [0; BUCKETS / 64],
            first: BUCKETS / 64,
            counts: vec![0; BUCKETS],
            found: Vec::new(),
            total: 0,
            farthest: BUCKETS - 1,
            ef: 1,
        }
    }
}

impl Beam {
    /// Begins anew.
    pub fn start(&mut self, ef: usize) {
        self.nodes.clear();
        self.occupied.fill(0);
        self.first = self.occupied.len();
        self.forget_counts();
        self.found.clear();
        (self.total, self.farthest, self.ef) = (0, BUCKETS - 1, ef.max(1));
    }

    /// Sets to 0 what is not: far fewer than all.
    fn forget_counts(&mut self) {
        for key in &self.found {
            self.counts[bucket_of(*key)] = 0;
        }
    }

    /// Whether a row at this distance is worth looking at.
    #[inline(always)]
    pub fn admits(&self, distance: u32) -> bool {
        bucket(distance) <= self.farthest
    }

    /// Adds a node to look at. Returns whether it is among the next.
    #[inline(always)]
    pub fn push(&mut self, distance: u32, row: u32) -> bool {
        let bucket = bucket(distance);
        let (word, bit) = (&mut self.occupied[bucket / 64], 1 << (bucket % 64));
        let behind = if *word & bit == 0 { END } else { self.heads[bucket] };
        *word |= bit;
        self.nodes.push((row, behind));
        self.heads[bucket] = self.nodes.len() as u32 - 1;
        let next = bucket / 64 <= self.first;
        self.first = self.first.min(bucket / 64);
        next
    }

    /// Adds a row at a distance that is admitted, at most once, to what was found.
    #[inline(always)]
    pub fn find(&mut self, distance: u32, row: u32) {
        let bucket = bucket(distance);
        self.found.push(super::top::key(distance, row));
        self.counts[bucket] += 1;
        self.total += 1;
        if self.total >= self.ef {
            if self.farthest == BUCKETS - 1 {
                // For the first time: there are far fewer found than buckets beyond them.
                self.farthest = self.found.iter().map(|key| bucket_of(*key)).fold(0, usize::max);
            }
            while self.total - self.counts[self.farthest] as usize >= self.ef {
                self.total -= self.counts[self.farthest] as usize;
                self.farthest -= 1;
            }
        }
    }

    /// Takes the nearest node; `None` when all that are left are farther than the nearest `ef` found.
    #[inline(always)]
    pub fn next(&mut self) -> Option<u32> {
        while let Some(word) = self.occupied.get_mut(self.first) {
            if *word == 0 {
                self.first += 1;
                continue;
            }
            let bucket = self.first * 64 + word.trailing_zeros() as usize;
            if bucket > self.farthest {
                return None;
            }
            let (row, next) = self.nodes[self.heads[bucket] as usize];
            self.heads[bucket] = next;
            if next == END {
                *word &= *word - 1;
            }
            return Some(row);
        }
        None
    }

    /// The keys of the nearest rows found, `most` of them or fewer, in no order.
    pub fn finish(&mut self, most: usize) -> &mut Vec<u64> {
        let farthest = self.farthest;
        self.forget_counts();
        self.found.retain(|key| bucket_of(*key) <= farthest);
        if most < self.found.len() {
            self.found.select_nth_unstable(most);
            self.found.truncate(most);
        }
        &mut self.found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buckets_ascend_with_the_distance(a in any::<u32>(), by in 0_u32..1000) {
            for a in [a, a >> 12, a >> 24] {
                let b = a.saturating_add(by);
                prop_assert!(bucket(a) <= bucket(b) && bucket(b) < BUCKETS);
                prop_assert!(bucket(a) < bucket(b) || b - a <= a / 128);
            }
        }

        #[test]
        fn the_nearest_are_found_and_looked_at_first(
            distances in prop::collection::vec(0_u32..3_000_000, 1..300),
            ef in 1_usize..50,
        ) {
            let mut beam = Beam::default();
            beam.start(ef);
            for (&distance, row) in distances.iter().zip(0..) {
                if beam.admits(distance) {
                    beam.push(distance, row);
                    beam.find(distance, row);
                }
            }
            let mut sorted: Vec<u64> = distances.iter().zip(0..).map(|(&d, row)| super::super::top::key(d, row)).collect();
            sorted.sort_unstable();
            sorted.truncate(ef);
            let mut found = beam.finish(ef).clone();
            found.sort_unstable();
            prop_assert_eq!(&found, &sorted);
            let mut last = 0;
            let mut seen = 0;
            while let Some(row) = beam.next() {
                let bucket = bucket(distances[row as usize]);
                prop_assert!(bucket >= last);
                last = bucket;
                seen += 1;
            }
            prop_assert!(seen >= sorted.len());
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!([0, 255, 256, 511, 512].map(bucket), [0, 255, 256, 383, 384]);
        assert_eq!(bucket(u32::MAX), 24 * OCTAVE + 255);
    }
}
