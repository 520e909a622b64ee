//! Removal: at once, for everyone, with a receipt.

use safelmm_datastore::receipt::{Event, document_hash};
use safelmm_datastore::testing::FakeEncoder;
use safelmm_datastore::{ReceiptError, Selector, Store};

use crate::support::*;

#[test]
fn what_is_removed_is_gone_from_views_that_were_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = create(&path);
    let documents = random_documents(10, 12);
    add(&store, &documents);
    let without: Vec<_> = documents.iter().filter(|d| d.id != "doc-10-5").cloned().collect();
    let reference = create(&folder.path().join("reference"));
    add(&reference, &without);
    let view = store.view(&all(), &[]);
    let excluding = store.view(&all(), &["doc-10-5".to_owned()]);
    let expected = ask_all(&reference.view(&all(), &[]), 10);
    assert_eq!(ask_all(&excluding, 10), expected, "excluded");
    assert_ne!(view.fingerprint(), excluding.fingerprint());
    let receipt = store.remove(&Selector::Id("doc-10-5".to_owned())).unwrap().unwrap();
    assert_eq!(receipt.statement.documents, [document_hash("doc-10-5")]);
    assert_eq!(ask_all(&view, 10), expected, "the view from before");
    assert_eq!(ask_all(&store.view(&all(), &[]), 10), expected);
    assert!(store.document("doc-10-5").unwrap().is_none());
    // A view from before a compaction obeys removals after it.
    drop(view);
    let view = store.view(&all(), &[]);
    compact(&store);
    store.remove(&Selector::Author("Author of doc-10-6".to_owned())).unwrap();
    assert!(!format!("{:?}", ask_all(&view, 10)).contains("doc-10-6"));
    drop((view, excluding, store));
    let store = Store::open(&path).unwrap();
    assert_eq!(store.info().documents, 10);
}

/// What is left out of an answer and what is removed from the store are left out alike, whatever the index.
#[test]
fn exclusion_is_removal_in_graphs_and_inverted_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = FakeEncoder::new().settings("store");
    (settings.keys, settings.passages) = (small_index(), small_index());
    let store = Store::create(&folder.path().join("store"), settings).unwrap();
    add(&store, &random_documents(15, 40));
    let whole = ask_all(&store.view(&all(), &[]), 15);
    let ids = ["doc-15-3".to_owned(), "doc-15-17".to_owned(), "doc-15-31".to_owned()];
    let excluding = ask_all(&store.view(&all(), &ids), 15);
    assert_ne!(excluding, whole);
    for id in &ids {
        store.remove(&Selector::Id(id.clone())).unwrap();
    }
    assert_eq!(ask_all(&store.view(&all(), &[]), 15), excluding);
}

#[test]
fn authors_rights_holders_and_urls_select() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let mut documents = random_documents(11, 6);
    documents[0].author = "Ann".to_owned();
    documents[1].author = "Ann".to_owned();
    documents[2].rights_holder = "The Press".to_owned();
    add(&store, &documents);
    let count = |selector: Selector| store.remove(&selector).unwrap().map_or(0, |r| r.statement.documents.len());
    assert_eq!(count(Selector::Author("Ann".to_owned())), 2);
    assert_eq!(count(Selector::Author("Ann".to_owned())), 0, "they are gone");
    assert_eq!(count(Selector::RightsHolder("The Press".to_owned())), 1);
    assert_eq!(count(Selector::Url("https://example.org/doc-11-3".to_owned())), 1);
    assert_eq!(store.info().documents, 2);
    assert!(store.remove(&Selector::Author(String::new())).is_err());
    let before = store.info().sequence;
    for nobody in [Selector::Id("nobody".to_owned()), Selector::Author("Ann".to_owned())] {
        assert_eq!(store.remove(&nobody).unwrap(), None);
    }
    assert_eq!(store.info().sequence, before, "what is not there is not written about");
    assert_eq!(store.receipts().unwrap().len(), 3);
}

#[test]
fn receipts_hold_and_forged_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = create(&path);
    add(&store, &random_documents(12, 3));
    let removed = store.remove(&Selector::Id("doc-12-1".to_owned())).unwrap().unwrap();
    let erased = compact(&store).receipt.unwrap();
    let key = store.public_key();
    assert_eq!((removed.statement.event, erased.statement.event), (Event::Removed, Event::Erased));
    assert_eq!(removed.statement.documents, erased.statement.documents);
    for receipt in [&removed, &erased] {
        receipt.verify(&key).unwrap();
    }
    assert_eq!(store.receipts().unwrap(), [removed.clone(), erased]);
    let mut forged = removed.clone();
    forged.statement.documents = vec![document_hash("doc-12-2")];
    assert_eq!(forged.verify(&key), Err(ReceiptError::Signature));
    let other = create(&folder.path().join("other")).public_key();
    assert_eq!(removed.verify(&other), Err(ReceiptError::OtherKey));
    assert_eq!(removed.verify("x"), Err(ReceiptError::Key));
    let text = serde_json::to_string(&removed).unwrap();
    serde_json::from_str::<safelmm_datastore::Receipt>(&text).unwrap().verify(&key).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path.join("receipt.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn removal_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("store"));
    let documents = random_documents(13, 30);
    add(&store, &documents);
    let done = never();
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (store, done) = (store.clone(), &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let view = store.view(&all(), &[]);
                    ask_all(&view, thread);
                }
            });
        }
        let adder = store.clone();
        scope.spawn(move || add(&adder, &random_documents(14, 40)));
        for document in &documents[..15] {
            let view = store.view(&all(), &[]);
            store.remove(&Selector::Id(document.id.clone())).unwrap();
            let answers = ask(&view, &document.text[..30.min(document.text.len())]);
            assert!(!format!("{answers:?}").contains(&format!("{:?}", document.id)));
        }
        compact(&store);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(store.info().documents, 55);
    assert!(store.verify_open().unwrap().is_clean());
}
