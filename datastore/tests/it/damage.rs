//! Damage and hostile surroundings: found, told, and never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use safelmm_datastore::testing::FakeEncoder;
use safelmm_datastore::{AddOptions, Selector, Store, StoreError};

use crate::support::*;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// A store of two segments with a removal and a receipt, closed.
fn closed_store(path: &Path) {
    let store = create(path);
    add(&store, &[document("a", "Some words that stand in a store.", "CC0-1.0"), document("b", "Others.", "CC0-1.0")]);
    add(&store, &[document("c", "More words, that are removed.", "CC0-1.0")]);
    store.remove(&Selector::Id("c".to_owned())).unwrap();
    store.close().unwrap();
}

/// Opens and asks a store that may be damaged; the test is that it does not panic.
fn use_it(path: &Path) -> Result<(), String> {
    let attempt = || {
        if let Ok(store) = Store::open(path) {
            ask(&store.view(&all(), &[]), "Some words");
            let _ = store.documents();
            let _ = store.compact(&|_| {}, &never());
        }
    };
    catch_unwind(AssertUnwindSafe(attempt)).map_err(|_| "a panic".to_owned())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn every_flipped_byte_and_every_cut_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (path, damaged) = (folder.path().join("store"), folder.path().join("damaged"));
    closed_store(&path);
    assert!(Store::verify(&path).unwrap().is_clean());
    copy(&path, &damaged);
    let (mut flips, mut cuts) = (0, 0);
    for file in files(&path) {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.strip_prefix(&path).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let places = [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1];
        let flipped = places.map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= if at % 2 == 0 { 0x20 } else { 0x01 };
            bytes
        });
        let cut = [bytes[..bytes.len() / 2].to_vec(), bytes[..bytes.len() - 1].to_vec()];
        for (number, changed) in flipped.into_iter().chain(cut).enumerate() {
            std::fs::write(damaged.join(name), &changed).unwrap();
            // What is damaged is only read.
            let report = Store::verify(&damaged).unwrap();
            assert!(!report.is_clean(), "{}: nothing was found", name.display());
            let told = report.problems.join("\n");
            assert!(told.contains(&*name.file_name().unwrap().to_string_lossy()) || told.contains("meta"), "{told}");
            // A flip in the middle, and a file that is cut in the middle.
            if number == 2 || number == 4 {
                use_it(&damaged).unwrap_or_else(|e| panic!("{}: {e}", name.display()));
                std::fs::remove_dir_all(&damaged).unwrap();
                copy(&path, &damaged);
            }
            match changed.len() == bytes.len() {
                true => flips += 1,
                false => cuts += 1,
            }
        }
        std::fs::remove_file(damaged.join(name)).unwrap();
        match Store::verify(&damaged) {
            Ok(report) => assert!(!report.is_clean(), "{} is not missed", name.display()),
            Err(error) => assert!(matches!(error, StoreError::NoStore(_)), "{error}"),
        }
        let attempt = catch_unwind(AssertUnwindSafe(|| Store::open(&damaged).is_ok()));
        assert!(!attempt.unwrap(), "without {} it opens", name.display());
        std::fs::write(damaged.join(name), &bytes).unwrap();
    }
    assert!(flips > 60 && cuts > 30, "{flips} {cuts}");
}

#[test]
fn a_store_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = create(&path);
    for error in [Store::open(&path).err().unwrap(), Store::verify(&path).err().unwrap()] {
        assert!(matches!(error, StoreError::Locked(_)), "{error}");
        assert!(error.to_string().contains("another process"));
    }
    add(&store, &random_documents(52, 1));
    let view = store.view(&all(), &[]);
    drop(store);
    assert!(Store::open(&path).is_err(), "a view keeps it open");
    drop(view);
    Store::open(&path).unwrap();
}

