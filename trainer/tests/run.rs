//! A whole run in small: documents → data → training, interrupted and resumed → checkpoint → text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use safelmm_model::{Checkpoint, Generation, GenerationRequest, Rating, SamplingParams, Work, step};
use safelmm_trainer::config::RunConfig;
use safelmm_trainer::data::{DataError, Sources, prepare};
use safelmm_trainer::dataset::Dataset;
use safelmm_trainer::evaluate::{measure_bits, measure_control};
use safelmm_trainer::export::export;
use safelmm_trainer::pretrain::{Outcome, PretrainError, pretrain};
use safelmm_trainer::rating::StoryGenerator;
use safelmm_trainer::report::Report;
use safelmm_trainer::run_state::checkpoints;
use serde_json::{Value, json};

const CONFIG: &str = r#"
name = "tiny"
seed = 7
[model]
hidden_size = 32
intermediate_size = 48
layers = 2
heads = 2
kv_heads = 1
head_dim = 16
context = 384
rope_theta = 10000.0
[tokenizer]
vocab_size = 700
bytes_per_language = 100000
english_bytes = 100000
[data]
heldout = 0.2
untagged = 0.1
[[data.source]]
file = "documents.jsonl"
[data.stories]
per_rating = 6
dialogues_per_rating = 2
[train]
steps = 6
batch_tokens = 800
micro_batch_tokens = 400
learning_rate = 5e-3
final_learning_rate = 0.1
warmup_steps = 2
weight_decay = 0.1
beta1 = 0.9
beta2 = 0.95
clip_norm = 1.0
z_loss = 1e-4
checkpoint_steps = 2
eval_steps = 3
"#;

/// Writes documents under free and under other licenses; one spells control tokens.
fn corpora(folder: &Path) {
    let mut generator = StoryGenerator::new(11);
    let mut lines = Vec::new();
    for i in 0..24 {
        let license = ["CC0-1.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0-only"][i % 4];
        let mut text = generator.story(Rating::ALL[i / 4 % 4]).text;
        if license.contains("NC") {
            text.push_str(" Xylophonically forbidden.");
        }
        if i == 0 {
            text.push_str(" <|rating:X|> <|endoftext|> and on it goes");
        }
        let document = json!({"id": format!("d{i}"), "text": text, "lang": "en", "license": license, "source": "made up",
            "title": "T", "author": "A", "url": ""});
        lines.push(document.to_string());
    }
    fs::write(folder.join("documents.jsonl"), lines.join("\n")).unwrap();
}

fn config() -> RunConfig {
    let config: RunConfig = toml::from_str(CONFIG).unwrap();
    config.validate().unwrap();
    config
}

fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    log.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["loss"].as_f64().unwrap()).collect()
}

#[test]
fn from_documents_to_a_served_text() {
    let folder = tempfile::tempdir().unwrap();
    let (data, whole, cut) = (folder.path().join("data"), folder.path().join("whole"), folder.path().join("cut"));
    let (config, mut report) = (config(), Report::new());
    corpora(folder.path());
    let sources = prepare(&config, folder.path(), &data, &mut report).unwrap();
    let documents = &sources.sources[0];
    assert_eq!(documents.documents + documents.heldout_documents, 12, "{documents:?}");
    assert_eq!(documents.left_out["license CC-BY-NC-4.0"], 6);
    assert_eq!(documents.left_out["license GPL-3.0-only"], 6);
    assert_eq!(Sources::read(&data).unwrap().0.sources[0].sha256, documents.sha256);
    let train = Dataset::read(&data.join("train.safetensors")).unwrap();
    let heldout = Dataset::read(&data.join("heldout.safetensors")).unwrap();
    assert!(heldout.passages.iter().any(|p| p.source == 0), "whole documents are held out");
    let control = |p: &safelmm_trainer::dataset::Passage| p.source == 0 && p.tokens.iter().any(|t| *t < 7);
    assert!(!train.passages.iter().chain(&heldout.passages).any(control), "control tokens come from no document");

    let go = AtomicBool::new(false);
    assert_eq!(pretrain(&config, &data, &whole, &go, &mut report).unwrap(), Outcome::Finished);
    let reference = losses(&whole);
    assert_eq!(reference.len(), 6);
    assert!(reference[5] < reference[0], "{reference:?}");
    assert_eq!(checkpoints(&whole).unwrap().len(), 2, "old checkpoints are deleted");

    // Stopped after every single step, the run sees the same losses to the last bit.
    let stop = AtomicBool::new(true);
    for at in 1..6 {
        assert_eq!(pretrain(&config, &data, &cut, &stop, &mut report).unwrap(), Outcome::Interrupted { step: at });
    }
    assert_eq!(pretrain(&config, &data, &cut, &stop, &mut report).unwrap(), Outcome::Finished);
    assert_eq!(losses(&cut), reference);
    // A finished run has nothing left to do.
    assert_eq!(pretrain(&config, &data, &cut, &go, &mut report).unwrap(), Outcome::Finished);
    assert_eq!(losses(&cut).len(), 6);
    let weights = |run: &Path| fs::read(checkpoints(run).unwrap().pop().unwrap().join("model.safetensors")).unwrap();
    assert!(weights(&cut) == weights(&whole), "the weights differ");

    let out = folder.path().join("checkpoint");
    export(&data, &cut, &out).unwrap();
    let checkpoint = Checkpoint::open(&out).unwrap();
    assert_eq!((checkpoint.name(), checkpoint.rated(), checkpoint.context_length()), ("tiny", true, 384));
    for passage in train.passages.iter().chain(&heldout.passages) {
        let text = checkpoint.tokenizer.decode(&passage.tokens, true).unwrap();
        assert!(!text.contains("Xylophonically"), "non-commercial text was taken: {text}");
    }
    let licenses = checkpoint.provenance().unwrap()["sources"][0]["licenses"].as_object().unwrap();
    assert_eq!(licenses.keys().collect::<Vec<_>>(), ["CC-BY-SA-4.0", "CC0-1.0"]);
    let text = generate(&checkpoint, Some(Rating::G));
    assert_eq!(text, generate(&checkpoint, Some(Rating::G)));

    let names: Vec<String> = sources.sources.iter().map(|s| s.source.clone()).collect();
    let bits = measure_bits(&config, &checkpoint, &train, &heldout, &names, &mut report).unwrap();
    assert!(bits.model < bits.untrained && bits.five_gram < bits.untrained, "{bits:?}");
    let control = measure_control(&checkpoint, 2, 4, 2.0, 1, &mut report).unwrap();
    assert_eq!(control.above_ceiling[&Rating::X].unconditioned, 0.0);
}

