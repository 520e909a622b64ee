//! Adding documents.

use std::sync::atomic::{AtomicBool, Ordering};

use safelmm_datastore::testing::FakeEncoder;
use safelmm_datastore::{AddOptions, DocumentError, Store, StoreError};

use crate::support::*;

#[test]
fn what_was_added_is_found_again_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let documents = random_documents(1, 20);
    let store = create(&path);
    let added = add(&store, &documents);
    assert_eq!((added.added, added.replaced, added.unchanged), (20, 0, 0));
    let before = ask_all(&store.view(&all(), &[]), 1);
    assert!(before.iter().any(|a| !a.is_empty()));
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.info().documents, 20);
    assert_eq!(ask_all(&store.view(&all(), &[]), 1), before);
    let document = store.document("doc-1-3").unwrap().unwrap();
    assert_eq!((&*document.title, &*document.url), ("Title of doc-1-3", "https://example.org/doc-1-3"));
    drop(store);
    assert_eq!(Store::verify(&path).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_document_that_is_there_costs_no_work_and_a_changed_one_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let encoder = FakeEncoder::new();
    let mut documents = random_documents(2, 8);
    add_with(&store, &encoder, &documents, &AddOptions::default()).unwrap();
    let (work, sequence) = (encoder.encoded.load(Ordering::SeqCst), store.info().sequence);
    let again = add_with(&store, &encoder, &documents, &AddOptions::default()).unwrap();
    assert_eq!((again.added, again.replaced, again.unchanged), (0, 0, 8));
    assert_eq!((encoder.encoded.load(Ordering::SeqCst), store.info().sequence), (work, sequence));
    let view = store.view(&all(), &[]);
    documents[3].text = "Something else stands here now, and nothing of before.".to_owned();
    documents[4].license = "CC-BY-4.0".parse().unwrap();
    let changed = add_with(&store, &encoder, &documents, &AddOptions::default()).unwrap();
    assert_eq!((changed.added, changed.replaced, changed.unchanged), (0, 2, 6));
    assert_eq!(store.info().documents, 8);
    assert_eq!(ask(&store.view(&all(), &[]), "Something else stands here").bm25_ids()[0], documents[3].id);
    // What was replaced is gone from older views too; what is new does not appear in them.
    assert!(!ask(&view, "Something else stands here").bm25_ids().contains(&documents[3].id));
    // The same id twice in one addition: the last one counts.
    let mut twice = documents[3].clone();
    twice.text = "A third version.".to_owned();
    let both = add_with(
        &store,
        &encoder,
        &[documents[0].clone(), twice.clone(), documents[3].clone(), twice],
        &AddOptions::default(),
    );
    assert_eq!(both.unwrap().replaced, 3);
    assert_eq!(store.info().documents, 8);
}

#[test]
fn bad_documents_are_told_and_the_others_go_on_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let mut documents = random_documents(3, 6);
    documents[2].text = "NUL \0".to_owned();
    documents[4].text = String::new();
    let options = AddOptions { skip_bad: true, ..AddOptions::default() };
    let added = add_with(&store, &FakeEncoder::new(), &documents, &options).unwrap();
    assert_eq!((added.added, added.skipped_count), (4, 2));
    assert!(added.skipped[0].contains("doc-3-2") && added.skipped[0].contains("NUL"), "{:?}", added.skipped);
    let store = create(&folder.path().join("strict"));
    let error = add_with(&store, &FakeEncoder::new(), &documents, &AddOptions::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Document(DocumentError::Refused { document, .. }) if document == "doc-3-2"));
    assert_eq!(store.info().documents, 2, "what came before it is there, and nothing half done");
}

#[test]
fn stopping_leaves_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = create(&path);
    let documents = random_documents(4, 160);
    let options = AddOptions { commit_every_tokens: 1500, batch_tokens: 500, ..AddOptions::default() };
    let stop = AtomicBool::new(false);
    let progress = |told: safelmm_datastore::AddProgress| {
        if told.committed > 50 {
            stop.store(true, Ordering::SeqCst);
        }
    };
    let mut source = documents.iter().cloned().map(Ok);
    let added = store.add(&mut source, &FakeEncoder::new(), &options, &progress, &stop).unwrap();
    assert!(added.stopped && added.added > 50 && added.added < 160);
    assert_eq!(store.info().documents, added.added);
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.info().documents, added.added);
    assert!(store.verify_open().unwrap().is_clean());
    let rest = add_with(&store, &FakeEncoder::new(), &documents, &options).unwrap();
    assert_eq!((rest.unchanged, rest.added), (added.added, 160 - added.added));
    assert!(store.info().segments < 40, "small segments are merged: {}", store.info().segments);
    assert!(store.verify_open().unwrap().is_clean());
}

#[test]
fn another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let other = FakeEncoder { dim: 16, ..FakeEncoder::new() };
    let message = add_with(&store, &other, &random_documents(5, 1), &AddOptions::default()).unwrap_err().to_string();
    assert!(message.contains("another model") && message.contains("16"), "{message}");
    let message = store.check_model("b", 8, 256).unwrap_err().to_string();
    assert!(message.contains("fake") && message.contains("serve it with its own model"), "{message}");
    let blind = FakeEncoder { passage_dim: 0, ..FakeEncoder::new() };
    add(&store, &random_documents(5, 1));
    let message = add_with(&store, &blind, &random_documents(6, 1), &AddOptions::default()).unwrap_err().to_string();
    assert!(message.contains("passage"), "{message}");
}
