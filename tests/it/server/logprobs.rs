//! Log-probabilities, and what needs them: scored prompts and the best of several candidates.

use serde_json::{Value, json};

use crate::support::{TestApp, events};

const TEXT: &str = "The cat sat by the door and looked at the rain.";

async fn ids(app: &TestApp, text: &str) -> Vec<u64> {
    let answer = app.ok("/tokenize", json!({"prompt": text, "add_special_tokens": false})).await;
    answer["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

/// What lm-evaluation-harness sends to score a text, as token ids.
fn scoring(prompts: Value) -> Value {
    json!({"prompt": prompts, "max_tokens": 1, "logprobs": 1, "echo": true, "temperature": 0, "seed": 1234})
}

fn list<'a>(choice: &'a Value, name: &str) -> &'a Vec<Value> {
    choice["logprobs"][name].as_array().unwrap_or_else(|| panic!("{name} in {choice}"))
}

#[tokio::test]
async fn an_evaluation_harness_can_score_a_text() {
    let app = TestApp::start().await;
    let tokenizer = &app.app.checkpoint().tokenizer;
    let text = ids(&app, TEXT).await;
    // The harness puts the end-of-text token before a text; the rating takes its place.
    let with_prefix: Vec<u64> = std::iter::once(u64::from(tokenizer.eos_ids()[0])).chain(text.clone()).collect();
    let answer = app.ok("/v1/completions", scoring(json!([text, with_prefix]))).await;
    let choices = answer["choices"].as_array().unwrap();
    for (choice, prompt) in choices.iter().zip([&text, &with_prefix]) {
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(list(choice, name).len(), prompt.len() + 1, "{name}");
        }
        assert!(list(choice, "token_logprobs")[0].is_null() && list(choice, "top_logprobs")[0].is_null());
        for (token, (logprob, top)) in list(choice, "tokens")
            .iter()
            .zip(list(choice, "token_logprobs").iter().zip(list(choice, "top_logprobs")))
            .skip(1)
        {
            let top = top.as_object().unwrap();
            assert!(top.len() == 1 || top.len() == 2, "the best token, and the one that stands there: {top:?}");
            // To the last digit, as they are printed.
            assert_eq!(logprob.to_string(), top[token.as_str().unwrap()].to_string());
            assert!(top.values().all(|other| other.as_f64().unwrap() <= 0.0));
        }
        // The generated token is greedy, and its float that of the best.
        let (last, top) =
            (list(choice, "token_logprobs").last().unwrap(), list(choice, "top_logprobs").last().unwrap());
        assert_eq!((top.as_object().unwrap().len(), top.as_object().unwrap().values().next()), (1, Some(last)));
    }
    // The prefix changes nothing but the place.
    assert_eq!(list(&choices[0], "token_logprobs")[1..], list(&choices[1], "token_logprobs")[2..]);
    let first = list(&choices[1], "token_logprobs")[1].as_f64().unwrap();
    assert!(first < 0.0, "behind the prefix the first token is scored: {first}");
    // A prefix alone, and no other control token.
    app.ok("/v1/completions", scoring(json!([[tokenizer.eos_ids()[0]]]))).await;
    let twice = app.post("/v1/completions", scoring(json!([[tokenizer.eos_ids()[0], tokenizer.eos_ids()[0]]]))).await;
    assert_eq!(twice.status(), 400);
}

#[tokio::test]
async fn scores_of_a_prompt_are_those_of_the_same_text_generated() {
    let app = TestApp::start().await;
    let body = json!({"prompt": TEXT, "max_tokens": 12, "temperature": 0, "logprobs": 3, "ignore_eos": true});
    let generated = app.ok("/v1/completions", body).await["choices"][0].clone();
    let whole = format!("{TEXT}{}", generated["text"].as_str().unwrap());
    if ids(&app, &whole).await.len() != ids(&app, TEXT).await.len() + 12 {
        return; // the text happens to have another spelling in tokens
    }
    let score = json!({"prompt": whole, "max_tokens": 0, "logprobs": 3, "echo": true});
    let scored = app.ok("/v1/completions", score).await["choices"][0].clone();
    assert_eq!((&scored["text"], &scored["finish_reason"]), (&json!(whole), &json!("length")));
    let tail = &list(&scored, "token_logprobs")[ids(&app, TEXT).await.len()..];
    assert_eq!(tail.len(), 12);
    for (one, other) in tail.iter().zip(list(&generated, "token_logprobs")) {
        assert!((one.as_f64().unwrap() - other.as_f64().unwrap()).abs() < 1e-3, "{one} {other}");
    }
}

#[tokio::test]
async fn offsets_say_where_each_token_stands() {
    let app = TestApp::start().await;
    let text = "Ein Kätzchen – naïve 日本 🦀!";
    let body = json!({"prompt": text, "max_tokens": 6, "echo": true, "logprobs": 2, "seed": 3, "ignore_eos": true});
    let choice = app.ok("/v1/completions", body).await["choices"][0].clone();
    let shown: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    assert!(choice["text"].as_str().unwrap().starts_with(text));
    let offsets: Vec<usize> = list(&choice, "text_offset").iter().map(|n| n.as_u64().unwrap() as usize).collect();
    assert!(offsets.is_sorted() && offsets[0] == 0);
    for (token, offset) in list(&choice, "tokens").iter().zip(offsets) {
        let token = token.as_str().unwrap();
        if !token.starts_with("bytes:") {
            let at: String = shown[offset..].iter().take(token.chars().count()).collect();
            assert_eq!(at, token);
        }
    }
}

