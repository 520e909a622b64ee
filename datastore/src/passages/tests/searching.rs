//! BM25 and dense search beside brute force, with removals and with damage.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::{Passage, PassageError, PassageHit, PassageIndex, PassageWriter, bm25, terms};
use crate::index::IndexParams;

/// Passages as document, text and vector.
type Passages = Vec<(u32, String, [f32; 3])>;

fn write(dir: &Path, passages: &[(u32, String, [f32; 3])], dense: bool) {
    let mut writer = PassageWriter::create(dir, dense.then_some(3)).unwrap();
    for (at, (document, text, vector)) in passages.iter().enumerate() {
        let passage = Passage { document: *document, tokens: at as u32..at as u32 + 1, text };
        writer.push(&passage, dense.then_some(&vector[..])).unwrap();
    }
    assert_eq!(writer.finish(&IndexParams::default(), &AtomicBool::new(false)).unwrap(), passages.len());
}

fn open(dir: &Path) -> Result<PassageIndex, PassageError> {
    PassageIndex::open(dir, 10, 10_000)
}

fn index(passages: &[(u32, String, [f32; 3])], dense: bool) -> PassageIndex {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), passages, dense);
    open(dir.path()).unwrap()
}

/// Few words, so that scores tie and terms are frequent; documents in order.
fn passages() -> impl Strategy<Value = Passages> {
    let text = "([a-f]|ab|x y|字句|Straße| ){0,12}".prop_map(|text| text.replace("", " "));
    let vector = prop::array::uniform3((-3i8..3).prop_map(f32::from));
    prop::collection::vec((0u32..6, text, vector), 0..40).prop_map(|mut passages| {
        passages.sort_by_key(|(document, ..)| *document);
        passages
    })
}

fn query() -> impl Strategy<Value = String> {
    "([a-h] |a |字句 |STRASSE |unseen ){0,8}"
}

/// BM25 of one passage as the books have it, over the allowed ones.
fn score_by_force(passages: &[(u32, String, [f32; 3])], allowed: &BTreeSet<u32>, query: &str, at: usize) -> f64 {
    let counts: Vec<_> =
        passages.iter().filter(|(d, ..)| allowed.contains(d)).map(|(_, text, _)| terms::count(text)).collect();
    let mean = counts.iter().flat_map(|c| c.values()).sum::<u32>() as f64 / counts.len() as f64;
    let own = terms::count(&passages[at].1);
    let length = own.values().sum::<u32>() as f64;
    let mut score = 0.0;
    for (term, repeats) in terms::count(query) {
        let df = counts.iter().filter(|c| c.contains_key(&term)).count() as f64;
        let tf = f64::from(own.get(&term).copied().unwrap_or(0));
        let idf = ((counts.len() as f64 - df + 0.5) / (df + 0.5) + 1.0).ln();
        score += f64::from(repeats) * idf * tf / (tf + 0.9 * (1.0 - 0.4 + 0.4 * length / mean));
    }
    score
}

/// What is left of passages, with their numbers before.
fn without(passages: &Passages, allowed: &BTreeSet<u32>) -> (Passages, Vec<u32>) {
    let kept = passages.iter().zip(0..).filter(|((d, ..), _)| allowed.contains(d));
    kept.map(|(passage, number)| (passage.clone(), number)).unzip()
}

