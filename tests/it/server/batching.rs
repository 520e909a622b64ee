//! One engine for many requests: nobody's answer depends on who else is there, and nobody waits for those who left.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{PATIENCE, TestApp};

#[tokio::test]
async fn an_answer_is_the_same_alone_and_in_a_batch() {
    let app = TestApp::start().await;
    let prompts =
        ["The", "A long time ago, in a house by the sea,", "She said", "Why?", "The old man walked to the river and"];
    let bodies: Vec<Value> = prompts
        .iter()
        .flat_map(|prompt| {
            let body = json!({"prompt": prompt, "max_tokens": 24, "ignore_eos": true});
            let (mut greedy, mut seeded, mut guided) = (body.clone(), body.clone(), body);
            greedy["temperature"] = json!(0);
            seeded["seed"] = json!(17);
            guided["seed"] = json!(18);
            guided["safelmm"] = json!({"rating": "G", "guidance": 2.0});
            [greedy, seeded, guided]
        })
        .collect();
    let mut alone = Vec::new();
    for body in &bodies {
        alone.push(app.text(body.clone()).await);
    }
    let together = join_all(bodies.iter().map(|body| app.text(body.clone()))).await;
    assert_eq!(together, alone);
}

#[tokio::test]
async fn a_full_queue_answers_429_and_says_when_to_come_back() {
    let app = TestApp::with().max_batch(1).queue(1).start().await;
    let running = app.occupy().await;
    let waiting = app.client.post(format!("{}/v1/completions", app.base)).json(&json!({"prompt": "B", "stream": true}));
    let waiting = waiting.send().await.unwrap();
    app.until_engine_has(1, 1).await;
    for stream in [false, true] {
        let refused = app.post("/v1/completions", json!({"prompt": "C", "stream": stream})).await;
        assert_eq!(refused.status(), 429);
        // By the engine's speed; a client is never told to wait longer than a minute.
        let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((2..=60).contains(&seconds), "{seconds}");
        let error = refused.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("queue_full")));
    }
    // The running client leaves; the waiting one is served, and there is room again.
    drop(running);
    assert!(waiting.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    app.text(json!({"prompt": "C"})).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_places_whether_it_streams_or_not() {
    let app = TestApp::with().max_batch(4).start().await;
    let streaming = app.occupy().await;
    app.until_engine_has(4, 0).await;
    drop(streaming);
    app.until_engine_has(0, 0).await;

    let whole = app.client.post(format!("{}/v1/completions", app.base)).json(&app.endless());
    let waiting = tokio::spawn(whole.send());
    app.until_engine_has(4, 0).await;
    waiting.abort();
    app.until_engine_has(0, 0).await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_gets_an_error() {
    let app = TestApp::with().request_timeout(Duration::from_millis(30)).max_batch(1).start().await;
    let mut body = app.endless();
    let late = app.post("/v1/completions", body.clone()).await;
    assert_eq!(late.status(), 504);
    assert_eq!(late.headers()["x-should-retry"], "false");
    assert_eq!(late.json::<Value>().await.unwrap()["error"]["code"], "timeout");
    body["stream"] = json!(true);
    let stream = app.post("/v1/completions", body).await.text().await.unwrap();
    let last = stream.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("data: {\"error\":{") && last.contains("\"code\":\"timeout\""), "{last}");
    app.until_engine_has(0, 0).await;
}

#[tokio::test]
async fn a_small_request_does_not_wait_for_all_of_a_large_one() {
    let app = TestApp::with().max_batch(2).start().await;
    let large = app.occupy().await;
    let small = app.ok("/v1/completions", json!({"prompt": "The", "max_tokens": 1}));
    tokio::time::timeout(PATIENCE, small).await.expect("the large request went first");
    drop(large);
}
