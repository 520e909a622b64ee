//! Damaged and foreign checkpoint folders: each gets an error that names the file, the tensor and what was expected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safelmm_model::Checkpoint;
use safelmm_model::checkpoint::open_decoder;
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a fixture that a test may damage.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn edit_json(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    edit(&mut json);
    fs::write(file, serde_json::to_vec(&json).unwrap()).unwrap();
}

/// The error of opening a folder; it must mention all of `words`.
fn assert_refused(folder: &Path, words: &[&str]) {
    let Err(error) = open_decoder(folder) else { panic!("{} was opened", folder.display()) };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// Rewrites the tensors of a weight file.
fn edit_tensors(file: &Path, edit: impl Fn(&str, TensorView<'_>, &mut Vec<(String, Vec<usize>, Vec<u8>)>)) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut kept = Vec::new();
    for (name, view) in tensors.tensors() {
        edit(&name, view, &mut kept);
    }
    let dtype = tensors.tensors()[0].1.dtype();
    let views = kept.iter().map(|(n, shape, data)| (n.clone(), TensorView::new(dtype, shape.clone(), data).unwrap()));
    fs::write(file, serialize(views, None).unwrap()).unwrap();
}

fn as_is(name: &str, view: &TensorView<'_>) -> (String, Vec<usize>, Vec<u8>) {
    (name.to_owned(), view.shape().to_vec(), view.data().to_vec())
}

const NORM: &str = "model.layers.1.input_layernorm.weight";

#[test]
fn no_folder_and_missing_files() {
    assert_refused(Path::new("/nonexistent/model"), &["/nonexistent/model", "config.json"]);
    let folder = copy("qwen3");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert_refused(folder.path(), &["model.safetensors", "missing"]);
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert_refused(folder.path(), &["config.json", "missing"]);
    let Err(error) = Checkpoint::open(&fixture("qwen3")) else { panic!("opened without a tokenizer") };
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn foreign_and_damaged_configurations() {
    let folder = copy("qwen3");
    let config = folder.path().join("config.json");
    edit_json(&config, |c| c["architectures"] = json!(["MambaForCausalLM"]));
    assert_refused(folder.path(), &["config.json", "MambaForCausalLM", "Qwen3ForCausalLM"]);
    fs::write(&config, b"{\"architectures\": [").unwrap();
    assert_refused(folder.path(), &["config.json", "not a model configuration"]);
    fs::write(&config, b"").unwrap();
    assert_refused(folder.path(), &["config.json"]);
}

#[test]
fn truncated_files_at_every_kind_of_place() {
    let folder = copy("qwen3");
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for length in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        assert_refused(folder.path(), &["model.safetensors", "cut short"]);
    }
}

#[test]
fn hostile_headers() {
    let folder = copy("qwen3");
    let file = folder.path().join("model.safetensors");
    let header = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    for bytes in [
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
        [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat(),
        header("[]"),
        header("{\"a\":"),
        header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}"#),
        header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#),
        header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}"#),
        b"\x80\x04\x95PK not a safetensors file at all".to_vec(),
    ] {
        fs::write(&file, bytes).unwrap();
        assert_refused(folder.path(), &["model.safetensors"]);
    }
}

#[test]
fn missing_unexpected_and_misshapen_tensors() {
    let folder = copy("qwen3");
    let file = folder.path().join("model.safetensors");
    let width = json_usize(&folder.path().join("config.json"), "hidden_size");
    edit_tensors(&file, |name, view, kept| {
        if name != NORM {
            kept.push(as_is(name, &view));
        }
    });
    assert_refused(folder.path(), &["model.safetensors", NORM, "missing", &format!("[{width}]")]);

    let folder = copy("qwen3");
    let file = folder.path().join("model.safetensors");
    edit_tensors(&file, |name, view, kept| {
        let (name, mut shape, mut data) = as_is(name, &view);
        if name == NORM {
            shape[0] -= 1;
            data.truncate(4 * shape[0]);
        }
        kept.push((name, shape, data));
    });
    assert_refused(folder.path(), &[NORM, &format!("[{}]", width - 1), &format!("[{width}]")]);

    let folder = copy("qwen3");
    let file = folder.path().join("model.safetensors");
    edit_tensors(&file, |name, view, kept| {
        kept.push(as_is(name, &view));
        if name == NORM {
            kept.push(("model.layers.1.self_attn.q_proj.bias".to_owned(), vec![1], vec![0; 4]));
        }
    });
    assert_refused(folder.path(), &["q_proj.bias", "another model"]);
}

#[test]
fn values_that_are_no_numbers() {
    for value in [f32::NAN, f32::INFINITY] {
        let folder = copy("qwen3");
        edit_tensors(&folder.path().join("model.safetensors"), |name, view, kept| {
            let (name, shape, mut data) = as_is(name, &view);
            if name == NORM {
                data[12..16].copy_from_slice(&value.to_le_bytes());
            }
            kept.push((name, shape, data));
        });
        assert_refused(folder.path(), &[NORM, "element 3", "finite"]);
    }
}

#[test]
fn shards_that_are_missing_truncated_or_elsewhere() {
    let shard = |folder: &Path| -> PathBuf {
        let mut shards: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.file_name().unwrap().to_string_lossy().contains("-of-"))
            .collect();
        shards.sort();
        assert!(shards.len() >= 2, "the qwen2 fixture is sharded");
        shards.remove(1)
    };
    let folder = copy("qwen2");
    let second = shard(folder.path());
    let name = second.file_name().unwrap().to_string_lossy().into_owned();
    let bytes = fs::read(&second).unwrap();
    fs::write(&second, &bytes[..bytes.len() - 3]).unwrap();
    assert_refused(folder.path(), &[&name, "cut short"]);
    fs::remove_file(&second).unwrap();
    assert_refused(folder.path(), &[&name, "missing"]);

    let folder = copy("qwen2");
    edit_json(&folder.path().join("model.safetensors.index.json"), |index| {
        let first = index["weight_map"].as_object_mut().unwrap().values_mut().next().unwrap();
        *first = json!("../../etc/passwd");
    });
    assert_refused(folder.path(), &["model.safetensors.index.json", "plain file name"]);
}

fn json_usize(file: &Path, key: &str) -> usize {
    let json: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    json[key].as_u64().unwrap() as usize
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes are changed, the folder is opened or refused: nothing panics, nothing hangs.
    #[test]
    fn any_damage_ends_in_a_model_or_an_error(
        file in prop::sample::select(vec!["config.json", "model.safetensors"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
    ) {
        let folder = copy("llama");
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let reach = if in_header { bytes.len().min(400) } else { bytes.len() };
        for (place, byte) in changes {
            bytes[place.index(reach)] = byte;
        }
        fs::write(&path, bytes).unwrap();
        if let Err(error) = open_decoder(folder.path()) {
            prop_assert!(error.to_string().contains(file) || error.to_string().contains("model.safetensors"), "{}", error);
        }
    }
}
