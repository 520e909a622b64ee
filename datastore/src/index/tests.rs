//! Searches beside brute force, damage, and that nothing depends on anything but rows and parameters.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use half::f16;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Rows around `clusters` centres, spread by a normal-like noise; `dim` components each.
fn clustered(rows: usize, dim: usize, clusters: usize, spread: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let centres: Vec<f32> = (0..clusters * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut noise = move || (0..4).map(|_| rng.random_range(-1.0_f32..1.0)).sum::<f32>() * 0.87;
    let mut all = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        let centre = (row * 31 + 7) % clusters;
        all.extend(centres[centre * dim..][..dim].iter().map(|c| c + spread * noise()));
    }
    all
}

fn write(dir: &Path, rows: &[f32], dim: usize) {
    let mut writer = VectorWriter::create(dir, dim).unwrap();
    for part in rows.chunks(dim * 1000) {
        writer.push(part).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), rows.len() / dim);
}

fn built(dir: &Path, rows: &[f32], dim: usize, params: &IndexParams) -> VectorIndex {
    write(dir, rows, dim);
    build(dir, params, &|_, _| {}, &AtomicBool::new(false)).unwrap();
    VectorIndex::open(dir).unwrap()
}

/// The truth: f64 distances of the rows as they are stored, sorted by distance, then row.
fn brute_force(
    rows: &[f32],
    dim: usize,
    query: &[f32],
    k: usize,
    allowed: &(dyn Fn(u32) -> bool + Sync),
) -> Vec<(f64, u32)> {
    let square = |(x, q): (&f32, &f32)| (f16::from_f32(*x).to_f64() - f64::from(*q)).powi(2);
    let mut all: Vec<(f64, u32)> = rows
        .chunks(dim)
        .zip(0..)
        .filter(|(_, row)| allowed(*row))
        .map(|(vector, row)| (vector.iter().zip(query).map(square).sum(), row))
        .collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all.truncate(k);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_exact_index_finds_what_brute_force_finds(
        dim in 1_usize..70,
        rows in 0_usize..80,
        k in 0_usize..90,
        modulus in 1_u32..4,
        seed in any::<u64>(),
    ) {
        let vectors = clustered(rows, dim, 5, 0.3, seed);
        let folder = tempfile::tempdir().unwrap();
        let index = built(folder.path(), &vectors, dim, &IndexParams::default());
        prop_assert_eq!((index.len(), index.dim(), index.kind()), (rows, dim, IndexKind::Exact));
        let query = clustered(1, dim, 5, 0.3, seed ^ 1);
        let mut hits = Vec::new();
        let allowed = |row: u32| row.is_multiple_of(modulus);
        index.search(&query, k, None, Some(&allowed), &mut SearchScratch::default(), &mut hits).unwrap();
        let truth = brute_force(&vectors, dim, &query, k, &allowed);
        prop_assert_eq!(hits.len(), truth.len());
        for (hit, (distance, _)) in hits.iter().zip(&truth) {
            prop_assert!(allowed(hit.row));
            prop_assert!((f64::from(hit.distance) - distance).abs() <= 1e-4 * distance.max(1.0));
        }
        prop_assert!(hits.is_sorted_by(|a, b| (a.distance, a.row) < (b.distance, b.row)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn codes_with_their_errors_lose_no_neighbour(
        dim in 1_usize..80,
        rows in exact::FEW + 1..exact::FEW + 3000,
        k in 1_usize..300,
        modulus in 1_u32..4,
        outlier in 0_usize..4,
        scale in prop::sample::select(vec![1e-3_f32, 1.0, 40.0]),
        seed in any::<u64>(),
    ) {
        // Some rows lie far beyond what codes cover.
        let mut vectors = clustered(rows, dim, 5, 0.3, seed);
        vectors.iter_mut().for_each(|x| *x *= scale);
        for row in 0..outlier {
            vectors[row * 97 * dim] = 300.0 * scale;
        }
        let folder = tempfile::tempdir().unwrap();
        let index = built(folder.path(), &vectors, dim, &IndexParams::default());
        let allowed = |row: u32| row.is_multiple_of(modulus);
        for (number, far) in [(1, 1.0), (2, 1.0), (3, 20.0)] {
            let query: Vec<f32> = clustered(1, dim, 5, 0.3, seed ^ number).iter().map(|x| x * scale * far).collect();
            let mut hits = Vec::new();
            index.search(&query, k, None, Some(&allowed), &mut SearchScratch::default(), &mut hits).unwrap();
            let mut all = Scratch::default();
            all.nearest.start(k);
            exact::search(&index.0.vectors, &query, Some(&allowed), &mut all);
            let mut keys = all.nearest.finish().clone();
            keys.sort_unstable();
            let truth: Vec<Hit> =
                keys.iter().map(|&key| Hit { row: top::row(key), distance: top::distance(key) }).collect();
            prop_assert_eq!(hits, truth);
        }
    }
}

#[test]
fn codes_leave_few_rows_to_compare() {
    let (dim, rows) = (64, 8000);
    let all = clustered(rows + 1, dim, 40, 0.3, 3);
    let (vectors, query) = all.split_at(rows * dim);
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), vectors, dim, &IndexParams::default());
    let mut scratch = SearchScratch::default();
    index.search(query, 10, None, None, &mut scratch, &mut Vec::new()).unwrap();
    let compared = scratch.own[0].ids.len();
    assert!((10..200).contains(&compared), "{compared} rows were compared");
}

#[test]
fn damaged_files_of_an_exact_index_with_codes() {
    let folder = tempfile::tempdir().unwrap();
    built(folder.path(), &clustered(exact::FEW + 1, 8, 5, 0.3, 1), 8, &IndexParams::default());
    damage(folder.path(), 8);
}

#[test]
fn rows_come_back_as_16_bit_floats() {
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), &[0.1, 2.0, -3.0, 65504.0], 2, &IndexParams::default());
    let mut row = [0.0; 2];
    index.vector(0, &mut row);
    assert_eq!(row, [f16::from_f32(0.1).to_f32(), 2.0]);
    index.vector(1, &mut row);
    assert_eq!(row, [-3.0, 65504.0]);
}

