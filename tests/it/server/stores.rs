//! Stores over HTTP: attached, obeyed, attributed, and left by documents.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::{Method, StatusCode};
use safelmm_datastore::Receipt;
use safelmm_server::keys::{self, Allowed, Limits, Rights, Use};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TestApp, events, until};

/// A server with an empty folder of stores.
struct Shelf {
    app: TestApp,
    folder: TempDir,
}

impl Shelf {
    async fn new() -> Shelf {
        let folder = tempfile::tempdir().unwrap();
        Shelf { app: TestApp::with().stores(folder.path()).start().await, folder }
    }

    async fn with(store: &str, documents: &[Value]) -> Shelf {
        let shelf = Shelf::new().await;
        shelf.fill(store, documents).await;
        shelf
    }

    async fn fill(&self, store: &str, documents: &[Value]) -> Value {
        self.app.ok("/v1/stores", json!({"name": store})).await;
        self.add(store, documents).await
    }

    async fn add(&self, store: &str, documents: &[Value]) -> Value {
        self.app.ok(&format!("/v1/stores/{store}/documents"), json!({"documents": documents})).await
    }

    async fn delete(&self, path: &str) -> (StatusCode, Value) {
        let response = self.app.client.delete(format!("{}{path}", self.app.base)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Status and body of a request, without what differs from answer to answer.
    async fn say(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self.app.post(path, body).await;
        let status = response.status();
        let mut answer: Value = response.json().await.unwrap();
        if let Some(fields) = answer.as_object_mut() {
            fields.retain(|name, _| name != "id" && name != "created");
        }
        (status, answer)
    }
}

fn document(id: &str, license: &str, rating: &str, text: &str) -> Value {
    json!({"id": id, "title": format!("On {id}"), "author": format!("author of {id}"), "license": license,
           "rating": rating, "text": text, "lang": "en"})
}

const LAMP: &str = "Every evening the keeper climbed the ninety-one steps of the tower with a can of oil and lit the \
                    great lamp, and every evening the boats came home before midnight.";
const BELL: &str = "When the tide is very low the children walk out with buckets and lanterns to look for the bell \
                    that fell from the ferry, and they ring it four times before they go home.";
const BAKER: &str = "The baker who could not count to twelve put thirteen rolls into every bag, and nobody in the town \
                     complained of it until the collector of taxes came.";
const KNOTS: &str = "A bowline makes a loop that does not slip, a clove hitch holds a rope to a post, and a sheet bend \
                     joins two ropes of different thickness.";

fn tales() -> Vec<Value> {
    vec![
        document("lamp", "CC-BY-NC-4.0", "G", LAMP),
        document("bell", "CC-BY-NC-SA-4.0", "PG", BELL),
        document("baker", "CC0-1.0", "G", BAKER),
        document("knots", "CC-BY-SA-4.0", "G", KNOTS),
    ]
}

/// A request that the stores have something to say to, with every probability in the answer.
fn ask(prompt: &str, safelmm: Value) -> Value {
    json!({"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 3, "seed": 5, "safelmm": safelmm})
}

fn non_commercial(mode: &str) -> Value {
    json!({"stores": ["tales"], "use": "non-commercial", "rating": "PG", "retrieval": {"mode": mode}})
}

const PROMPT: &str = "Every evening the keeper climbed the ninety-one steps of";

#[tokio::test]
async fn each_way_of_retrieval_informs_the_answer_and_names_its_documents() {
    let shelf = Shelf::with("tales", &tales()).await;
    let (_, plain) = shelf.say("/v1/completions", ask(PROMPT, json!({"rating": "PG"}))).await;
    for (mode, kind) in [("knn", "neighbour"), ("ngram", "ngram"), ("ric", "passage"), ("hybrid", "ngram")] {
        let mut fields = non_commercial(mode);
        if mode != "hybrid" && mode != "ric" {
            fields["retrieval"]["lambda"] = json!(0.9);
        }
        if mode == "knn" {
            fields["retrieval"]["temperature"] = json!(1.0);
        }
        let (status, answer) = shelf.say("/v1/completions", ask(PROMPT, fields)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_ne!(answer["choices"][0]["logprobs"], plain["choices"][0]["logprobs"], "{mode} changes nothing");
        let told = answer["safelmm"]["attributions"].as_array().unwrap();
        let lamp = told.iter().find(|a| a["kind"] == kind && a["document"] == "lamp");
        let lamp = lamp.unwrap_or_else(|| panic!("{mode}: {told:#?}"));
        assert_eq!((&lamp["license"], &lamp["title"]), (&json!("CC-BY-NC-4.0"), &json!("On lamp")));
        assert_eq!(lamp["obligations"], json!(["attribution", "non-commercial"]));
        assert_eq!((&lamp["language"], &lamp["rating"]), (&json!("en"), &json!("G")));
        let text: Vec<char> = answer["choices"][0]["text"].as_str().unwrap().chars().collect();
        for a in told {
            let (start, end) = (a["start"].as_u64().unwrap() as usize, a["end"].as_u64().unwrap() as usize);
            assert_eq!(a["text"].as_str().unwrap(), text[start..end].iter().collect::<String>(), "{mode}: {a}");
        }
        if mode == "ngram" || mode == "knn" {
            assert!(
                answer["choices"][0]["text"].as_str().unwrap().starts_with(" the tower with a can of oil"),
                "{answer}"
            );
            assert!(told.iter().any(|a| a["kind"] == "verbatim" && a["document"] == "lamp"), "{told:#?}");
        }
        let licenses: BTreeSet<&str> = answer["safelmm"]["stores"][0]["licenses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["license"].as_str().unwrap())
            .collect();
        assert_eq!(licenses.len(), 4);
    }
}

#[tokio::test]
async fn tokens_spans_and_none_are_three_grains_of_one_answer() {
    let shelf = Shelf::with("tales", &tales()).await;
    let mut answers = Vec::new();
    for grain in ["tokens", "spans", "none"] {
        let mut fields = non_commercial("ngram");
        fields["attribution"] = json!(grain);
        let (status, answer) = shelf.say("/v1/completions", ask(PROMPT, fields)).await;
        assert_eq!(status, StatusCode::OK);
        answers.push(answer);
    }
    assert!(answers.windows(2).all(|pair| pair[0]["choices"] == pair[1]["choices"]));
    let count = |i: usize| answers[i]["safelmm"]["attributions"].as_array().unwrap().len();
    assert!(count(0) > count(1) && count(1) > 0 && count(2) == 0);
}

#[tokio::test]
async fn a_stream_a_batch_and_a_scored_prompt_see_the_same_stores() {
    let shelf = Shelf::with("tales", &tales()).await;
    for mode in ["hybrid", "ric"] {
        let mut body = ask(PROMPT, non_commercial(mode));
        body["max_tokens"] = json!(40);
        body["temperature"] = json!(1.0);
        if mode == "ric" {
            body["safelmm"]["retrieval"]["stride"] = json!(8);
        }
        let (_, alone) = shelf.say("/v1/completions", body.clone()).await;
        let others = (0..6).map(|i| {
            let mut other = ask(BELL, non_commercial(["knn", "ric", "hybrid"][i % 3]));
            other["seed"] = json!(i);
            shelf.say("/v1/completions", other)
        });
        let (together, _) = futures::join!(shelf.say("/v1/completions", body.clone()), join_all(others));
        assert_eq!(alone, together.1, "{mode}");
        body["stream"] = json!(true);
        let stream = shelf.app.post("/v1/completions", body).await.text().await.unwrap();
        let chunks: Vec<Value> = events(&stream)
            .iter()
            .filter(|data| **data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(text, alone["choices"][0]["text"].as_str().unwrap(), "{mode}");
        assert_eq!(chunks.last().unwrap()["safelmm"]["attributions"], alone["safelmm"]["attributions"], "{mode}");

        // A prompt that is scored costs what it would have cost to write it.
        let score = |safelmm: Value| {
            let body = json!({"prompt": LAMP, "max_tokens": 0, "echo": true, "logprobs": 0, "safelmm": safelmm});
            shelf.say("/v1/completions", body)
        };
        let sum = |answer: &Value| -> f64 {
            let all = answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap();
            all.iter().filter_map(Value::as_f64).sum()
        };
        let mut fields = non_commercial(mode);
        if mode == "ric" {
            fields["retrieval"]["stride"] = json!(8);
        }
        let (with, without) = (score(fields).await.1, score(json!({"rating": "PG"})).await.1);
        assert!(mode == "ric" || sum(&with) > sum(&without) + 20.0, "{mode}: {} {}", sum(&with), sum(&without));
        assert_ne!(sum(&with), sum(&without));
    }
}

/// Whatever a store holds that a request may not use, its answer is the same to the last bit: random documents under random
/// licenses and ratings, in three worlds that differ in them alone; random requests.
#[tokio::test]
async fn nothing_that_a_request_may_not_use_changes_a_byte_of_its_answer() {
    let mut random = StdRng::seed_from_u64(11);
    let licenses = ["CC0-1.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "GPL-3.0-only", "LicenseRef-unknown"];
    let ratings = ["G", "PG", "R", "X"];
    let words: Vec<&str> = [LAMP, BELL, BAKER, KNOTS].iter().flat_map(|text| text.split(' ')).collect();
    let text = |random: &mut StdRng| -> String {
        (0..30).map(|_| *words.choose(random).unwrap()).collect::<Vec<_>>().join(" ")
    };
    let allowed = |document: &Value, declared: &str, ceiling: &str, attributed: bool| {
        let rank = |rating: &Value| ratings.iter().position(|r| rating == r).unwrap();
        let licensed = match document["license"].as_str().unwrap() {
            "CC0-1.0" | "CC-BY-SA-4.0" => true,
            "CC-BY-NC-4.0" => declared == "non-commercial",
            "GPL-3.0-only" => attributed,
            _ => false,
        };
        licensed
            && document["permissions"]["retrieve"] != json!(false)
            && rank(&document["rating"]) <= rank(&json!(ceiling))
    };
    for round in 0..3 {
        let documents: Vec<Value> = (0..24)
            .map(|i| {
                let (license, rating) = (licenses.choose(&mut random).unwrap(), ratings.choose(&mut random).unwrap());
                let mut document = document(&format!("d{i}"), license, rating, &text(&mut random));
                if random.random_bool(0.2) {
                    document["permissions"] = json!({"retrieve": false});
                }
                document
            })
            .collect();
        let declared = ["commercial", "non-commercial"][random.random_range(0..2)];
        let ceiling = ["G", "PG", "R"][random.random_range(0..3)];
        let grain = ["none", "spans", "tokens"][random.random_range(0..3)];
        let may = |document: &&Value| allowed(document, declared, ceiling, grain != "none");
        let own: Vec<Value> = documents.iter().filter(may).cloned().collect();
        let others: Vec<Value> = documents.iter().filter(|document| !may(document)).cloned().collect();
        let altered: Vec<Value> = others
            .iter()
            .map(|document| {
                let mut document = document.clone();
                document["text"] = json!(text(&mut random));
                document["title"] = json!("something else");
                document
            })
            .collect();
        // The same store with what the request may not use, without it, and with something else in its place; and beside
        // it a store of nothing else, which is there, not there, and another.
        let worlds = [Shelf::new().await, Shelf::new().await, Shelf::new().await];
        for (world, forbidden) in worlds.iter().zip([&others[..], &[], &altered[..]]) {
            let mixed: Vec<Value> = own.iter().chain(forbidden).cloned().collect();
            world.fill("mixed", &mixed).await;
            if !forbidden.is_empty() {
                world.fill("closed", forbidden).await;
            }
        }
        for i in 0..10 {
            let mode = ["knn", "ngram", "ric", "hybrid", "off"][random.random_range(0..5)];
            let stores = [json!(["mixed"]), json!(["mixed"]), json!(["closed"]), json!(["mixed", "closed"])];
            let prompt = text(&mut random);
            let fields = json!({"stores": stores[i % 4], "use": declared, "rating": ceiling, "attribution": grain,
                                "retrieval": {"mode": mode}, "exclude_documents": ["d1"]});
            let mut body = ask(&prompt, fields.clone());
            body["temperature"] = json!([0.0, 1.0][i % 2]);
            body["echo"] = json!(i % 3 == 0);
            let trace = json!({"text": text(&mut random), "stores": stores[i % 4], "use": declared, "rating": ceiling,
                               "min_tokens": 2});
            let search = json!({"query": prompt, "use": declared, "rating": ceiling});
            for (path, body) in
                [("/v1/completions", body), ("/v1/attributions", trace), ("/v1/stores/mixed/search", search)]
            {
                // These two name their sources, which opens texts that an answer without sources may not use.
                if path != "/v1/completions" && grain == "none" {
                    continue;
                }
                let mut answers = Vec::new();
                for world in &worlds {
                    answers.push(world.say(path, body.clone()).await);
                }
                assert_eq!(answers[0], answers[1], "round {round}, {path}: {body}");
                assert_eq!(answers[0], answers[2], "round {round}, {path}: {body}");
                let expected = if i % 4 < 2 || path.ends_with("search") { 200 } else { 404 };
                assert_eq!(answers[0].0, expected, "{path} {body}: {}", answers[0].1);
            }
        }
    }
}

#[tokio::test]
async fn a_document_left_out_is_as_if_the_store_had_never_held_it() {
    let (with, without) = (Shelf::with("tales", &tales()).await, Shelf::with("tales", &tales()[1..]).await);
    for mode in ["knn", "ngram", "ric", "hybrid"] {
        for prompt in [PROMPT, "When the tide is very low the children", "The baker who"] {
            let mut fields = non_commercial(mode);
            let expected = without.say("/v1/completions", ask(prompt, fields.clone())).await.1;
            fields["exclude_documents"] = json!(["lamp"]);
            let mut found = with.say("/v1/completions", ask(prompt, fields)).await.1;
            // What is there is told; what takes part is the same.
            found["safelmm"]["stores"] = expected["safelmm"]["stores"].clone();
            assert_eq!(found, expected, "{mode}, {prompt}");
        }
    }
}

#[tokio::test]
async fn a_removed_document_is_gone_from_every_path_before_the_call_returns_under_load() {
    let shelf = Shelf::with("tales", &tales()).await;
    let mut running = shelf.app.endless();
    running["stream"] = json!(true);
    running["safelmm"] = non_commercial("hybrid");
    running["safelmm"]["retrieval"]["passages"] = json!(1);
    let _load = shelf.app.post("/v1/completions", running).await;
    until(|| shelf.app.app.engine().running() > 0).await;
    let (status, receipt) = shelf.delete("/v1/stores/tales/documents/lamp").await;
    assert_eq!(status, StatusCode::OK, "{receipt}");
    let key = shelf.app.get("/v1/stores/tales").await.json::<Value>().await.unwrap();
    let receipt: Receipt = serde_json::from_value(receipt).unwrap();
    receipt.verify(key["public_key"].as_str().unwrap()).unwrap();
    assert_eq!(receipt.statement.documents.len(), 1);

    let without = Shelf::with("tales", &tales()[1..]).await;
    let compare = async || {
        for mode in ["knn", "ngram", "ric", "hybrid"] {
            let body = ask(PROMPT, non_commercial(mode));
            let (found, expected) =
                (shelf.say("/v1/completions", body.clone()).await, without.say("/v1/completions", body).await);
            assert_eq!(found, expected, "{mode}");
        }
        let search = json!({"query": "the keeper of the lamp", "use": "non-commercial", "ranking": "dense"});
        assert_eq!(
            shelf.say("/v1/stores/tales/search", search.clone()).await,
            without.say("/v1/stores/tales/search", search).await
        );
        let trace = json!({"text": LAMP, "stores": ["tales"], "use": "non-commercial", "min_tokens": 4});
        assert!(!shelf.say("/v1/attributions", trace).await.1.to_string().contains("On lamp"));
    };
    compare().await;
    assert!(bytes_stand_in(shelf.folder.path(), b"ninety-one steps"), "the bytes go with compaction");
    let compacted = shelf.app.ok("/v1/stores/tales/compact", json!({})).await;
    assert_eq!(compacted["erased"], 1);
    compare().await;
    assert!(!bytes_stand_in(shelf.folder.path(), b"ninety-one steps"));
    let (status, again) = shelf.delete("/v1/stores/tales/documents/lamp").await;
    assert_eq!((status, &again["error"]["code"]), (StatusCode::NOT_FOUND, &json!("document_not_found")));
    let (_, receipt) = shelf.delete("/v1/stores/tales/documents?author=author%20of%20baker").await;
    assert_eq!(receipt["statement"]["documents"].as_array().unwrap().len(), 1, "{receipt}");
    let (status, refused) = shelf.delete("/v1/stores/tales/documents").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
}

fn bytes_stand_in(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => bytes_stand_in(&path, bytes),
            false => fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes),
        }
    })
}

#[tokio::test]
async fn documents_come_in_once_and_change_and_survive_the_server() {
    let shelf = Shelf::with("tales", &tales()).await;
    assert_eq!(shelf.add("tales", &tales()).await["unchanged"], 4);
    let mut changed = tales()[0].clone();
    changed["text"] = json!("There is no lamp any more.");
    let answer = shelf.add("tales", &[changed]).await;
    assert_eq!((&answer["replaced"], &answer["added"]), (&json!(1), &json!(0)));
    let before = shelf.say("/v1/completions", ask(PROMPT, non_commercial("hybrid"))).await;
    let Shelf { app, folder } = shelf;
    app.ask_to_stop(safelmm_server::Stop::Gracefully);
    app.stopped().await;
    let again = Shelf { app: TestApp::with().stores(folder.path()).start().await, folder };
    assert_eq!(again.say("/v1/completions", ask(PROMPT, non_commercial("hybrid"))).await, before);
}

#[tokio::test]
async fn what_is_no_document_or_no_store_is_refused_by_its_name() {
    let shelf = Shelf::with("tales", &tales()).await;
    let good = tales()[0].clone();
    let mut other = good.clone();
    other["id"] = json!("other");
    let without = |name: &str| {
        let mut bad = other.clone();
        bad.as_object_mut().unwrap().remove(name);
        bad
    };
    let with = |name: &str, value: Value| {
        let mut bad = other.clone();
        bad[name] = value;
        bad
    };
    for (bad, param, words) in [
        (without("license"), "documents[1].license", "missing"),
        (without("text"), "documents[1].text", "missing"),
        (with("license", json!("all rights reserved")), "documents[1]", "SPDX"),
        (with("rating", json!("PG-13")), "documents[1].rating", "PG-13"),
        (with("text", json!("  ")), "documents[1]", "text"),
        (with("id", json!("")), "documents[1]", "id"),
        (good.clone(), "documents[1]", "the id of another one"),
        (with("author", json!("a".repeat(5000))), "documents[1]", "4 KiB"),
        (with("color", json!("red")), "documents[1].color", "color"),
    ] {
        let body = json!({"documents": [good, bad]});
        let (status, answer) = shelf.say("/v1/stores/tales/documents", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let error = &answer["error"];
        assert_eq!(error["param"], param, "{error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    }
    for (name, words) in [("tales", "exists already"), ("../out", "letters"), ("", "letters"), ("a/b", "letters")] {
        let (status, answer) = shelf.say("/v1/stores", json!({"name": name})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(words), "{answer}");
    }
    for (fields, param) in [
        (json!({"stores": ["tales", "tales"]}), "safelmm.stores"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "hybrid", "lambda": 0.5}}), "safelmm.retrieval.lambda"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "knn", "k": 0}}), "safelmm.retrieval.k"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "knn", "k": 1025}}), "safelmm.retrieval.k"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "knn", "lambda": 1.5}}), "safelmm.retrieval.lambda"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "knn", "temperature": 0}}), "safelmm.retrieval.temperature"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "ngram", "k": 3}}), "safelmm.retrieval.k"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "knn", "passages": 3}}), "safelmm.retrieval.passages"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "ric", "passages": 17}}), "safelmm.retrieval.passages"),
        (json!({"stores": ["tales"], "retrieval": {"mode": "hybrid", "stride": 4}}), "safelmm.retrieval.stride"),
    ] {
        let (status, answer) = shelf.say("/v1/completions", ask("A", fields)).await;
        assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(param)), "{answer}");
    }
}

