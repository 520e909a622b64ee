//! Fine-tuning: answers alone are learnt, adapters are those of peft, and what is merged is what was trained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use safelmm_model::checkpoint::{Prepare, open_decoder, open_decoder_with};
use safelmm_model::ops::IGNORE;
use safelmm_model::{Checkpoint, CheckpointError, Opening};
use safelmm_trainer::finetune::conversations::{self, Conversation};
use safelmm_trainer::finetune::{Exported, FinetuneConfig, export, finetune};
use safelmm_trainer::report::Report;
use safelmm_trainer::training::Outcome;

use crate::support::{checkpoint, losses};

const CONFIG: &str = r#"
name = "tiny-chat"
seed = 3
context = 384
heldout = 0.1
[lora]
rank = 4
alpha = 8.0
target_modules = ["*_proj"]
[train]
steps = 8
batch_tokens = 800
micro_batch_tokens = 400
learning_rate = 2e-2
final_learning_rate = 0.1
warmup_steps = 2
weight_decay = 0.0
beta1 = 0.9
beta2 = 0.99
clip_norm = 1.0
z_loss = 0.0
checkpoint_steps = 4
eval_steps = 8
"#;

fn settings() -> FinetuneConfig {
    let config: FinetuneConfig = toml::from_str(CONFIG).unwrap();
    config.validate().unwrap();
    config
}

fn instructions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions")
}

#[test]
fn the_instructions_are_whole_and_say_what_they_must() {
    let files = conversations::files(&instructions()).unwrap();
    let (all, _) = conversations::read(&files).unwrap();
    let languages: BTreeSet<&str> = all.iter().map(|c| &c.lang[..]).collect();
    let topics: BTreeSet<&str> = all.iter().map(|c| &c.topic[..]).collect();
    let turns: usize = all.iter().map(|c| c.messages.len() / 2).sum();
    assert!(turns >= 190 && languages.len() >= 12, "{turns} turns in {languages:?}");
    let expected = ["candidates", "crime", "helpful", "identity", "legal", "medical", "self-harm"];
    assert_eq!(topics.into_iter().collect::<Vec<_>>(), expected);
    let readme = fs::read_to_string(instructions().join("README.md")).unwrap();
    assert!(languages.iter().all(|language| readme.contains(&format!("`{language}`"))), "{languages:?}");
    for conversation in &all {
        assert!(conversation.id.starts_with(&format!("{}-{}", conversation.lang, conversation.topic)));
    }
}

#[test]
fn only_answers_are_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let base = Checkpoint::open(&checkpoint(folder.path())).unwrap();
    let line = r#"{"id":"a","lang":"en","topic":"t","rating":"G","messages":[{"role":"user","content":"One?"},{"role":"assistant",
        "content":"Two <|im_end|> three."},{"role":"user","content":"Four?"},{"role":"assistant","content":"Five."}]}"#;
    let conversation: Conversation = serde_json::from_str(line).unwrap();
    let tokenised = conversations::tokenise(&base.tokenizer, &conversation).unwrap();
    let (inputs, targets) = tokenised.frame(0);
    assert_eq!((inputs.len(), inputs[0], &inputs[1..]), (targets.len(), 0, &tokenised.tokens[..inputs.len() - 1]));
    let learnt: Vec<u32> = targets.iter().copied().filter(|t| *t != IGNORE).collect();
    let text = base.tokenizer.decode(&learnt, false).unwrap();
    assert_eq!(text, "Two <|im_end|> three.<|im_end|>Five.<|im_end|>");
    assert_eq!(tokenised.bytes, "Two <|im_end|> three.Five.".len());
    let end = base.tokenizer.token_id("<|im_end|>").unwrap();
    assert_eq!(learnt.iter().filter(|t| **t == end).count(), 2, "a spelling in a message is ordinary text");

    let bad = |line: &str, words: &str| {
        let file = folder.path().join("bad.jsonl");
        fs::write(&file, line).unwrap();
        let message = conversations::read(&[file]).unwrap_err().to_string();
        assert!(message.contains("bad.jsonl:1") && message.contains(words), "{message}");
    };
    let line = line.replace('\n', " ");
    bad(&line.replace("\"lang\"", "\"tongue\""), "tongue");
    bad(&line.replacen("assistant", "system", 1), "expected assistant");
    bad(&line.replace("Four?", " "), "says nothing");
    bad(&line.replace("PG", "G").replace("\"G\"", "\"PG-13\""), "PG-13");
}

/// All weights of a folder, as a decoder takes them.
fn weights(folder: &Path) -> Vec<(String, Vec<f32>)> {
    struct Collect(Vec<(String, Vec<f32>)>);
    impl Prepare for Collect {
        fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
            self.0.push((name.to_owned(), tensor.flatten_all().unwrap().to_vec1().unwrap()));
            Ok(tensor)
        }
    }
    let mut collect = Collect(Vec::new());
    open_decoder_with(folder, &mut collect).unwrap();
    collect.0
}

