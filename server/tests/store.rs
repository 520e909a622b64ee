//! `safelmm store` as its users run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn tales() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/store/harbour.jsonl")
}

/// A folder for stores.
struct Shelf(TempDir);

impl Shelf {
    fn new() -> Shelf {
        Shelf(tempfile::tempdir().unwrap())
    }

    /// A shelf with the demo's tales in the store `harbour`.
    fn filled() -> Shelf {
        let shelf = Shelf::new();
        shelf.ok(&["create", "harbour"]);
        shelf.ok(&["add", "harbour", tales().to_str().unwrap()]);
        shelf
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_safelmm"));
        command.current_dir(self.0.path()).arg("store").args(args).env_remove("SAFELMM_MODEL");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails with one message that has all these words.
    fn fails(&self, args: &[&str], words: &[&str]) {
        let output = self.run(args);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(!message.contains("panicked"), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{args:?}: {message}");
    }
}

#[test]
fn a_store_is_made_filled_searched_tuned_traced_and_left_by_a_document() {
    let shelf = Shelf::filled();
    assert!(shelf.ok(&["add", "harbour", tales().to_str().unwrap()]).starts_with("0 added, 0 replaced, 12 unchanged"));
    assert!(shelf.ok(&["list", "."]).contains("harbour: 12 documents"));
    let inspected = shelf.ok(&["inspect", "harbour", "--documents"]);
    assert!(inspected.contains("harbour/lamp, \"The Lamp at Grey Point\", CC-BY-NC-4.0, G"), "{inspected}");
    assert!(shelf.ok(&["search", "harbour", "bell under the water", "-n", "1"]).contains("harbour/bell"));
    assert!(!shelf.ok(&["search", "harbour", "bell", "--use", "commercial"]).contains("harbour/bell"));
    assert!(!shelf.ok(&["search", "harbour", "--dense", "two brothers and a knife"]).is_empty());
    let quote = "the people of the harbour can hear a bell under the water";
    assert!(shelf.ok(&["trace", "harbour", quote]).contains("harbour/bell"));
    assert_eq!(shelf.ok(&["trace", "harbour", quote, "--use", "commercial"]), "");
    let tuned = shelf.ok(&["tune", "harbour"]);
    assert!(tuned.contains("perplexity") && tuned.contains("hybrid"), "{tuned}");
    assert!(shelf.ok(&["inspect", "harbour"]).contains("tuned for CC-BY-NC-4.0 G"));

    let receipt = shelf.ok(&["remove", "harbour", "--id", "harbour/bell"]);
    fs::write(shelf.path("receipt.json"), &receipt).unwrap();
    assert!(shelf.ok(&["verify", "harbour", "--receipt", "receipt.json"]).contains("holds: Removed, 1 documents"));
    fs::write(shelf.path("forged.json"), receipt.replacen("\"sequence\": ", "\"sequence\": 1", 1)).unwrap();
    shelf.fails(&["verify", "harbour", "--receipt", "forged.json"], &["does not hold", "signature"]);
    assert!(!shelf.ok(&["search", "harbour", "bell under the water"]).contains("harbour/bell"));
    assert!(!shelf.ok(&["inspect", "harbour"]).contains("tuned"), "what was found with the document goes with it");
    assert_eq!(shelf.ok(&["trace", "harbour", quote]), "");
    assert!(shelf.ok(&["compact", "harbour"]).contains("erased"));
    assert_eq!(shelf.ok(&["verify", "harbour"]), "everything is as it was written\n");
    assert_eq!(shelf.ok(&["inspect", "harbour", "--receipts"]).lines().count(), 2);
}

#[test]
fn folders_of_markdown_need_a_license_and_bad_documents_are_named() {
    let shelf = Shelf::new();
    let book = shelf.path("book");
    fs::create_dir_all(book.join("part")).unwrap();
    fs::write(book.join("one.md"), "# The first chapter\n\nIt begins with a storm.\n").unwrap();
    fs::write(book.join("part/two.txt"), "It ends with a calm.\n").unwrap();
    shelf.ok(&["create", "books", "--name", "library", "--passage-tokens", "64"]);
    shelf.fails(&["add", "books", "book"], &["one.md", "license"]);
    let added =
        shelf.ok(&["add", "books", "book", "--license", "CC-BY-NC-SA-3.0", "--rating", "G", "--author", "A club"]);
    assert!(added.starts_with("2 added"), "{added}");
    assert!(
        shelf.ok(&["inspect", "books", "--documents"]).contains("one.md, \"The first chapter\", CC-BY-NC-SA-3.0, G")
    );
    fs::write(
        shelf.path("bad.jsonl"),
        "{\"id\": \"x\", \"text\": \"good\", \"license\": \"CC0-1.0\"}\n{\"id\": \"y\", \"text\": \"no license\"}\n",
    )
    .unwrap();
    // What came before the bad one is there.
    shelf.fails(&["add", "books", "bad.jsonl"], &["line 2", "license"]);
    assert!(
        shelf
            .ok(&["add", "books", "bad.jsonl", "--skip-bad"])
            .starts_with("0 added, 0 replaced, 1 unchanged, 1 passed over")
    );
    shelf.fails(&["add", "books", "bad.jsonl", "--license", "mine"], &["SPDX"]);
    shelf.fails(&["add", "books", "nothing.jsonl"], &["nothing.jsonl"]);
}

#[test]
fn what_cannot_be_opened_is_told_in_plain_words() {
    let shelf = Shelf::filled();
    shelf.fails(&["create", "harbour"], &["something is there already"]);
    shelf.fails(&["inspect", "nowhere"], &["no store here"]);
    shelf.fails(&["remove", "harbour"], &["--id"]);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint");
    let other = shelf.path("model");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(demo).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    let config = fs::read_to_string(other.join("config.json")).unwrap();
    fs::write(other.join("config.json"), config + "\n").unwrap();
    shelf.fails(&["add", "harbour", "x.jsonl", "--model", "model"], &["another model", "fingerprint"]);
    let manifest = shelf.path("harbour/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("harbour", "harbors", 1)).unwrap();
    shelf.fails(&["inspect", "harbour"], &["manifest.json", "damaged"]);
    fs::write(&manifest, text).unwrap();
    assert!(shelf.ok(&["verify", "harbour"]).contains("as it was written"));
}

/// Ctrl-C in the middle of a long addition: what was committed stays, and the same command goes on from there.
#[test]
fn adding_goes_on_where_ctrl_c_ended_it() {
    let shelf = Shelf::new();
    let documents: Vec<String> = (0..120)
        .map(|i| {
            format!(
                "{{\"id\": \"d{i}\", \"license\": \"CC0-1.0\", \"rating\": \"G\", \"text\": \"{}\"}}",
                format!("Tale {i} of a boat. ").repeat(20)
            )
        })
        .collect();
    fs::write(shelf.path("many.jsonl"), documents.join("\n")).unwrap();
    shelf.ok(&["create", "many"]);
    let args = ["add", "many", "many.jsonl", "--commit-every", "2048"];
    let mut child = shelf.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once something was committed.
    let begun = Instant::now();
    while fs::read_dir(shelf.path("many/segments")).map_or(0, Iterator::count) < 2
        && child.try_wait().unwrap().is_none()
    {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    let count = |said: &str| said.split(' ').next().unwrap().parse::<usize>().unwrap();
    let first = count(&said);
    assert!(first > 0 && (first == 120 || !ended.status.success()), "{said}");
    let again = shelf.ok(&args);
    assert_eq!(count(&again) + first, 120, "{said}{again}");
    assert!(again.contains(&format!("{first} unchanged")), "{again}");
    assert!(shelf.ok(&["verify", "many"]).contains("as it was written"));
}
