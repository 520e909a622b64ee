//! Streams, frame by frame.

use serde_json::{Value, json};

use crate::support::{TestApp, events};

#[tokio::test]
async fn a_completion_stream_is_exactly_these_bytes() {
    let app = TestApp::start().await;
    let mut body =
        json!({"prompt": "A bird", "max_tokens": 6, "ignore_eos": true, "seed": 11, "safelmm": {"rating": "G"}});
    let whole = app.ok("/v1/completions", body.clone()).await;
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let response = app.post("/v1/completions", body).await;
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/event-stream");
    assert_eq!(header("x-accel-buffering"), "no");
    assert_eq!(header("cache-control"), "no-cache");
    assert!(header("x-request-id").starts_with("req_"));
    let stream = response.text().await.unwrap();

    let frames = events(&stream);
    let first: Value = serde_json::from_str(frames[0]).unwrap();
    let head = format!(
        "\"id\":{},\"object\":\"text_completion\",\"created\":{},\"model\":{}",
        first["id"],
        first["created"],
        json!(app.model())
    );
    let texts: Vec<String> = frames[..frames.len() - 2]
        .iter()
        .map(|frame| serde_json::from_str::<Value>(frame).unwrap()["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts.concat(), whole["choices"][0]["text"].as_str().unwrap());
    let mut expected = String::new();
    for (position, text) in texts.iter().enumerate() {
        let last = position + 1 == texts.len();
        let finish = if last { "\"length\"" } else { "null" };
        let report = if last {
            ",\"safelmm\":{\"rating\":\"G\",\"guidance\":1.0,\"use\":\"commercial\",\"stores\":[],\"attributions\":[],\"policy\":[]}"
        } else {
            ""
        };
        expected += &format!(
            "data: {{{head},\"choices\":[{{\"index\":0,\"text\":{},\"logprobs\":null,\"finish_reason\":{finish}}}],\
             \"usage\":null{report}}}\n\n",
            json!(text)
        );
    }
    expected += &format!("data: {{{head},\"choices\":[],\"usage\":{}}}\n\ndata: [DONE]\n\n", whole["usage"]);
    assert_eq!(stream, expected);
}

#[tokio::test]
async fn a_chat_stream_opens_with_the_role_and_ends_with_the_report() {
    let app = TestApp::start().await;
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "ignore_eos": true, "n": 2,
                      "seed": 2, "stream": true});
    let stream = app.post("/v1/chat/completions", body.clone()).await.text().await.unwrap();
    let mut frames = events(&stream);
    assert_eq!(frames.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    let mut texts = [String::new(), String::new()];
    let mut finished = 0;
    for (position, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!((&chunk["id"], &chunk["created"]), (&chunks[0]["id"], &chunks[0]["created"]));
        assert!(chunk.get("usage").is_none(), "no usage unless it is asked for: {chunk}");
        let choice = &chunk["choices"][0];
        if position < 2 {
            assert_eq!(choice["delta"], json!({"role": "assistant", "content": ""}));
            assert_eq!(choice["index"], position);
        } else {
            assert!(choice["delta"].get("role").is_none());
        }
        let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
        texts[index] += choice["delta"]["content"].as_str().unwrap_or("");
        assert_eq!(choice["finish_reason"].is_string(), chunk.get("safelmm").is_some());
        finished += usize::from(choice["finish_reason"] == "length");
    }
    assert_eq!(finished, 2);
    let mut whole = body;
    whole["stream"] = json!(false);
    let whole = app.ok("/v1/chat/completions", whole).await;
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["message"]["content"], *text);
    }
}
