//! Plugins in the running server, seen from outside: components made for each test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use safelmm_plugins::Hook;
use safelmm_plugins::host::{Limits, OnError};
use safelmm_server::config::{PluginConfig, PolicyConfig, Source};
use safelmm_server::{App, Config, StartError};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guests::{ADJUST, Guest, INSPECT, PASSAGES, REVIEW, SCREEN};
use crate::support::{TestApp, events};

const SECRET: &str = "my secret is 42";

/// Components in a folder, and their configuration.
struct Plugins {
    folder: TempDir,
    config: PolicyConfig,
}

impl Plugins {
    fn new() -> Plugins {
        let mut config = PolicyConfig::default();
        config.sandbox.limits.instances = 32;
        config.sandbox.watch_s = 0;
        Plugins { folder: tempfile::tempdir().unwrap(), config }
    }

    fn add(self, name: &str, guest: Guest) -> Plugins {
        self.add_with(name, guest, |_| {})
    }

    fn add_with(mut self, name: &str, guest: Guest, change: impl FnOnce(&mut PluginConfig)) -> Plugins {
        let path = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&path, guest.build()).unwrap();
        let mut plugin = PluginConfig::new(name, Source::File(path));
        change(&mut plugin);
        self.config.plugins.push(plugin);
        self
    }

    async fn start(&self) -> TestApp {
        let config = self.config.clone();
        TestApp::with().policy(move |policy| *policy = config).start().await
    }
}

/// Refuses every prompt, for a reason.
fn denies() -> Guest {
    let mut guest = Guest::new(&[SCREEN]);
    let findings = guest.finding("test", 0.75, None);
    guest.screen = guest.deny(findings);
    guest
}

fn rewrites(text: &str) -> Guest {
    let mut guest = Guest::new(&[SCREEN]);
    guest.screen = guest.rewrite(text);
    guest
}

/// Ends or changes an answer that says `secret`; holds back what may begin it.
fn keeps_quiet(hook: u8, by: Option<&str>) -> Guest {
    let mut guest = Guest::new(&[hook]);
    guest.fields = "(global $i (mut i32) (i32.const 0)) (global $len (mut i32) (i32.const 0))
                    (global $text (mut i32) (i32.const 0))"
        .to_owned();
    let (found, text, len) = match hook {
        INSPECT => {
            let found = match by {
                Some(by) => guest.replace(by, 0),
                None => guest.stop("[hush]"),
            };
            (found, "(local.get $text)".to_owned(), "(local.get $len)".to_owned())
        }
        _ => {
            let findings = guest.finding("test", 1.0, None);
            let found = match by {
                Some(by) => guest.rewrite(by),
                None => guest.deny(findings),
            };
            let asked = |offset: u32| format!("(i32.load offset={offset} (local.get $asked))");
            (found, asked(64), asked(68))
        }
    };
    let search = format!(
        "(global.set $text {text}) (global.set $len {len}) (global.set $i (i32.const 0))
         (block $none (loop $next
           (br_if $none (i32.gt_s (i32.add (global.get $i) (i32.const 6)) (global.get $len)))
           (if (i32.and
                 (i32.eq (i32.load align=1 (i32.add (global.get $text) (global.get $i))) (i32.const 0x72636573))
                 (i32.eq (i32.load16_u offset=4 align=1 (i32.add (global.get $text) (global.get $i))) (i32.const 0x7465)))
             (then (return ({found}))))
           (global.set $i (i32.add (global.get $i) (i32.const 1)))
           (br $next)))"
    );
    if hook == INSPECT {
        let pass = guest.words(&[0]);
        let hold = guest.words(&[1, 0]);
        guest.inspect = format!(
            "{search}
             (if (local.get $last) (then (return (i32.const {pass}))))
             (i32.store (i32.const {hold_bytes})
               (select (global.get $len) (i32.const 5) (i32.lt_u (global.get $len) (i32.const 5))))
             i32.const {hold}",
            hold_bytes = hold + 4,
        );
    } else if hook == SCREEN {
        guest.screen = format!("{search} {}", guest.screen);
    } else {
        guest.review = format!("{search} {}", guest.review);
    }
    guest
}

