//! A compacted store is one that never held what was removed.

use std::path::Path;

use proptest::prelude::*;
use safelmm_datastore::testing::FakeEncoder;
use safelmm_datastore::{AddOptions, Selector, Store};

use crate::support::*;

/// Whether any file below a folder has these bytes.
fn found(folder: &Path, needle: &[u8]) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = found(&path, needle) {
                return Some(found);
            }
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|w| w == needle) {
            return Some(path);
        }
    }
    None
}

#[test]
fn erased_bytes_are_nowhere_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = create(&path);
    add(&store, &random_documents(20, 10));
    let mut secret = document("secret-id", "Zanzibarquux met Vexilloplumbus at noon in the harbour.", "CC0-1.0");
    secret.author = "Author Whomustgo".to_owned();
    add(&store, std::slice::from_ref(&secret));
    add(&store, &random_documents(21, 5));
    let tokens: Vec<u8> = "Zanzibarquux".bytes().flat_map(|b| u32::from(b).to_le_bytes()).collect();
    let key: Vec<u8> = FakeEncoder::new()
        .key(&"Zanz".bytes().map(u32::from).collect::<Vec<_>>())
        .iter()
        .flat_map(|x| half_bytes(*x))
        .collect();
    let traces: [&[u8]; 7] =
        [b"Zanzibarquux", b"zanzibarquux", &tokens, b"Whomustgo", b"secret-id", b"example.org/secret", &key];
    // The catalogue is compressed: of it a search sees nothing, and the old folder as a whole has to go.
    for seen in [traces[0], &tokens, &key] {
        assert!(found(&path, seen).is_some(), "the test would see it");
    }
    assert!(path.join("meta/1").exists());
    store.remove(&Selector::Id("secret-id".to_owned())).unwrap();
    let compacted = compact(&store);
    assert_eq!(compacted.erased, 1);
    let catalogues: Vec<_> = std::fs::read_dir(path.join("meta")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(catalogues, ["2"]);
    for trace in traces {
        assert_eq!(found(&path, trace), None, "while open: {:?}", String::from_utf8_lossy(trace));
    }
    drop(store);
    for trace in traces {
        assert_eq!(found(&path, trace), None, "closed: {:?}", String::from_utf8_lossy(trace));
    }
    assert!(Store::verify(&path).unwrap().is_clean());
}

fn half_bytes(x: f32) -> [u8; 2] {
    half::f16::from_f32(x).to_le_bytes()
}

#[test]
fn compaction_touches_only_what_it_must() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut settings = FakeEncoder::new().settings("store");
    settings.segment_tokens = 1500;
    let store = Store::create(&path, settings).unwrap();
    add(&store, &random_documents(22, 60));
    let first = compact(&store);
    assert!(first.segments_after > 8 && first.erased == 0 && first.receipt.is_none(), "{first:?}");
    let again = compact(&store);
    assert_eq!((again.segments_before, again.segments_after), (first.segments_after, first.segments_after));
    let folders = || -> Vec<_> {
        let mut names: Vec<_> =
            std::fs::read_dir(path.join("segments")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = folders();
    store.remove(&Selector::Id("doc-22-7".to_owned())).unwrap();
    compact(&store);
    let stayed = folders().iter().filter(|name| before.contains(name)).count();
    assert!(stayed + 3 >= before.len(), "{stayed} of {} stayed", before.len());
    let stop = std::sync::atomic::AtomicBool::new(true);
    store.remove(&Selector::Id("doc-22-8".to_owned())).unwrap();
    assert!(store.compact(&|_| {}, &stop).is_err());
    assert!(store.verify_open().unwrap().is_clean());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Any history of additions and removals, compacted, answers bit for bit like a fresh store of what is left.
    #[test]
    fn history_leaves_no_trace(seed in 0_u64..1000, removed in prop::collection::vec(0_usize..24, 1..8), pieces in 1_usize..5, small in any::<bool>(), exact in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let documents = random_documents(seed, 24);
        let mut settings = FakeEncoder::new().settings("store");
        if small {
            settings.segment_tokens = 2000;
        }
        if !exact {
            (settings.keys, settings.passages) = (small_index(), small_index());
        }
        let worn = Store::create(&folder.path().join("worn"), settings.clone()).unwrap();
        let options = AddOptions { commit_every_tokens: 1500, batch_tokens: 200, ..AddOptions::default() };
        for piece in documents.chunks(24 / pieces) {
            add_with(&worn, &FakeEncoder::new(), piece, &options).unwrap();
        }
        for number in &removed {
            worn.remove(&Selector::Id(documents[*number].id.clone())).unwrap();
        }
        let left: Vec<_> = (0..24).filter(|i| !removed.contains(i)).map(|i| documents[i].clone()).collect();
        let fresh = Store::create(&folder.path().join("fresh"), settings).unwrap();
        add(&fresh, &left);
        let before = ask_all(&worn.view(&all(), &[]), seed);
        prop_assert_eq!(&before.iter().map(|a| a.bm25_scores()).collect::<Vec<_>>(), &ask_all(&fresh.view(&all(), &[]), seed).iter().map(|a| a.bm25_scores()).collect::<Vec<_>>());
        compact(&worn);
        compact(&fresh);
        for access in [all(), commercial()] {
            prop_assert_eq!(ask_all(&worn.view(&access, &[]), seed), ask_all(&fresh.view(&access, &[]), seed));
        }
        prop_assert!(worn.verify_open().unwrap().is_clean());
    }
}
