//! The embedded demo beside the `transformers` library, which opens its folder unchanged: the same greedy text.
//!
//! `demo/transformers.json` holds what transformers said; where a Python with torch and transformers is at hand
//! (`SAFELMM_TEST_TRANSFORMERS` names it), it is asked again.

use std::path::{Path, PathBuf};
use std::process::Command;

use safelmm_model::{Generation, GenerationRequest, Rating, SamplingParams, Work, step};
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
        let prompt = checkpoint.tokenizer.encode(&answer.prompt, false).unwrap();
        let request = GenerationRequest {
            rating: Some(Rating::G),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            ..GenerationRequest::new(prompt, answer.ids.len())
        };
        assert_eq!(request.prompt, answer.prompt_ids[1..], "{:?}", answer.prompt);
        let mut generation = Generation::new(&checkpoint, request).unwrap();
        let (mut ids, mut text) = (Vec::new(), String::new());
        while !generation.is_finished() {
            let work = Work { generation: &mut generation, tokens: usize::MAX };
            for step in step(&checkpoint, &mut [work]).unwrap().into_iter().filter_map(|progress| progress.step) {
                ids.push(step.token.token);
                text.push_str(&step.text);
            }
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