/// A chat whose answer must say the secret, by its form.
fn confession(stream: bool) -> Value {
    let schema = json!({"type": "object", "properties": {"k": {"const": SECRET}}, "required": ["k"], "additionalProperties": false});
    json!({"messages": [{"role": "user", "content": "Tell me"}], "stream": stream, "max_tokens": 60, "temperature": 0,
           "response_format": {"type": "json_schema", "json_schema": {"name": "k", "schema": schema}}})
}

/// All that a server sends for a request, read from the socket as it comes.
fn raw(app: &TestApp, path: &str, body: &Value) -> String {
    let mut socket = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 7]);
    loop {
        match socket.read(&mut buffer).unwrap() {
            0 => return String::from_utf8(all).unwrap(),
            n => all.extend(&buffer[..n]),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_the_model_must_say_never_reaches_the_socket() {
    let plain = TestApp::start().await;
    let said = plain.ok("/v1/chat/completions", confession(false)).await;
    assert!(said["choices"][0]["message"]["content"].as_str().unwrap().contains(SECRET), "{said}");

    let app = Plugins::new().add("quiet", keeps_quiet(INSPECT, None)).start().await;
    for (stream, logprobs) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut body = confession(stream);
        if logprobs {
            (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(3));
        }
        let answer = tokio::task::block_in_place(|| raw(&app, "/v1/chat/completions", &body));
        assert!(answer.contains("200 OK") && answer.contains("content_filter"), "{answer}");
        assert!(!answer.contains("secre") && !answer.contains("is 42"), "{answer}");
        assert!(answer.contains("\"hook\":\"inspect-stream\",\"verdict\":\"deny\",\"category\":\"test\""), "{answer}");
        // No token tells it, by its text or by its bytes.
        assert!(!answer.contains("\"bytes\""), "{answer}");
    }
    let whole = app.ok("/v1/chat/completions", confession(false)).await;
    let content = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(content.ends_with("[hush]") && content.contains("\"k\""), "{content}");
    assert_eq!(whole["choices"][0]["finish_reason"], "content_filter");
    let stream = app.post("/v1/chat/completions", confession(true)).await.text().await.unwrap();
    let frames: Vec<Value> = events(&stream)
        .iter()
        .filter(|data| **data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let told: String = frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(told, content, "a stream says what a whole answer says");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bundled_pii_policy_masks_what_the_model_must_say() {
    let mut plugins = Plugins::new();
    plugins.config.plugins.push(PluginConfig::new("pii", Source::Bundled("pii".into())));
    let app = plugins.start().await;
    for (said, secret) in [
        ("write to jane.doe@example.org today", "jane.doe@"),
        ("pay to DE89 3704 0044 0532 0130 00 now", "0044 0532"),
        ("the card is 4111 1111 1111 1111, yes", "1111 1111"),
    ] {
        let mut body = confession(true);
        let schema = &mut body["response_format"]["json_schema"]["schema"];
        schema["properties"]["k"] = json!({"const": said});
        body["max_tokens"] = json!(120);
        for stream in [true, false] {
            body["stream"] = json!(stream);
            let answer = tokio::task::block_in_place(|| raw(&app, "/v1/chat/completions", &body));
            assert!(answer.contains("\"hook\":\"inspect-stream\",\"verdict\":\"rewrite\""), "{answer}");
            let told: String = answer
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ").unwrap_or(line)).ok())
                .filter_map(|event| {
                    let choice = &event["choices"][0];
                    choice["delta"]["content"].as_str().or(choice["message"]["content"].as_str()).map(str::to_owned)
                })
                .collect();
            assert!(told.contains("\"k\"") && !told.contains(secret), "{told}");
        }
    }
}

#[tokio::test]
async fn replaced_text_has_no_log_probabilities_and_unchanged_text_has_all_of_them() {
    let app = Plugins::new().add("quiet", keeps_quiet(INSPECT, Some("[hush]"))).start().await;
    let mut body = confession(false);
    body["logprobs"] = json!(true);
    let answer = app.ok("/v1/chat/completions", body).await;
    let choice = &answer["choices"][0];
    assert!(!choice["message"]["content"].as_str().unwrap().contains("secret"), "{answer}");
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("stop"), &Value::Null), "{answer}");
    let entry =
        json!({"plugin": "quiet", "hook": "inspect-stream", "verdict": "rewrite", "category": "test", "score": 1.0});
    assert_eq!(answer["safelmm"]["policy"], json!([entry]));

    let plain = TestApp::start().await;
    for (path, ask) in [
        ("/v1/completions", json!({"prompt": "The", "max_tokens": 8, "logprobs": 2, "echo": true, "seed": 3})),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "logprobs": true, "seed": 3}),
        ),
    ] {
        let (one, other) = (app.ok(path, ask.clone()).await, plain.ok(path, ask).await);
        assert_eq!(one["choices"], other["choices"], "{path}: a policy that changes nothing changes nothing");
    }
}

