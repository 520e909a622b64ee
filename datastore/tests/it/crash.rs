//! A process is killed at random moments while it adds, removes and compacts. Ten times here; `SAFELMM_STRESS=200` for
//! more.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use safelmm_datastore::testing::{FakeEncoder, mix, words};
use safelmm_datastore::{AddOptions, Document, DocumentKey, Selector, Store};

use crate::support::*;

const IDS: u64 = 30;

/// The version stands in the title, and decides the text.
fn versioned(id: u64, version: u64) -> Document {
    let license = if id.is_multiple_of(3) { "CC-BY-NC-4.0" } else { "CC0-1.0" };
    let text = words(mix(id * 1_000_003 + version), 20 + (version % 60) as usize);
    let mut document = document(&format!("d{id}"), &text, license);
    document.title = version.to_string();
    document
}

/// Not a test of its own: the process that is killed. Says what it is about to do, and what is done.
#[test]
fn child() {
    let Ok(path) = std::env::var("SAFELMM_CRASH_CHILD") else { return };
    let mut state = mix(std::env::var("SAFELMM_CRASH_SEED").unwrap().parse().unwrap());
    let path = Path::new(&path);
    let mut settings = FakeEncoder::new().settings("store");
    (settings.keys, settings.passages) = (small_index(), small_index());
    let exists = path.join("manifest.json").exists();
    let store = if exists { Store::open(path).unwrap() } else { Store::create(path, settings).unwrap() };
    let mut next = move |below: u64| {
        state = mix(state);
        state % below
    };
    loop {
        match next(8) {
            0..=3 => {
                let mut documents: BTreeMap<u64, u64> = BTreeMap::new();
                for _ in 0..1 + next(6) {
                    documents.insert(next(IDS), next(1_000_000));
                }
                let list: Vec<String> = documents.iter().map(|(id, version)| format!("{id}:{version}")).collect();
                println!("@try add {}", list.join(" "));
                let options = AddOptions {
                    commit_every_tokens: 200 + next(400) as usize,
                    batch_tokens: 100,
                    ..AddOptions::default()
                };
                let documents: Vec<_> = documents.into_iter().map(|(id, version)| versioned(id, version)).collect();
                add_with(&store, &FakeEncoder::new(), &documents, &options).unwrap();
            }
            4..=6 => {
                let id = next(IDS);
                println!("@try remove {id}");
                store.remove(&Selector::Id(format!("d{id}"))).unwrap();
            }
            _ => {
                println!("@try compact");
                store.compact(&|_| {}, &never()).unwrap();
            }
        }
        println!("@done");
    }
}

/// What may be there: for each document the versions, `None` for absent.
type Possible = BTreeMap<u64, Vec<Option<u64>>>;

fn follow(log: &str, possible: &mut Possible) -> usize {
    let (mut done, mut pending): (usize, Vec<(u64, Option<u64>)>) = (0, Vec::new());
    for line in log.lines().filter_map(|l| l.split_once('@')).map(|(_, rest)| rest) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["done"] => {
                done += 1;
                for (id, version) in pending.drain(..) {
                    possible.insert(id, vec![version]);
                }
            }
            ["try", "add", ref list @ ..] => {
                // The last line may be cut, and then it was never acted on.
                pending = list
                    .iter()
                    .filter_map(|w| w.split_once(':'))
                    .map(|(id, v)| (id.parse().unwrap(), v.parse().ok()))
                    .collect();
            }
            ["try", "remove", id] => pending = id.parse().map(|id| (id, None)).into_iter().collect(),
            _ => pending.clear(),
        }
    }
    for (id, version) in pending {
        possible.entry(id).or_insert_with(|| vec![None]).push(version);
    }
    done
}

fn check(path: &Path, possible: &mut Possible, kill: usize) {
    let report = Store::verify(path).unwrap_or_else(|e| panic!("kill {kill}: {e}"));
    assert!(report.is_clean(), "kill {kill}: {:?}", report.problems);
    let store = Store::open(path).unwrap_or_else(|e| panic!("kill {kill}: {e}"));
    let view = store.view(&all(), &[]);
    let mut keys: BTreeMap<String, DocumentKey> = BTreeMap::new();
    for segment in 0..store.info().segments as u32 {
        for document in 0..1000 {
            let key = DocumentKey { segment, document };
            if let Some(info) = view.document(key) {
                assert!(keys.insert(info.id, key).is_none(), "kill {kill}: a document is there twice");
            }
        }
    }
    let (mut found, mut reached) = (0, 0);
    for id in 0..IDS {
        let may = possible.get(&id).cloned().unwrap_or_else(|| vec![None]);
        let info = store.document(&format!("d{id}")).unwrap();
        let version = info.as_ref().map(|info| info.title.parse().unwrap());
        assert!(may.contains(&version), "kill {kill}: d{id} is {version:?}, expected one of {may:?}");
        possible.insert(id, vec![version]);
        if let (Some(info), Some(version)) = (info, version) {
            found += 1;
            let (key, expected) = (keys[&info.id], versioned(id, version));
            assert_eq!(view.document_text(key, 0..info.tokens as u32), Some(&*expected.text), "kill {kill}: d{id}");
            let hits = view.trace(&expected.text.bytes().map(u32::from).collect::<Vec<_>>(), 10, 50);
            assert!(
                hits.iter().any(|m| m.occurrences.iter().any(|(k, _)| *k == key)),
                "kill {kill}: d{id} is not found"
            );
            // By the key of a place in the middle: exactly, through a graph, or through an inverted file.
            let tokens: Vec<u32> = expected.text.bytes().map(u32::from).collect();
            let near = neighbours(&view, &FakeEncoder::new().key(&tokens[..tokens.len() / 2]), 64);
            assert!(near.iter().all(|near| keys.values().any(|key| *key == near.document)), "kill {kill}");
            reached += usize::from(near.first().is_some_and(|near| near.distance < 1e-2));
        }
    }
    // The same three bytes give the same key; a graph or an inverted file may miss one.
    assert!(10 * reached >= 9 * found, "kill {kill}: {reached} of {found} keys are found");
    assert_eq!((found, found), (keys.len(), store.info().documents), "kill {kill}");
}

#[test]
fn killed_at_any_moment_it_holds_what_was_acknowledged() {
    let kills: usize = std::env::var("SAFELMM_STRESS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut possible = Possible::new();
    let mut done = 0;
    for kill in 0..kills {
        let log = folder.path().join("log");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env("SAFELMM_CRASH_CHILD", &path)
            .env("SAFELMM_CRASH_SEED", kill.to_string())
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // After some lines of its log and some time more, so that it is killed in the middle of things on slow machines
        // as on fast ones.
        let (lines, patience) = (mix(kill as u64 + 77) % 10, Instant::now() + Duration::from_secs(20));
        while std::fs::read_to_string(&log).unwrap().matches('@').count() < lines as usize && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_micros(mix(kill as u64) % 60_000));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked"), "kill {kill}: {stderr}");
        done += follow(&std::fs::read_to_string(&log).unwrap(), &mut possible);
        match path.join("manifest.json").exists() {
            true => check(&path, &mut possible, kill),
            false => assert_eq!(done, 0),
        }
    }
    println!("{kills} kills, {done} operations acknowledged");
    assert!(done >= kills, "{done} operations in {kills} runs");
}
