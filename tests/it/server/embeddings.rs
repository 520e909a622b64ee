//! `/v1/embeddings`.

use serde_json::{Value, json};

use crate::support::TestApp;

const PATH: &str = "/v1/embeddings";

fn vector(entry: &Value) -> Vec<f64> {
    entry["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn texts_and_their_tokens_have_the_same_unit_vectors() {
    let app = TestApp::start().await;
    let texts = ["The cat sat by the door.", "A cat sits near a door.", "31.12.1999"];
    let answer = app.ok(PATH, json!({"model": app.model(), "input": texts, "user": "u-1"})).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(app.model())));
    let data = answer["data"].as_array().unwrap();
    let own = app.app.checkpoint().config().hidden_size;
    let mut tokens = 0;
    for (index, (entry, text)) in data.iter().zip(texts).enumerate() {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
        let found = vector(entry);
        assert_eq!(found.len(), own);
        assert!((cosine(&found, &found) - 1.0).abs() < 1e-4);
        let alone = app.ok(PATH, json!({"input": text, "dimensions": own})).await;
        assert!(cosine(&found, &vector(&alone["data"][0])) > 0.9999);
        let ids = app.ok("/tokenize", json!({"prompt": text, "add_special_tokens": false})).await["tokens"].clone();
        let by_ids = app.ok(PATH, json!({"input": ids})).await;
        assert_eq!(by_ids["data"], alone["data"]);
        tokens += alone["usage"]["prompt_tokens"].as_u64().unwrap();
    }
    assert_eq!(
        (answer["usage"]["prompt_tokens"].as_u64(), &answer["usage"]["total_tokens"]),
        (Some(tokens), &json!(tokens))
    );
    let [cat, same, date] = [0, 1, 2].map(|index| vector(&data[index]));
    assert!(cosine(&cat, &same) > cosine(&cat, &date));
}

#[tokio::test]
async fn base64_is_the_bytes_of_the_numbers() {
    let app = TestApp::start().await;
    let floats = app.ok(PATH, json!({"input": "A bird", "encoding_format": "float"})).await;
    let text = app.ok(PATH, json!({"input": "A bird", "encoding_format": "base64"})).await;
    let bytes = data_encoding::BASE64.decode(text["data"][0]["embedding"].as_str().unwrap().as_bytes()).unwrap();
    let numbers: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let written = floats["data"][0]["embedding"].as_array().unwrap();
    let read: Vec<f32> = written.iter().map(|number| number.to_string().parse().unwrap()).collect();
    assert_eq!(numbers, read);
}

#[tokio::test]
async fn inputs_that_cannot_be_embedded_are_named() {
    let app = TestApp::start().await;
    let context = app.app.checkpoint().context_length();
    for (body, param, message) in [
        (json!({}), "input", "is missing"),
        (json!({"input": []}), "input", "empty"),
        (json!({"input": ""}), "input", "empty"),
        (json!({"input": ["a", ""]}), "input[1]", "empty"),
        (json!({"input": [[300], []]}), "input[1]", "empty"),
        (json!({"input": [4_000_000]}), "input", "outside the vocabulary"),
        (json!({"input": ["a", 1]}), "input[1]", "must be a string"),
        (json!({"input": vec!["a"; 2049]}), "input", "at most 2048"),
        (json!({"input": "a", "dimensions": 8}), "dimensions", "leave it out"),
        (json!({"input": "a", "encoding_format": "int8"}), "encoding_format", "\"float\""),
        (json!({"input": "a", "truncate": true}), "truncate", "unknown parameter"),
        (json!({"input": vec![300; context + 1]}), "input", "maximum context length"),
    ] {
        let response = app.post(PATH, body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["param"], param, "{error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
    }
    assert_eq!(app.post(PATH, json!({"input": "a", "model": "other"})).await.status(), 404);
}

#[tokio::test]
async fn an_encoder_answers_under_its_own_name() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/fixtures/encoder-bert");
    let app = TestApp::with().embeddings(folder.as_ref()).start().await;
    let models = app.get("/v1/models").await.json::<Value>().await.unwrap();
    let encoder = models["data"][1].clone();
    assert_eq!((&encoder["id"], &encoder["safelmm"]["kind"]), (&json!("encoder-bert"), &json!("encoder")));
    let texts = ["a cat", "a longer text about a cat", "a cat"];
    let answer = app.ok(PATH, json!({"input": texts, "model": "encoder-bert"})).await;
    assert_eq!(answer["model"], "encoder-bert");
    let [one, other, same] = [0, 1, 2].map(|index| vector(&answer["data"][index]));
    assert_eq!(json!(one.len()), encoder["safelmm"]["dimensions"]);
    assert!(one == same && one != other);
    // It is the one that is meant where no name is given; the model keeps its own.
    assert_eq!(app.ok(PATH, json!({"input": "a cat"})).await["model"], "encoder-bert");
    assert_eq!(app.ok(PATH, json!({"input": "a cat", "model": app.model()})).await["model"], app.model());
    for (input, param) in [(json!(""), "input"), (json!(["a", ""]), "input[1]"), (json!([4_000_000]), "input")] {
        let refused = app.post(PATH, json!({"input": input})).await;
        assert_eq!(refused.status(), 400, "{input}");
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], param);
    }
    let long = app.post(PATH, json!({"input": "cat ".repeat(5000)})).await;
    assert_eq!(long.json::<Value>().await.unwrap()["error"]["code"], "context_length_exceeded");
}