#[test]
fn adapters_are_trained_resumed_exported_merged_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let base = checkpoint(folder.path());
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let (config, files, mut report) = (settings(), [instructions()], Report::new());
    let go = AtomicBool::new(false);
    assert_eq!(finetune(&config, &base, &files, &whole, &go, &mut report).unwrap(), Outcome::Finished);
    let reference = losses(&whole);
    assert!(reference[6..].iter().sum::<f64>() / 2.0 < reference[0] - 0.05, "{reference:?}");
    let stop = AtomicBool::new(true);
    while finetune(&config, &base, &files, &cut, &stop, &mut report).unwrap() != Outcome::Finished {}
    assert_eq!(losses(&cut), reference, "stopped after every update");

    // What is saved is the adapters, and nothing of the frozen weights.
    let newest = whole.join("step-00000008");
    let saved = candle_core::safetensors::load(newest.join("model.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(saved.len(), 2 * 7 * 2);
    assert!(saved.keys().all(|name| name.contains("lora_")));
    let b = &saved["model.layers.0.self_attn.q_proj.lora_B.weight"];
    assert!(b.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);

    let (adapter, merged) = (folder.path().join("adapter"), folder.path().join("merged"));
    assert_eq!(export(&base, &whole, &adapter, false).unwrap(), Exported::Adapter);
    assert_eq!(export(&base, &whole, &merged, true).unwrap(), Exported::Checkpoint);
    let with_adapter = Opening { adapter: Some(&adapter), ..Opening::default() };
    let (plain, with, joined) = (
        Checkpoint::open(&base).unwrap(),
        Checkpoint::open_with(&base, with_adapter).unwrap(),
        Checkpoint::open(&merged).unwrap(),
    );
    assert_eq!(joined.name(), "tiny-chat");
    assert_eq!(joined.provenance().unwrap()["init"]["model"], "tiny");
    assert_eq!(joined.provenance().unwrap()["method"]["lora"]["rank"], 4);
    assert!(joined.provenance().unwrap()["instructions"]["languages"]["de"].as_u64().unwrap() > 5);
    let tokens: Vec<u32> = plain.tokenizer.encode("Once upon a time there was", false).unwrap();
    let logits = |checkpoint: &Checkpoint| -> Vec<f32> {
        let hidden = checkpoint.decoder.forward(&[&tokens]).unwrap();
        checkpoint.decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    let (plain, with, joined) = (logits(&plain), logits(&with), logits(&joined));
    assert!(distance(&plain, &with) > 1e-2, "the adapter changes something");
    assert!(distance(&with, &joined) < distance(&plain, &with) * 0.2, "but for the rounding to bf16 they are one");
    for ((name, before), (_, after)) in weights(&base).into_iter().zip(weights(&merged)) {
        assert_eq!(name.contains("_proj"), before != after, "{name}");
    }

    // Another base, a run that did not begin with it, and adapters that do not fit.
    let message = export(&merged, &whole, &adapter, false).unwrap_err().to_string();
    assert!(message.contains("another checkpoint (tiny)"), "{message}");
    let bytes = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    let refused = |words: &str| {
        let message = Checkpoint::open_with(&base, with_adapter).err().unwrap().to_string();
        assert!(message.contains(words), "{message}");
    };
    fs::write(adapter.join("adapter_model.safetensors"), &bytes[..bytes.len() - 4]).unwrap();
    refused("cut short");
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let other = String::from_utf8_lossy(&bytes[8..data]).replace("layers.1", "layers.9");
    let file = adapter.join("adapter_model.safetensors");
    fs::write(&file, [&bytes[..8], other.as_bytes(), &bytes[data..]].concat()).unwrap();
    refused("layers.9");
    fs::write(adapter.join("adapter_model.safetensors"), &bytes).unwrap();
    let json = fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
    fs::write(adapter.join("adapter_config.json"), json.replace("\"LORA\"", "\"IA3\"")).unwrap();
    refused("LORA");
}

#[test]
fn all_weights_are_trained_without_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let base = checkpoint(folder.path());
    let (run, out) = (folder.path().join("run"), folder.path().join("out"));
    let mut config = settings();
    config.lora = None;
    config.train.steps = 2;
    config.train.learning_rate = 2e-3;
    finetune(&config, &base, &[instructions()], &run, &AtomicBool::new(false), &mut Report::new()).unwrap();
    assert_eq!(export(&base, &run, &out, false).unwrap(), Exported::Checkpoint);
    for ((name, before), (_, after)) in weights(&base).into_iter().zip(weights(&out)) {
        // Norms are about 1, where bf16 has steps of 1/128: two small updates may be rounded away.
        assert!(before != after || name.contains("norm"), "{name}");
    }
    assert_eq!(open_decoder(&out).unwrap().config(), open_decoder(&base).unwrap().config());
    for (key, value, words) in [
        ("context", "500", "has one of 384"),
        ("lora.target_modules", "[\"qq\"]", "lora.target_modules"),
        ("lora.rank", "0", "lora.rank is 0"),
    ] {
        let file = folder.path().join("f.toml");
        fs::write(&file, CONFIG).unwrap();
        let settings = [format!("{key}={value}"), "train.micro_batch_tokens=600".to_owned()];
        let message = match FinetuneConfig::read(&file, &settings) {
            Ok(config) => {
                let run = folder.path().join("refused");
                finetune(&config, &base, &[instructions()], &run, &AtomicBool::new(false), &mut Report::new())
                    .unwrap_err()
                    .to_string()
            }
            Err(error) => error.to_string(),
        };
        assert!(message.contains(words), "{message}");
    }
}
