//! Several indexes searched as one: the nearest lists of all of them are read, and the nearest rows of all are compared
//! exactly. What one index knows of distances, another does too, so that the work grows with what is near and hardly with
//! the number of indexes.

use rayon::prelude::*;

use super::codes::{Codes, QueryCode};
use super::exact::rescored;
use super::inverted::Inverted;
use super::scratch::Scratch;
use super::top::{Smallest, row};
use super::vectors::Vectors;
use super::{Allowed, Hit, IndexError, SearchScratch, VectorIndex, exact};

/// Of the centroids of lists one in so many is compared, those of the nearest groups; so many at least, and so many for each
/// list that is read.
const COMPARED: usize = 5;
const LEAST_COMPARED: usize = 512;
const COMPARED_FOR_EACH: usize = 4;
/// From this many rows on lists are shared out among threads.
const MANY_ROWS: usize = 4096;

/// One of the indexes that are searched together.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The index.
    pub index: &'a VectorIndex,
    /// Which of its rows may be taken; `None` stands for all.
    pub allowed: Allowed<'a>,
}

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The number of the index.
    pub part: u32,
    /// What was found there.
    pub hit: Hit,
}

/// Puts into `out` the `k` rows of all indexes that are nearest to `query` by squared L2 distance, ascending, equal ones by
/// index and row. Where the indexes have no more rows together than one is searched exactly for, the nearest ones are found;
/// beyond, about 0.95 of them. `effort` as in [`VectorIndex::search`], for each index.
///
/// # Errors
/// A query of another dimension than one of the indexes, or with components that are not finite.
pub fn search_together(
    parts: &[Part<'_>],
    query: &[f32],
    k: usize,
    effort: Option<usize>,
    scratch: &mut SearchScratch,
    out: &mut Vec<Found>,
) -> Result<(), IndexError> {
    out.clear();
    if let Some(Part { index, .. }) = parts.iter().find(|part| part.index.dim() != query.len()) {
        return Err(IndexError::Dimension { got: query.len(), expected: index.dim().to_string() });
    }
    if let Some(component) = query.iter().position(|x| !x.is_finite()) {
        return Err(IndexError::Query { component, value: query[component] });
    }
    let rows: usize = parts.iter().map(|part| part.index.len()).sum();
    let k = k.min(rows);
    if k == 0 {
        return Ok(());
    }
    let SearchScratch { joint, own } = scratch;
    // Rows of all indexes are told apart by 32 bits; of more than that, each index is searched by itself, and so it is where
    // all rows are to be compared: then each index is exact.
    let can_join = u32::try_from(rows).is_ok() && parts.iter().any(|part| rows > part.index.exact_below());
    let (mut listed, mut alone) = (Vec::new(), Vec::new());
    for (number, part) in (0_u32..).zip(parts) {
        match part.index.lists().filter(|_| can_join) {
            Some((vectors, codes, inverted)) => {
                let first = listed.last().map_or_else(First::default, Listed::end);
                listed.push(Listed { vectors, codes, inverted, allowed: part.allowed, number, first });
            }
            None => alone.push((number, part)),
        }
    }
    own.resize_with(own.len().max(alone.len()), Scratch::default);
    let by_itself = |((_, part), own): (&(u32, &Part<'_>), &mut Scratch)| {
        part.index.search_alone(query, k, effort, part.allowed, own);
    };
    alone.par_iter().zip(own.par_iter_mut()).for_each(by_itself);
    for ((number, _), own) in alone.iter().zip(own) {
        out.extend(own.nearest.finish().iter().map(|&key| Found { part: *number, hit: Hit::of(key) }));
    }
    if !listed.is_empty() {
        joint.nearest.start(k);
        search(&listed, query, probes(parts, &listed, k, effort), k, joint);
        out.extend(joint.nearest.finish().iter().map(|&key| {
            let hit = Hit::of(key);
            let part = &listed[part_of(&listed, |first| first.row, hit.row)];
            Found { part: part.number, hit: Hit { row: hit.row - part.first.row, ..hit } }
        }));
    }
    let order = |found: &Found| (found.part, found.hit.row);
    out.sort_unstable_by(|a, b| a.hit.distance.total_cmp(&b.hit.distance).then_with(|| order(a).cmp(&order(b))));
    out.truncate(k);
    Ok(())
}

/// How many lists are read: of each index as many as it needs for its share of the neighbours. They are chosen from all
/// lists together, so that an index which has more of the neighbours gets more of them.
fn probes(parts: &[Part<'_>], listed: &[Listed<'_>], k: usize, effort: Option<usize>) -> usize {
    let rows: usize = listed.iter().map(|part| part.vectors.len()).sum();
    let of = |part: &Listed<'_>| {
        let share = (k * part.vectors.len()).div_ceil(rows.max(1));
        parts[part.number as usize].index.effort(share)
    };
    listed.iter().map(|part| effort.unwrap_or_else(|| of(part)).max(1)).fold(0, usize::saturating_add)
}

/// An index with lists, as one of several.
#[derive(Clone, Copy)]
pub struct Listed<'a> {
    pub vectors: &'a Vectors,
    pub codes: &'a Codes,
    pub inverted: &'a Inverted,
    pub allowed: Allowed<'a>,
    /// Its number among all indexes.
    pub number: u32,
    pub first: First,
}

