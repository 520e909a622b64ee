//! Sentence encoders, compared with `transformers` (`tests/fixtures/README.md` says how the files are made), and damaged
//! folders.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safelmm_model::{Encoder, EncoderError};
use serde_json::Value;

const FIXTURES: [&str; 2] = ["encoder-bert", "encoder-xlm-roberta"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name).join("golden.json")).unwrap()).unwrap()
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{what}: {a} and {b}");
    }
}

#[test]
fn embeddings_are_those_of_transformers() {
    for name in FIXTURES {
        let (encoder, golden) = (Encoder::open(&fixture(name)).unwrap(), golden(name));
        assert_eq!(encoder.name(), name);
        assert_eq!(encoder.max_tokens() as u64, golden["max_tokens"].as_u64().unwrap());
        assert_eq!(encoder.dimensions() as u64, golden["dimensions"].as_u64().unwrap());
        let cases = golden["texts"].as_array().unwrap();
        assert!(cases.len() >= 8);
        let mut texts = Vec::new();
        for case in cases {
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(encoder.tokenize(case["text"].as_str().unwrap()).unwrap(), ids, "{name}: {}", case["text"]);
            texts.push(ids);
        }
        let spelled = encoder.tokenize("a </s> [SEP] <s> [CLS] boat").unwrap();
        let inside = &spelled[1..spelled.len() - 1];
        assert!(!inside.iter().any(|id| [spelled[0], spelled[spelled.len() - 1]].contains(id)), "{name}: {spelled:?}");
        let together = encoder.embed(&texts).unwrap();
        for ((case, ids), embedding) in cases.iter().zip(&texts).zip(&together) {
            let expected: Vec<f32> = serde_json::from_value(case["embedding"].clone()).unwrap();
            assert_close(embedding, &expected, 1e-4, &format!("{name}: {}", case["text"]));
            assert_close(embedding, &encoder.embed(std::slice::from_ref(ids)).unwrap()[0], 1e-5, "alone");
        }
    }
}

#[test]
fn an_embedding_is_the_same_in_any_company() {
    for name in FIXTURES {
        let encoder = Encoder::open(&fixture(name)).unwrap();
        let text = |seed: usize, length: usize| -> Vec<u32> {
            (0..length).map(|i| u32::try_from((seed * 31 + i * 7 + i * i) % 62).unwrap()).collect()
        };
        let alone = encoder.embed(&[text(3, 9)]).unwrap().remove(0);
        for company in [1, 4, 300] {
            let mut texts: Vec<Vec<u32>> =
                (0..company).map(|i| text(i, if i % 3 == 0 { 1 + i % 20 } else { 9 })).collect();
            texts.insert(company / 2, text(3, 9));
            let embeddings = encoder.embed(&texts).unwrap();
            assert_close(&embeddings[company / 2], &alone, 1e-5, &format!("{name} among {company}"));
        }
        assert!(encoder.embed(&[]).unwrap().is_empty());
    }
}

#[test]
fn texts_that_cannot_be_embedded_are_named() {
    for name in FIXTURES {
        let encoder = Encoder::open(&fixture(name)).unwrap();
        let good = vec![4, 5];
        let maximum = encoder.max_tokens();
        assert!(encoder.embed(&[vec![5; maximum]]).is_ok());
        let error = encoder.embed(&[good.clone(), vec![]]).unwrap_err();
        assert!(matches!(error, EncoderError::Empty { index: 1 }), "{error}");
        let error = encoder.embed(&[good.clone(), vec![5; maximum + 1]]).unwrap_err();
        assert!(matches!(error, EncoderError::TooLong { index: 1, .. }), "{error}");
        let error = encoder.embed(&[vec![62], good]).unwrap_err();
        assert!(matches!(error, EncoderError::TokenOutOfRange { index: 0, token: 62, vocab_size: 62 }), "{error}");
    }
}

