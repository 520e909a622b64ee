//! API keys: who may ask, for what, and how much of it.

use std::num::NonZeroU32;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use safelmm_model::Rating;
use safelmm_server::keys::{self, Allowed, Limits, Rights, Use};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, Setup, TestApp, bare_checkpoint, events};

/// A server with a key file, and the first key of the file.
struct Keyed {
    app: TestApp,
    folder: TempDir,
    key: String,
}

impl Keyed {
    async fn start(rights: Rights, limits: Limits) -> Keyed {
        Keyed::with(TestApp::with(), rights, limits).await
    }

    async fn with(setup: Setup, rights: Rights, limits: Limits) -> Keyed {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let key = keys::add(&file, "test", rights, limits, None).unwrap().key.reveal();
        Keyed { app: setup.keys(&file).start().await, folder, key }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("keys.toml")
    }

    fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.app.client.request(method, format!("{}{path}", self.app.base)).bearer_auth(key)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path, &self.key).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        self.request(Method::POST, path, &self.key).json(&body).send().await.unwrap()
    }

    async fn complete(&self, safelmm: Value) -> Response {
        self.post("/v1/completions", json!({"prompt": "A", "max_tokens": 1, "safelmm": safelmm})).await
    }
}

/// Status, `type`, `code` and message of an error.
async fn refusal(response: Response) -> (u16, String, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (status, text("type"), text("code"), text("message"))
}

fn limit(n: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(n)
}

/// Every path of the router, from the API's description, which is made with the routes: a route that is added is asked too.
async fn routes(keyed: &Keyed) -> Vec<String> {
    let description: Value = keyed.get("/openapi.json").await.json().await.unwrap();
    let paths = description["paths"].as_object().unwrap().keys();
    let routes: Vec<String> = paths.map(|path| path.replace("{id}", "safelmm-demo")).collect();
    assert!(routes.len() > 15 && routes.contains(&"/v1/completions".to_owned()), "{routes:?}");
    routes
}