#[test]
fn what_is_not_finite_is_refused_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = VectorWriter::create(folder.path(), 2).unwrap();
    writer.push(&[1.0, 2.0]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, 70_000.0] {
        let error = writer.push(&[1.0, 2.0, 3.0, bad]).unwrap_err();
        assert!(matches!(error, IndexError::NonFinite { row: 2, .. }), "{error}");
    }
    assert!(matches!(writer.push(&[1.0]), Err(IndexError::Dimension { got: 1, .. })));
    assert_eq!(writer.finish().unwrap(), 1);
    build(folder.path(), &IndexParams::default(), &|_, _| {}, &AtomicBool::new(false)).unwrap();
    let index = VectorIndex::open(folder.path()).unwrap();
    let search = |query: &[f32]| index.search(query, 1, None, None, &mut SearchScratch::default(), &mut Vec::new());
    assert!(matches!(search(&[0.0, f32::NAN]), Err(IndexError::Query { component: 1, .. })));
    assert!(matches!(search(&[0.0]), Err(IndexError::Dimension { got: 1, .. })));
    index.search(&[0.0; 2], usize::MAX, None, None, &mut SearchScratch::default(), &mut Vec::new()).unwrap();
    assert!(search(&[0.0, 1e30]).is_ok(), "distances beyond f32 are infinite, not an error");
}

#[test]
fn an_unfinished_or_stopped_index_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    assert!(VectorIndex::open(folder.path()).is_err());
    drop(VectorWriter::create(folder.path(), 2).unwrap());
    let error = build(folder.path(), &IndexParams::default(), &|_, _| {}, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, IndexError::Io { .. }), "{error}");
    write(folder.path(), &[1.0, 2.0], 2);
    assert!(VectorIndex::open(folder.path()).is_err());
    let stopped = build(folder.path(), &IndexParams::default(), &|_, _| {}, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(IndexError::Stopped)));
    assert!(VectorIndex::open(folder.path()).is_err());
    let params = IndexParams { m: 300, ..IndexParams::default() };
    assert!(matches!(
        build(folder.path(), &params, &|_, _| {}, &AtomicBool::new(false)),
        Err(IndexError::Parameter { name: "m", .. })
    ));
}