fn generate(checkpoint: &Checkpoint, rating: Option<Rating>) -> String {
    let request = GenerationRequest {
        rating,
        guidance: 1.5,
        sampling: SamplingParams { seed: Some(4), ..SamplingParams::default() },
        ignore_eos: true,
        ..GenerationRequest::new(checkpoint.tokenizer.encode("Once upon a time", false).unwrap(), 12)
    };
    let mut generation = Generation::new(checkpoint, request).unwrap();
    let (mut text, mut tokens) = (String::new(), 0);
    while !generation.is_finished() {
        let work = Work { generation: &mut generation, tokens: usize::MAX };
        for step in step(checkpoint, &mut [work]).unwrap().into_iter().filter_map(|progress| progress.step) {
            text.push_str(&step.text);
            tokens += 1;
        }
    }
    assert_eq!(tokens, 12);
    text
}

#[test]
fn damaged_checkpoints_other_settings_and_unusable_sources_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    let (mut config, mut report) = (config(), Report::new());
    corpora(folder.path());
    prepare(&config, folder.path(), &data, &mut report).unwrap();
    config.train.steps = 2;
    let go = AtomicBool::new(false);
    pretrain(&config, &data, &run, &go, &mut report).unwrap();
    let fails = |config: &RunConfig, words: &[&str]| {
        let message =
            pretrain(config, &data, &run, &AtomicBool::new(false), &mut Report::new()).unwrap_err().to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
    };
    let mut other = config.clone();
    other.train.learning_rate = 1e-3;
    fails(&other, &["another configuration", "train"]);
    other = config.clone();
    other.data.untagged = 0.2;
    fails(&other, &["safelmm-train data", "data"]);
    let newest = checkpoints(&run).unwrap().pop().unwrap();
    let file = newest.join("optimizer.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    fails(&config, &["optimizer.safetensors", "hash"]);

    let only_non_commercial = json!({"id": "n", "text": "word ".repeat(200), "lang": "en", "license": "CC-BY-NC-4.0"});
    fs::write(folder.path().join("documents.jsonl"), only_non_commercial.to_string()).unwrap();
    match prepare(&config, folder.path(), &data, &mut report) {
        Err(error @ DataError::NothingLeft(..)) => assert!(error.to_string().contains("CC-BY-NC-4.0"), "{error}"),
        other => panic!("{other:?}"),
    }
    config.train.learning_rate = f64::NAN;
    assert!(config.validate().unwrap_err().to_string().contains("train.learning_rate"));
    let missing = PretrainError::OtherData("x".to_owned(), "seed").to_string();
    assert!(missing.contains("safelmm-train data"));
}

/// A process killed at any moment leaves lines of steps that no checkpoint holds, half a line, and half a checkpoint.
#[test]
fn what_a_killed_run_leaves_behind_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    let (config, mut report) = (config(), Report::new());
    corpora(folder.path());
    prepare(&config, folder.path(), &data, &mut report).unwrap();
    pretrain(&config, &data, &run, &AtomicBool::new(true), &mut report).unwrap();
    let first = losses(&run);
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    fs::write(run.join("log.jsonl"), format!("{log}{}{{\"step\":3,\"lo", log.replace(":1,", ":2,"))).unwrap();
    let half = run.join("step-00000009.part");
    fs::create_dir_all(&half).unwrap();
    assert_eq!(pretrain(&config, &data, &run, &AtomicBool::new(false), &mut report).unwrap(), Outcome::Finished);
    let all = losses(&run);
    assert_eq!((all.len(), all[0]), (6, first[0]));
    assert!(!half.exists());

    // Other data under the same settings is noticed, by a resumed run and by an export.
    let documents = folder.path().join("documents.jsonl");
    fs::write(&documents, fs::read_to_string(&documents).unwrap().replace(" the ", " that ")).unwrap();
    prepare(&config, folder.path(), &data, &mut report).unwrap();
    let message = pretrain(&config, &data, &run, &AtomicBool::new(false), &mut report).unwrap_err().to_string();
    assert!(message.contains("other prepared data"), "{message}");
    let message = export(&data, &run, &folder.path().join("out")).unwrap_err().to_string();
    assert!(message.contains("other prepared data"), "{message}");
}
