//! Views against brute force.

use safelmm_datastore::testing::{FakeEncoder, words};
use safelmm_datastore::{AddOptions, Document, DocumentKey, Store, StoreEncoder, View};

use crate::support::*;

fn pieces(store: &Store, documents: &[Document]) {
    // Two documents a commit, and few enough commits that nothing is merged.
    for piece in documents.chunks(2) {
        add(store, piece);
    }
}

fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn id(view: &View, key: DocumentKey) -> String {
    view.document(key).unwrap().id
}

#[test]
fn neighbours_over_segments_are_the_nearest_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let documents = random_documents(30, 6);
    pieces(&store, &documents);
    let view = store.view(&all(), &["doc-30-2".to_owned()]);
    let encoder = FakeEncoder::new();
    for seed in 0..5 {
        let query = encoder.key(&tokens(&words(seed, 4)));
        let found = neighbours(&view, &query, 15);
        let mut expected = Vec::new();
        for document in documents.iter().filter(|d| d.id != "doc-30-2") {
            let tokens = tokens(&document.text);
            let keys = encoder.keys(&[&tokens]).unwrap();
            for (position, key) in keys.chunks(8).enumerate() {
                let near = |x: f32| half::f16::from_f32(x).to_f32();
                let distance: f32 = key.iter().zip(&query).map(|(a, b)| (near(*a) - b).powi(2)).sum();
                expected.push((distance, document.id.clone(), position as u32, tokens[position]));
            }
        }
        expected.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(found.len(), 15);
        for (neighbour, expected) in found.iter().zip(&expected) {
            assert!((neighbour.distance - expected.0).abs() < 1e-3, "{neighbour:?} {expected:?}");
            let document = documents.iter().find(|d| d.id == id(&view, neighbour.document)).unwrap();
            assert_eq!(neighbour.token, u32::from(document.text.as_bytes()[neighbour.position as usize]));
        }
        assert!(found.windows(2).all(|w| w[0].distance <= w[1].distance));
    }
    assert!(neighbours(&view, &[f32::NAN; 8], 3).is_empty() && neighbours(&view, &[0.0; 3], 3).is_empty());
}

#[test]
fn continuations_and_traces_over_segments_are_those_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let documents = random_documents(31, 6);
    pieces(&store, &documents);
    let view = store.view(&all(), &[]);
    for seed in 0..8 {
        let context = words(seed + 100, 3);
        let found = view.continuations(&tokens(&context), None);
        let suffix = |length: usize| &context.as_bytes()[context.len() - length..];
        let count = |pattern: &[u8]| -> usize {
            let places =
                |d: &Document| d.text.as_bytes().windows(pattern.len() + 1).filter(|w| w.starts_with(pattern)).count();
            documents.iter().map(places).sum()
        };
        let longest = (1..=context.len()).rev().find(|l| count(suffix(*l)) > 0).unwrap_or(0);
        assert_eq!((found.matched, found.occurrences.len()), (longest, count(suffix(longest))));
        for occurrence in &found.occurrences {
            let (end, start) = (occurrence.position, occurrence.position - longest as u32);
            let before = view.document_text(occurrence.document, start..end).unwrap();
            assert_eq!(before.as_bytes(), suffix(longest));
        }
        let text = format!("{} {}", &documents[0].text[4..40], &documents[5].text[8..30]);
        let matches = view.trace(&tokens(&text), 12, 10);
        assert!(matches.len() >= 2);
        for found in &matches {
            let matched = &text[found.range.clone()];
            let everywhere: usize = documents.iter().map(|d| d.text.match_indices(matched).count()).sum();
            assert!(found.count as usize >= everywhere.max(1), "{matched:?}");
            for (document, position) in &found.occurrences {
                let range = *position..*position + found.range.len() as u32;
                assert_eq!(view.document_text(*document, range.clone()).unwrap(), matched);
                assert_eq!(view.document_tokens(*document, range).unwrap(), tokens(matched));
            }
            let contained = |other: &safelmm_datastore::TraceMatch| {
                other.range.start <= found.range.start && other.range.end >= found.range.end && other != found
            };
            assert!(!matches.iter().any(contained));
        }
    }
}

#[test]
fn joined_views_are_as_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let documents = random_documents(32, 12);
    let whole = create(&folder.path().join("whole"));
    add(&whole, &documents);
    let (a, b) = (create(&folder.path().join("a")), create(&folder.path().join("b")));
    add(&a, &documents[..6]);
    add(&b, &documents[6..]);
    let joined = View::join(&[a.view(&all(), &[]), b.view(&all(), &[])]);
    let whole = whole.view(&all(), &[]);
    assert_eq!((joined.tokens(), joined.licenses()), (whole.tokens(), whole.licenses()));
    for seed in 0..10 {
        let query = words(seed, 5);
        let scores = |view: &View| ask(view, &query).bm25_scores();
        assert_eq!(scores(&joined), scores(&whole));
        let key = FakeEncoder::new().key(&tokens(&query));
        let distances = |view: &View| -> Vec<f32> { neighbours(view, &key, 30).iter().map(|n| n.distance).collect() };
        assert_eq!(distances(&joined), distances(&whole));
        let (one, two) = (joined.continuations(&tokens(&query), None), whole.continuations(&tokens(&query), None));
        assert_eq!((one.matched, one.occurrences.len()), (two.matched, two.occurrences.len()));
    }
    assert!(View::join(&[]).is_empty());
}

#[test]
fn passages_have_their_text_and_text_ends_at_characters() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let text = "Grüße aus Köln. Ein Fluß fließt. ".repeat(12);
    add(&store, &[document("de", text.trim_end(), "CC0-1.0")]);
    let view = store.view(&commercial(), &[]);
    let hits = view.passages_bm25("Fluß", 3).unwrap();
    assert!(!hits.is_empty());
    for hit in &hits {
        let passage = view.passage_text(hit).unwrap();
        assert!(passage.contains("Fluß") && text.contains(passage));
        assert_eq!(view.passage_tokens(hit).unwrap().len(), hit.tokens.len());
    }
    // Byte 3 is the second one of "ü".
    assert_eq!(view.document_text(hits[0].document, 3..4).unwrap(), "ü");
    assert_eq!(view.document_text(hits[0].document, 0..100_000), None);
    let options = AddOptions { max_document_bytes: 10, ..AddOptions::default() };
    let long = add_with(&store, &FakeEncoder::new(), &[document("x", &text, "CC0-1.0")], &options);
    assert!(long.unwrap_err().to_string().contains("limit of 10"));
}
