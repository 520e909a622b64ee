//! The embedded demo beside the `transformers` library, which opens its folder unchanged: the same greedy text.
//!
//! `demo/transformers.json` holds what transformers said; where a Python with torch and transformers is at hand
//! (`SAFELMM_TEST_TRANSFORMERS` names it), it is asked again.

use std::path::{Path, PathBuf};
use std::process::Command;

use safelmm_model::{Generation, GenerationRequest, Rating, SamplingParams, step};
use serde::Deserialize;

#[derive(Debug, Deserialize, PartialEq)]
struct Answer {
    prompt: String,
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn stored() -> Vec<Answer> {
    serde_json::from_slice(&std::fs::read(root().join("demo/transformers.json")).unwrap()).unwrap()
}

#[test]
fn greedy_text_of_the_demo_equals_that_of_transformers() {
    let checkpoint = safelmm_server::demo::open().unwrap();
    let answers = stored();
    assert!(answers.len() >= 4, "{} prompts", answers.len());
    for answer in answers {
        let request = GenerationRequest {
            prompt: checkpoint.tokenizer.encode(&answer.prompt, false).unwrap(),
            rating: Some(Rating::G),
            guidance: 1.0,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens: answer.ids.len(),
            stop: Vec::new(),
            ignore_eos: false,
        };
        assert_eq!(request.prompt, answer.prompt_ids[1..], "{:?}", answer.prompt);
        let mut generation = Generation::new(&checkpoint, request).unwrap();
        let (mut ids, mut text) = (Vec::new(), String::new());
        while !generation.is_finished() {
            let steps = step(&checkpoint, &mut [&mut generation]).unwrap();
            ids.push(steps[0].token);
            text.push_str(&steps[0].text);
        }
        assert_eq!((ids, text), (answer.ids, answer.text), "{:?}", answer.prompt);
    }
}

#[test]
fn transformers_still_says_what_is_stored() {
    let Some(python) = std::env::var_os("SAFELMM_TEST_TRANSFORMERS") else {
        println!("skipped: SAFELMM_TEST_TRANSFORMERS names no Python with torch and transformers");
        return;
    };
    for answer in stored() {
        let output = Command::new(&python)
            .arg(root().join("model/tests/fixtures/check_transformers.py"))
            .arg(root().join("demo/checkpoint"))
            .args([&answer.prompt, &answer.ids.len().to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let ids: Vec<u32> = serde_json::from_value(said["ids"].clone()).unwrap();
        assert_eq!((&said["text"], ids), (&serde_json::json!(answer.text), answer.ids), "{:?}", answer.prompt);
    }
}