/// Every file, cut short, lengthened, or with bytes flipped: an error or an answer, never a panic.
fn damage(dir: &Path, dim: usize) {
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let try_it = || {
        let index = VectorIndex::open(dir)?;
        let mut hits = Vec::new();
        let inside = |row: u32| {
            assert!((row as usize) < index.len(), "asked of row {row}");
            row.is_multiple_of(2)
        };
        for step in 0..8 {
            let query: Vec<f32> = (0..dim).map(|i| ((i + step) as f32).sin()).collect();
            index.search(&query, 10, None, None, &mut SearchScratch::default(), &mut hits)?;
            index.search(&query, 10, Some(64), Some(&inside), &mut SearchScratch::default(), &mut hits)?;
            // Too many to be compared one by one.
            let pair = [Part { index: &index, allowed: Some(&inside) }; 30];
            search_together(&pair, &query, 10, None, &mut SearchScratch::default(), &mut Vec::new())?;
            assert!(hits.iter().all(|hit| (hit.row as usize) < index.len()));
        }
        Ok::<_, IndexError>(())
    };
    try_it().unwrap();
    for path in files {
        let bytes = fs::read(&path).unwrap();
        for length in [0, 10, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(try_it().is_err(), "{} cut to {length} bytes", path.display());
        }
        fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
        assert!(try_it().is_err(), "{} lengthened", path.display());
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for trial in 0..60 {
            let mut damaged = bytes.clone();
            // Half of the trials at the beginning, where the headers are.
            let end = if trial % 2 == 0 { bytes.len().min(128) } else { bytes.len() };
            let at = rng.random_range(0..end);
            damaged[at] ^= rng.random_range(1..=255_u8);
            if trial >= 40 {
                let end = (at + 64).min(damaged.len());
                damaged[at..end].fill(0xff);
            }
            fs::write(&path, &damaged).unwrap();
            // Not every flip can be seen; the segment's checksums see them all.
            let _ = try_it();
        }
        fs::write(&path, &bytes).unwrap();
    }
    try_it().unwrap();
}

#[test]
fn damaged_files_of_an_exact_index() {
    let folder = tempfile::tempdir().unwrap();
    built(folder.path(), &clustered(300, 16, 5, 0.3, 1), 16, &IndexParams::default());
    damage(folder.path(), 16);
}

fn graph_params() -> IndexParams {
    IndexParams { exact_below: 0, ef_construction: 100, seed: 9, ..IndexParams::default() }
}

/// Mean share of the `k` nearest allowed rows that are found with the default effort.
fn recall(index: &VectorIndex, rows: &[f32], queries: &[f32], k: usize, allowed: &(dyn Fn(u32) -> bool + Sync)) -> f64 {
    let (mut scratch, mut hits, mut found, mut all) = (SearchScratch::default(), Vec::new(), 0, 0);
    for query in queries.chunks(index.dim()) {
        index.search(query, k, None, Some(allowed), &mut scratch, &mut hits).unwrap();
        assert!(hits.iter().all(|hit| allowed(hit.row)));
        assert!(hits.is_sorted_by(|a, b| (a.distance, a.row) < (b.distance, b.row)));
        let truth = brute_force(rows, index.dim(), query, k, allowed);
        found += truth.iter().filter(|(_, row)| hits.iter().any(|hit| hit.row == *row)).count();
        all += truth.len();
    }
    found as f64 / all as f64
}

#[test]
fn a_graph_finds_nearly_all() {
    let (dim, rows, queries) = (48, 6000, 60);
    let all = clustered(rows + queries, dim, 40, 0.3, 3);
    let (vectors, queries) = all.split_at(rows * dim);
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), vectors, dim, &graph_params());
    assert_eq!(index.kind(), IndexKind::Graph);
    for k in [1, 10, 100] {
        let got = recall(&index, vectors, queries, k, &|_| true);
        assert!(got >= 0.93, "recall@{k} {got}");
        let got = recall(&index, vectors, queries, k, &|row| row % 3 == 0);
        assert!(got >= 0.93, "recall@{k} of a third {got}");
    }
    let few = recall(&index, vectors, queries, 10, &|row| row % 1000 == 7);
    assert!(few >= 0.99, "recall@10 of 6 allowed rows {few}");
}

fn inverted_params() -> IndexParams {
    IndexParams { exact_below: 0, inverted_above: 0, seed: 4, ..IndexParams::default() }
}

