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
    for variable in
        ["SAFELMM_LISTEN", "SAFELMM_MODEL", "SAFELMM_CONFIG", "SAFELMM_KEYS", "OTEL_EXPORTER_OTLP_ENDPOINT", "RUST_LOG"]
    {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = safelmm(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A start that must fail: exit code 1 and one message with these parts, which tells its cause once.
fn fails(arguments: &[&str], parts: &[&str]) {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    let cause = stderr.trim().rsplit(": ").next().unwrap_or_default();
    assert_eq!(stderr.matches(cause).count(), 1, "a cause is told once: {stderr}");
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
        "--adapter <DIR>",
        "SAFELMM_ADAPTER",
        "--config <FILE>",
        "--listen <ADDR>",
        "--queue <N>",
        "--embeddings <DIR>",
        "SAFELMM_EMBEDDINGS",
        "--max-batch <N>",
        "--keys <FILE>",
        "--otlp-endpoint <URL>",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "SAFELMM_KEYS",
        "SAFELMM_LISTEN",
        "SAFELMM_MODEL",
        "--quantize <FORMAT>",
        "SAFELMM_QUANTIZE",
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
        "--adapter",
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
    fails(&["serve", "--listen", "0.0.0.0:0"], &["0.0.0.0:0", "without API keys", "safelmm key new --keys keys.toml"]);
    fails(&["serve", "--keys", "/no/keys.toml"], &["/no/keys.toml", "safelmm key new --keys /no/keys.toml"]);
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
    said: String,
    address: String,
    log: BufReader<ChildStderr>,
}

impl Server {
    fn start(arguments: &[&str]) -> Server {
        Server::start_with(arguments, "info")
    }

    fn start_with(arguments: &[&str], log_level: &str) -> Server {
        Server::spawn(safelmm(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat()), log_level)
    }

    fn spawn(mut command: Command, log_level: &str) -> Server {
        let mut child = command.env("RUST_LOG", log_level).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ctrl-C to stop") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "{said}");
        }
        assert!(said.contains("playground at /, API at /v1"), "{said}");
        let address = said.split("listening on http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        Server { child, said, address, log }
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

/// A key file with one key, and the key.
fn new_key(file: &Path, more: &[&str]) -> String {
    let (code, stdout, stderr) =
        run(&[&["key", "new", "--keys", file.to_str().unwrap(), "--name", "reader"], more].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let key = stdout.strip_suffix('\n').unwrap();
    assert!(key.starts_with("sk-safelmm-") && !key.contains(char::is_whitespace), "the key alone: {stdout}");
    assert!(!stderr.contains(key), "{stderr}");
    key.to_owned()
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let path = file.to_str().unwrap();
    let more = ["--rating-ceiling", "PG", "--use", "non-commercial", "--store", "poems", "--requests-per-minute", "60"];
    let keys = [new_key(&file, &[]), new_key(&file, &[&more[..], &["--expires", "30", "--concurrent", "2"]].concat())];
    let (code, list, _) = run(&["key", "list", "--keys", path]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 2), "{list}");
    for (line, key) in lines.iter().zip(&keys) {
        let (head, secret) = key.rsplit_once('-').unwrap();
        let id = head.rsplit('-').next().unwrap();
        assert!(line.starts_with(id) && line.contains("reader") && !line.contains(secret), "{line}");
        assert!(!std::fs::read_to_string(&file).unwrap().contains(secret));
    }
    for part in ["use commercial", "rating of the server", "stores none", "models all"] {
        assert!(lines[0].contains(part), "{}", lines[0]);
    }
    for part in ["use non-commercial", "rating up to PG", "stores poems", "60 requests/min", "2 at once", "expires "] {
        assert!(lines[1].contains(part), "{}", lines[1]);
    }
    let id = lines[0].split(' ').next().unwrap();
    let (code, stdout, stderr) = run(&["key", "revoke", id, "--keys", path]);
    assert!(code == Some(0) && stdout.is_empty() && stderr.contains(id), "{stderr}");
    fails(&["key", "revoke", id, "--keys", path], &[id, "key list"]);
    fails(&["key", "list", "--keys", "/no/keys.toml"], &["/no/keys.toml"]);
    assert!(run(&["key", "list", "--keys", path]).1.lines().count() == 1);
    let id = lines[1].split(' ').next().unwrap();
    assert_eq!(run(&["key", "revoke", id, "--keys", path]).0, Some(0));
    fails(&["serve", "--listen", "127.0.0.1:0", "--keys", path], &["no key in force", "safelmm key new --keys"]);
    let (code, _, stderr) = run(&["key", "new", "--keys", path, "--name", "a", "--store", "s", "--all-stores"]);
    assert!(code == Some(2) && stderr.contains("--all-stores"), "{stderr}");
    fails(&["key", "new", "--keys", path, "--name", ""], &["name of a key"]);
}

#[test]
fn a_server_says_whether_it_has_keys_and_logs_their_ids_and_never_their_secrets() {
    let mut server = Server::start(&[]);
    assert!(server.said.contains("no API keys: everyone on this machine may ask"), "{}", server.said);
    server.interrupt("-TERM");
    assert_eq!(wait(&mut server.child), Some(0));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let key = new_key(&file, &[]);
    let mut server = Server::start_with(&["--keys", file.to_str().unwrap()], "trace");
    assert!(server.said.contains("API keys: 1 in "), "{}", server.said);
    let post = |key: &str| {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let (host, body) = (&server.address, r#"{"prompt":"The","max_tokens":1}"#);
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
        );
        socket.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(post(&key).starts_with("HTTP/1.1 200"));
    assert!(post(&key.replace("sk-", "SK-")).starts_with("HTTP/1.1 401"));
    server.interrupt("-TERM");
    assert_eq!(wait(&mut server.child), Some(0));
    let mut log = String::new();
    server.log.read_to_string(&mut log).unwrap();
    let (head, secret) = key.rsplit_once('-').unwrap();
    assert!(log.contains(head.rsplit('-').next().unwrap()), "{log}");
    assert!(!log.contains(secret), "{log}");
}

/// Resident memory of a process in MiB, where the system says it.
fn resident_mib(process: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some((pages * 4096) >> 20)
}

#[test]
fn a_thousand_hostile_connections_leave_no_trace() {
    let open_files = rlimit::increase_nofile_limit(4096).unwrap_or(1024);
    if open_files < 2048 {
        eprintln!("skipped: a process may open {open_files} files here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("safelmm.toml");
    std::fs::write(
        &config,
        "[server]\nmax_connections = 1100\nhead_timeout_s = 5\nbody_timeout_s = 5\nidle_timeout_s = 5\nwrite_timeout_s = 5\n",
    )
    .unwrap();
    // Nobody reads the log, and a full pipe would stop the server.
    let server = Server::start_with(&["--config", config.to_str().unwrap()], "error");
    let answered = || {
        let asked = Instant::now();
        let mut stream = server.stream(r#"{"prompt":"The","max_tokens":2,"stream":true}"#);
        let mut line = String::new();
        while !line.contains("[DONE]") {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0);
        }
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    };
    answered();
    let resident = || resident_mib(server.child.id());
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: {}\r\n", server.address);
    // Returns what is resident with the crowd, and some time after it.
    let crowd = || -> Option<(u64, u64)> {
        let sockets: Vec<TcpStream> = (0..1000)
            .map(|n| {
                let mut socket = TcpStream::connect(&server.address).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let sent = match n % 3 {
                    0 => String::new(),
                    1 => format!("{head}x: {}", "a".repeat(12_000)),
                    _ => format!("{head}content-length: 3000000\r\n\r\n{}", " ".repeat(100_000)),
                };
                socket.write_all(sent.as_bytes()).unwrap();
                socket
            })
            .collect();
        answered();
        let with = resident()?;
        for (n, mut socket) in sockets.into_iter().enumerate() {
            let mut answer = Vec::new();
            // A reset is an end too.
            if let Err(error) = socket.read_to_end(&mut answer) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{n} was not closed: {error}");
            }
        }
        // The allocator gives memory back while it is used.
        for _ in 0..30 {
            answered();
            std::thread::sleep(Duration::from_millis(100));
        }
        Some((with, resident()?))
    };
    let before = resident();
    let (Some(before), Some((with, after)), Some((_, again))) = (before, crowd(), crowd()) else { return };
    println!(
        "resident: {before} MiB, with the crowd {with} MiB, afterwards {after} MiB, after another crowd {again} MiB"
    );
    // What the allocator keeps for the next ones is bounded, and another crowd adds nothing to it.
    assert!(after < before + 64 && again < after + 24, "{before}, {with}, {after}, {again} MiB");
}

#[test]
fn a_server_without_file_descriptors_closes_idle_connections_and_goes_on() {
    // As many as the server needs to start, and a few.
    let script = format!("ulimit -n 48; exec {} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_safelmm"));
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let mut server = Server::spawn(command, "info");
    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    server.stream(r#"{"prompt":"The","max_tokens":2,"stream":true}"#);
    drop(crowd);
    server.stream(r#"{"prompt":"The","max_tokens":2,"stream":true}"#);
    server.interrupt("-TERM");
    assert_eq!(wait(&mut server.child), Some(0));
    let mut log = String::new();
    server.log.read_to_string(&mut log).unwrap();
    let said = log.matches("connections cannot be accepted").count();
    assert_eq!(said, 1, "{log}");
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
