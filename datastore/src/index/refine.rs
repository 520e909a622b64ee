//! What is done to a graph before it is frozen: better lists, and a way from the entry to every row.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::IndexError;
use super::graph::{CodeArena, Graph, search_lowest};
use super::hnsw::NONE;
use super::scratch::Scratch;
use super::top::{key, row};
use crate::kernels::squared_l2_codes;

/// Candidates that a search finds for each row.
const EF: usize = 96;
/// A neighbour is left out when one that is kept is nearer to it, by this factor of squared distance, than the row is
/// (Subramanya et al. 2019, algorithm 2, α; there of distances, here of their squares).
const ALPHA: f32 = 1.2;
/// Nearest reachable rows that are tried as the beginning of an edge to an unreachable one.
const ANCHORS: usize = 32;

/// The lowest layer while it is worked on.
pub struct Lowest<'a> {
    pub arena: CodeArena<'a>,
    pub len: usize,
    pub dim: usize,
    pub degree: usize,
    /// The graph as it was built, for the layers above.
    pub graph: &'a Graph,
    pub entry: u32,
    /// `[rows, degree]`, [`NONE`] behind the last of each list.
    pub lists: Vec<u32>,
}

impl Lowest<'_> {
    fn rows(&self) -> usize {
        self.arena.squares.len()
    }

    fn code(&self, row: u32) -> &[u8] {
        &self.arena.codes[row as usize * self.len..][..self.len]
    }

    fn between(&self, a: u32, b: u32) -> u32 {
        squared_l2_codes(self.code(a), self.code(b))
    }

    fn list(&self, row: u32) -> impl Iterator<Item = u32> + '_ {
        self.lists[row as usize * self.degree..].iter().take(self.degree).copied().take_while(|&n| n != NONE)
    }

    /// Chooses every row's neighbours anew, among those it has, those that have it, and the nearest that a search finds.
    /// Every row is looked at in the graph as it was, so the result does not depend on the order or the number of threads.
    pub fn rediversify(&mut self, stop: &AtomicBool) -> Result<(), IndexError> {
        let incoming = self.incoming();
        let mut lists = vec![NONE; self.lists.len()];
        let this = &*self;
        lists.par_chunks_exact_mut(self.degree).zip(0..this.rows() as u32).try_for_each_init(
            || (Scratch::default(), Vec::new(), Vec::new()),
            |(scratch, candidates, rest), (list, from)| {
                if stop.load(Ordering::Relaxed) {
                    return Err(IndexError::Stopped);
                }
                this.search(from, EF, scratch);
                candidates.clear();
                candidates.extend_from_slice(scratch.beam.finish(EF));
                let edges = this.list(from).chain(incoming.of(from).iter().copied());
                candidates.extend(edges.map(|to| key(this.between(from, to), to)));
                candidates.sort_unstable();
                candidates.dedup();
                candidates.retain(|&candidate| row(candidate) != from);
                this.choose(candidates, rest, list);
                Ok(())
            },
        )?;
        self.lists = lists;
        Ok(())
    }

    /// Searches for the nearest rows of a row, as a query would; they are left in `scratch.beam`.
    fn search(&self, row: u32, ef: usize, scratch: &mut Scratch) {
        scratch.query.set_row(self.code(row), self.arena.squares[row as usize], self.dim);
        let near = self.graph.descend(self.arena, scratch);
        search_lowest(self.arena, (&self.lists, self.degree), [near, self.entry], ef, None, scratch);
    }

    /// Keeps of `candidates`, nearest first, those that no kept one stands before, and fills up with the nearest others.
    fn choose(&self, candidates: &[u64], rest: &mut Vec<u32>, list: &mut [u32]) {
        let mut kept = 0;
        rest.clear();
        for &candidate in candidates {
            if kept == list.len() {
                break;
            }
            let (to, limit) = (row(candidate), (candidate >> 32) as f32);
            if list[..kept].iter().all(|&near| self.between(to, near) as f32 * ALPHA > limit) {
                list[kept] = to;
                kept += 1;
            } else {
                rest.push(to);
            }
        }
        list[kept..].iter_mut().zip(rest).for_each(|(place, to)| *place = *to);
    }

    fn incoming(&self) -> Incoming {
        let mut starts = vec![0_usize; self.rows() + 1];
        let edges = || (0..self.rows() as u32).flat_map(|from| self.list(from).map(move |to| (from, to)));
        edges().for_each(|(_, to)| starts[to as usize + 1] += 1);
        (0..self.rows()).for_each(|i| starts[i + 1] += starts[i]);
        let mut next = starts.clone();
        let mut rows = vec![0; starts[self.rows()]];
        for (from, to) in edges() {
            rows[next[to as usize]] = from;
            next[to as usize] += 1;
        }
        Incoming { starts, rows }
    }

    /// Adds edges until every row can be reached from the entry: for each that cannot, one from the nearest row that can and
    /// has room, or else in place of a row's last edge, or, where all near rows gave theirs, from the row that was added
    /// before or from any. Such an edge may have been the only way to its end, so this goes in
    /// rounds; an edge that was added is not replaced again, so the rounds come to an end.
    pub fn connect(&mut self, stop: &AtomicBool) -> Result<(), IndexError> {
        let mut scratch = Scratch::default();
        let mut added = vec![false; self.rows()];
        loop {
            let mut reached = vec![false; self.rows()];
            self.reach(self.entry, &mut reached);
            let lost: Vec<u32> = (0..self.rows() as u32).filter(|&row| !reached[row as usize]).collect();
            let mut previous = None;
            let mut any = 0;
            for lost in lost {
                if stop.load(Ordering::Relaxed) {
                    return Err(IndexError::Stopped);
                }
                if reached[lost as usize] {
                    continue;
                }
                self.search(lost, ANCHORS, &mut scratch);
                let Scratch { beam, ids, .. } = &mut scratch;
                let near = beam.finish(ANCHORS);
                near.sort_unstable();
                ids.clear();
                ids.extend(near.iter().map(|&key| row(key)).chain(previous));
                any = (any..self.rows()).find(|&row| reached[row] && !added[row]).unwrap_or(self.rows());
                ids.extend(Some(any as u32).filter(|&row| (row as usize) < self.rows()));
                if let Some((anchor, place)) = self.place_for_edge(&scratch.ids, &added) {
                    self.lists[anchor as usize * self.degree + place] = lost;
                    added[anchor as usize] = true;
                    self.reach(lost, &mut reached);
                    previous = Some(lost);
                }
            }
            if previous.is_none() {
                return Ok(());
            }
        }
    }

    /// Where an edge can be put: behind the list of the first of `anchors` that has room, or in the last place of the first
    /// whose edge there was not added before.
    fn place_for_edge(&self, anchors: &[u32], added: &[bool]) -> Option<(u32, usize)> {
        let room = |&anchor: &u32| Some((anchor, self.list(anchor).count())).filter(|(_, used)| *used < self.degree);
        let replaceable = |&&anchor: &&u32| !added[anchor as usize];
        let replaced = || anchors.iter().find(replaceable).map(|&anchor| (anchor, self.degree - 1));
        anchors.iter().find_map(room).or_else(replaced)
    }

    fn reach(&self, from: u32, reached: &mut [bool]) {
        let mut stack = vec![from];
        reached[from as usize] = true;
        while let Some(row) = stack.pop() {
            for to in self.list(row) {
                if !std::mem::replace(&mut reached[to as usize], true) {
                    stack.push(to);
                }
            }
        }
    }
}

/// For every row, the rows that have it in their lists.
struct Incoming {
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl Incoming {
    fn of(&self, row: u32) -> &[u32] {
        &self.rows[self.starts[row as usize]..self.starts[row as usize + 1]]
    }
}