#[test]
fn an_inverted_file_finds_nearly_all() {
    let (dim, rows, queries) = (48, 12_000, 60);
    let all = clustered(rows + queries, dim, 40, 0.3, 3);
    let (vectors, queries) = all.split_at(rows * dim);
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), vectors, dim, &inverted_params());
    assert_eq!(index.kind(), IndexKind::Inverted);
    for k in [1, 10, 100] {
        let got = recall(&index, vectors, queries, k, &|_| true);
        assert!(got >= 0.93, "recall@{k} {got}");
        let got = recall(&index, vectors, queries, k, &|row| row % 3 == 0);
        assert!(got >= 0.9, "recall@{k} of a third {got}");
    }
    let few = recall(&index, vectors, queries, 10, &|row| row % 1000 == 7);
    assert!(few >= 0.99, "recall@10 of 12 allowed rows {few}");
    // All lists are all rows.
    let mut hits = Vec::new();
    index.search(&queries[..dim], 10, Some(usize::MAX), None, &mut SearchScratch::default(), &mut hits).unwrap();
    let truth: Vec<u32> = brute_force(vectors, dim, &queries[..dim], 10, &|_| true).iter().map(|t| t.1).collect();
    assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), truth);
}

/// Indexes over stretches of `rows`, with where each begins.
fn stretches(
    rows: &[f32],
    dim: usize,
    ends: &[usize],
    params: &IndexParams,
) -> Vec<(tempfile::TempDir, VectorIndex, u32)> {
    let mut first = 0;
    let index = |&end: &usize| {
        let folder = tempfile::tempdir().unwrap();
        let index = built(folder.path(), &rows[first * dim..end * dim], dim, params);
        let begins = std::mem::replace(&mut first, end) as u32;
        (folder, index, begins)
    };
    ends.iter().map(index).collect()
}

#[test]
fn indexes_that_are_searched_together_find_nearly_all_of_what_is_near_in_any() {
    let (dim, queries, ends) = (48, 40, [300, 2700, 2700, 9000, 14_000]);
    let rows = ends[ends.len() - 1];
    let all = clustered(rows + queries, dim, 40, 0.3, 3);
    let (vectors, queries) = all.split_at(rows * dim);
    // The small ones are exact by themselves, and have lists where they are not tiny; the last two have lists alone.
    let params = IndexParams { exact_below: 4000, inverted_above: 2000, seed: 4, ..IndexParams::default() };
    let parts = stretches(vectors, dim, &ends, &params);
    let exact = stretches(vectors, dim, &ends, &IndexParams { exact_below: rows, ..params.clone() });
    let (mut scratch, mut found) = (SearchScratch::default(), Vec::new());
    let mut search =
        |of: &[(tempfile::TempDir, VectorIndex, u32)], query: &[f32], k, modulus: u32| -> Vec<(u32, f32)> {
            let checks: Vec<_> =
                of.iter().map(|(.., first)| move |row: u32| (first + row).is_multiple_of(modulus)).collect();
            let asked = of.iter().zip(&checks).map(|((_, index, _), check)| {
                let check: &(dyn Fn(u32) -> bool + Sync) = check;
                Part { index, allowed: (modulus > 1).then_some(check) }
            });
            search_together(&asked.collect::<Vec<_>>(), query, k, None, &mut scratch, &mut found).unwrap();
            assert!(
                found.is_sorted_by(|a, b| (a.hit.distance, a.part, a.hit.row) < (b.hit.distance, b.part, b.hit.row))
            );
            found.iter().map(|found| (of[found.part as usize].2 + found.hit.row, found.hit.distance)).collect()
        };
    for (k, modulus) in [(1, 1), (10, 1), (300, 1), (10, 3), (300, 3), (10, 1000)] {
        let (mut right, mut wanted) = (0, 0);
        for query in queries.chunks(dim) {
            let truth = brute_force(vectors, dim, query, k, &|row| row.is_multiple_of(modulus));
            let truth: BTreeSet<u32> = truth.into_iter().map(|(_, row)| row).collect();
            let rows = |found: Vec<(u32, f32)>| found.into_iter().map(|(row, _)| row).collect::<BTreeSet<_>>();
            assert_eq!(rows(search(&exact, query, k, modulus)), truth, "all rows are compared");
            let near = rows(search(&parts, query, k, modulus));
            assert_eq!(near.len(), truth.len());
            assert!(near.iter().all(|row| row.is_multiple_of(modulus)));
            right += truth.iter().filter(|row| near.contains(row)).count();
            wanted += truth.len();
        }
        let recall = right as f64 / wanted as f64;
        // Lists are chosen as if all rows might be taken: of those that may, the nearest lie farther out.
        let least = if modulus == 3 { 0.75 } else { 0.93 };
        assert!(recall >= least, "recall@{k} of one in {modulus}: {recall}");
    }
    // One thread finds the same.
    let query = &queries[..dim];
    let many = search(&parts, query, 300, 1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| search(&parts, query, 300, 1)), many);
    let refused =
        search_together(&[Part { index: &parts[0].1, allowed: None }], &[0.0; 3], 1, None, &mut scratch, &mut found);
    assert!(matches!(refused, Err(IndexError::Dimension { got: 3, .. })) && found.is_empty());
}

