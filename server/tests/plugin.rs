//! `safelmm plugin` as its users run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

#[path = "../../plugins/tests/support/mod.rs"]
mod guests;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use guests::{Guest, INSPECT, REVIEW, SCREEN};

fn safelmm(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_safelmm"));
    let Output { status, stdout, stderr } =
        command.arg("plugin").args(arguments).current_dir(folder).env_remove("RUST_LOG").output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn guest() -> Guest {
    let mut guest = Guest::new(&[SCREEN, INSPECT, REVIEW]);
    guest.schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}}}"#;
    let findings = guest.finding("test", 0.5, Some((0, 2)));
    guest.screen = guest.deny(findings);
    guest.inspect = guest.hold(0);
    guest.review = guest.rewrite("other");
    guest
}

#[test]
fn a_component_is_checked_with_what_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    let mut good = guest();
    good.vector("refused", "hello", 3);
    std::fs::write(folder.path().join("good.wasm"), good.build()).unwrap();
    let (code, out, err) = safelmm(folder.path(), &["check", "good.wasm", "--settings", "{\"n\": 3}"]);
    assert_eq!((code, &err[..]), (0, ""), "{out}");
    for part in [
        "guest 1.2.3",
        "sha256:",
        "safelmm:policy/log@1.0.0",
        "asks for      nothing",
        "hooks         screen-prompt, inspect-stream, review-response",
        "accepted: {\"n\":3}",
        "1 of 1 as expected",
        "ok    refused",
        "inspect-stream   ",
        "in 33 calls",
    ] {
        assert!(out.contains(part), "no {part:?} in:\n{out}");
    }

    std::fs::write(folder.path().join("settings.json"), "{\"n\": \"three\"}").unwrap();
    let (code, out, err) = safelmm(folder.path(), &["check", "good.wasm", "--settings", "@settings.json"]);
    assert_eq!(code, 1);
    assert!(out.contains("REFUSED") && out.contains("/n: ") && err.contains("1 of the checks failed"), "{out}{err}");

    let mut wrong = guest();
    wrong.vector("refused", "hello", 0);
    std::fs::write(folder.path().join("wrong.wasm"), wrong.build()).unwrap();
    let (code, out, _) = safelmm(folder.path(), &["check", "wrong.wasm"]);
    assert!(code == 1 && out.contains("WRONG refused: deny, expected allow"), "{out}");

    std::fs::write(folder.path().join("text.wasm"), "hello").unwrap();
    for (arguments, part) in [
        (&["check", "text.wasm"][..], "no WebAssembly component"),
        (&["check", "none.wasm"], "none.wasm"),
        (&["check", "bundled:none"], "safelmm plugin list"),
        (&["check", "good.wasm", "--settings", "{"], "not JSON"),
        (&["check", "good.wasm", "--settings", "@none.json"], "none.json"),
    ] {
        let (code, out, err) = safelmm(folder.path(), arguments);
        assert!(code == 1 && out.is_empty() && err.contains(part), "{arguments:?}: {out}{err}");
    }
}

#[test]
fn a_component_says_what_it_is_without_being_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.wasm"), guest().build()).unwrap();
    let (code, out, err) = safelmm(folder.path(), &["describe", "p.wasm"]);
    assert!(code == 1 && out.is_empty() && err.contains("--write"), "{out}{err}");
    for _ in 0..2 {
        assert_eq!(safelmm(folder.path(), &["describe", "p.wasm", "--write"]).0, 0);
    }
    let (code, out, err) = safelmm(folder.path(), &["describe", "p.wasm"]);
    assert_eq!((code, &err[..]), (0, ""));
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&said["name"], &said["version"]), (&"guest".into(), &"1.2.3".into()));
    assert_eq!(said["settings_schema"]["type"], "object", "{said}");
    assert!(safelmm(folder.path(), &["check", "p.wasm"]).1.contains("says the same"));
    assert_eq!(safelmm(folder.path(), &["describe", "bundled:pii", "--write"]).0, 1);
}

#[test]
fn a_component_is_asked_about_texts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.wasm"), guest().build()).unwrap();
    let (code, out, err) = safelmm(folder.path(), &["run", "p.wasm", "--prompt", "hi", "--answer", "a long answer"]);
    assert_eq!((code, &err[..]), (0, ""), "{out}");
    assert!(out.contains("screen-prompt: deny\n    test 0.50 at bytes 0..2: because"), "{out}");
    assert!(out.contains("inspect-stream: allow\n    what leaves: \"a long answer\""), "{out}");
    assert!(out.contains("review-response: rewrite") && out.contains("\"other\""), "{out}");
    assert_eq!(safelmm(folder.path(), &["run", "p.wasm"]).0, 2, "nothing to ask about");
}

