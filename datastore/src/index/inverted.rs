//! The inverted file: rows in the order of the centroid they are nearest to, of which a search reads the nearest lists.
//!
//! `inverted.bin`: the codes of the centroids (`[lists, code_len]` u8), the sums of their squares (`[lists]` i32), where each
//! list begins (`[lists + 1]` u32), and the row of each place (`[rows]` u32). `codes.u8` is in the order of places.
//! Jégou et al. 2011, section IV, with codes of whole vectors, not of residuals: 8 bits a component lose little of either.
//! Lists lie in the order of groups around centroids of centroids, which come last: their codes and squares, and where each group
//! begins (`[groups + 1]` u32). So a search compares itself with the centroids of near groups alone.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::IndexError;
use super::codes::{Quantizer, QueryCode};
use super::file::{FileReader, FileWriter};
use super::graph::CodeArena;
use super::kmeans::{Centroids, starts};
use super::random::Random;
use super::together::Listed;
use super::top::{Smallest, float_key};
use super::vectors::Vectors;
use crate::kernels::{code_len, scan_dots};

const MAGIC: [u8; 8] = *b"SLMMLIST";
pub const FILE: &str = "inverted.bin";
/// Rows of the sample for each centroid.
const SAMPLE: usize = 32;
/// Rows coded and assigned between two looks at the flag that stops.
const BATCH: usize = 1 << 16;
/// Rows scanned at a time, whose products stay in the nearest cache.
const SCAN: usize = 512;

/// Lists for a number of rows: a power of two near 4·√rows, and at least 39 rows a list on average.
pub fn lists_for(rows: usize) -> usize {
    let wanted = (4.0 * (rows as f64).sqrt()).min(rows as f64 / 39.0).max(1.0);
    1 << (wanted.log2().round() as u32).min(16)
}

/// Groups for a number of lists: as many as a group has lists.
fn groups_for(lists: usize) -> usize {
    lists.isqrt()
}

/// Finds centroids, assigns every row and writes the lists; returns the row of each place.
pub fn write(
    dir: &Path,
    vectors: &Vectors,
    quantizer: &Quantizer,
    seed: u64,
    progress: &dyn Fn(usize),
    stop: &AtomicBool,
) -> Result<Vec<u32>, IndexError> {
    let (rows, dim, len) = (vectors.len(), vectors.dim(), code_len(vectors.dim()));
    let lists = lists_for(rows);
    let mut random = Random::new(seed ^ 0x7361_6d70_6c65);
    let count = (lists * SAMPLE).min(rows);
    // One row out of each of `count` equal stretches.
    let drawn = (0..count).map(|i| (i * rows / count, (i + 1) * rows / count));
    let drawn: Vec<u32> = drawn.map(|(start, end)| (start + random.below(end - start)) as u32).collect();
    let mut sample = vec![0; count * len];
    quantizer.codes(vectors, |i| drawn[i], &mut sample, &mut vec![0; count]);
    progress(0);
    let centroids = Centroids::train(&sample, (len, dim), lists, seed, stop)?;
    drop(sample);
    let (centroids, groups, group_starts) = centroids.grouped(groups_for(lists), seed, stop)?;

    let mut nearest = vec![0_u32; rows];
    let mut codes = vec![0; BATCH.min(rows) * len];
    let mut squares = vec![0; BATCH];
    for (batch, nearest) in nearest.chunks_mut(BATCH).enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Err(IndexError::Stopped);
        }
        let codes = &mut codes[..nearest.len() * len];
        quantizer.codes(vectors, |i| (batch * BATCH + i) as u32, codes, &mut squares[..nearest.len()]);
        centroids.assign(codes, nearest);
        progress(batch * BATCH + nearest.len());
    }
    let starts = starts(&nearest, lists);
    let mut places: Vec<u32> = (0..rows as u32).collect();
    // Stable by list: rows ascend in each.
    places.par_sort_by_key(|&row| nearest[row as usize]);

    let mut file = FileWriter::create(&dir.join(FILE), MAGIC, [lists as u32, dim as u32, groups.len() as u32])?;
    file.write(&centroids.codes)?;
    file.align()?;
    file.write(&centroids.squares())?;
    file.align()?;
    file.write(&starts)?;
    file.align()?;
    file.write(&places)?;
    file.align()?;
    file.write(&groups.codes)?;
    file.align()?;
    file.write(&groups.squares())?;
    file.align()?;
    file.write(&group_starts)?;
    file.finish(rows)?;
    Ok(places)
}

/// The mapped lists.
pub struct Inverted {
    file: FileReader,
    places: [usize; 7],
    lists: usize,
    groups: usize,
    len: usize,
    rows: usize,
}