#[tokio::test]
async fn without_alternatives_there_are_none_and_without_tokens_no_text() {
    let app = TestApp::start().await;
    let body = json!({"prompt": "A bird", "max_tokens": 3, "logprobs": 0, "ignore_eos": true});
    let choice = app.ok("/v1/completions", body).await["choices"][0].clone();
    assert_eq!((list(&choice, "token_logprobs").len(), &choice["logprobs"]["top_logprobs"]), (3, &Value::Null));
    let answer = app.ok("/v1/completions", json!({"prompt": "A bird", "max_tokens": 0})).await;
    assert_eq!(answer["choices"][0]["text"], "");
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["usage"]["completion_tokens"]),
        (&json!("length"), &json!(0))
    );
    let echo = app.ok("/v1/completions", json!({"prompt": "A bird", "max_tokens": 4, "echo": true, "seed": 1})).await;
    let plain = app.ok("/v1/completions", json!({"prompt": "A bird", "max_tokens": 4, "seed": 1})).await;
    assert_eq!(echo["choices"][0]["text"], format!("A bird{}", plain["choices"][0]["text"].as_str().unwrap()));
}

#[tokio::test]
async fn a_stream_tells_the_same_as_a_body() {
    let app = TestApp::start().await;
    let mut body = json!({"prompt": ["A bird", "Why?"], "max_tokens": 5, "echo": true, "logprobs": 2, "seed": 8, "ignore_eos": true});
    let whole = app.ok("/v1/completions", body.clone()).await;
    body["stream"] = json!(true);
    let stream = app.post("/v1/completions", body).await.text().await.unwrap();
    let mut put_together =
        vec![json!({"text": "", "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}); 2];
    for chunk in events(&stream).into_iter().filter(|data| *data != "[DONE]") {
        let choice = serde_json::from_str::<Value>(chunk).unwrap()["choices"][0].clone();
        let place = &mut put_together[choice["index"].as_u64().unwrap() as usize];
        place["text"] = json!(format!("{}{}", place["text"].as_str().unwrap(), choice["text"].as_str().unwrap()));
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let more = list(&choice, name).clone();
            place[name].as_array_mut().unwrap().extend(more);
        }
    }
    for (streamed, choice) in put_together.iter().zip(whole["choices"].as_array().unwrap()) {
        assert_eq!(streamed["text"], choice["text"]);
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(streamed[name], choice["logprobs"][name], "{name}");
        }
    }
}

#[tokio::test]
async fn the_best_candidates_are_the_most_probable_ones() {
    let app = TestApp::start().await;
    let body = |n: usize, best_of: usize| json!({"prompt": "Once upon a time", "max_tokens": 8, "n": n, "best_of": best_of, "seed": 5, "logprobs": 0, "ignore_eos": true});
    let mean = |choice: &Value| {
        let logprobs: Vec<f64> = list(choice, "token_logprobs").iter().map(|l| l.as_f64().unwrap()).collect();
        logprobs.iter().sum::<f64>() / logprobs.len() as f64
    };
    let all = app.ok("/v1/completions", body(6, 6)).await;
    let mut ranked: Vec<&Value> = all["choices"].as_array().unwrap().iter().collect();
    ranked.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = app.ok("/v1/completions", body(2, 6)).await;
    for (index, choice) in best["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&choice["index"], &choice["text"]), (&json!(index), &ranked[index]["text"]));
    }
    assert_eq!(best["choices"].as_array().unwrap().len(), 2);
    // What was thrown away was generated too; the prompt is one.
    assert_eq!(
        (&best["usage"]["completion_tokens"], &best["usage"]["prompt_tokens"]),
        (&json!(48), &all["usage"]["prompt_tokens"])
    );
}

#[tokio::test]
async fn a_chat_tells_log_probabilities_in_its_own_shape() {
    let app = TestApp::start().await;
    let mut body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "ignore_eos": true, "seed": 2,
                          "logprobs": true, "top_logprobs": 2});
    let whole = app.ok("/v1/chat/completions", body.clone()).await["choices"][0]["logprobs"].clone();
    assert_eq!((whole["content"].as_array().map(Vec::len), &whole["refusal"]), (Some(6), &Value::Null));
    for token in whole["content"].as_array().unwrap() {
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        let bytes: Vec<u8> = token["bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), token["token"].as_str().unwrap());
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
        assert!(top.iter().all(|entry| entry["bytes"].is_array() && entry.get("top_logprobs").is_none()));
    }
    body["stream"] = json!(true);
    let stream = app.post("/v1/chat/completions", body.clone()).await.text().await.unwrap();
    let mut streamed = Vec::new();
    for chunk in events(&stream).into_iter().filter(|data| *data != "[DONE]") {
        let choice = serde_json::from_str::<Value>(chunk).unwrap()["choices"][0].clone();
        streamed.extend(choice["logprobs"]["content"].as_array().cloned().unwrap_or_default());
    }
    assert_eq!(json!(streamed), whole["content"]);
    body["stream"] = json!(false);
    body["logprobs"] = json!(false);
    body.as_object_mut().unwrap().remove("top_logprobs");
    assert_eq!(app.ok("/v1/chat/completions", body).await["choices"][0]["logprobs"], Value::Null);
}
