//! A small configuration, documents for it, and what a run wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use safelmm_model::Rating;
use safelmm_trainer::config::RunConfig;
use safelmm_trainer::data::prepare;
use safelmm_trainer::export::export;
use safelmm_trainer::pretrain::pretrain;
use safelmm_trainer::rating::StoryGenerator;
use safelmm_trainer::report::Report;
use serde_json::{Value, json};

pub const CONFIG: &str = r#"
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
pub fn corpora(folder: &Path) {
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

pub fn config() -> RunConfig {
    let config: RunConfig = toml::from_str(CONFIG).unwrap();
    config.validate().unwrap();
    config
}

pub fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    log.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["loss"].as_f64().unwrap()).collect()
}

/// A small checkpoint folder, as the server opens it.
pub fn checkpoint(folder: &Path) -> PathBuf {
    let (data, run, out) = (folder.join("base-data"), folder.join("base-run"), folder.join("base"));
    let (mut config, mut report) = (config(), Report::new());
    // Far enough from where it began that frozen embeddings can tell tokens apart.
    config.train.steps = 12;
    config.train.learning_rate = 3e-2;
    corpora(folder);
    prepare(&config, folder, None, &data, &mut report).unwrap();
    pretrain(&config, &data, &run, None, &AtomicBool::new(false), &mut report).unwrap();
    export(&data, &run, &out).unwrap();
    out
}