#[test]
fn the_bundled_plugins_are_listed_with_their_digests_and_pass_their_own_checks() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = safelmm(folder.path(), &["list"]);
    assert_eq!((code, &err[..]), (0, ""), "{out}");
    for bundled in safelmm_plugins::bundled::all() {
        assert!(out.contains(&format!("bundled:{} ", bundled.name)) && out.contains(bundled.digest), "{out}");
        let (code, out, err) = safelmm(folder.path(), &["check", &format!("bundled:{}", bundled.name)]);
        assert_eq!(code, 0, "{out}{err}");
        let (code, out, err) = safelmm(folder.path(), &["describe", &format!("bundled:{}", bundled.name)]);
        assert!(code == 0 && out.contains(&format!("\"name\": \"{}\"", bundled.name)), "{out}{err}");
    }
}

#[test]
fn a_new_plugin_is_a_folder_that_was_not_there() {
    let folder = tempfile::tempdir().unwrap();
    for language in ["rust", "python", "js", "c"] {
        let name = format!("my-{language}");
        let (code, out, err) = safelmm(folder.path(), &["new", &name, "--lang", language]);
        assert_eq!((code, &out[..]), (0, ""), "{err}");
        let made = folder.path().join(&name);
        let readme = std::fs::read_to_string(made.join("README.md")).unwrap();
        assert!(readme.contains(&name) && !readme.contains("{{"), "{readme}");
        let kit = if language == "rust" { "safelmm-plugin/src/lib.rs" } else { "wit/policy.wit" };
        assert!(made.join(kit).is_file(), "{kit}");
        let (code, _, err) = safelmm(folder.path(), &["new", &name, "--lang", language]);
        assert!(code == 1 && err.contains("is there already"), "{err}");
    }
    for name in ["", "Upper", "../x", "a/b", "1st", "end-", "ü", &"x".repeat(65)] {
        let (code, _, err) = safelmm(folder.path(), &["new", name]);
        assert!(code == 1 && err.contains("cannot be a plugin's"), "{name}: {err}");
    }
    assert_eq!(safelmm(folder.path(), &["new", "x", "--lang", "cobol"]).0, 2);
}

/// A server with a configuration file, until it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_safelmm"))
            .args(["serve", "--listen", "127.0.0.1:0", "--config", "safelmm.toml"])
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server ended").unwrap();
            if let Some((_, rest)) = line.split_once("listening on http://") {
                break rest.split(' ').next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, address }
    }

    fn plugins(&self) -> String {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.write_all(b"GET /v1/plugins HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn until(&self, part: &str) {
        let begun = Instant::now();
        while !self.plugins().contains(part) {
            assert!(begun.elapsed() < Duration::from_secs(40), "no {part} in {}", self.plugins());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changed_files_are_noticed_by_themselves_and_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    // Never half written: an empty configuration is one without plugins.
    let put = |name: &str, bytes: &[u8]| {
        let beside = folder.path().join("new");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, folder.path().join(name)).unwrap();
    };
    let config = |watch: u32, plugins: &[&str]| {
        let section = |name: &&str| format!("[[policy.plugin]]\nname = '{name}'\nsource = '{name}.wasm'\n");
        let sections: String = plugins.iter().map(section).collect();
        put("safelmm.toml", format!("[policy.sandbox]\ninstances = 16\nwatch_s = {watch}\n{sections}").as_bytes());
    };
    put("one.wasm", &guest().build());
    config(1, &["one"]);
    let server = Server::start(folder.path());
    server.until("\"version\":\"1.2.3\"");
    put("one.wasm", &guest().version("1.10.0").build());
    server.until("\"version\":\"1.10.0\"");
    put("one.wasm", b"broken");
    server.until("outdated");
    assert!(server.plugins().contains("\"version\":\"1.10.0\""));
    drop(server);

    put("one.wasm", &guest().build());
    config(0, &["one"]);
    let server = Server::start(folder.path());
    put("two.wasm", &guest().version("2.0.0").build());
    config(0, &["one", "two"]);
    assert!(!server.plugins().contains("2.0.0"));
    let hang_up = || {
        let sent = Command::new("kill").args(["-HUP", &server.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    hang_up();
    server.until("\"name\":\"two\"");
    // A configuration that is none, or that names a file that is not there, changes nothing.
    put("safelmm.toml", b"[policy");
    hang_up();
    config(0, &["one", "three"]);
    hang_up();
    std::thread::sleep(Duration::from_millis(300));
    server.until("\"name\":\"two\"");
}