#[test]
fn what_is_no_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    assert!(matches!(Store::open(&path), Err(StoreError::NoStore(_))));
    assert!(matches!(Store::verify(folder.path()), Err(StoreError::NoStore(_))));
    drop(create(&path));
    let again = Store::create(&path, FakeEncoder::new().settings("store"));
    assert!(matches!(again, Err(StoreError::Exists(_))));
    let mut settings = FakeEncoder::new().settings("a/b");
    assert!(Store::create(&folder.path().join("x"), settings.clone()).is_err());
    settings = FakeEncoder::new().settings("ok");
    settings.passage_stride = 0;
    assert!(Store::create(&folder.path().join("x"), settings).is_err());
    let manifest = std::fs::read_to_string(path.join("manifest.json")).unwrap();
    std::fs::write(path.join("manifest.json"), manifest.replace("\"format_version\": 2", "\"format_version\": 9"))
        .unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Version { found: 9, .. }), "{error}");
}

/// Not a test of its own: what the tests below run in another process, under limits.
#[test]
fn child() {
    let Ok(path) = std::env::var("SAFELMM_DAMAGE_CHILD") else { return };
    let path = Path::new(&path);
    match std::env::var("SAFELMM_DAMAGE_TASK").as_deref() {
        Ok("fill") => {
            let store = Store::open(path).unwrap();
            let options = AddOptions { commit_every_tokens: 8000, ..AddOptions::default() };
            let error = add_with(&store, &FakeEncoder::new(), &random_documents(50, 200), &options).unwrap_err();
            println!("error: {error}");
            println!("documents: {}", store.info().documents);
        }
        _ => {
            println!("error: {}", Store::open(path).err().unwrap());
        }
    }
}

fn run_child(before: &str, path: &Path, task: &str) -> Option<String> {
    let exe = std::env::current_exe().unwrap();
    let command = format!("{before} exec {} --exact damage::child --nocapture", exe.display());
    let output = Command::new("sh")
        .args(["-c", &command])
        .env("SAFELMM_DAMAGE_CHILD", path)
        .env("SAFELMM_DAMAGE_TASK", task)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

/// A limit on the size of files stands for a disk that is full: both fail in the middle of a write.
#[test]
#[cfg(unix)]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for blocks in [60, 120, 250] {
        let path = folder.path().join(format!("store-{blocks}"));
        let store = create(&path);
        add(&store, &random_documents(51, 10));
        drop(store);
        let told = run_child(&format!("trap '' XFSZ; ulimit -f {blocks};"), &path, "fill").unwrap();
        let line = |name: &str| told.lines().find_map(|l| l.split_once(name)).map(|(_, rest)| rest.to_owned()).unwrap();
        let documents: usize = line("documents: ").parse().unwrap();
        assert!(["is safe", "too large"].iter().any(|words| line("error: ").contains(words)), "{told}");
        assert!(documents >= 10);
        let report = Store::verify(&path).unwrap();
        assert!(report.is_clean(), "{report:?}");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.info().documents, documents);
        assert_eq!(add(&store, &random_documents(50, 200)).added, 210 - documents);
    }
}

#[test]
#[cfg(unix)]
fn a_folder_that_may_not_be_written_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(create(&path));
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for file in files(&path).iter().map(PathBuf::as_path).chain([&*path]) {
        let mode = if file.is_dir() { 0o555 } else { 0o444 };
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // Permissions do not bind root: then another user has to try.
    let told = match std::fs::OpenOptions::new().write(true).open(path.join("lock")) {
        Err(_) => Store::open(&path).err().unwrap().to_string(),
        Ok(_) => {
            let exe = std::env::current_exe().unwrap();
            let probe = format!("setpriv --reuid=65534 --regid=65534 --clear-groups test -x {}", exe.display());
            if !Command::new("sh").args(["-c", &probe]).status().is_ok_and(|s| s.success()) {
                eprintln!("no other user can run this test: skipped");
                return;
            }
            let exe = exe.display();
            let output = Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .args([&exe.to_string(), "--exact", "damage::child", "--nocapture"])
                .env("SAFELMM_DAMAGE_CHILD", &path)
                .output()
                .unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    assert!(told.contains("may write to"), "{told}");
}
