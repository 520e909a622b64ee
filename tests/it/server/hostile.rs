//! Clients that send or take nothing, half of it, too much or nonsense: the server answers the others.

use std::time::{Duration, Instant};

use safelmm_server::Stop;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::{PATIENCE, Setup, TestApp};

/// Long enough to tell apart what ends early from what ends in time, also on a busy machine.
const SHORT: Duration = Duration::from_millis(500);

fn impatient() -> Setup {
    TestApp::with().server(|server| {
        (server.head_timeout, server.body_timeout, server.write_timeout) = (SHORT, SHORT, SHORT);
    })
}

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap()
}

/// The address as the header wants it.
fn host(app: &TestApp) -> String {
    format!("host: {}\r\n", app.base.trim_start_matches("http://"))
}

/// Everything that still comes until the server closes the connection.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection was not closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Another client is answered at once.
async fn others_are_answered(app: &TestApp) {
    let asked = Instant::now();
    let client = reqwest::Client::new();
    assert_eq!(client.get(format!("{}/v1/models", app.base)).send().await.unwrap().status(), 200);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn silent_connections_keep_nobody_out_and_are_closed() {
    let app = impatient().server(|server| server.max_connections = 8).start().await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(connect(&app).await);
    }
    others_are_answered(&app).await;
    for socket in &mut silent {
        assert_eq!(rest(socket).await, "");
    }
    assert!(began.elapsed() >= SHORT, "the last ones had their time");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_does_not_come_for_ever() {
    let app = impatient().start().await;
    let mut socket = connect(&app).await;
    let began = Instant::now();
    let head = format!("GET /health HTTP/1.1\r\nx-long: {}", "a".repeat(2000));
    for byte in head.bytes() {
        if socket.write_all(&[byte]).await.is_err() || began.elapsed() > PATIENCE {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!((SHORT..PATIENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
    others_are_answered(&app).await;
}

#[tokio::test]
async fn between_requests_a_connection_may_rest_longer_and_not_for_ever() {
    let app = impatient().server(|server| server.idle_timeout = 4 * SHORT).start().await;
    let mut socket = connect(&app).await;
    let request = format!("GET /health HTTP/1.1\r\n{}\r\n", host(&app));
    for _ in 0..2 {
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let length = timeout(PATIENCE, socket.read(&mut answer)).await.unwrap().unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200") && answer[..length].ends_with(b"}"));
        sleep(2 * SHORT).await;
    }
    let resting = Instant::now();
    rest(&mut socket).await;
    assert!(resting.elapsed() < 4 * SHORT);
}

#[tokio::test]
async fn half_a_body_is_answered_with_408() {
    let app = impatient().start().await;
    for framing in ["content-length: 100\r\n\r\n{\"prompt\"", "transfer-encoding: chunked\r\n\r\n5\r\n{\"pro"] {
        let mut socket = connect(&app).await;
        let began = Instant::now();
        let head = format!("POST /v1/completions HTTP/1.1\r\n{}", host(&app));
        socket.write_all(format!("{head}{framing}").as_bytes()).await.unwrap();
        let answer = rest(&mut socket).await;
        assert!(began.elapsed() >= SHORT);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("\"code\":\"request_timeout\""), "{answer}");
    }
    others_are_answered(&app).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let app = impatient().start().await;
    // Far more than the buffers of two sockets hold, asked for in one go.
    let script = app.get("/playground/app.js").await.text().await.unwrap().len();
    let requests = (64 << 20) / script;
    for takes_a_little in [false, true] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = app.base.trim_start_matches("http://").parse().unwrap();
        let (mut reader, mut writer) = socket.connect(address).await.unwrap().into_split();
        let request = format!("GET /playground/app.js HTTP/1.1\r\n{}\r\n", host(&app));
        let asking = tokio::spawn(async move {
            for _ in 0..requests {
                if writer.write_all(request.as_bytes()).await.is_err() {
                    break;
                }
            }
            // Not closed: the client is there.
            writer
        });
        let began = Instant::now();
        while began.elapsed() < 4 * SHORT {
            others_are_answered(&app).await;
            if takes_a_little {
                let _ = reader.read_u8().await;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let mut taken = Vec::new();
        let _ = timeout(PATIENCE, reader.read_to_end(&mut taken)).await.expect("the connection was not closed");
        assert!(taken.len() < requests * script / 2, "{} of {}", taken.len(), requests * script);
        asking.abort();
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_frees_its_place_in_the_engine() {
    let app = impatient().max_batch(1).start().await;
    let body = json!({"prompt": "The", "max_tokens": 50, "ignore_eos": true, "stream": true}).to_string();
    let mut socket = connect(&app).await;
    let head = format!("POST /v1/completions HTTP/1.1\r\n{}content-length: {}\r\n\r\n", host(&app), body.len());
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    let answer = app.ok("/v1/completions", json!({"prompt": "A", "max_tokens": 1})).await;
    assert_eq!(answer["usage"]["completion_tokens"], 1);
    app.until_engine_has(0, 0).await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_while_it_is_sent() {
    let app = TestApp::with().max_body_bytes(10_000).start().await;
    let body = vec![b' '; 5_000_000];
    for framing in ["content-length: 5000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n4c4b40\r\n"] {
        let mut socket = connect(&app).await;
        let head = format!("POST /v1/completions HTTP/1.1\r\n{}{framing}", host(&app));
        socket.write_all(head.as_bytes()).await.unwrap();
        // Everything is sent before anything is read: the answer must not be lost to a reset.
        socket.write_all(&body).await.unwrap();
        let answer = rest(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("10000 bytes"), "{answer}");
    }
    others_are_answered(&app).await;
}

#[tokio::test]
async fn nonsense_is_refused_and_harms_nobody() {
    let app = impatient().start().await;
    let head = format!("POST /v1/completions HTTP/1.1\r\n{}", host(&app));
    for (sent, status) in [
        (format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"), "400"),
        (format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}"), "400"),
        (format!("{head}content-length: -1\r\n\r\n"), "400"),
        ("\0\u{1}\u{2} nonsense\r\n\r\n".into(), "400"),
        (format!("GET / HTTP/1.1\r\n{}x: {}\r\n\r\n", host(&app), "a".repeat(200_000)), "431"),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)), "4"),
    ] {
        let mut socket = connect(&app).await;
        let _ = socket.write_all(sent.as_bytes()).await;
        let answer = rest(&mut socket).await;
        // A head that is still being sent may be answered with a reset.
        let reset = answer.is_empty() && sent.len() > 50_000;
        let start: String = sent.chars().take(80).collect();
        assert!(reset || answer.starts_with(&format!("HTTP/1.1 {status}")), "{start}: {answer}");
    }
    // A chunked body that breaks off with its connection.
    let mut socket = connect(&app).await;
    socket.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{").as_bytes()).await.unwrap();
    drop(socket);
    others_are_answered(&app).await;
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_do_not() {
    let app = TestApp::with().server(|server| server.max_connections = 2).max_batch(2).start().await;
    for _ in 0..5 {
        // Each leaves an idle connection behind.
        let client = reqwest::Client::new();
        assert_eq!(client.get(format!("{}/health", app.base)).send().await.unwrap().status(), 200);
    }
    let (first, second) = (app.occupy().await, app.occupy().await);
    app.until_engine_has(2, 0).await;
    let third = tokio::spawn(reqwest::get(format!("{}/health", app.base)));
    sleep(SHORT).await;
    assert!(!third.is_finished(), "there is no place for a third");
    drop(first);
    assert_eq!(timeout(PATIENCE, third).await.unwrap().unwrap().unwrap().status(), 200);
    drop(second);
}

#[tokio::test]
async fn idle_and_half_sent_requests_do_not_delay_the_end() {
    let app = TestApp::with().shutdown_grace(Duration::from_secs(3600)).start().await;
    let mut sockets = Vec::new();
    let head = format!("POST /v1/completions HTTP/1.1\r\n{}", host(&app));
    let idle = format!("GET /health HTTP/1.1\r\n{}\r\n", host(&app));
    for sent in ["", "POST", &head, &format!("{head}content-length: 9\r\n\r\n{{"), &idle, &format!("{idle}GET")] {
        let mut socket = connect(&app).await;
        socket.write_all(sent.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    sleep(SHORT).await;
    let asked = Instant::now();
    app.ask_to_stop(Stop::Gracefully);
    app.stopped().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let half_body = rest(&mut sockets[3]).await;
    assert!(half_body.starts_with("HTTP/1.1 503"), "{half_body}");
}
