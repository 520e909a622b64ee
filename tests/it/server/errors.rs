//! What clients are told when a request cannot be honoured.

use reqwest::header::CONTENT_TYPE;
use safelmm_model::Rating;
use serde_json::{Value, json};

use crate::support::TestApp;

const COMPLETIONS: &str = "/v1/completions";
const CHAT: &str = "/v1/chat/completions";

/// A body for `path` with one field changed.
fn with(path: &str, name: &str, value: Value) -> Value {
    let mut body = match path {
        CHAT => json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}),
        _ => json!({"prompt": "Hello", "max_tokens": 2}),
    };
    body[name] = value;
    body
}

#[tokio::test]
async fn every_bad_parameter_is_refused_by_name() {
    let app = TestApp::with().rating_ceiling(Rating::R).start().await;
    let long: Vec<Value> = (0..65).map(|n| json!(n.to_string())).collect();
    let both = [COMPLETIONS, CHAT];
    // Field, value, param of the error, part of its message; for both endpoints.
    for (name, value, param, message) in [
        ("temprature", json!(1), "temprature", "unknown parameter 'temprature'"),
        ("model", json!(7), "model", "must be a string"),
        ("temperature", json!("hot"), "temperature", "must be a number, found \"hot\""),
        ("temperature", json!(-0.5), "temperature", "-0.5"),
        ("temperature", json!(1e300), "temperature", "must be a number"),
        ("top_p", json!(0), "top_p", "0"),
        ("top_p", json!(1.5), "top_p", "1.5"),
        ("top_k", json!(-2), "top_k", "-2"),
        ("top_k", json!(0.5), "top_k", "must be an integer"),
        ("min_p", json!(2), "min_p", "2"),
        ("presence_penalty", json!(2.5), "presence_penalty", "2.5"),
        ("frequency_penalty", json!(-3), "frequency_penalty", "-3"),
        ("repetition_penalty", json!(0), "repetition_penalty", "0"),
        ("logit_bias", json!([1]), "logit_bias", "must map token ids"),
        ("logit_bias", json!({"cat": 1}), "logit_bias", "\"cat\""),
        ("logit_bias", json!({"4000000000": 1}), "logit_bias", "4000000000"),
        ("logit_bias", json!({"300": 101}), "logit_bias", "101"),
        ("seed", json!(0.5), "seed", "64 bits"),
        ("n", json!(0), "n", "at least 1"),
        ("n", json!(17), "n", "at most 16"),
        ("max_tokens", json!(0), "max_tokens", "at least 1"),
        ("max_tokens", json!(-1), "max_tokens", "at least 1"),
        ("stop", json!(""), "stop", "not empty"),
        ("stop", json!([1]), "stop", "found 1"),
        ("stop", json!(long), "stop", "at most 64"),
        ("stream", json!("yes"), "stream", "true or false"),
        ("stream_options", json!({"include_usage": true}), "stream_options", "'stream'"),
        ("ignore_eos", json!(1), "ignore_eos", "true or false"),
        ("user", json!({}), "user", "must be a string"),
        ("user", json!("u".repeat(257)), "user", "longer than 256 bytes"),
        ("safelmm", json!([]), "safelmm", "must be an object"),
        ("safelmm", json!({"ratings": "G"}), "safelmm.ratings", "unknown parameter 'safelmm.ratings'"),
        ("safelmm", json!({"rating": "g"}), "safelmm.rating", "must be one of"),
        ("safelmm", json!({"rating": "X"}), "safelmm.rating", "above this server's ceiling R"),
        ("safelmm", json!({"guidance": 10.5}), "safelmm.guidance", "between 1 and 10"),
        ("safelmm", json!({"guidance": 0.5}), "safelmm.guidance", "between 1 and 10"),
        ("safelmm", json!({"use": "personal"}), "safelmm.use", "\"non-commercial\""),
        ("safelmm", json!({"retrieval": {"mode": "knn"}}), "safelmm.retrieval.mode", "no store is configured"),
        ("safelmm", json!({"retrieval": {"mode": "off", "k": 4}}), "safelmm.retrieval.k", "no store is configured"),
        ("safelmm", json!({"retrieval": {"depth": 1}}), "safelmm.retrieval.depth", "unknown parameter"),
        ("safelmm", json!({"attribution": "spans"}), "safelmm.attribution", "no store is configured"),
        ("safelmm", json!({"exclude_documents": ["a"]}), "safelmm.exclude_documents", "no store is configured"),
    ] {
        for path in both {
            check(&app, path, with(path, name, value.clone()), 400, json!(param), message).await;
        }
    }
    for (name, value, param, message) in [
        ("prompt", json!(null), "prompt", "is missing"),
        ("prompt", json!([]), "prompt", "empty"),
        ("prompt", json!({"text": "Hello"}), "prompt", "must be a string"),
        ("prompt", json!(["Hello", 1]), "prompt", "found 1"),
        ("prompt", json!([[-1]]), "prompt", "-1"),
        ("prompt", json!([4_000_000_000_u32]), "prompt", "4000000000"),
        ("prompt", json!(vec!["a"; 257]), "prompt", "257"),
        ("echo", json!(true), "echo", "not supported"),
        ("logprobs", json!(1), "logprobs", "not supported"),
        ("logprobs", json!(0), "logprobs", "not supported"),
        ("best_of", json!(2), "best_of", "must equal 'n'"),
        ("suffix", json!("end"), "suffix", "not supported"),
        ("messages", json!([]), "messages", "unknown parameter"),
        ("max_completion_tokens", json!(5), "max_completion_tokens", "unknown parameter"),
    ] {
        check(&app, COMPLETIONS, with(COMPLETIONS, name, value), 400, json!(param), message).await;
    }
    for (name, value, param, message) in [
        ("messages", json!(null), "messages", "is missing"),
        ("messages", json!([]), "messages", "empty"),
        ("messages", json!(["Hello"]), "messages[0]", "must be an object"),
        ("messages", json!([{"content": "Hello"}]), "messages[0].role", "is missing"),
        ("messages", json!([{"role": "user"}]), "messages[0].content", "is missing"),
        ("messages", json!([{"role": "user", "content": 5}]), "messages[0].content", "found 5"),
        ("messages", json!([{"role": "user", "content": "x", "audio": {}}]), "messages[0].audio", "unknown parameter"),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "messages[0].content[0].type",
            "text parts alone",
        ),
        ("max_completion_tokens", json!(5), "max_tokens", "give one of them"),
        ("tools", json!([]), "tools", "not supported"),
        ("tool_choice", json!("auto"), "tool_choice", "not supported"),
        ("logprobs", json!(true), "logprobs", "not supported"),
        ("response_format", json!({"type": "json_object"}), "response_format", "not supported"),
        ("prompt", json!("Hello"), "prompt", "unknown parameter"),
    ] {
        check(&app, CHAT, with(CHAT, name, value), 400, json!(param), message).await;
    }
    check(&app, "/tokenize", json!({}), 400, json!("prompt"), "is missing").await;
    check(&app, "/detokenize", json!({"tokens": [4_000_000]}), 400, json!("tokens"), "4000000").await;
}

