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
    let many: Vec<Value> = (0..100_000).map(|n| json!(n.to_string())).collect();
    let large: Vec<Value> = (0..100).map(|n| json!(format!("{n}{}", "x".repeat(1000)))).collect();
    let both = [COMPLETIONS, CHAT];
    // Field, value, param of the error, part of its message; for both endpoints.
    for (name, value, param, message) in [
        ("temprature", json!(1), "temprature", "unknown parameter 'temprature'"),
        ("model", json!(7), "model", "must be a string"),
        ("temperature", json!("hot"), "temperature", "must be a number, found \"hot\""),
        ("temperature", json!(-0.5), "temperature", "-0.5"),
        ("temperature", json!(1e300), "temperature", "out of range"),
        ("top_p", json!(0), "top_p", "0"),
        ("top_p", json!(1.5), "top_p", "1.5"),
        ("top_k", json!(-2), "top_k", "-2"),
        ("top_k", json!(0.5), "top_k", "must be an integer"),
        ("min_p", json!(2), "min_p", "2"),
        ("presence_penalty", json!(2.5), "presence_penalty", "2.5"),
        ("frequency_penalty", json!(-3), "frequency_penalty", "-3"),
        ("repetition_penalty", json!(0), "repetition_penalty", "0"),
        ("logit_bias", json!([1]), "logit_bias", "must be an object from token ids"),
        ("logit_bias", json!({"cat": 1}), "logit_bias", "\"cat\""),
        ("logit_bias", json!({"4000000000": 1}), "logit_bias", "4000000000"),
        ("logit_bias", json!({"300": 101}), "logit_bias", "101"),
        ("seed", json!(0.5), "seed", "64 bits"),
        ("n", json!(0), "n", "at least 1"),
        ("n", json!(17), "n", "at most 16"),
        ("n", json!(9_999_999_999_999_999_999_u64), "n", "at most 16"),
        ("max_tokens", json!(-1), "max_tokens", "an integer of at least 0, found -1"),
        ("max_tokens", json!(1e30), "max_tokens", "an integer"),
        ("stop", json!(""), "stop", "empty string"),
        ("stop", json!([1]), "stop[0]", "must be a string, found 1"),
        ("stop", json!(7), "stop", "a string or a list of strings, found 7"),
        ("stop", json!(many), "stop", "at most 4096"),
        ("stop", json!(large), "stop", "at most 65536"),
        ("stop", json!("x".repeat(1025)), "stop", "at most 1024"),
        ("stream", json!("yes"), "stream", "true or false"),
        ("stream_options", json!({"include_usage": true}), "stream_options", "'stream'"),
        ("stream_options", json!({"usage": true}), "stream_options.usage", "unknown parameter"),
        ("ignore_eos", json!(1), "ignore_eos", "true or false"),
        ("user", json!({}), "user", "must be a string"),
        ("user", json!("u".repeat(257)), "user", "longer than 256 bytes"),
        ("safelmm", json!([]), "safelmm", "must be an object"),
        ("safelmm", json!(["PG"]), "safelmm", "must be an object, found a list"),
        ("safelmm", json!({"ratings": "G"}), "safelmm.ratings", "unknown parameter 'safelmm.ratings'"),
        ("safelmm", json!({"rating": "g"}), "safelmm.rating", "must be one of"),
        ("safelmm", json!({"rating": "X"}), "safelmm.rating", "above this server's ceiling R"),
        ("safelmm", json!({"guidance": 10.5}), "safelmm.guidance", "between 1 and 10"),
        ("safelmm", json!({"guidance": 0.5}), "safelmm.guidance", "between 1 and 10"),
        ("safelmm", json!({"use": "personal"}), "safelmm.use", "\"non-commercial\""),
        ("safelmm", json!({"retrieval": {"mode": "knn"}}), "safelmm.retrieval.mode", "needs a store"),
        ("safelmm", json!({"retrieval": {"mode": "off", "k": 4}}), "safelmm.retrieval.k", "needs a store"),
        (
            "safelmm",
            json!({"retrieval": {"k": "many"}}),
            "safelmm.retrieval.k",
            "an integer of at least 0, found \"many\"",
        ),
        ("safelmm", json!({"retrieval": {"mode": "all"}}), "safelmm.retrieval.mode", "one of \"off\""),
        ("safelmm", json!({"stores": ["a", 1]}), "safelmm.stores[1]", "must be a string"),
        ("safelmm", json!({"retrieval": {"depth": 1}}), "safelmm.retrieval.depth", "unknown parameter"),
        ("safelmm", json!({"attribution": "spans"}), "safelmm.attribution", "needs a store"),
        ("safelmm", json!({"exclude_documents": ["a"]}), "safelmm.exclude_documents", "needs a store"),
    ] {
        for path in both {
            check(&app, path, with(path, name, value.clone()), 400, json!(param), message).await;
        }
    }
    for (name, value, param, message) in [
        ("prompt", json!(null), "prompt", "is missing"),
        ("prompt", json!([]), "prompt", "empty"),
        ("prompt", json!({"text": "Hello"}), "prompt", "must be a string"),
        ("prompt", json!(["Hello", 1]), "prompt[1]", "found 1"),
        ("prompt", json!([1, "Hello"]), "prompt[1]", "found \"Hello\""),
        ("prompt", json!([[-1]]), "prompt[0][0]", "-1"),
        ("prompt", json!([[300], [4_000_000_000_u32]]), "prompt[1]", "4000000000"),
        ("prompt", json!([5_000_000_000_u64]), "prompt[0]", "5000000000"),
        ("prompt", json!(vec!["a"; 257]), "prompt", "257"),
        ("echo", json!("yes"), "echo", "true or false"),
        ("logprobs", json!(true), "logprobs", "found true"),
        ("logprobs", json!(21), "logprobs", "at most 20"),
        ("best_of", json!(17), "best_of", "at most 16"),
        ("best_of", json!(0), "best_of", "at least 1"),
        ("suffix", json!("end"), "suffix", "not supported"),
        ("messages", json!([]), "messages", "unknown parameter"),
        ("max_completion_tokens", json!(5), "max_completion_tokens", "unknown parameter"),
    ] {
        check(&app, COMPLETIONS, with(COMPLETIONS, name, value), 400, json!(param), message).await;
    }
    for (body, param, message) in [
        (json!({"max_tokens": 1}), "prompt", "'prompt' is missing"),
        (json!({"prompt": "a", "n": 3, "best_of": 2}), "best_of", "at least 'n' (3), found 2"),
        (json!({"prompt": "a", "best_of": 2, "stream": true}), "best_of", "cannot be streamed"),
        (
            json!({"prompt": "a", "stream": true, "stream_options": {"continuous_usage_stats": true}}),
            "stream_options.continuous_usage_stats",
            "not supported",
        ),
        (
            json!({"prompt": "a", "echo": true, "logprobs": 1, "safelmm": {"guidance": 2}}),
            "safelmm.guidance",
            "cannot be scored",
        ),
    ] {
        check(&app, COMPLETIONS, body, 400, json!(param), message).await;
    }
    for (name, value, param, message) in [
        ("messages", json!(null), "messages", "is missing"),
        ("messages", json!([]), "messages", "empty"),
        ("messages", json!(["Hello"]), "messages[0]", "must be an object"),
        ("messages", json!([{"content": "Hello"}]), "messages[0].role", "is missing"),
        ("messages", json!([{"role": "user"}]), "messages[0].content", "is missing"),
        ("messages", json!([{"role": "user", "content": 5}]), "messages[0].content", "found 5"),
        ("messages", json!([{"role": "user", "content": "x", "image": {}}]), "messages[0].image", "unknown parameter"),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "messages[0].content[0].type",
            "must be \"text\", found \"image_url\"",
        ),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "text", "text": 7}]}]),
            "messages[0].content[0].text",
            "must be a string, found 7",
        ),
        (
            "messages",
            json!([{"role": "user", "content": "x", "tool_calls": [{"id": "1", "function": {"name": "f",
            "arguments": "{}"}}]}]),
            "messages[0].tool_calls",
            "not the assistant's",
        ),
        (
            "messages",
            json!([{"role": "user", "content": "x", "audio": {"id": "a"}}]),
            "messages[0].audio",
            "not supported",
        ),
        ("max_completion_tokens", json!(5), "max_tokens", "give one of them"),
        ("max_tokens", json!(0), "max_tokens", "at least 1"),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}]), "tools", "takes no tools"),
        ("tools", json!([{"type": "function", "function": {"name": "a b"}}]), "tools[0].function.name", "characters"),
        ("tools", json!([{"type": "function", "function": {}}]), "tools[0].function.name", "is missing"),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type", "\"function\", found \"web_search\""),
        ("tool_choice", json!("required"), "tool_choice", "names no function"),
        ("parallel_tool_calls", json!(true), "parallel_tool_calls", "names no function"),
        (
            "messages",
            json!([{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f",
            "arguments": "{}"}}]}]),
            "messages[0].tool_calls",
            "takes no tools",
        ),
        (
            "messages",
            json!([{"role": "tool", "content": "x", "tool_call_id": "1"}]),
            "messages[0].tool_call_id",
            "takes no tools",
        ),
        ("messages", json!([{"role": "tool", "content": "x"}]), "messages[0].role", "takes no tools"),
        ("tool_choice", json!("always"), "tool_choice", "found \"always\""),
        ("logprobs", json!(1), "logprobs", "true or false"),
        ("top_logprobs", json!(2), "top_logprobs", "needs 'logprobs'"),
        ("top_logprobs", json!(21), "top_logprobs", "at most 20"),
        ("response_format", json!({"type": "xml"}), "response_format.type", "found \"xml\""),
        ("response_format", json!({"type": "json_schema"}), "response_format.json_schema", "is missing"),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "no name", "schema": {}}}),
            "response_format.json_schema.name",
            "characters",
        ),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "number", "not": {}}}}),
            "response_format.json_schema.schema",
            "not",
        ),
        ("reasoning_effort", json!("high"), "reasoning_effort", "does not reason"),
        ("store", json!(true), "store", "keeps no answers"),
        ("service_tier", json!("flex"), "service_tier", "alike"),
        ("modalities", json!(["text", "audio"]), "modalities", "writes text"),
        ("functions", json!([]), "functions", "use 'tools'"),
        ("prompt", json!("Hello"), "prompt", "unknown parameter"),
    ] {
        check(&app, CHAT, with(CHAT, name, value), 400, json!(param), message).await;
    }
    check(&app, "/tokenize", json!({}), 400, json!("prompt"), "is missing").await;
    check(&app, "/detokenize", json!({"tokens": [4_000_000]}), 400, json!("tokens[0]"), "4000000").await;
}

