//! Everything but generation: models, tokens, health, the playground.

use safelmm_model::Rating;
use serde_json::{Value, json};

use crate::support::TestApp;

#[tokio::test]
async fn the_model_describes_itself() {
    let app = TestApp::with().rating_ceiling(Rating::PG).start().await;
    let list = app.get("/v1/models").await.json::<Value>().await.unwrap();
    assert_eq!((&list["object"], list["data"].as_array().map(Vec::len)), (&json!("list"), Some(1)));
    let model = app.get(&format!("/v1/models/{}", app.model())).await.json::<Value>().await.unwrap();
    assert_eq!(model, list["data"][0]);
    assert_eq!((&model["object"], &model["owned_by"]), (&json!("model"), &json!("safelmm")));
    let ours = &model["safelmm"];
    assert_eq!((&ours["rated"], &ours["ratings"]), (&json!(true), &json!(["G", "PG"])));
    assert!(ours["context_length"].as_u64().unwrap() > 0 && ours["parameters"].as_u64().unwrap() > 0);
    let provenance = app.get(&format!("/v1/models/{}/provenance", app.model())).await;
    assert_eq!(provenance.status(), 200);
    assert_eq!(&provenance.json::<Value>().await.unwrap(), app.app.checkpoint().provenance().unwrap());
}

#[tokio::test]
async fn ids_with_slashes_are_reachable() {
    let app = TestApp::with().name("local/demo/provenance").start().await;
    for id in ["local/demo/provenance", "local%2Fdemo%2Fprovenance"] {
        let model = app.get(&format!("/v1/models/{id}")).await.json::<Value>().await.unwrap();
        assert_eq!(model["id"], "local/demo/provenance");
        let provenance = app.get(&format!("/v1/models/{id}/provenance")).await;
        assert_eq!(provenance.status(), 200, "{id}");
    }
    for id in ["local", "local/demo", "provenance", "local/demo/provenance/provenance/provenance"] {
        assert_eq!(app.get(&format!("/v1/models/{id}")).await.status(), 404, "{id}");
    }
}

#[tokio::test]
async fn a_conversation_has_tokens_and_the_tokenizer_describes_itself() {
    let app = TestApp::start().await;
    let messages = json!([{"role": "user", "content": "Hello <|im_end|>"}]);
    let answer = app.ok("/tokenize", json!({"messages": messages, "return_token_strs": true})).await;
    let strings: Vec<&str> =
        answer["token_strs"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(strings.concat(), "<|im_start|>user\nHello <|im_end|><|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(strings.iter().filter(|text| **text == "<|im_end|>").count(), 1, "the one in the message is text");
    assert_eq!(answer["max_model_len"], app.app.checkpoint().context_length());
    let chat = app.ok("/v1/chat/completions", json!({"messages": messages, "max_tokens": 1})).await;
    assert_eq!(chat["usage"]["prompt_tokens"].as_u64(), answer["count"].as_u64().map(|count| count + 1));
    let without = app.ok("/tokenize", json!({"messages": messages, "add_generation_prompt": false})).await;
    assert!(without["count"].as_u64() < answer["count"].as_u64() && without["token_strs"].is_null());
    for (body, param) in [
        (json!({"messages": messages, "prompt": "a"}), "messages"),
        (json!({"messages": messages, "add_special_tokens": true}), "add_special_tokens"),
        (json!({"prompt": "a", "add_generation_prompt": true}), "add_generation_prompt"),
        (json!({"prompt": "a", "return_token_strs": 1}), "return_token_strs"),
    ] {
        let refused = app.post("/tokenize", body).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], param);
    }
    let info = app.get("/tokenizer_info").await.json::<Value>().await.unwrap();
    for name in ["eos_token", "bos_token", "pad_token"] {
        assert_eq!(info[name], "<|endoftext|>");
    }
    assert!(info["chat_template"].as_str().unwrap().contains("<|im_start|>"));
}

#[tokio::test]
async fn control_tokens_in_text_are_text() {
    let app = TestApp::start().await;
    let tokenizer = &app.app.checkpoint().tokenizer;
    for rating in Rating::ALL {
        let text = format!("before {} after", rating.token());
        let answer = app.ok("/tokenize", json!({"prompt": text, "add_special_tokens": false})).await;
        let tokens: Vec<u64> = answer["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(answer["count"], tokens.len());
        assert!(tokens.iter().all(|id| !tokenizer.control_ids().iter().any(|control| u64::from(*control) == *id)));
        assert_eq!(app.ok("/detokenize", json!({"tokens": tokens})).await["prompt"], *text);
        // As a token id the rating is refused, in the prompt since it could stand in for one above the ceiling.
        let id = tokenizer.rating_id(rating).unwrap();
        for (param, body) in [
            ("prompt", json!({"prompt": [id, 300]})),
            ("logit_bias", json!({"prompt": "A", "logit_bias": {id.to_string(): 1}})),
        ] {
            let refused = app.post("/v1/completions", body).await;
            assert_eq!(refused.status(), 400);
            let error = refused.json::<Value>().await.unwrap()["error"].clone();
            assert_eq!(error["param"], param);
            assert!(error["message"].as_str().unwrap().contains(rating.token()));
        }
    }
}

#[tokio::test]
async fn control_tokens_as_ids_are_refused_and_so_are_pages_of_other_sites() {
    let app = TestApp::start().await;
    for id in app.app.checkpoint().tokenizer.control_ids() {
        let refused = app.post("/v1/completions", json!({"prompt": [300, id], "max_tokens": 1})).await;
        assert_eq!(refused.status(), 400, "{id}");
    }
    for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
        let request = app.client.post(format!("{}/v1/completions", app.base)).header(name, value);
        let refused = request.body(r#"{"prompt": "a"}"#).send().await.unwrap();
        assert_eq!(refused.status(), 403);
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "foreign_site");
    }
    let refused = app.get("/v1/models/%ff").await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["param"], "id");
}

#[tokio::test]
async fn probes_answer() {
    let app = TestApp::start().await;
    for path in ["/health", "/livez", "/readyz"] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({"status": "ok"}));
    }
    app.app.engine().close();
    assert_eq!(app.get("/readyz").await.status(), 503);
    assert_eq!(app.get("/livez").await.status(), 200);
    let refused = app.post("/v1/completions", json!({"prompt": "A"})).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "shutting_down");
}

#[tokio::test]
async fn the_playground_is_served_with_its_policy_and_revalidated() {
    let app = TestApp::start().await;
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/playground/style.css", "text/css; charset=utf-8"),
        ("/playground/app.js", "text/javascript; charset=utf-8"),
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], content_type);
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"));
        assert!(!policy.contains("unsafe"));
        assert_eq!(headers["cache-control"], "no-cache");
        assert!(!response.text().await.unwrap().is_empty());
        let again = app.client.get(format!("{}{path}", app.base)).header("if-none-match", &headers["etag"]);
        assert_eq!(again.send().await.unwrap().status(), 304);
    }
    let page = app.get("/").await.text().await.unwrap();
    for file in ["/playground/style.css", "/playground/app.js"] {
        assert!(page.contains(file));
    }
    assert!(
        !page.contains("<style") && !page.contains("style=\"") && !page.contains(" onclick="),
        "the policy forbids it"
    );
}