#[tokio::test]
async fn a_denied_answer_is_empty_and_its_stream_waits_for_the_review() {
    let app = Plugins::new().add("reader", keeps_quiet(REVIEW, None)).start().await;
    let answer = app.ok("/v1/chat/completions", confession(false)).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("content_filter"), &json!("")));
    assert_eq!(answer["safelmm"]["policy"][0]["hook"], "review-response");
    let stream = app.post("/v1/chat/completions", confession(true)).await.text().await.unwrap();
    assert!(!stream.contains("secret") && !stream.contains("\\\"k"), "{stream}");
    assert!(stream.contains("content_filter") && stream.ends_with("data: [DONE]\n\n"));
    // Several choices, of which all are reviewed.
    let body = json!({"prompt": "Once", "max_tokens": 4, "n": 3, "seed": 1});
    let (one, other) =
        (app.ok("/v1/completions", body.clone()).await, TestApp::start().await.ok("/v1/completions", body).await);
    assert_eq!(one["choices"], other["choices"]);
}

#[tokio::test]
async fn a_denied_prompt_is_a_400_with_the_reason() {
    let app = Plugins::new().add("strict", denies()).start().await;
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "x", "max_tokens": 1})),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}]})),
        ("/v1/embeddings", json!({"input": "x"})),
    ] {
        let refused = app.post(path, body).await;
        assert_eq!(refused.status(), 400, "{path}");
        let error = refused.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["code"], "content_policy_violation");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("'strict'") && message.contains("because"), "{message}");
    }
}

#[tokio::test]
async fn the_model_sees_the_rewritten_prompt_and_nothing_else() {
    let app = Plugins::new().add("mask", rewrites("Hello")).start().await;
    let plain = TestApp::start().await;
    let ask = |prompt: Value| json!({"prompt": prompt, "max_tokens": 6, "temperature": 0, "echo": true, "logprobs": 1});
    let expected = plain.ok("/v1/completions", ask(json!("Hello"))).await;
    let ids = plain.ok("/tokenize", json!({"prompt": "my password"})).await["tokens"].clone();
    for prompt in [json!("my password is long"), ids] {
        let answer = app.ok("/v1/completions", ask(prompt)).await;
        assert_eq!((&answer["choices"], &answer["usage"]), (&expected["choices"], &expected["usage"]));
        assert_eq!(answer["safelmm"]["policy"][0]["verdict"], "rewrite");
    }
    let embed = |text: &str| json!({"input": text});
    let (one, other) =
        (app.ok("/v1/embeddings", embed("secret")).await, plain.ok("/v1/embeddings", embed("Hello")).await);
    assert_eq!(one["data"], other["data"]);
}

