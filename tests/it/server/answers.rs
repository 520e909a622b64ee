//! Complete answers: completions and chat.

use safelmm_model::Rating;
use serde_json::{Value, json};

use crate::support::{TestApp, bare_checkpoint};

const PROMPT: &str = "Once upon a time";

#[tokio::test]
async fn a_completion_has_the_fields_of_the_openai_api_and_ours() {
    let app = TestApp::start().await;
    let body = json!({"model": app.model(), "prompt": PROMPT, "max_tokens": 5, "ignore_eos": true, "user": "u-1",
                      "safelmm": {"rating": "PG", "guidance": 1.5, "use": "non-commercial"}});
    let answer = app.ok("/v1/completions", body).await;
    let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["id", "object", "created", "model", "choices", "usage", "safelmm"]);
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("text_completion"), &json!(app.model())));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["index"], &choice["logprobs"], &choice["finish_reason"]),
        (&json!(0), &Value::Null, &json!("length"))
    );
    let usage = &answer["usage"];
    let prompt_tokens =
        app.ok("/tokenize", json!({"prompt": PROMPT, "add_special_tokens": false})).await["count"].as_u64();
    // The rating token stands before the prompt.
    assert_eq!(usage["prompt_tokens"].as_u64(), prompt_tokens.map(|count| count + 1));
    assert_eq!(usage["completion_tokens"], 5);
    assert_eq!(usage["total_tokens"].as_u64(), prompt_tokens.map(|count| count + 6));
    assert_eq!(
        answer["safelmm"],
        json!({"rating": "PG", "guidance": 1.5, "use": "non-commercial", "stores": [], "attributions": [], "policy": []})
    );
}

#[tokio::test]
async fn defaults_are_sixteen_tokens_and_commercial_use() {
    let app = TestApp::with().rating_ceiling(Rating::PG).start().await;
    let answer = app.ok("/v1/completions", json!({"prompt": PROMPT, "ignore_eos": true})).await;
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    assert_eq!((&answer["safelmm"]["rating"], &answer["safelmm"]["use"]), (&json!("PG"), &json!("commercial")));
}

#[tokio::test]
async fn every_prompt_form_says_the_same() {
    let app = TestApp::start().await;
    let ids = app.ok("/tokenize", json!({"prompt": PROMPT, "add_special_tokens": false})).await["tokens"].clone();
    let mut texts = Vec::new();
    for prompt in [json!(PROMPT), json!([PROMPT]), ids.clone(), json!([ids])] {
        texts.push(app.text(json!({"prompt": prompt, "temperature": 0, "max_tokens": 12})).await);
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test]
async fn choices_come_prompt_by_prompt_and_each_can_be_made_again_alone() {
    let app = TestApp::start().await;
    let body = |prompt: Value, n: usize, seed: i64| json!({"prompt": prompt, "n": n, "seed": seed, "max_tokens": 8, "ignore_eos": true});
    let prompts = ["The cat", "In the garden"];
    let answer = app.ok("/v1/completions", body(json!(prompts), 3, 40)).await;
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 6);
    for (position, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], position);
        let alone = app.text(body(json!(prompts[position / 3]), 1, 40 + (position % 3) as i64)).await;
        assert_eq!(choice["text"], alone, "choice {position}");
    }
    let one = app.ok("/v1/completions", body(json!(prompts[0]), 1, 0)).await["usage"]["prompt_tokens"].as_u64();
    let three = app.ok("/v1/completions", body(json!(prompts[0]), 3, 0)).await["usage"]["prompt_tokens"].as_u64();
    assert_eq!(one, three, "a prompt is counted once, however many choices it has");
    // A negative seed is a seed like any other.
    assert_eq!(app.text(body(json!("A"), 1, -1)).await, app.text(body(json!("A"), 1, -1)).await);
}

