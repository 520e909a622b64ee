//! The frozen graph: flat neighbour lists of a fixed length over one arena of codes, searched best first.
//!
//! `graph.bin`: the number of rows in each upper layer (16 × u32), the lists of the lowest layer (`rows × 2m` u32), then for
//! each upper layer its rows, ascending, and their lists (`m` u32 each) as places in the layer. [`NONE`] ends a list.

use std::path::Path;

use super::IndexError;
use super::file::{FileReader, FileWriter};
use super::hnsw::{Lists, NONE};
use super::scratch::Scratch;
use super::top::{key, row};
use crate::kernels::{gather_dots, prefetch};

const MAGIC: [u8; 8] = *b"SLMMGRPH";
pub const FILE: &str = "graph.bin";
const LAYERS: usize = 16;

/// Codes as a search reads them.
#[derive(Clone, Copy)]
pub struct CodeArena<'a> {
    /// `[rows, code_len]`
    pub codes: &'a [u8],
    /// `[rows]`
    pub squares: &'a [i32],
}

/// Which rows may be taken as results.
pub type Allowed<'a> = Option<&'a (dyn Fn(u32) -> bool + Sync)>;

/// Searches the lowest layer from `entries` on (Malkov and Yashunin 2018, algorithm 2), for the query in `scratch`. What is
/// found is left in `scratch.beam`.
///
/// Lists are `degree` long; neighbours that do not exist, as damaged files may hold, are passed over. Rows that are not
/// allowed are walked through but not taken.
pub fn search_lowest(
    arena: CodeArena<'_>,
    (lists, degree): (&[u32], usize),
    entries: [u32; 2],
    ef: usize,
    allowed: Allowed<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { query, visited, beam, ids, dots, hidden, .. } = scratch;
    let (rows, len) = (arena.squares.len(), query.code.len());
    visited.clear();
    visited.resize(rows.div_ceil(64), 0);
    beam.start(ef);
    let is_allowed = |row: u32| allowed.is_none_or(|allowed| allowed(row));
    if let Some(row) = hidden {
        visited[*row as usize / 64] |= 1 << (*row % 64);
    }
    for entry in entries {
        let word = &mut visited[entry as usize / 64];
        if *word & 1 << (entry % 64) == 0 || *hidden == Some(entry) {
            *word |= 1 << (entry % 64);
            let distance = distance_to(arena, query, entry);
            beam.push(distance, entry);
            if is_allowed(entry) && beam.admits(distance) {
                beam.find(distance, entry);
            }
        }
    }
    while let Some(nearest) = beam.next() {
        ids.clear();
        for &neighbour in &lists[nearest as usize * degree..][..degree] {
            let Some(word) = visited.get_mut(neighbour as usize / 64).filter(|_| (neighbour as usize) < rows) else {
                if neighbour == NONE {
                    break;
                }
                continue;
            };
            let bit = 1 << (neighbour % 64);
            if *word & bit == 0 {
                *word |= bit;
                ids.push(neighbour);
                prefetch(&arena.codes[neighbour as usize * len..][..len]);
            }
        }
        dots.resize(ids.len(), 0);
        gather_dots(arena.codes, ids, &query.code, dots);
        for (&id, &dot) in ids.iter().zip(&*dots) {
            let distance = query.distance(arena.squares[id as usize], dot);
            if beam.admits(distance) {
                if beam.push(distance, id) {
                    prefetch(&lists[id as usize * degree..][..degree]);
                }
                if is_allowed(id) {
                    beam.find(distance, id);
                }
            }
        }
    }
}

/// The code distance of one row.
fn distance_to(arena: CodeArena<'_>, query: &super::codes::QueryCode, row: u32) -> u32 {
    let mut dot = [0];
    gather_dots(arena.codes, &[row], &query.code, &mut dot);
    query.distance(arena.squares[row as usize], dot[0])
}

