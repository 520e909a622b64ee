//! What the tests share.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use safelmm_datastore::index::IndexParams;
use safelmm_datastore::testing::{FakeEncoder, mix, words};
use safelmm_datastore::{
    Access, AddOptions, Added, Continuations, Document, Neighbour, PassageHit, Scratch, Store, StoreError, TraceMatch,
    Use, View,
};

pub use safelmm_datastore::testing::document;

pub fn never() -> AtomicBool {
    AtomicBool::new(false)
}

pub fn create(folder: &Path) -> Store {
    Store::create(folder, FakeEncoder::new().settings("store")).unwrap()
}

/// Sizes by which even small segments get a graph (from 100 tokens on) or an inverted file (from 800 on).
pub fn small_index() -> IndexParams {
    IndexParams { m: 4, ef_construction: 16, exact_below: 100, inverted_above: 800, ..IndexParams::default() }
}

pub fn add_with(
    store: &Store,
    encoder: &FakeEncoder,
    documents: &[Document],
    options: &AddOptions,
) -> Result<Added, StoreError> {
    store.add(&mut documents.iter().cloned().map(Ok), encoder, options, &|_| {}, &never())
}

pub fn add(store: &Store, documents: &[Document]) -> Added {
    add_with(store, &FakeEncoder::new(), documents, &AddOptions::default()).unwrap()
}

pub fn compact(store: &Store) -> safelmm_datastore::Compacted {
    store.compact(&|_| {}, &never()).unwrap()
}

/// Everything that has a license which allows retrieval at all.
pub fn all() -> Access {
    Access { declared_use: Use::NonCommercial, attributed: true, ..Access::default() }
}

pub fn commercial() -> Access {
    Access::default()
}

/// Documents with random words, of several licenses.
pub fn random_documents(seed: u64, count: usize) -> Vec<Document> {
    const LICENSES: [&str; 4] = ["CC0-1.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0-only"];
    (0..count as u64)
        .map(|i| {
            let h = mix(seed.wrapping_mul(1000) + i);
            let text = words(h, 10 + (h % 80) as usize);
            document(&format!("doc-{seed}-{i}"), &text, LICENSES[(h >> 32) as usize % 4])
        })
        .collect()
}

/// A match: which tokens, how often, and in which documents where.
type Traced = (std::ops::Range<usize>, u64, Vec<(String, u32)>);

/// Everything a view says about some queries, with ids in the place of keys.
#[derive(Debug, PartialEq)]
pub struct Answers {
    neighbours: Vec<(u32, u32, String, u32)>,
    continuations: (usize, bool, Vec<(u32, String, u32)>),
    bm25: Vec<(String, std::ops::Range<u32>, u32)>,
    dense: Vec<(String, std::ops::Range<u32>, u32)>,
    trace: Vec<Traced>,
}

impl Answers {
    pub fn is_empty(&self) -> bool {
        self.neighbours.is_empty() && self.continuations.0 == 0 && self.bm25.is_empty() && self.trace.is_empty()
    }
}

pub fn neighbours(view: &View, key: &[f32], k: usize) -> Vec<Neighbour> {
    let mut out = Vec::new();
    view.neighbours(key, k, None, &mut Scratch::default(), &mut out);
    out
}

pub fn ask(view: &View, query: &str) -> Answers {
    let encoder = FakeEncoder::new();
    let tokens: Vec<u32> = query.bytes().map(u32::from).collect();
    let id = |key| view.document(key).map(|d| d.id).unwrap_or_else(|| "gone".to_owned());
    let passages = |hits: Vec<PassageHit>| -> Vec<_> {
        hits.into_iter().map(|h| (id(h.document), h.tokens, h.score.to_bits())).collect()
    };
    let Continuations { matched, occurrences, too_many } = view.continuations(&tokens, None);
    let mut cursor = view.cursor(tokens.len());
    tokens.iter().for_each(|t| cursor.push(*t));
    assert_eq!(cursor.continuations(None).occurrences, occurrences);
    let vector = encoder_vector(&encoder, query);
    let trace = |m: TraceMatch| (m.range, m.count, m.occurrences.into_iter().map(|(k, p)| (id(k), p)).collect());
    Answers {
        neighbours: neighbours(view, &encoder.key(&tokens), 20)
            .into_iter()
            .map(|n| (n.distance.to_bits(), n.token, id(n.document), n.position))
            .collect(),
        continuations: (
            matched,
            too_many,
            occurrences.into_iter().map(|o| (o.token, id(o.document), o.position)).collect(),
        ),
        bm25: passages(view.passages_bm25(query, 10).unwrap()),
        dense: if view.is_empty() { Vec::new() } else { passages(view.passages_dense(&vector, 10).unwrap()) },
        trace: view.trace(&tokens, 8, 3).into_iter().map(trace).collect(),
    }
}

fn encoder_vector(encoder: &FakeEncoder, text: &str) -> Vec<f32> {
    use safelmm_datastore::StoreEncoder;
    encoder.embed(&[text]).unwrap().unwrap().remove(0)
}

/// Answers to several queries, some of them words of the documents.
pub fn ask_all(view: &View, seed: u64) -> Vec<Answers> {
    (0..6).map(|i| ask(view, &words(mix(seed + i) % 50, 3 + i as usize * 2))).collect()
}

impl Answers {
    pub fn bm25_ids(&self) -> Vec<String> {
        self.bm25.iter().map(|(id, ..)| id.clone()).collect()
    }

    /// Scores by words, the best first.
    pub fn bm25_scores(&self) -> Vec<u32> {
        self.bm25.iter().map(|(.., score)| *score).collect()
    }
}