#[tokio::test]
async fn every_route_but_the_probes_asks_for_a_key() {
    let keyed = Keyed::start(Rights::default(), Limits::default()).await;
    let app = &keyed.app;
    let routes = routes(&keyed).await;
    let paths = routes.iter().cloned().chain(["/nowhere".into(), "/health/".into(), "/v1/models/a/b".into()]);
    for path in paths {
        for method in [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            let response = app.client.request(method.clone(), format!("{}{path}", app.base)).send().await.unwrap();
            let status = response.status();
            if ["/health", "/livez"].contains(&&path[..]) {
                let expected = matches!(method, Method::GET | Method::HEAD).then_some(StatusCode::OK);
                assert_eq!(status, expected.unwrap_or(StatusCode::METHOD_NOT_ALLOWED), "{method} {path}");
                continue;
            }
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            let page =
                method == Method::GET && (path == "/" || path.starts_with("/playground/") || path.starts_with("/docs"));
            let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
            let expected = if page { "Basic realm=\"safelmm\", charset=\"UTF-8\"" } else { "Bearer realm=\"safelmm\"" };
            assert_eq!(challenge, expected, "{method} {path}");
            if method != Method::HEAD {
                let body: Value = response.json().await.unwrap();
                let error = &body["error"];
                assert_eq!(error["type"], "invalid_request_error");
                assert_eq!((&error["code"], &error["param"]), (&json!("invalid_api_key"), &Value::Null));
                assert!(error["message"].as_str().unwrap().contains("Authorization: Bearer"), "{body}");
            }
        }
    }
    for path in routes.iter().filter(|path| !path.starts_with("/v1") && !path.ends_with("tokenize")) {
        assert_eq!(keyed.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(keyed.complete(json!({})).await.status(), 200);
    assert_eq!(keyed.get("/nowhere").await.status(), 404);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_whatever_its_id() {
    let keyed = Keyed::start(Rights::default(), Limits::default()).await;
    let (head, secret) = keyed.key.rsplit_once('-').unwrap();
    let other: String = secret.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let strange = format!("sk-safelmm-000000000000-{secret}");
    for wrong in [format!("{head}-{other}"), strange, head.into(), "none".into(), "sk-".into()] {
        let response = keyed.request(Method::GET, "/v1/models", &wrong).send().await.unwrap();
        assert!(response.headers()["www-authenticate"].to_str().unwrap().contains("error=\"invalid_token\""));
        let (status, kind, code, message) = refusal(response).await;
        assert_eq!((status, &kind[..], &code[..]), (401, "invalid_request_error", "invalid_api_key"));
        assert!(message.starts_with("Incorrect API key provided") && !message.contains(secret), "{message}");
    }
}

#[tokio::test]
async fn a_browser_sends_the_key_as_a_password_and_for_no_page_but_ours() {
    let keyed = Keyed::start(Rights::default(), Limits::default()).await;
    let app = &keyed.app;
    let basic = |method: Method, path: &str| {
        app.client.request(method, format!("{}{path}", app.base)).basic_auth("anyone", Some(&keyed.key))
    };
    for path in ["/", "/playground/app.js", "/v1/models"] {
        assert_eq!(basic(Method::GET, path).send().await.unwrap().status(), 200, "{path}");
    }
    let body = json!({"prompt": "A", "max_tokens": 1});
    let own = basic(Method::POST, "/v1/completions").header("origin", &app.base).json(&body);
    assert_eq!(own.send().await.unwrap().status(), 200);
    let foreign = basic(Method::POST, "/v1/completions").header("origin", "http://evil.example").json(&body);
    let (status, _, code, _) = refusal(foreign.send().await.unwrap()).await;
    assert_eq!((status, &code[..]), (403, "foreign_site"));
}

#[tokio::test]
async fn new_and_revoked_keys_count_while_the_server_runs() {
    let keyed = Keyed::start(Rights::default(), Limits::default()).await;
    let added = keys::add(&keyed.file(), "second", Rights::default(), Limits::default(), None).unwrap().key;
    let becomes = async |key: &str, status: u16| {
        let waiting = async {
            while keyed.request(Method::GET, "/v1/models", key).send().await.unwrap().status() != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3), waiting).await.expect("the key file is looked at every second");
    };
    becomes(&added.reveal(), 200).await;
    std::fs::write(keyed.file(), "damaged").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(keyed.get("/v1/models").await.status(), 200, "a damaged file changes nothing");
    std::fs::remove_file(keyed.file()).unwrap();
    let third = keys::add(&keyed.file(), "third", Rights::default(), Limits::default(), None).unwrap().key;
    becomes(&third.reveal(), 200).await;
    assert_eq!(keyed.get("/v1/models").await.status(), 401);
    keys::revoke(&keyed.file(), third.id()).unwrap();
    becomes(&third.reveal(), 401).await;
}

#[tokio::test]
async fn the_lower_of_two_ceilings_holds() {
    let rights = Rights { rating_ceiling: Some(Rating::G), ..Rights::default() };
    let keyed = Keyed::start(rights, Limits::default()).await;
    for body in [json!({}), json!({"rating": "G"})] {
        let answer: Value = keyed.complete(body).await.json().await.unwrap();
        assert_eq!(answer["safelmm"]["rating"], "G");
    }
    let (status, _, _, message) = refusal(keyed.complete(json!({"rating": "PG"})).await).await;
    assert_eq!((status, &message[..]), (400, "'safelmm.rating' is PG, above this key's ceiling G"));
    let model: Value = keyed.get("/v1/models/safelmm-demo").await.json().await.unwrap();
    assert_eq!(model["safelmm"]["ratings"], json!(["G"]));

    let rights = Rights { rating_ceiling: Some(Rating::X), ..Rights::default() };
    let keyed = Keyed::with(TestApp::with().rating_ceiling(Rating::PG), rights, Limits::default()).await;
    let (status, _, _, message) = refusal(keyed.complete(json!({"rating": "R"})).await).await;
    assert_eq!((status, &message[..]), (400, "'safelmm.rating' is R, above this server's ceiling PG"));
}

#[tokio::test]
async fn a_ceiling_that_the_model_cannot_keep_refuses_every_generation() {
    let model = tempfile::tempdir().unwrap();
    bare_checkpoint(model.path());
    let rights = Rights { rating_ceiling: Some(Rating::R), ..Rights::default() };
    let keyed = Keyed::with(TestApp::with().checkpoint(model.path()), rights, Limits::default()).await;
    let (status, _, code, message) = refusal(keyed.complete(json!({})).await).await;
    assert_eq!((status, &code[..]), (403, "rating_not_allowed"));
    assert!(message.contains("up to the rating R") && message.contains("without ratings"), "{message}");
}

#[tokio::test]
async fn a_use_is_declared_by_who_has_the_right_to_it() {
    for (own, other) in [(Use::Commercial, Use::NonCommercial), (Use::NonCommercial, Use::Commercial)] {
        let keyed = Keyed::start(Rights { uses: vec![own], ..Rights::default() }, Limits::default()).await;
        let answer = keyed.complete(json!({"use": own})).await;
        assert_eq!(answer.json::<Value>().await.unwrap()["safelmm"]["use"], json!(own));
        let (status, _, code, message) = refusal(keyed.complete(json!({"use": other})).await).await;
        assert_eq!((status, &code[..]), (403, "use_not_allowed"));
        assert!(message.contains(&format!("{{\"use\": \"{}\"}}", own.as_str())), "{message}");
        // Without a declaration the use is commercial.
        let expected = if own == Use::Commercial { 200 } else { 403 };
        assert_eq!(keyed.complete(json!({})).await.status(), expected);
    }
    let keyed = Keyed::start(Rights { uses: vec![], ..Rights::default() }, Limits::default()).await;
    let (status, _, _, message) = refusal(keyed.complete(json!({})).await).await;
    assert!(status == 403 && message.contains("operator"), "{message}");
}

#[tokio::test]
async fn a_model_that_a_key_may_not_use_does_not_exist_for_it() {
    let rights = Rights { models: Allowed::Only(vec!["another".into()]), ..Rights::default() };
    let keyed = Keyed::start(rights, Limits::default()).await;
    let list: Value = keyed.get("/v1/models").await.json().await.unwrap();
    assert_eq!(list, json!({"object": "list", "data": []}));
    let refusals = [
        (keyed.get("/v1/models/safelmm-demo").await, "safelmm-demo"),
        (keyed.get("/v1/models/unknown").await, "unknown"),
        (keyed.get("/v1/models/safelmm-demo/provenance").await, "safelmm-demo"),
        (keyed.post("/v1/completions", json!({"prompt": "A", "model": "safelmm-demo"})).await, "safelmm-demo"),
        (keyed.post("/v1/completions", json!({"prompt": "A", "model": "unknown"})).await, "unknown"),
        (keyed.post("/v1/chat/completions", json!({"messages": []})).await, "safelmm-demo"),
        (keyed.post("/tokenize", json!({"prompt": "A"})).await, "safelmm-demo"),
        (keyed.post("/detokenize", json!({"tokens": [300]})).await, "safelmm-demo"),
    ];
    for (response, name) in refusals {
        let (status, _, code, message) = refusal(response).await;
        assert_eq!((status, &code[..]), (404, "model_not_found"));
        assert_eq!(message, format!("The model '{name}' does not exist, or your API key may not use it"));
    }
    let rights = Rights { models: Allowed::Only(vec!["safelmm-demo".into()]), ..Rights::default() };
    let keyed = Keyed::start(rights, Limits::default()).await;
    assert_eq!(keyed.complete(json!({})).await.status(), 200);
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_when_to_come_back() {
    let limits = Limits { requests_per_minute: limit(2), ..Limits::default() };
    let keyed = Keyed::start(Rights::default(), limits).await;
    let header = |response: &Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    for left in ["1", "0"] {
        let response = keyed.complete(json!({})).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit-requests"), "2");
        assert_eq!(header(&response, "x-ratelimit-remaining-requests"), left);
        assert!(!response.headers().contains_key("x-ratelimit-limit-tokens"));
    }
    let response = keyed.complete(json!({})).await;
    let (seconds, ms): (u64, u64) =
        (header(&response, "retry-after").parse().unwrap(), header(&response, "retry-after-ms").parse().unwrap());
    assert!((20..=30).contains(&seconds) && ms.div_ceil(1000) == seconds, "{seconds} {ms}");
    let (status, kind, code, message) = refusal(response).await;
    assert_eq!((status, &kind[..], &code[..]), (429, "rate_limit_error", "rate_limit_exceeded"));
    assert!(message.contains("2 requests a minute"), "{message}");
    assert_eq!(keyed.get("/v1/models").await.status(), 200, "reading costs nothing");
    assert_eq!(keyed.post("/tokenize", json!({"prompt": "A"})).await.status(), 429);
}

#[tokio::test]
async fn tokens_are_charged_in_advance_and_given_back() {
    let limits = Limits { tokens_per_minute: limit(400), ..Limits::default() };
    let keyed = Keyed::start(Rights::default(), limits).await;
    let left = |response: &Response| -> u64 {
        response.headers()["x-ratelimit-remaining-tokens"].to_str().unwrap().parse().unwrap()
    };
    let body = |max_tokens: u64| json!({"prompt": "Once", "max_tokens": max_tokens, "stop": ["e"], "temperature": 0});
    // The text that the model writes has an "e" long before.
    let response = keyed.post("/v1/completions", body(300)).await;
    let usage = response.json::<Value>().await.unwrap()["usage"]["total_tokens"].as_u64().unwrap();
    assert!(usage < 100, "{usage}");
    let response = keyed.post("/v1/completions", body(300)).await;
    assert_eq!(response.status(), 200, "what the first did not use was given back");
    let again = keyed.post("/tokenize", json!({"prompt": "A"})).await;
    assert!(left(&again) >= 400 - 2 * usage && left(&again) < 400, "{} {usage}", left(&again));

    let mut whole = body(390);
    whole["n"] = json!(2);
    let (status, kind, code, message) = refusal(keyed.post("/v1/completions", whole).await).await;
    assert_eq!((status, &kind[..], &code[..]), (400, "invalid_request_error", "token_limit_exceeded"));
    assert!(message.contains("400 tokens a minute"), "{message}");

    let mut stream = body(350);
    stream["stop"] = Value::Null;
    stream["ignore_eos"] = json!(true);
    stream["stream"] = json!(true);
    let running = keyed.post("/v1/completions", stream).await;
    assert_eq!(running.status(), 200);
    let refused = keyed.post("/v1/completions", body(300)).await;
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert!(refused.headers().contains_key("retry-after-ms"));
    let (status, _, code, message) = refusal(refused).await;
    assert_eq!((status, &code[..]), (429, "rate_limit_exceeded"));
    assert!(message.contains("400 tokens a minute"), "{message}");
    assert_eq!(events(&running.text().await.unwrap()).last(), Some(&"[DONE]"));
}

#[tokio::test]
async fn an_answer_without_a_length_is_as_long_as_the_limit_allows() {
    let limits = Limits { tokens_per_minute: limit(40), ..Limits::default() };
    let keyed = Keyed::start(Rights::default(), limits).await;
    let chat = json!({"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": true});
    let response = keyed.post("/v1/chat/completions", chat.clone()).await;
    assert_eq!(response.status(), 200);
    let usage = response.json::<Value>().await.unwrap()["usage"].clone();
    assert_eq!(usage["total_tokens"], 40, "{usage}");
    // What a request names itself is not made smaller.
    let mut long = chat;
    long["max_tokens"] = json!(100);
    let refused = keyed.post("/v1/chat/completions", long).await.json::<Value>().await.unwrap();
    assert_eq!(refused["error"]["param"], "max_tokens", "{refused}");
    let input = keyed.post("/v1/embeddings", json!({"input": vec![200; 60]})).await.json::<Value>().await.unwrap();
    assert_eq!((&input["error"]["code"], &input["error"]["param"]), (&json!("token_limit_exceeded"), &json!("input")));
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place_among_the_concurrent() {
    let limits = Limits { concurrent: limit(1), tokens_per_minute: limit(1_000_000), ..Limits::default() };
    let keyed = Keyed::start(Rights::default(), limits).await;
    let mut body = keyed.app.endless();
    body["stream"] = json!(true);
    let mut stream = keyed.post("/v1/completions", body).await;
    assert_eq!(stream.status(), 200);
    assert!(stream.chunk().await.unwrap().is_some());
    let refused = keyed.complete(json!({})).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, kind, code, message) = refusal(refused).await;
    assert_eq!((status, &kind[..], &code[..]), (429, "rate_limit_error", "rate_limit_exceeded"));
    assert!(message.contains("1 requests running at once"), "{message}");
    drop(stream);
    let answered = async {
        while keyed.complete(json!({})).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("the place was not given back");
    let left = keyed.complete(json!({})).await.headers()["x-ratelimit-remaining-tokens"].to_str().unwrap().to_owned();
    assert!(left.parse::<u64>().unwrap() > 900_000, "the tokens were not given back: {left}");
}