/// Writes a graph.
pub fn write(dir: &Path, lists: &Lists, rows: usize, m: usize) -> Result<(), IndexError> {
    let numbers = [m as u32, lists.upper.len() as u32, lists.entry];
    let mut file = FileWriter::create(&dir.join(FILE), MAGIC, numbers)?;
    let counts: [u32; LAYERS] = std::array::from_fn(|i| lists.upper.get(i).map_or(0, |layer| layer.rows.len() as u32));
    file.write(&counts)?;
    file.write(&lists.lowest)?;
    file.align()?;
    for layer in &lists.upper {
        file.write(&layer.rows)?;
        for list in &layer.lists {
            let mut places = vec![NONE; m];
            // A neighbour that is not in the layer itself would be a dead end there.
            let there = list.iter().filter_map(|row| layer.rows.binary_search(row).ok());
            places.iter_mut().zip(there).for_each(|(place, neighbour)| *place = neighbour as u32);
            file.write(&places)?;
        }
    }
    file.finish(rows)
}

/// The mapped graph.
pub struct Graph {
    file: FileReader,
    rows: usize,
    m: usize,
    lowest: usize,
    /// Place and number of rows of each upper layer, the lowest of them first.
    upper: Vec<(usize, usize)>,
    entry: u32,
}

impl Graph {
    pub fn open(dir: &Path, rows: usize) -> Result<Graph, IndexError> {
        let file = FileReader::open(&dir.join(FILE), MAGIC)?;
        let [m, layers, entry] = file.header.numbers;
        let (m, layers) = (m as usize, layers as usize);
        let damaged = |reason: String| Err(IndexError::damaged(file.path(), reason));
        if file.header.rows as usize != rows {
            return damaged(format!("it has {} rows, the vectors have {rows}", file.header.rows));
        }
        if !(2..=64).contains(&m) || layers > LAYERS || entry as usize >= rows {
            return damaged(format!("m {m}, {layers} layers or entry {entry} are not what an index can have"));
        }
        let Some(counts) = file.mapping().view::<u32>(super::file::ALIGNMENT, LAYERS) else {
            return damaged("it ends within its header".into());
        };
        let counts: Vec<usize> = counts[..layers].iter().map(|&count| count as usize).collect();
        let upper_bytes = counts.iter().sum::<usize>().checked_mul((1 + m) * 4);
        let [_, lowest, mut place] = file.sections([Some(4 * LAYERS), rows.checked_mul(8 * m), upper_bytes])?;
        let mut upper = Vec::with_capacity(layers);
        for count in counts {
            upper.push((place, count));
            place += count * (1 + m) * 4;
        }
        file.mapping().advise_random();
        Ok(Graph { rows, m, lowest, upper, entry, file })
    }

    /// Searches from the top layer down, for the query in `scratch`; what is found is left in `scratch.beam`.
    pub fn search(&self, arena: CodeArena<'_>, ef: usize, allowed: Allowed<'_>, scratch: &mut Scratch) {
        let near = self.descend(arena, scratch);
        // Every row can be reached from the entry, which is not so of every other row. Where much is not allowed this counts;
        // otherwise the entry is so far that nothing is done about it.
        search_lowest(arena, (self.lowest(), 2 * self.m), [near, self.entry], ef, allowed, scratch);
    }

    /// The lists of the lowest layer.
    fn lowest(&self) -> &[u32] {
        self.file.view(self.lowest, self.rows * 2 * self.m)
    }

    /// The nearest row that greedy steps through the upper layers reach (algorithm 2 with ef = 1).
    pub fn descend(&self, arena: CodeArena<'_>, scratch: &mut Scratch) -> u32 {
        let Scratch { query, ids, dots, .. } = scratch;
        let mut best = key(distance_to(arena, query, self.entry), self.entry);
        for &(place, count) in self.upper.iter().rev() {
            let rows: &[u32] = self.file.view(place, count);
            let lists: &[u32] = self.file.view(place + 4 * count, count * self.m);
            let Ok(mut at) = rows.binary_search(&row(best)) else { continue };
            loop {
                let places = lists[at * self.m..].iter().take(self.m);
                ids.clear();
                ids.extend(
                    places.filter_map(|&place| rows.get(place as usize)).filter(|row| (**row as usize) < self.rows),
                );
                dots.resize(ids.len(), 0);
                gather_dots(arena.codes, ids, &query.code, dots);
                let keys =
                    ids.iter().zip(&*dots).map(|(&id, &dot)| key(query.distance(arena.squares[id as usize], dot), id));
                match keys.min().filter(|key| *key < best) {
                    Some(nearer) => best = nearer,
                    None => break,
                }
                let Ok(next) = rows.binary_search(&row(best)) else { break };
                at = next;
            }
        }
        row(best)
    }
}