/// Number, document and the bits of the score.
fn bits(hits: &[PassageHit]) -> Vec<(u32, u32, u32)> {
    hits.iter().map(|hit| (hit.passage, hit.document, hit.score.to_bits())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn bm25_is_that_of_the_allowed_passages_alone(
        passages in passages(), query in query(), mask in any::<u8>(), n in 0usize..50, border in 0u32..6,
    ) {
        let allowed: BTreeSet<u32> = (0..6).filter(|d| mask >> d & 1 == 1).collect();
        let may = |d: u32| allowed.contains(&d);
        let whole = index(&passages, false);
        let hits = whole.bm25(&query, n, Some(&may)).unwrap();

        // Beside brute force.
        let mut wanted: Vec<(usize, f64)> = (0..passages.len())
            .filter(|&at| allowed.contains(&passages[at].0))
            .map(|at| (at, score_by_force(&passages, &allowed, &query, at)))
            .filter(|(_, score)| *score > 0.0)
            .collect();
        wanted.sort_by(|a, b| (b.1 as f32).total_cmp(&(a.1 as f32)).then(a.0.cmp(&b.0)));
        wanted.truncate(n);
        prop_assert_eq!(hits.len(), wanted.len());
        for (hit, (_, score)) in hits.iter().zip(&wanted) {
            prop_assert!((f64::from(hit.score) - score).abs() < 1e-5 * score.max(1.0), "{} {}", hit.score, score);
            let own = score_by_force(&passages, &allowed, &query, hit.passage as usize);
            prop_assert!((f64::from(hit.score) - own).abs() < 1e-5 * own.max(1.0));
            prop_assert_eq!(whole.passage(hit.passage), Some((hit.document, hit.tokens.clone())));
        }
        for pair in hits.windows(2) {
            prop_assert!(pair[0].score > pair[1].score || pair[0].score == pair[1].score && pair[0].passage < pair[1].passage);
        }

        // Beside an index that never held the others, to the last bit.
        let (left, numbers) = without(&passages, &allowed);
        let mut alone = index(&left, false).bm25(&query, n, None).unwrap();
        for hit in &mut alone {
            hit.passage = numbers[hit.passage as usize];
        }
        prop_assert_eq!(bits(&hits), bits(&alone));

        // However the passages are spread over segments.
        let middle = passages.partition_point(|(d, ..)| *d < border);
        let (first, second) = (index(&passages[..middle], false), index(&passages[middle..], false));
        let spread = bm25(&[(&first, Some(&may)), (&second, Some(&may))], &query, n).unwrap();
        let spread: Vec<PassageHit> = spread
            .into_iter()
            .map(|(segment, hit)| PassageHit { passage: hit.passage + [0, middle as u32][segment], ..hit })
            .collect();
        prop_assert_eq!(bits(&hits), bits(&spread));
    }

    #[test]
    fn dense_search_is_that_of_the_allowed_passages_alone(
        passages in passages(), vector in prop::array::uniform3((-3i8..3).prop_map(f32::from)), mask in any::<u8>(), n in 1usize..50,
    ) {
        let allowed: BTreeSet<u32> = (0..6).filter(|d| mask >> d & 1 == 1).collect();
        let may = |d: u32| allowed.contains(&d);
        let index = index(&passages, true);
        let mut wanted: Vec<(u32, u32, u32)> = passages.iter().zip(0..).filter(|((d, ..), _)| may(*d)).map(|((d, _, own), number)| {
            let distance: f32 = own.iter().zip(&vector).map(|(a, b)| (a - b) * (a - b)).sum();
            (number, *d, (-distance).to_bits())
        }).collect();
        wanted.sort_by(|a, b| f32::from_bits(b.2).total_cmp(&f32::from_bits(a.2)).then(a.0.cmp(&b.0)));
        wanted.truncate(n);
        prop_assert_eq!(bits(&index.dense(&vector, n, Some(&may)).unwrap()), wanted);
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let passages: Passages = (0..60)
        .map(|i| (i / 10, format!("word{} and more {}", i % 7, "of it ".repeat(i as usize % 5)), [i as f32; 3]))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &passages, true);
    let sound = open(dir.path()).unwrap().bm25("word3 more", 10, None).unwrap();
    let mut kinds = BTreeSet::new();
    for path in files(dir.path()) {
        let bytes = fs::read(&path).unwrap();
        if bytes.is_empty() {
            continue; // a lock
        }
        kinds.insert(path.extension().map(|e| e.to_owned()));
        for step in 0..24 {
            let at = bytes.len() * step / 24;
            fs::write(&path, &bytes[..at]).unwrap();
            assert!(open(dir.path()).is_err(), "{} cut at {at} was opened", path.display());
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (step % 8);
            fs::write(&path, flipped).unwrap();
            // What is not noticed does no harm to words; the components of vectors have no checksum of their own.
            if let Ok(index) = open(dir.path()) {
                assert_eq!(index.bm25("word3 more", 10, None).unwrap(), sound, "{} at {at}", path.display());
                index.dense(&[1.0; 3], 5, None).unwrap();
            }
        }
        fs::remove_file(&path).unwrap();
        match open(dir.path()) {
            Err(_) => {}
            // The list of files that tantivy may delete is not needed for reading.
            Ok(index) => {
                assert!(path.ends_with(".managed.json"), "{} was not missed", path.display());
                assert_eq!(index.bm25("word3 more", 10, None).unwrap(), sound);
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(kinds.len() > 4, "{kinds:?}");
    assert_eq!(open(dir.path()).unwrap().bm25("word3 more", 10, None).unwrap(), sound);
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = PassageWriter::create(dir.path(), None).unwrap();
    let passage = |document, tokens| Passage { document, tokens, text: "a" };
    writer.push(&passage(3, 0..5), None).unwrap();
    let error = |result: Result<(), PassageError>| result.unwrap_err().to_string();
    assert!(error(writer.push(&passage(2, 5..6), None)).contains("document 2 after document 3"));
    assert!(
        error(writer.push(&passage(3, std::ops::Range { start: 6, end: 5 }), None)).contains("end before they begin")
    );
    assert!(error(writer.push(&passage(3, 5..6), Some(&[1.0]))).contains("a vector of 1 components, expected 0"));
    writer.finish(&IndexParams::default(), &AtomicBool::new(false)).unwrap();

    let open = |documents, tokens| match PassageIndex::open(dir.path(), documents, tokens) {
        Ok(index) => format!("{}", index.len()),
        Err(error) => error.to_string(),
    };
    assert_eq!(open(4, 5), "1");
    assert!(open(3, 5).contains("tokens 0..5 of document 3"), "{}", open(3, 5));
    assert!(open(4, 4).contains("tokens 0..5 of document 3"));
    let index = PassageIndex::open(dir.path(), 4, 5).unwrap();
    assert!(index.dense(&[1.0], 1, None).unwrap_err().to_string().contains("no dense vectors"));

    let stopped =
        PassageWriter::create(dir.path(), None).unwrap().finish(&IndexParams::default(), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(PassageError::Stopped)));
    assert!(PassageIndex::open(&dir.path().join("absent"), 4, 5).is_err());
}

/// A folder that is written again holds nothing of what it held.
#[test]
fn writing_again_replaces_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[(0, "zebracorn".into(), [0.0; 3])], true);
    write(dir.path(), &[(0, "other".into(), [0.0; 3])], true);
    let holds = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).contains("zebracorn");
    assert!(!files(dir.path()).iter().any(holds));
    let index = open(dir.path()).unwrap();
    assert!(index.bm25("zebracorn", 1, None).unwrap().is_empty());
    assert_eq!(index.bm25("other", 1, None).unwrap().len(), 1);
}