#[tokio::test]
async fn sampling_parameters_have_their_effect() {
    let app = TestApp::start().await;
    let greedy = app.text(json!({"prompt": PROMPT, "temperature": 0, "max_tokens": 12, "ignore_eos": true})).await;
    for (name, value) in [("top_k", json!(1)), ("top_p", json!(1e-6)), ("min_p", json!(1.0))] {
        let mut body = json!({"prompt": PROMPT, "max_tokens": 12, "ignore_eos": true, "seed": 3});
        body[name] = value;
        assert_eq!(app.text(body).await, greedy, "{name} leaves the most probable token alone");
    }
    // A bias of 100 on one token makes a greedy answer of nothing else.
    let token = app.ok("/tokenize", json!({"prompt": "a", "add_special_tokens": false})).await["tokens"][0].clone();
    let biased = json!({"prompt": PROMPT, "temperature": 0, "max_tokens": 4, "logit_bias": {token.to_string(): 100}});
    let repeated = app.ok("/detokenize", json!({"tokens": [token, token, token, token]})).await["prompt"].clone();
    assert_eq!(app.text(biased.clone()).await.trim(), repeated.as_str().unwrap().trim());
    let mut penalised = biased;
    penalised["frequency_penalty"] = json!(2);
    penalised["presence_penalty"] = json!(2);
    penalised["logit_bias"][token.to_string()] = json!(3);
    assert_ne!(app.text(penalised).await.trim(), repeated.as_str().unwrap().trim());
}

#[tokio::test]
async fn a_stop_string_ends_the_text_and_is_not_part_of_it() {
    let app = TestApp::start().await;
    let body = json!({"prompt": PROMPT, "temperature": 0, "max_tokens": 24, "ignore_eos": true});
    let full = app.text(body.clone()).await;
    let stop: String = full.chars().skip(6).take(4).collect();
    let mut stopped = body;
    stopped["stop"] = json!([stop, "\u{1F9A5} never"]);
    let answer = app.ok("/v1/completions", stopped).await;
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap(), full.split(&stop).next().unwrap());
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_chat_completion_has_the_fields_of_the_openai_api() {
    let app = TestApp::start().await;
    let messages = json!([
        {"role": "system", "content": "You tell short stories."},
        {"role": "user", "content": [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "a story."}]},
    ]);
    let body = json!({"model": app.model(), "messages": messages, "max_completion_tokens": 6, "ignore_eos": true, "n": 2,
                      "seed": 5, "response_format": {"type": "text"}, "logprobs": false});
    let answer = app.ok("/v1/chat/completions", body.clone()).await;
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["object"], "chat.completion");
    for (index, choice) in answer["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&choice["index"], &choice["message"]["role"]), (&json!(index), &json!("assistant")));
        assert!(choice["message"]["content"].is_string());
        assert_eq!(choice["finish_reason"], "length");
    }
    assert_eq!((&answer["usage"]["completion_tokens"], &answer["safelmm"]["rating"]), (&json!(12), &json!("PG")));
    // Text parts are put together as they are, and the older name of the limit is the same limit.
    let mut plain = body;
    plain["messages"][1]["content"] = json!("Tell me a story.");
    plain.as_object_mut().unwrap().remove("max_completion_tokens");
    plain["max_tokens"] = json!(6);
    assert_eq!(app.ok("/v1/chat/completions", plain).await["choices"], answer["choices"]);
}

#[tokio::test]
async fn a_model_without_ratings_or_template_says_so() {
    let folder = tempfile::tempdir().unwrap();
    bare_checkpoint(folder.path());
    let app = TestApp::with().checkpoint(folder.path()).start().await;
    let answer = app.ok("/v1/completions", json!({"prompt": PROMPT, "max_tokens": 2})).await;
    assert_eq!(answer["safelmm"]["rating"], Value::Null);
    let model = app.get("/v1/models").await.json::<Value>().await.unwrap()["data"][0].clone();
    assert_eq!((&model["safelmm"]["rated"], &model["safelmm"]["ratings"]), (&json!(false), &json!([])));
    for (path, body, param) in [
        ("/v1/completions", json!({"prompt": "A", "safelmm": {"rating": "G"}}), "safelmm.rating"),
        ("/v1/completions", json!({"prompt": "A", "safelmm": {"guidance": 2}}), "safelmm.guidance"),
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "Hello"}]}), "messages"),
    ] {
        let response = app.post(path, body).await;
        assert_eq!(response.status(), 400);
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!(error["param"], param, "{error}");
    }
    let missing = app.get(&format!("/v1/models/{}/provenance", app.model())).await;
    assert_eq!(missing.status(), 404);
}