#[tokio::test]
async fn passages_without_room_and_texts_without_end_are_refused() {
    let shelf = Shelf::with("tales", &tales()).await;
    let room = shelf.app.app.checkpoint().context_length() - 20;
    let mut body = ask("The keeper", non_commercial("ric"));
    body["max_tokens"] = json!(room);
    let (status, answer) = shelf.say("/v1/completions", body).await;
    assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("max_tokens")), "{answer}");
    let long = "the lamp ".repeat(40_000);
    for (path, body, param) in [
        ("/v1/attributions", json!({"text": long, "stores": ["tales"]}), "text"),
        ("/v1/stores/tales/search", json!({"query": long}), "query"),
    ] {
        let (status, answer) = shelf.say(path, body).await;
        assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(param)), "{answer}");
    }
}

#[tokio::test]
async fn keys_ask_their_stores_alone_and_change_none_unless_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let stores = folder.path().join("stores");
    let key =
        |name: &str, rights: Rights| keys::add(&file, name, rights, Limits::default(), None).unwrap().key.reveal();
    let both = vec![Use::Commercial, Use::NonCommercial];
    let manager =
        key("m", Rights { stores: Allowed::ALL, uses: both.clone(), manage_stores: true, ..Rights::default() });
    let commercial = key("c", Rights { stores: Allowed::ALL, ..Rights::default() });
    let reader = key("r", Rights { stores: Allowed::Only(vec!["tales".into()]), uses: both, ..Rights::default() });
    let app = TestApp::with().keys(&file).stores(&stores).start().await;
    let send = async |key: &str, method: Method, path: &str, body: Value| {
        let request = app.client.request(method, format!("{}{path}", app.base)).bearer_auth(key);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    for name in ["tales", "secret"] {
        assert_eq!(send(&manager, Method::POST, "/v1/stores", json!({"name": name})).await.0, 200);
        let path = format!("/v1/stores/{name}/documents");
        assert_eq!(send(&manager, Method::POST, &path, json!({"documents": tales()})).await.0, 200);
    }
    let (_, list) = send(&reader, Method::GET, "/v1/stores", json!({})).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    // A store is as large as what a key may use of it, unless the key may change it.
    for (key, documents) in [(&manager, 4), (&reader, 4), (&commercial, 2)] {
        let (_, tales) = send(key, Method::GET, "/v1/stores/tales", json!({})).await;
        assert_eq!(tales["documents"], documents, "{tales}");
        assert_eq!(tales.get("awaiting_erasure").is_some(), key == &manager, "{tales}");
    }
    for (path, method, status) in [
        ("/v1/stores/tales", Method::GET, 200),
        ("/v1/stores/secret", Method::GET, 404),
        ("/v1/stores/secret/search", Method::POST, 404),
        ("/v1/stores/tales/documents/lamp", Method::DELETE, 403),
        ("/v1/stores/tales/compact", Method::POST, 403),
        ("/v1/stores/secret/documents/lamp", Method::DELETE, 404),
    ] {
        let (found, answer) = send(&reader, method, path, json!({"query": "lamp"})).await;
        assert_eq!(found, status, "{path}: {answer}");
    }
    assert_eq!(send(&reader, Method::POST, "/v1/stores", json!({"name": "new"})).await.0, 403);
    let ask_for = |store: &str| ask("A", json!({"stores": [store], "use": "non-commercial"}));
    assert_eq!(send(&reader, Method::POST, "/v1/completions", ask_for("tales")).await.0, 200);
    let (secret, unknown) = (
        send(&reader, Method::POST, "/v1/completions", ask_for("secret")).await,
        send(&reader, Method::POST, "/v1/completions", ask_for("sesame")).await,
    );
    assert_eq!((secret.0, unknown.0), (404, 404));
    let told =
        |answer: &Value| answer["error"]["message"].as_str().unwrap().replace("secret", "_").replace("sesame", "_");
    assert_eq!(told(&secret.1), told(&unknown.1));
}

#[tokio::test]
async fn training_text_is_named_where_there_is_an_index_of_it() {
    let shelf = Shelf::with("index", &[document("trained", "CC0-1.0", "G", LAMP)]).await;
    let Shelf { app, folder } = shelf;
    app.ask_to_stop(safelmm_server::Stop::Gracefully);
    app.stopped().await;
    let app = TestApp::with().training_index(&folder.path().join("index")).start().await;
    let found = app.ok("/v1/attributions", json!({"text": LAMP})).await;
    assert_eq!((&found["data"][0]["store"], &found["data"][0]["document"]), (&json!("training"), &json!("trained")));
    let answer = app.ok("/v1/completions", ask(PROMPT, json!({"attribution": "spans"}))).await;
    assert_eq!(answer["safelmm"]["stores"], json!([]));
}
