//! Token ids, decoded text and rendered conversations, compared with the `transformers` library
//! (`tests/fixtures/README.md` says how the files are made).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::path::Path;

use safelmm_model::{ChatMessage, Tokenizer, TokenizerError, TokenizerParts};
use serde_json::Value;

const FIXTURES: [&str; 2] = ["tokenizer-bpe", "tokenizer-metaspace"];

fn open(name: &str) -> (Tokenizer, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    let (json, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
    let parts = TokenizerParts { tokenizer_json: &json, tokenizer_config: Some(&config), ..TokenizerParts::default() };
    (Tokenizer::from_parts(parts).unwrap(), serde_json::from_slice(&read("golden.json")).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn messages(value: &Value) -> Vec<ChatMessage> {
    let text = |m: &Value, key: &str| m[key].as_str().unwrap_or_default().to_owned();
    let message =
        |m: &Value| ChatMessage { role: text(m, "role"), content: text(m, "content"), ..ChatMessage::default() };
    value.as_array().unwrap().iter().map(message).collect()
}

fn each<'a>(golden: &'a Value, key: &str, at_least: usize) -> impl Iterator<Item = &'a Value> {
    let cases = golden[key].as_array().unwrap();
    assert!(cases.len() >= at_least, "{key} holds {} cases", cases.len());
    cases.iter()
}

#[test]
fn texts_and_ids_in_both_directions() {
    for name in FIXTURES {
        let (tokenizer, golden) = open(name);
        assert_eq!(tokenizer.vocab_size() as u64, golden["vocab_size"].as_u64().unwrap());
        for case in each(&golden, "texts", 40) {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_plain"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids_plain"]), false).unwrap(), case["decoded"], "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids"]), true).unwrap(), case["decoded_skip"], "{name}: {text:?}");
        }
        for case in each(&golden, "decode", 5) {
            assert_eq!(tokenizer.decode(&ids(&case["ids"]), false).unwrap(), case["decoded"], "{name}: {case}");
        }
    }
}

#[test]
fn incremental_detokenisation_adds_up_to_the_whole() {
    for name in FIXTURES {
        let (tokenizer, golden) = open(name);
        for case in each(&golden, "texts", 40).chain(each(&golden, "decode", 5)) {
            let mut detokenizer = tokenizer.detokenizer();
            let mut text = String::new();
            for id in ids(&case["ids"]) {
                text.push_str(&detokenizer.push(&tokenizer, id).unwrap());
            }
            text.push_str(&detokenizer.finish(&tokenizer).unwrap());
            assert_eq!(text, case["decoded_skip"], "{name}: {case}");
        }
    }
}

#[test]
fn spelled_control_tokens_are_text() {
    for name in FIXTURES {
        let (tokenizer, golden) = open(name);
        for case in each(&golden, "control", 10) {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids_as_text"]), "{name}: {text:?}");
        }
    }
}

#[test]
fn conversations_by_the_chat_template() {
    for name in FIXTURES {
        let (tokenizer, golden) = open(name);
        let mut injected = 0;
        for case in each(&golden, "chat", 5) {
            let got = tokenizer.encode_chat(&messages(&case["messages"]), &[], case["add_generation_prompt"] == true);
            assert_eq!(got.unwrap(), ids(&case["ids"]), "{name}: {case}");
            injected += usize::from(case["injected"] == true);
        }
        assert!(injected > 0, "{name}: no case in which a message spells control tokens");
        for case in golden["chat_errors"].as_array().unwrap() {
            let error = tokenizer.encode_chat(&messages(&case["messages"]), &[], false).unwrap_err();
            assert!(matches!(error, TokenizerError::TemplateRefused(_)), "{name}: {error}");
        }
    }
}
