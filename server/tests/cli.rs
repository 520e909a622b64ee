//! The command `safelmm` as its users run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

fn safelmm(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_safelmm"));
    command.args(arguments);
    for variable in ["SAFELMM_LISTEN", "SAFELMM_MODEL", "SAFELMM_CONFIG", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = safelmm(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A start that must fail: exit code 1 and one message with these parts.
fn fails(arguments: &[&str], parts: &[&str]) {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in: {stderr}");
    }
}

#[test]
fn help_names_every_option_and_variable() {
    let (code, help, _) = run(&["serve", "--help"]);
    assert_eq!(code, Some(0));
    for word in [
        "--model <DIR>",
        "--config <FILE>",
        "--listen <ADDR>",
        "--queue <N>",
        "--embeddings <DIR>",
        "SAFELMM_EMBEDDINGS",
        "--max-batch <N>",
        "--allow-remote-without-keys",
        "SAFELMM_LISTEN",
        "SAFELMM_MODEL",
        "SAFELMM_CONFIG",
        "127.0.0.1:8080",
        "embedded demo",
    ] {
        assert!(help.contains(word), "no {word} in:\n{help}");
    }
    let (_, help, _) = run(&["generate", "--help"]);
    for word in [
        "<PROMPT>",
        "--rating",
        "--guidance",
        "--max-tokens",
        "--temperature",
        "--top-p",
        "--top-k",
        "--min-p",
        "--seed",
        "--stop",
        "--model",
    ] {
        assert!(help.contains(word), "no {word} in:\n{help}");
    }
}

#[test]
fn a_start_that_cannot_work_ends_with_one_clear_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(&["serve", "--listen", &address], &[&address, "taken", "--listen"]);
    fails(&["serve", "--listen", "127.0.0.1:0", "--model", "/no/such/folder"], &["/no/such/folder", "config.json"]);
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    fails(&["serve", "--listen", "127.0.0.1:0", "--model", folder], &[folder, "config.json"]);
    fails(&["generate", "Once", "--model", folder], &[folder, "config.json"]);
    fails(&["serve", "--config", "/no/such.toml"], &["/no/such.toml"]);
    let config = empty.path().join("safelmm.toml");
    std::fs::write(&config, "[server]\nworkers = 4\n").unwrap();
    fails(&["serve", "--config", config.to_str().unwrap()], &["safelmm.toml", "workers", "max_batch"]);
    fails(&["serve", "--listen", "0.0.0.0:0"], &["0.0.0.0:0", "no API keys", "--allow-remote-without-keys"]);
    fails(&["serve", "--max-batch", "0"], &["--max-batch", "found 0"]);
    fails(&["generate", "Once", "--temperature", "-1"], &["temperature"]);
    fails(&["generate", "Once", "--max-tokens", "100000"], &["maximum context length"]);
}

#[test]
fn the_environment_is_read_and_flags_win_over_it() {
    let output = safelmm(&["serve", "--listen", "127.0.0.1:0"]).env("SAFELMM_MODEL", "/from/env").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("/from/env"));
    let output = safelmm(&["serve", "--listen", "127.0.0.1:0", "--model", "/from/flag"])
        .env("SAFELMM_MODEL", "/from/env")
        .env("SAFELMM_LISTEN", "0.0.0.0:80")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("/from/flag") && !stderr.contains("/from/env"), "{stderr}");
}

#[test]
fn a_seed_makes_the_same_text_again() {
    let generate = |seed: &str, more: &[&str]| {
        let (code, text, stderr) =
            run(&[&["generate", "Once upon a time", "--max-tokens", "20", "--seed", seed], more].concat());
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.starts_with("loading the embedded demo checkpoint … (") && stderr.contains(" M parameters, "));
        assert!(text.ends_with('\n'));
        text
    };
    assert_eq!(generate("1", &[]), generate("1", &[]));
    assert_ne!(generate("1", &[]), generate("2", &[]));
    assert_eq!(generate("1", &["--top-k", "1"]), generate("2", &["--temperature", "0"]));
    assert_ne!(generate("1", &["--rating", "G", "--guidance", "3"]), generate("1", &["--rating", "R"]));
}

#[test]
fn a_reader_that_closes_the_pipe_ends_generation_quietly() {
    let mut child = safelmm(&["generate", "Once", "--max-tokens", "200"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(wait(&mut child), Some(0), "{stderr}");
    assert!(!stderr.contains("error") && !stderr.contains("panic"), "{stderr}");
}

/// `safelmm serve` on a free port.
struct Server {
    child: Child,
    address: String,
    log: BufReader<ChildStderr>,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        let mut child = safelmm(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ctrl-C to stop") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "{said}");
        }
        assert!(said.contains("playground at /, API at /v1"), "{said}");
        let address = said.split("listening on http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        Server { child, address, log }
    }

    fn interrupt(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Posts a streaming completion and reads until the first event.
    fn stream(&self, body: &str) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        socket.write_all((head + body).as_bytes()).unwrap();
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0);
        }
        reader
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(started.elapsed() < PATIENCE, "the command did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ctrl_c_finishes_a_running_stream_and_exits_with_0() {
    for signal in ["-INT", "-TERM"] {
        let mut server = Server::start(&[]);
        let mut stream = server.stream(r#"{"prompt":"The","max_tokens":60,"ignore_eos":true,"stream":true}"#);
        server.interrupt(signal);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"), "{rest}");
        assert_eq!(wait(&mut server.child), Some(0));
        let mut log = String::new();
        server.log.read_to_string(&mut log).unwrap();
        assert!(log.contains("stopping") && log.ends_with("stopped\n"), "{log}");
    }
}

#[test]
fn a_second_ctrl_c_exits_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("safelmm.toml");
    std::fs::write(&config, "[server]\nshutdown_grace_s = 3600\nmax_batch = 1\n").unwrap();
    let mut server = Server::start(&["--config", Path::new(&config).to_str().unwrap()]);
    let _stream = server.stream(// Minutes of work, which the second signal cuts short.
        r#"{"prompt":["The","A","It","He","She","We","I","You"],"n":16,"max_tokens":400,"ignore_eos":true,"stream":true}"#,
    );
    server.interrupt("-INT");
    let mut said = String::new();
    while !said.contains("Ctrl-C again") {
        assert_ne!(server.log.read_line(&mut said).unwrap(), 0, "{said}");
    }
    server.interrupt("-INT");
    assert_eq!(wait(&mut server.child), Some(0));
}