/// A copy of a fixture with one file changed.
fn changed(name: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    fs::create_dir_all(path.join("1_Pooling")).unwrap();
    for entry in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ] {
        fs::copy(fixture(name).join(entry), path.join(entry)).unwrap();
    }
    match change(fs::read(path.join(file)).unwrap()) {
        Some(bytes) => fs::write(path.join(file), bytes).unwrap(),
        None => fs::remove_file(path.join(file)).unwrap(),
    }
    (folder, path)
}

#[test]
fn broken_folders_say_which_file_and_why() {
    let refused = |file: &str, from: &str, to: &str, word: &str| {
        let (_folder, path) = changed("encoder-bert", file, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{file} holds no {from}");
            Some(text.replace(from, to).into_bytes())
        });
        let error = Encoder::open(&path).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    assert!(matches!(Encoder::open(Path::new("nowhere")), Err(EncoderError::NoFolder(_))));
    for file in ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"] {
        let (_folder, path) = changed("encoder-bert", file, |_| None);
        let error = Encoder::open(&path).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("missing"), "{error}");
    }
    refused("config.json", "\"model_type\": \"bert\"", "\"model_type\": \"llama\"", "llama");
    refused("config.json", "\"hidden_size\": 24", "\"hidden_size\": 48", "expected 48");
    refused("config.json", "e_size\": 40", "e_size\": 80", "has shape [40, 24]: config.json asks for [80, 24]");
    refused("config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": 5", "no multiple");
    refused("config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": 0", "num_attention_heads is 0");
    refused("config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 18446744073709551615", "layer.2");
    refused("config.json", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"silu\"", "silu");
    refused("config.json", "1e-12", "-1", "layer_norm_eps");
    refused("modules.json", "models.Normalize", "models.Dense", "Dense");
    refused("modules.json", "1_Pooling", "../elsewhere", "no plain name");
    refused(
        "1_Pooling/config.json",
        "\"pooling_mode_cls_token\": false",
        "\"pooling_mode_cls_token\": true",
        "expected one of",
    );
    refused("1_Pooling/config.json", "24", "12", "expected 24");
    refused("sentence_bert_config.json", "24", "0", "max_seq_length");
    let (_folder, path) = changed("encoder-bert", "model.safetensors", |mut bytes| {
        bytes.truncate(bytes.len() - 9);
        Some(bytes)
    });
    assert!(Encoder::open(&path).unwrap_err().to_string().contains("cut short"));
    let (_folder, path) = changed("encoder-bert", "model.safetensors", |mut bytes| {
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        Some(bytes)
    });
    assert!(Encoder::open(&path).unwrap_err().to_string().contains("NaN"));
}

#[test]
fn without_modules_the_mean_is_taken() {
    let (_folder, path) = changed("encoder-bert", "modules.json", |_| None);
    let (plain, whole) = (Encoder::open(&path).unwrap(), Encoder::open(&fixture("encoder-bert")).unwrap());
    let text = plain.tokenize("tea for everyone").unwrap();
    let mut embedding = plain.embed(std::slice::from_ref(&text)).unwrap().remove(0);
    let length = embedding.iter().map(|x| x * x).sum::<f32>().sqrt();
    embedding.iter_mut().for_each(|x| *x /= length);
    assert_close(&embedding, &whole.embed(&[text]).unwrap()[0], 1e-5, "normalised");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn damage_never_panics(
        file in 0usize..6, cut in any::<prop::sample::Index>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        is_cut in any::<bool>(), fixture in 0usize..2,
    ) {
        let files = ["config.json", "model.safetensors", "tokenizer.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"];
        let (_folder, path) = changed(FIXTURES[fixture], files[file], |mut bytes| {
            // Of the weights only the header is worth damaging.
            let span = bytes.len().min(3000);
            for (at, byte) in flips {
                bytes[at.index(span)] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            Some(bytes)
        });
        if let Ok(encoder) = Encoder::open(&path) {
            let longest = encoder.max_tokens();
            let _ = encoder.embed(&[vec![0; longest], vec![1]]);
        }
    }
}