#[tokio::test]
async fn logits_are_adjusted_behind_the_grammar_and_before_the_penalties() {
    let plain = TestApp::start().await;
    let token = plain.ok("/tokenize", json!({"prompt": "a", "add_special_tokens": false})).await["tokens"][0].clone();
    let mut guest = Guest::new(&[ADJUST]);
    guest.adjust = guest.biases(&[token.as_u64().unwrap() as u32], &[1000.0]);
    let app = Plugins::new().add("a", guest).start().await;
    let ask = |more: Value| {
        let mut body = json!({"prompt": "The", "max_tokens": 4, "temperature": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(app.text(ask(json!({}))).await, "aaaa");
    // The request's own bias comes behind it, and a policy that forbids is stronger than any.
    let outbid = json!({"logit_bias": {token.to_string(): -100}});
    assert_eq!(app.text(ask(outbid)).await, "aaaa");
    let mut guest = Guest::new(&[ADJUST]);
    guest.adjust = guest.biases(&[token.as_u64().unwrap() as u32], &[f32::NEG_INFINITY]);
    let forbids = Plugins::new().add("no-a", guest).start().await;
    let wanted = json!({"logit_bias": {token.to_string(): 100}});
    assert!(!forbids.text(ask(wanted)).await.contains("aa"));
}

#[tokio::test]
async fn a_policy_that_fails_at_the_logits_ends_the_answer_or_lets_it_be() {
    let broken = || {
        let mut guest = Guest::new(&[ADJUST]);
        guest.adjust = "unreachable".to_owned();
        guest
    };
    let body = json!({"prompt": "The", "max_tokens": 4, "temperature": 0});
    let plain = TestApp::start().await.text(body.clone()).await;
    let app = Plugins::new().add("broken", broken()).start().await;
    let answer = app.ok("/v1/completions", body.clone()).await;
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["choices"][0]["text"]),
        (&json!("content_filter"), &json!(""))
    );
    assert_eq!(answer["safelmm"]["policy"][0]["category"], "policy-failure");
    let allowing = Plugins::new().add_with("broken", broken(), |plugin| plugin.on_error = OnError::Allow).start().await;
    assert_eq!(allowing.text(body).await, plain);
}

#[tokio::test]
async fn passages_that_a_policy_refuses_or_changes_do_not_stand_in_the_context() {
    let document = json!({"id": "lamp", "title": "T", "author": "A", "license": "CC0-1.0", "rating": "G", "lang": "en",
                          "text": "Every evening the keeper climbed the ninety-one steps of the tower with a can of oil."});
    let ask = json!({"prompt": "The keeper climbed the steps", "max_tokens": 6, "temperature": 0, "logprobs": 1,
                     "safelmm": {"stores": ["tales"], "retrieval": {"mode": "ric"}}});
    let run = async |guest: Option<Guest>| {
        let stores = tempfile::tempdir().unwrap();
        let mut plugins = Plugins::new();
        if let Some(guest) = guest {
            plugins = plugins.add("filter", guest);
        }
        let config = plugins.config.clone();
        let app = TestApp::with().stores(stores.path()).policy(move |policy| *policy = config).start().await;
        app.ok("/v1/stores", json!({"name": "tales"})).await;
        app.ok("/v1/stores/tales/documents", json!({"documents": [document]})).await;
        app.ok("/v1/completions", ask.clone()).await
    };
    let kinds = |answer: &Value| {
        let told = answer["safelmm"]["attributions"].as_array().unwrap().clone();
        told.iter().filter(|a| a["kind"] == "passage").count()
    };
    let plain = run(None).await;
    assert!(kinds(&plain) > 0, "{plain}");
    let allowed = run(Some(passages(|_| vec![0, 0, 0, 0, 0]))).await;
    assert_eq!(allowed["choices"], plain["choices"]);
    let denied = run(Some(passages(|guest| {
        let findings = guest.finding("test", 1.0, None);
        vec![3, findings[0], findings[1], 0, 0]
    })))
    .await;
    assert_eq!(kinds(&denied), 0, "{denied}");
    assert_ne!(denied["choices"], plain["choices"]);
    assert_eq!(denied["safelmm"]["policy"][0]["hook"], "filter-passages");
    let changed = run(Some(passages(|guest| {
        let text = guest.string("A quite different text about the sea and its fishes.");
        vec![2, text[0], text[1], 0, 0]
    })))
    .await;
    assert!(kinds(&changed) > 0);
    assert_ne!(changed["choices"], plain["choices"]);
    assert_ne!(changed["choices"], denied["choices"]);
}

/// One verdict for one passage.
fn passages(verdict: impl FnOnce(&mut Guest) -> Vec<u32>) -> Guest {
    let mut guest = Guest::new(&[PASSAGES]);
    let words = verdict(&mut guest);
    let at = guest.words(&words);
    guest.passages = format!("i32.const {}", guest.words(&[at, 1]));
    guest
}

#[tokio::test]
async fn moderations_tell_what_the_policies_find() {
    let mut guest = Guest::new(&[SCREEN]);
    guest.categories = vec!["test", "violence"];
    let findings = guest.finding("violence", 0.25, None);
    let deny = guest.deny(findings);
    // Texts of more than three bytes.
    guest.screen = format!(
        "(if (i32.gt_u (i32.load offset=68 (local.get $asked)) (i32.const 3)) (then (return ({deny})))) {}",
        guest.screen
    );
    let app = Plugins::new().add("judge", guest).start().await;
    for model in [json!(null), json!("omni-moderation-latest"), json!("safelmm-policies")] {
        let answer = app.ok("/v1/moderations", json!({"input": ["mild", "ok"], "model": model})).await;
        let [one, other] = &answer["results"].as_array().unwrap()[..] else { panic!("{answer}") };
        assert_eq!((&one["flagged"], &other["flagged"]), (&json!(true), &json!(false)));
        assert_eq!((&one["categories"]["violence"], &one["category_scores"]["violence"]), (&json!(true), &json!(0.25)));
        assert_eq!(one["category_applied_input_types"]["violence"], json!(["text"]));
        assert_eq!((&other["categories"]["violence"], &one["categories"]["hate"]), (&json!(false), &json!(false)));
        assert_eq!(one["categories"]["prompt-injection"], false);
    }
    let part = json!([{"type": "text", "text": "mi"}, {"type": "text", "text": "ld"}]);
    assert_eq!(app.ok("/v1/moderations", json!({"input": part})).await["results"].as_array().unwrap().len(), 1);
    for (body, code) in [
        (json!({"input": []}), 400),
        (json!({"input": 1}), 400),
        (json!({}), 400),
        (json!({"input": "x", "model": "other"}), 404),
    ] {
        assert_eq!(app.post("/v1/moderations", body.clone()).await.status(), code, "{body}");
    }
}

/// [`confession`], moderated with these modes for the conversation and the answer.
fn moderated(stream: bool, said: &str, input: &str, output: &str) -> Value {
    let mut body = confession(stream);
    body["messages"][0]["content"] = json!(said);
    let policy = json!({"input": {"mode": input}, "output": {"mode": output}});
    body["moderation"] = json!({"model": "omni-moderation-latest", "policy": policy});
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_are_moderated_where_their_clients_ask() {
    let app = Plugins::new().add("quiet", keeps_quiet(SCREEN, Some("hush"))).start().await;
    let chat = "/v1/chat/completions";
    let flags = |moderation: &Value, side: &str| -> Vec<bool> {
        let side = &moderation[side];
        assert_eq!((&side["type"], &side["model"]), (&json!("moderation_results"), &json!("safelmm-policies")));
        let results = side["results"].as_array().unwrap().iter();
        results
            .map(|result| {
                assert_eq!(result["type"], "moderation_result");
                assert_eq!(result["categories"]["test"], result["flagged"], "{result}");
                assert_eq!(result["category_scores"]["hate"], 0.0);
                result["flagged"].as_bool().unwrap()
            })
            .collect()
    };

    assert_eq!(app.ok(chat, confession(false)).await.get("moderation"), None, "nobody asked");
    let mut twice = moderated(false, "Tell me", "score", "score");
    twice["n"] = json!(2);
    let answer = app.ok(chat, twice).await;
    assert_eq!(flags(&answer["moderation"], "input"), [false]);
    assert_eq!(flags(&answer["moderation"], "output"), [true, true]);
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains(SECRET), "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    // A policy that rewrites lets the conversation in, and still finds something in it.
    let mut by_default = moderated(false, "my secret", "score", "score");
    by_default["moderation"] = json!({"model": "safelmm-policies"});
    let answer = app.ok(chat, by_default).await;
    assert_eq!(flags(&answer["moderation"], "input"), [true]);
    let refused = app.post(chat, moderated(false, "my secret", "block", "score")).await;
    assert_eq!(refused.status(), 400);
    let error = refused.json::<Value>().await.unwrap();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["param"]),
        (&json!("content_policy_violation"), &json!("messages"))
    );

    let answer = app.ok(chat, moderated(false, "Tell me", "block", "block")).await;
    assert_eq!(flags(&answer["moderation"], "output"), [true]);
    let choice = &answer["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(""), &json!("content_filter")));

    for (body, status, named) in [
        (json!({"model": "other"}), 404, "other"),
        (json!({}), 400, "moderation.model"),
        (
            json!({"model": "safelmm-policies", "policy": {"input": {"mode": "ask"}}}),
            400,
            "moderation.policy.input.mode",
        ),
        (json!({"model": "safelmm-policies", "policy": {"both": null}}), 400, "moderation.policy.both"),
    ] {
        let mut request = confession(false);
        request["moderation"] = body.clone();
        let refused = app.post(chat, request).await;
        assert_eq!(refused.status(), status, "{body}");
        assert!(refused.text().await.unwrap().contains(named), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_moderated_and_nothing_flagged_leaves_where_it_is_blocked() {
    let app = Plugins::new().add("quiet", keeps_quiet(SCREEN, Some("hush"))).start().await;
    for (mode, finish, is_sent) in [("score", "stop", true), ("block", "content_filter", false)] {
        let mut body = moderated(true, "Tell me", "score", mode);
        body["stream_options"] = json!({"include_usage": true});
        (body["logprobs"], body["top_logprobs"]) = (json!(true), json!(2));
        let sent = raw(&app, "/v1/chat/completions", &body);
        assert_eq!(sent.contains("secret"), is_sent, "{sent}");
        let chunks: Vec<Value> =
            sent.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        let [.., last, moderation, usage] = &chunks[..] else { panic!("{sent}") };
        assert_eq!(last["choices"][0]["finish_reason"], finish);
        assert_eq!((&moderation["choices"], &moderation["usage"]), (&json!([]), &Value::Null));
        assert_eq!(moderation["moderation"]["output"]["results"][0]["flagged"], true);
        assert_eq!(moderation["moderation"]["input"]["results"][0]["flagged"], false);
        assert!(usage["usage"]["completion_tokens"].as_u64().unwrap() > 0 && usage.get("moderation").is_none());
        assert!(sent.contains("data: [DONE]"), "{sent}");
    }
}

#[tokio::test]
async fn plugins_are_listed_and_counted() {
    let app = Plugins::new().add("strict", denies()).start().await;
    let listed = app.get("/v1/plugins").await.json::<Value>().await.unwrap();
    let data = listed["data"].as_array().unwrap();
    assert_eq!(
        data.iter().map(|plugin| plugin["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["control-tokens", "strict"]
    );
    let plugin = &data[1];
    assert_eq!(
        (&plugin["policy"], &plugin["version"], &plugin["state"]),
        (&json!("guest"), &json!("1.2.3"), &json!("running"))
    );
    assert_eq!((&plugin["hooks"], &plugin["categories"]), (&json!(["screen-prompt"]), &json!(["test"])));
    assert!(plugin["digest"].as_str().unwrap().starts_with("sha256:") && plugin["source"] == "file");
    app.post("/v1/completions", json!({"prompt": "x", "max_tokens": 1})).await;
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for line in [
        "safelmm_policy_calls_total{plugin=\"strict\",hook=\"screen-prompt\",outcome=\"deny\"} 1",
        "safelmm_policy_call_seconds_count{plugin=\"strict\",hook=\"screen-prompt\"} 1",
        "safelmm_policy_fuel_total{plugin=\"strict\",hook=\"screen-prompt\"} ",
    ] {
        assert!(metrics.contains(line), "no {line} in:\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_while_a_plugin_hangs() {
    let mut guest = Guest::new(&[SCREEN]);
    guest.screen = "(loop (br 0)) unreachable".to_owned();
    let plugins = Plugins::new().add_with("hangs", guest, |plugin| {
        // Seconds of work for each call.
        plugin.limits = Limits { fuel: 2_000_000_000, deadline: Duration::from_secs(1), ..plugin.limits };
    });
    let mut plugins = plugins;
    plugins.config.routes.insert("/v1/embeddings".to_owned(), Default::default());
    let app = plugins.start().await;
    let hanging = {
        let (client, url) = (app.client.clone(), format!("{}/v1/completions", app.base));
        tokio::spawn(
            async move { client.post(url).json(&json!({"prompt": "x", "max_tokens": 1})).send().await.unwrap() },
        )
    };
    let begun = Instant::now();
    let mut answered = 0;
    while !hanging.is_finished() {
        assert_eq!(app.get("/health").await.status(), 200);
        app.ok("/v1/embeddings", json!({"input": "x"})).await;
        answered += 1;
        assert!(begun.elapsed() < Duration::from_secs(25));
    }
    assert!(answered >= 2, "only {answered} were answered");
    let refused = hanging.await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("policy-failure"));
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("safelmm_policy_failures_total{plugin=\"hangs\""), "{metrics}");
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
    let plugins = Plugins::new().add("p", rewrites("one"));
    let app = plugins.start().await;
    let file = plugins.folder.path().join("p.wasm");
    let version = async |app: &TestApp| {
        let listed = app.get("/v1/plugins").await.json::<Value>().await.unwrap();
        let plugin = listed["data"][1].clone();
        (plugin["version"].as_str().unwrap().to_owned(), plugin["state"].as_str().unwrap().to_owned())
    };
    let echo = async |app: &TestApp| app.text(json!({"prompt": "x", "max_tokens": 0, "echo": true})).await;
    assert_eq!((version(&app).await, &echo(&app).await[..]), (("1.2.3".into(), "running".into()), "one"));
    // Something that runs meanwhile goes on with what it met.
    let old = app.app.policies().pipeline();
    write(&file, &rewrites("two").version("2.0.0").build());
    app.app.policies().refresh(false);
    assert_eq!((version(&app).await, &echo(&app).await[..]), (("2.0.0".into(), "running".into()), "two"));
    assert_eq!(old.policies().last().unwrap().about().version, "1.2.3");
    for bad in [&b"no component"[..], &denies().build()[..100]] {
        write(&file, bad);
        app.app.policies().refresh(false);
        assert_eq!((version(&app).await, &echo(&app).await[..]), (("2.0.0".into(), "outdated".into()), "two"));
    }
    std::fs::remove_file(&file).unwrap();
    app.app.policies().refresh(false);
    assert_eq!(echo(&app).await, "two");
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("safelmm_policy_reloads_total{plugin=\"p\",outcome=\"refused\"} 3"), "{metrics}");
    write(&file, &rewrites("three").version("3.0.0").build());
    app.app.policies().refresh(false);
    assert_eq!((version(&app).await, &echo(&app).await[..]), (("3.0.0".into(), "running".into()), "three"));
}

/// Another file in the place of one, with another size or time.
fn write(file: &Path, bytes: &[u8]) {
    std::fs::write(file, bytes).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(bytes.len() as u64);
    std::fs::File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
}

#[tokio::test]
async fn a_server_does_not_start_with_a_plugin_that_is_of_no_use() {
    let start = |plugins: Plugins| {
        let config = Config { policy: plugins.config.clone(), ..Config::default() };
        match App::start(std::sync::Arc::new(safelmm_server::demo::open().unwrap()), &config) {
            Err(error @ StartError::Policies(_)) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it started"),
        }
    };
    let with_settings = |settings: Value| {
        let mut guest = Guest::new(&[SCREEN]);
        guest.schema = r#"{"type": "object", "properties": {"words": {"items": {"type": "string"}}}}"#;
        Plugins::new().add_with("words", guest, |plugin| plugin.settings = settings)
    };
    let error = start(with_settings(json!({"words": ["a", 2]})));
    assert!(error.contains("\"words\"") && error.contains("/words/1: "), "{error}");
    let mut plugins = Plugins::new();
    plugins.config.plugins.push(PluginConfig::new("gone", Source::File("/none.wasm".into())));
    assert!(start(plugins).contains("/none.wasm"));
    let mut plugins = Plugins::new();
    plugins.config.plugins.push(PluginConfig::new("gone", Source::Bundled("nothing".into())));
    assert!(start(plugins).contains("bundled plugin \"nothing\""));
    let hooks = Plugins::new().add_with("p", denies(), |plugin| plugin.hooks = Some(vec![Hook::ReviewResponse]));
    assert!(start(hooks).contains("review-response"));
}
