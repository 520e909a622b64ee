//! What Prometheus would scrape, before and after some requests.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{TestApp, until};

/// The samples of a scrape by their full names, labels included.
async fn scrape(app: &TestApp) -> BTreeMap<String, f64> {
    let response = app.get("/metrics").await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn requests_tokens_and_refusals_are_counted_and_times_are_measured() {
    let app = TestApp::start().await;
    let before = scrape(&app).await;
    assert_eq!(before["safelmm_generated_tokens_total"], 0.0);
    let prompt: Vec<u32> = (1000..1100).collect();
    let body = json!({"prompt": prompt, "max_tokens": 5, "ignore_eos": true});
    for stream in [false, false, true] {
        let mut body = body.clone();
        body["stream"] = json!(stream);
        app.post("/v1/completions", body).await.text().await.unwrap();
    }
    app.post("/v1/completions", json!({"prompt": "A", "max_tokens": 100_000})).await;
    app.post("/v1/completions", json!({"prompt": "A", "model": "another"})).await;
    app.get("/nowhere").await;
    let after = scrape(&app).await;
    // The rating token is one more of each prompt.
    for (name, expected) in [
        ("prompt_tokens_total", 303.0),
        ("generated_tokens_total", 15.0),
        // Three full blocks of 32 tokens, for the second and the third request.
        ("cached_prompt_tokens_total", 192.0),
        ("validation_seconds_count", 3.0),
        ("queue_seconds_count", 3.0),
        ("prefill_seconds_count", 3.0),
        ("time_to_first_token_seconds_count", 3.0),
        ("inter_token_latency_seconds_count", 12.0),
        ("answers_total{route=\"/v1/completions\",status=\"200\"}", 3.0),
        ("answers_total{route=\"/v1/completions\",status=\"400\"}", 1.0),
        ("answers_total{route=\"(none)\",status=\"404\"}", 1.0),
        ("refusals_total{reason=\"context_length_exceeded\"}", 1.0),
        ("refusals_total{reason=\"model_not_found\"}", 1.0),
        ("refusals_total{reason=\"unknown_url\"}", 1.0),
    ] {
        assert_eq!(after.get(&format!("safelmm_{name}")), Some(&expected), "{name}: {after:#?}");
    }
    assert!(after["safelmm_batch_size_count"] >= 15.0);
    assert!(after["safelmm_step_seconds_sum"] > 0.0);
    assert!(after["safelmm_kv_blocks{state=\"capacity\"}"] >= 32.0);
}

#[tokio::test]
async fn running_sequences_and_their_memory_are_seen_and_go() {
    let app = TestApp::with().max_batch(2).start().await;
    let running = app.occupy().await;
    app.until_engine_has(2, 0).await;
    let now = scrape(&app).await;
    assert_eq!(now["safelmm_sequences_running"], 2.0);
    assert!(now["safelmm_sequences_pending"] > 200.0);
    assert!(now["safelmm_kv_blocks{state=\"taken\"}"] >= 28.0, "{now:#?}");
    drop(running);
    until(|| app.app.engine().running() == 0).await;
    let after = scrape(&app).await;
    // What the prefix cache keeps is all that is left.
    assert_eq!(after["safelmm_kv_blocks{state=\"taken\"}"], after["safelmm_kv_blocks{state=\"cached\"}"]);
}
