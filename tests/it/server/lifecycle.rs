//! Shutting down.

use std::time::Duration;

use safelmm_server::Stop;
use serde_json::json;

use crate::support::{TestApp, until};

#[tokio::test]
async fn a_running_answer_is_finished_before_the_server_ends() {
    let app = TestApp::start().await;
    let body = json!({"prompt": "The", "max_tokens": 60, "ignore_eos": true, "stream": true});
    let stream = app.post("/v1/completions", body).await;
    app.ask_to_stop(Stop::Gracefully);
    until(|| !app.app.engine().is_open()).await;
    assert!(stream.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    let url = format!("{}/health", app.base);
    app.stopped().await;
    assert!(reqwest::get(url).await.is_err_and(|error| error.is_connect()));
}

#[tokio::test]
async fn an_answer_that_outlasts_the_grace_period_is_cut_off_with_an_error() {
    let app = TestApp::with().max_batch(1).shutdown_grace(Duration::from_millis(20)).start().await;
    let mut body = app.endless();
    body["stream"] = json!(true);
    let stream = app.post("/v1/completions", body).await;
    app.until_engine_has(1, 0).await;
    app.ask_to_stop(Stop::Gracefully);
    let text = stream.text().await.unwrap();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("\"code\":\"shutting_down\""), "{last}");
    app.stopped().await;
}

#[tokio::test]
async fn the_second_request_to_stop_ends_the_server_at_once() {
    let app = TestApp::with().max_batch(1).shutdown_grace(Duration::from_secs(3600)).start().await;
    let _stream = app.occupy().await;
    app.ask_to_stop(Stop::Gracefully);
    app.ask_to_stop(Stop::Now);
    app.stopped().await;
}