#[test]
fn an_inverted_file_is_the_same_each_time() {
    same_files_each_time(&inverted_params(), true);
}

#[test]
fn damaged_files_of_an_exact_index_with_lists() {
    let folder = tempfile::tempdir().unwrap();
    let params = IndexParams { inverted_above: 0, ..IndexParams::default() };
    built(folder.path(), &clustered(exact::FEW + 1, 8, 5, 0.3, 1), 8, &params);
    damage(folder.path(), 8);
}

#[test]
fn damaged_files_of_an_inverted_file() {
    let folder = tempfile::tempdir().unwrap();
    built(folder.path(), &clustered(800, 16, 5, 0.3, 1), 16, &inverted_params());
    damage(folder.path(), 16);
}

/// Names and contents of the files of a folder.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

fn same_files_each_time(params: &IndexParams, other_seed: bool) {
    let vectors = clustered(2500, 24, 30, 0.3, 5);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    built(first.path(), &vectors, 24, params);
    write(second.path(), &vectors, 24);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| build(second.path(), params, &|_, _| {}, &AtomicBool::new(false))).unwrap();
    assert!(contents(first.path()) == contents(second.path()));
    if other_seed {
        let params = IndexParams { seed: params.seed + 1, ..params.clone() };
        build(second.path(), &params, &|_, _| {}, &AtomicBool::new(false)).unwrap();
        assert!(contents(first.path()) != contents(second.path()));
    }
}

#[test]
fn a_graph_is_the_same_each_time() {
    same_files_each_time(&graph_params(), true);
}

#[test]
fn every_row_of_a_graph_can_be_found_even_among_duplicates() {
    let dim = 8;
    let mut vectors = clustered(1500, dim, 10, 0.2, 8);
    // Many equal rows, which crowd each other's lists, and all others far from them.
    for row in (0..1500).filter(|row| row % 2 == 0) {
        vectors[row * dim..][..dim].fill(0.25);
    }
    let folder = tempfile::tempdir().unwrap();
    let index = built(folder.path(), &vectors, dim, &graph_params());
    let (mut scratch, mut hits) = (SearchScratch::default(), Vec::new());
    for row in 0..1500_u32 {
        let query = &vectors[row as usize * dim..][..dim];
        index.search(query, 1, Some(1500), Some(&|r| r == row), &mut scratch, &mut hits).unwrap();
        assert_eq!(hits.len(), 1, "row {row}");
    }
}

#[test]
fn progress_is_told_and_a_graph_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &clustered(2000, 8, 10, 0.3, 5), 8);
    let (stop, last) = (AtomicBool::new(false), Cell::new(0));
    let progress = |done: usize, total: usize| {
        assert!(done >= last.get() && done <= total && total == 2000);
        last.set(done);
        stop.store(done > 1000, Ordering::Relaxed);
    };
    let stopped = build(folder.path(), &graph_params(), &progress, &stop);
    assert!(matches!(stopped, Err(IndexError::Stopped)));
    assert!(last.get() > 1000);
    assert!(VectorIndex::open(folder.path()).is_err());
}

#[test]
fn damaged_files_of_a_graph() {
    let folder = tempfile::tempdir().unwrap();
    built(folder.path(), &clustered(400, 16, 5, 0.3, 1), 16, &graph_params());
    damage(folder.path(), 16);
}

#[test]
fn tiny_indexes() {
    for rows in 0..6 {
        let vectors = clustered(rows, 4, 2, 0.3, 1);
        let folder = tempfile::tempdir().unwrap();
        for params in [graph_params(), inverted_params()] {
            let index = built(folder.path(), &vectors, 4, &params);
            let mut hits = Vec::new();
            index.search(&[0.0; 4], 9, None, None, &mut SearchScratch::default(), &mut hits).unwrap();
            assert_eq!(hits.len(), rows);
        }
    }
}
