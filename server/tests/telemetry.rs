//! The traces and the log of the command `safelmm serve`, as their readers find them, or do not read them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

const PATIENCE: Duration = Duration::from_secs(40);

/// What a request may not leave in a trace.
const PROMPT: &str = "A heron waited";

struct Server {
    child: Child,
    address: String,
    log: BufReader<ChildStderr>,
}

impl Server {
    fn start(endpoint: &str, log_level: &str) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_safelmm"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
        for variable in ["SAFELMM_MODEL", "SAFELMM_CONFIG", "SAFELMM_KEYS", "OTEL_SERVICE_NAME"] {
            command.env_remove(variable);
        }
        command.env("RUST_LOG", log_level).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ctrl-C to stop") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "{said}");
        }
        let address = said.split("listening on http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        Server { child, address, log }
    }

    fn complete(&self) {
        let body = format!(r#"{{"prompt":"{PROMPT}","max_tokens":3,"ignore_eos":true}}"#);
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (host, length) = (&self.address, body.len());
        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        socket.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Asks it to stop; what it still wrote, and how long it took.
    fn stop(mut self) -> (String, Duration) {
        let asked = Instant::now();
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        while self.child.try_wait().unwrap().is_none() {
            assert!(asked.elapsed() < PATIENCE, "the server did not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = asked.elapsed();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (log, took)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A collector: its address, and the first line and the body of each request to it.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
                if let Some(value) = head[start..].to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            sender.send((head.lines().next().unwrap().to_owned(), body)).unwrap();
        }
    });
    (endpoint, receiver)
}

#[test]
fn a_collector_gets_the_spans_of_a_request_and_never_its_text() {
    let (endpoint, requests) = collector();
    // How much is logged has no say about traces.
    let server = Server::start(&endpoint, "error");
    server.complete();
    server.stop();
    let mut spans = Vec::new();
    for (line, body) in requests.try_iter() {
        assert_eq!(line, "POST /v1/traces HTTP/1.1");
        assert!(!body.windows(PROMPT.len()).any(|part| part == PROMPT.as_bytes()));
        for of_resource in ExportTraceServiceRequest::decode(&body[..]).unwrap().resource_spans {
            assert!(format!("{:?}", of_resource.resource).contains(r#"StringValue("safelmm")"#));
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["decode", "prefill", "queue", "request"]);
    let request = spans.iter().find(|span| span.name == "request").unwrap();
    for span in &spans {
        assert!(span.events.is_empty() && span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        assert_eq!(span.trace_id, request.trace_id);
        if span.name != "request" {
            assert_eq!(span.parent_span_id, request.span_id, "{span:?}");
        }
        for attribute in &span.attributes {
            let known = ["id", "method", "path", "key", "user", "prompt_tokens"].contains(&attribute.key.as_str());
            assert!(known, "{attribute:?}");
        }
    }
}

#[test]
fn a_collector_that_is_away_or_silent_stops_nothing() {
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [away, silent.local_addr().unwrap()] {
        let server = Server::start(&format!("http://{collector}"), "warn");
        server.complete();
        server.complete();
        let (log, took) = server.stop();
        assert!(took < Duration::from_secs(8), "{took:?}: {log}");
        // The warning, and at most one more about the last spans.
        assert!((1..=2).contains(&log.matches(" WARN ").count()) && !log.contains("ERROR"), "{log}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let server = Server::start("", "trace");
    for _ in 0..100 {
        server.complete();
    }
    let (log, took) = server.stop();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(log.len() > 60_000, "the pipe was not full: {}", log.len());
}