#[tokio::test]
async fn neutral_values_of_unsupported_parameters_ask_for_nothing() {
    let app = TestApp::start().await;
    let neutral = json!({"prompt": "Hello", "echo": false, "logprobs": null, "best_of": 1, "suffix": null, "stop": null,
                         "logit_bias": null, "user": null, "stream_options": null, "top_k": -1,
                         "safelmm": {"stores": [], "retrieval": {"mode": "off"}, "attribution": "none", "exclude_documents": []}});
    app.ok(COMPLETIONS, neutral).await;
}

#[tokio::test]
async fn things_that_are_not_there_are_404() {
    let app = TestApp::start().await;
    for path in [COMPLETIONS, CHAT] {
        let error =
            check(&app, path, with(path, "model", json!("gpt-x")), 404, json!("model"), "'gpt-x' does not exist").await;
        assert_eq!(error["code"], "model_not_found");
        let body = with(path, "safelmm", json!({"stores": ["pro-git"]}));
        let error = check(&app, path, body, 404, json!("safelmm.stores"), "'pro-git'").await;
        assert_eq!(error["code"], "store_not_found");
    }
    for path in
        ["/v1/models/gpt-x", "/v1/models/gpt-x/provenance", "/v1/embeddings", "/playground/none.js", "/favicon.ico"]
    {
        let response = app.get(path).await;
        assert_eq!(response.status(), 404);
        assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
        assert!(response.json::<Value>().await.unwrap()["error"]["message"].is_string());
    }
    let wrong_method = app.get(COMPLETIONS).await;
    assert_eq!(wrong_method.status(), 405);
    assert!(wrong_method.headers().contains_key("x-request-id"));
    assert_eq!(wrong_method.json::<Value>().await.unwrap()["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let app = TestApp::with().max_body_bytes(2048).start().await;
    let send = async |body: Vec<u8>| {
        let request = app.client.post(format!("{}{COMPLETIONS}", app.base)).header(CONTENT_TYPE, "application/json");
        let response = request.body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"]["message"].to_string())
    };
    for body in
        [&b""[..], b"{", b"[1]", b"{\"prompt\": \"\xff\"}", b"prompt=Hello", b"{\"prompt\": \"a\", \"seed\": 1e999}"]
    {
        let (status, message) = send(body.to_vec()).await;
        assert!(status == 400 && message.contains("JSON"), "{status} {message}");
    }
    let (status, message) = send(format!("{{\"prompt\": \"{}\"}}", "a".repeat(4096)).into_bytes()).await;
    assert!(status == 413 && message.contains("2048 bytes"), "{status} {message}");
    // Deep nesting must not overflow the stack.
    let (status, _) = send("[".repeat(2000).into_bytes()).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_refused_in_the_words_clients_look_for() {
    let app = TestApp::start().await;
    let context = app.app.checkpoint().context_length();
    let words = "This model's maximum context length is";
    let asked = with(COMPLETIONS, "max_tokens", json!(context));
    let error = check(&app, COMPLETIONS, asked, 400, json!("max_tokens"), words).await;
    assert_eq!(error["code"], "context_length_exceeded");
    // A prompt that fills the context alone is told the same, without any limit in the request.
    let full = json!({"prompt": vec![200; context]});
    let response = app.post(COMPLETIONS, full).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "context_length_exceeded");
    // The default limit shrinks to what the context has room for.
    let nearly = json!({"prompt": vec![200; context - 4], "ignore_eos": true});
    assert_eq!(app.ok(COMPLETIONS, nearly).await["usage"]["completion_tokens"], 3);
}

async fn check(app: &TestApp, path: &str, body: Value, status: u16, param: Value, message: &str) -> Value {
    let shown = body.to_string();
    let response = app.post(path, body).await;
    let (found, error) = (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"].clone());
    assert_eq!(found, status, "{path} {shown}: {error}");
    assert_eq!(error["param"], param, "{path} {shown}: {error}");
    assert!(error["message"].as_str().unwrap().contains(message), "{path} {shown}: {error}");
    assert_eq!(error["type"], "invalid_request_error");
    error
}