impl Inverted {
    pub fn open(dir: &Path, vectors: &Vectors) -> Result<Inverted, IndexError> {
        let file = FileReader::open(&dir.join(FILE), MAGIC)?;
        let [lists, dim, groups] = file.header.numbers.map(|n| n as usize);
        let (rows, len) = (vectors.len(), code_len(vectors.dim()));
        let damaged = |reason: String| Err(IndexError::damaged(file.path(), reason));
        if (file.header.rows as usize, dim) != (rows, vectors.dim()) {
            let (want_rows, want_dim) = (rows, vectors.dim());
            let rows = file.header.rows;
            return damaged(format!(
                "it is of {rows} rows of {dim} components, the vectors are {want_rows} of {want_dim}"
            ));
        }
        let of = |count: usize| [count.checked_mul(len), count.checked_mul(4), (count + 1).checked_mul(4)];
        let ([codes, squares, starts], [group_codes, group_squares, group_starts]) = (of(lists), of(groups));
        let bytes = [codes, squares, starts, rows.checked_mul(4), group_codes, group_squares, group_starts];
        let places = file.sections(bytes)?;
        for (what, place, count, end) in [("lists", places[2], lists, rows), ("groups", places[6], groups, lists)] {
            let starts: &[u32] = file.view(place, count + 1);
            if !starts.is_sorted()
                || starts.first() != Some(&0)
                || starts.last().map(|&last| last as usize) != Some(end)
            {
                return damaged(format!("its {what} do not go from 0 to {end}"));
            }
        }
        Ok(Inverted { file, places, lists, groups, len, rows })
    }

    pub fn lists(&self) -> usize {
        self.lists
    }

    /// The row of each place: `[rows]`.
    pub fn rows(&self) -> &[u32] {
        self.file.view(self.places[3], self.rows)
    }

    /// The places of a list.
    pub fn places(&self, list: u32) -> Range<usize> {
        let starts: &[u32] = self.file.view(self.places[2], self.lists + 1);
        starts[list as usize] as usize..starts[list as usize + 1] as usize
    }

    /// Groups of lists.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The lists of a group.
    pub fn lists_of(&self, group: u32) -> Range<u32> {
        let starts: &[u32] = self.file.view(self.places[6], self.groups + 1);
        starts[group as usize]..starts[group as usize + 1]
    }

    /// Adds the key of each group, by the distance of its centroid. A step squared is `unit`, and the first group is number
    /// `first`.
    pub fn rank_groups(&self, query: (&QueryCode, f32), first: u32, dots: &mut Vec<i32>, keys: &mut Vec<u64>) {
        let centroids: &[u8] = self.file.view(self.places[4], self.groups * self.len);
        rank(centroids, self.file.view(self.places[5], self.groups), query, first, dots, keys);
    }

    /// Likewise, of each list of a group; the first list of all is number `first`.
    pub fn rank_lists(
        &self,
        group: u32,
        query: (&QueryCode, f32),
        first: u32,
        dots: &mut Vec<i32>,
        keys: &mut Vec<u64>,
    ) {
        let lists = self.lists_of(group);
        let (start, end) = (lists.start as usize, lists.end as usize);
        let centroids: &[u8] = self.file.view(self.places[0], self.lists * self.len);
        let squares: &[i32] = self.file.view(self.places[1], self.lists);
        let (centroids, squares) = (&centroids[start * self.len..end * self.len], &squares[start..end]);
        rank(centroids, squares, query, first + lists.start, dots, keys);
    }

    /// Offers the rows of one list, by the distance of their codes, with their numbers among the rows of all indexes.
    pub fn scan(&self, list: u32, part: &Listed<'_>, query: &QueryCode, found: &mut Smallest, dots: &mut Vec<i32>) {
        let (CodeArena { codes, squares }, rows) = (part.codes.arena(), self.rows());
        let (places, unit) = (self.places(list), part.codes.quantizer().unit());
        for start in places.clone().step_by(SCAN) {
            let end = (start + SCAN).min(places.end);
            dots.resize(end - start, 0);
            scan_dots(&codes[start * self.len..end * self.len], &query.code, dots);
            let distances = squares[start..end].iter().zip(&*dots).map(|(&s, &dot)| query.distance(s, dot));
            for (distance, &row) in distances.zip(&rows[start..end]) {
                // Ties go by row, as everywhere.
                let candidate = float_key(distance as f32 * unit, part.first.row.wrapping_add(row));
                let worthwhile = candidate < found.limit() && (row as usize) < self.rows;
                if worthwhile && part.allowed.is_none_or(|allowed| allowed(row)) {
                    found.push(candidate);
                }
            }
        }
    }
}

/// Adds the keys of centroids, which are numbered from `first` on.
fn rank(
    centroids: &[u8],
    squares: &[i32],
    (query, unit): (&QueryCode, f32),
    first: u32,
    dots: &mut Vec<i32>,
    keys: &mut Vec<u64>,
) {
    dots.resize(squares.len(), 0);
    scan_dots(centroids, &query.code, dots);
    let distances = squares.iter().zip(&*dots).map(|(square, dot)| query.distance(*square, *dot) as f32 * unit);
    keys.extend((first..).zip(distances).map(|(number, distance)| float_key(distance, number)));
}

#[cfg(test)]
mod tests {
    use super::lists_for;

    #[test]
    fn lists_grow_with_the_square_root() {
        assert_eq!([1, 100, 10_000, 1_000_000, 10_000_000].map(lists_for), [1, 2, 256, 4096, 16_384]);
    }
}