/// The numbers of an index's first row, list and group of lists among those of all with lists.
#[derive(Clone, Copy, Default)]
pub struct First {
    pub row: u32,
    pub list: u32,
    pub group: u32,
}

impl Listed<'_> {
    /// Where the next index begins.
    fn end(&self) -> First {
        let First { row, list, group } = self.first;
        let [rows, lists, groups] =
            [self.vectors.len(), self.inverted.lists(), self.inverted.groups()].map(|n| n as u32);
        First { row: row + rows, list: list + lists, group: group + groups }
    }

    fn unit(&self) -> f32 {
        self.codes.quantizer().unit()
    }
}

/// The place of the index that has `number` of what `first` counts.
fn part_of(parts: &[Listed<'_>], first: impl Fn(&First) -> u32, number: u32) -> usize {
    parts.partition_point(|part| first(&part.first) <= number).saturating_sub(1)
}

/// Offers the rows of the `nprobe` nearest lists, those whose codes are nearest compared exactly, to `scratch.nearest`, which
/// was started for the `k` wanted; keys are numbers among the rows of all. While fewer than `k` are found because others
/// are not allowed, further lists are read.
pub fn search(parts: &[Listed<'_>], query: &[f32], nprobe: usize, k: usize, scratch: &mut Scratch) {
    let Scratch { nearest, candidates, queries, groups, lists, dots, ids, .. } = scratch;
    queries.resize_with(queries.len().max(parts.len()), QueryCode::default);
    groups.clear();
    for (part, code) in parts.iter().zip(&mut *queries) {
        part.codes.quantizer().query(query, code);
        part.inverted.rank_groups((code, part.unit()), part.first.group, dots, groups);
    }
    groups.sort_unstable();
    let (queries, mut further) = (&*queries, groups.iter());
    // Compares the centroids of further groups, until those of so many lists are.
    let mut rank = |wanted: usize, lists: &mut Vec<u64>, dots: &mut Vec<i32>| {
        while lists.len() < wanted
            && let Some(group) = further.next()
        {
            let number = part_of(parts, |first| first.group, row(*group));
            let (part, code) = (&parts[number], &queries[number]);
            let group = row(*group) - part.first.group;
            part.inverted.rank_lists(group, (code, part.unit()), part.first.list, dots, lists);
        }
    };
    lists.clear();
    let all: usize = parts.iter().map(|part| part.inverted.lists()).sum();
    rank(nprobe.saturating_mul(COMPARED_FOR_EACH).max(all / COMPARED).max(LEAST_COMPARED), lists, dots);
    let nprobe = nprobe.min(lists.len());
    if nprobe < lists.len() {
        lists.select_nth_unstable(nprobe);
    }
    lists[..nprobe].sort_unstable();

    let keep = rescored(k);
    let place = |list: &u64| {
        let number = part_of(parts, |first| first.list, row(*list));
        (number, row(*list) - parts[number].first.list)
    };
    let scan = |lists: &[u64], found: &mut Smallest, dots: &mut Vec<i32>| {
        for (number, list) in lists.iter().map(place) {
            let part = &parts[number];
            part.inverted.scan(list, part, &queries[number], found, dots);
        }
    };
    let length = |(number, list): (usize, u32)| parts[number].inverted.places(list).len();
    candidates.start(keep);
    let each = nprobe.div_ceil(rayon::current_num_threads()).max(1);
    if each >= nprobe || lists[..nprobe].iter().map(place).map(length).sum::<usize>() < MANY_ROWS {
        scan(&lists[..nprobe], candidates, dots);
    } else {
        // The smallest of all are the smallest of those of each share, whatever the shares.
        let shares = lists[..nprobe].par_chunks(each).map(|lists| {
            let (mut found, mut dots) = (Smallest::default(), Vec::new());
            found.start(keep);
            scan(lists, &mut found, &mut dots);
            found
        });
        let shares: Vec<Smallest> = shares.collect();
        shares.into_iter().for_each(|mut share| share.finish().iter().for_each(|&key| candidates.push(key)));
    }
    let mut read = nprobe;
    while candidates.len() < keep {
        if read == lists.len() {
            rank(read + 1, lists, dots);
        }
        let Some(rest) = lists.get_mut(read..).filter(|rest| !rest.is_empty()) else { break };
        rest.sort_unstable();
        for list in rest {
            scan(std::slice::from_ref(list), candidates, dots);
            read += 1;
            if candidates.len() >= keep {
                break;
            }
        }
    }
    ids.clear();
    ids.extend(candidates.finish().iter().map(|&key| row(key)));
    let vector = |row: u32| {
        let part = &parts[part_of(parts, |first| first.row, row)];
        part.vectors.row(row - part.first.row)
    };
    exact::rescore(&vector, query, ids, nearest);
}