#[tokio::test]
async fn neutral_values_of_unsupported_parameters_ask_for_nothing() {
    let app = TestApp::start().await;
    let neutral = json!({"prompt": "Hello", "echo": false, "logprobs": null, "best_of": 1, "suffix": "", "stop": null,
                         "logit_bias": null, "user": null, "stream_options": null, "top_k": -1,
                         "safelmm": {"stores": [], "retrieval": {"mode": "off"}, "attribution": "none", "exclude_documents": []}});
    app.ok(COMPLETIONS, neutral).await;
    let mut chat = with(CHAT, "store", json!(false));
    for (name, value) in [
        ("reasoning_effort", json!("none")),
        ("metadata", json!({})),
        ("service_tier", json!("auto")),
        ("modalities", json!(["text"])),
        ("audio", json!(null)),
        ("prediction", json!(null)),
        ("web_search_options", json!(null)),
        ("tools", json!([])),
        ("tool_choice", json!("none")),
        ("response_format", json!({"type": "text"})),
        ("logprobs", json!(false)),
        ("top_logprobs", json!(0)),
    ] {
        chat[name] = value;
    }
    app.ok(CHAT, chat).await;
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
    for path in [
        "/v1/models/gpt-x",
        "/v1/models/a/b/provenance",
        "/v1/models/",
        "/v1/nothing",
        "/playground/none.js",
        "/favicon.ico",
    ] {
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
