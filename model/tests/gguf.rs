//! Folders whose weights come from a GGUF file: the same model as from safetensors, in every type of block.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use safelmm_model::checkpoint::{open_decoder, open_decoder_quantized};
use safelmm_model::{Decoder, Quantize};

const HIDDEN: usize = 256;
const WIDE: usize = 512;
const VOCAB: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;

fn config(family: &str) -> String {
    let architecture = match family {
        "llama" => "LlamaForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        _ => "Qwen3ForCausalLM",
    };
    format!(
        r#"{{"architectures": ["{architecture}"], "model_type": "{family}", "vocab_size": {VOCAB}, "hidden_size": {HIDDEN},
        "intermediate_size": {WIDE}, "num_hidden_layers": {LAYERS}, "num_attention_heads": {HEADS},
        "num_key_value_heads": {KV_HEADS}, "head_dim": {HEAD_DIM}, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"}}"#
    )
}

/// Every parameter: its name in safetensors and in GGUF, its shape, and its heads where GGUF interleaves their halves.
fn parameters(family: &str) -> Vec<(String, String, Vec<usize>, Option<usize>)> {
    let mut all = Vec::new();
    let mut add = |name: &str, gguf: &str, shape: &[usize], heads: Option<usize>| {
        all.push((name.to_owned(), gguf.to_owned(), shape.to_vec(), heads.filter(|_| family == "llama")));
    };
    add("model.embed_tokens.weight", "token_embd.weight", &[VOCAB, HIDDEN], None);
    add("model.norm.weight", "output_norm.weight", &[HIDDEN], None);
    add("lm_head.weight", "output.weight", &[VOCAB, HIDDEN], None);
    for layer in 0..LAYERS {
        let mut layer = |name: &str, gguf: &str, shape: &[usize], heads: Option<usize>| {
            add(&format!("model.layers.{layer}.{name}"), &format!("blk.{layer}.{gguf}"), shape, heads);
        };
        let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        layer("self_attn.q_proj.weight", "attn_q.weight", &[q, HIDDEN], Some(HEADS));
        layer("self_attn.k_proj.weight", "attn_k.weight", &[kv, HIDDEN], Some(KV_HEADS));
        layer("self_attn.v_proj.weight", "attn_v.weight", &[kv, HIDDEN], None);
        layer("self_attn.o_proj.weight", "attn_output.weight", &[HIDDEN, q], None);
        layer("mlp.gate_proj.weight", "ffn_gate.weight", &[WIDE, HIDDEN], None);
        layer("mlp.up_proj.weight", "ffn_up.weight", &[WIDE, HIDDEN], None);
        layer("mlp.down_proj.weight", "ffn_down.weight", &[HIDDEN, WIDE], None);
        layer("input_layernorm.weight", "attn_norm.weight", &[HIDDEN], None);
        layer("post_attention_layernorm.weight", "ffn_norm.weight", &[HIDDEN], None);
        if family == "qwen2" {
            layer("self_attn.q_proj.bias", "attn_q.bias", &[q], None);
            layer("self_attn.k_proj.bias", "attn_k.bias", &[kv], None);
            layer("self_attn.v_proj.bias", "attn_v.bias", &[kv], None);
        }
        if family == "qwen3" {
            layer("self_attn.q_norm.weight", "attn_q_norm.weight", &[HEAD_DIM], None);
            layer("self_attn.k_norm.weight", "attn_k_norm.weight", &[HEAD_DIM], None);
        }
    }
    all
}

fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let values =
        (0..shape.iter().product()).map(|i| ((i * 31 + seed * 7919) * 2_654_435_761 % 1009) as f32 / 5045.0 - 0.1);
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

/// Exchanges the order in which the halves of heads lie: `from` 2 halves of d/2 rows each, or the other way round.
fn exchanged(tensor: &Tensor, heads: usize, from: (usize, usize)) -> Tensor {
    let (rows, width) = tensor.dims2().unwrap();
    assert_eq!(from.0 * from.1 * heads, rows);
    let split = tensor.reshape((heads, from.0, from.1, width)).unwrap();
    split.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, width)).unwrap()
}

/// Writes the same model in both formats: `plain/` and `gguf/`, matrices as blocks of a type, which may lose something;
/// what is left of them is what safetensors hold.
fn write(folder: &Path, family: &str, dtype: GgmlDType) {
    let (mut plain, mut blocks) = (HashMap::new(), Vec::new());
    for (seed, (name, gguf, shape, heads)) in parameters(family).into_iter().enumerate() {
        let tensor = numbers(&shape, seed);
        let tensor = heads.map_or(tensor.clone(), |heads| exchanged(&tensor, heads, (2, HEAD_DIM / 2)));
        let stored = QTensor::quantize(&tensor, if shape.len() == 2 { dtype } else { GgmlDType::F32 }).unwrap();
        let left = stored.dequantize(&Device::Cpu).unwrap();
        plain.insert(name, heads.map_or(left.clone(), |heads| exchanged(&left, heads, (HEAD_DIM / 2, 2))));
        blocks.push((gguf, stored));
    }
    for made in ["plain", "gguf"] {
        fs::create_dir_all(folder.join(made)).unwrap();
        fs::write(folder.join(made).join("config.json"), config(family)).unwrap();
    }
    candle_core::safetensors::save(&plain, folder.join("plain/model.safetensors")).unwrap();
    let tensors: Vec<(&str, &QTensor)> = blocks.iter().map(|(name, tensor)| (&name[..], tensor)).collect();
    write_gguf(&folder.join("gguf/model.gguf"), &[("general.architecture", &Value::String(family.into()))], &tensors);
}

fn write_gguf(file: &Path, metadata: &[(&str, &Value)], tensors: &[(&str, &QTensor)]) {
    gguf_file::write(&mut fs::File::create(file).unwrap(), metadata, tensors).unwrap();
}

fn digest(decoder: Decoder) -> [u8; 32] {
    decoder.digest().unwrap()
}

#[test]
fn every_family_is_the_model_that_safetensors_hold() {
    for family in ["llama", "qwen2", "qwen3"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), family, GgmlDType::F32);
        let (plain, gguf) = (folder.path().join("plain"), folder.path().join("gguf"));
        assert_eq!(digest(open_decoder(&gguf).unwrap()), digest(open_decoder(&plain).unwrap()), "{family}");
    }
}

#[test]
fn every_type_of_block_is_read_and_quantised_anew() {
    use GgmlDType::{BF16, F16, Q4_0, Q4_1, Q4K, Q5K, Q6K, Q8_0};
    for dtype in [F16, BF16, Q8_0, Q4_0, Q4_1, Q4K, Q5K, Q6K] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "llama", dtype);
        for quantize in Quantize::ALL {
            let open = |name: &str| open_decoder_quantized(&folder.path().join(name), quantize).unwrap();
            assert_eq!(digest(open("gguf")), digest(open("plain")), "{dtype:?} as {quantize}");
        }
    }
}

#[test]
fn files_that_do_not_fit_are_refused_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "llama", GgmlDType::Q8_0);
    let gguf = folder.path().join("gguf");
    let file = gguf.join("model.gguf");
    let refused = |words: &[&str]| {
        let message = open_decoder(&gguf).err().expect("it was opened").to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    fs::write(gguf.join("config.json"), config("qwen3")).unwrap();
    refused(&["model.gguf", "architecture is llama", "qwen3"]);
    fs::write(
        gguf.join("config.json"),
        config("llama").replace("\"intermediate_size\": 512", "\"intermediate_size\": 768"),
    )
    .unwrap();
    refused(&["model.gguf", "model.layers.0.mlp.gate_proj.weight", "[512, 256]", "[768, 256]"]);
    fs::remove_file(gguf.join("config.json")).unwrap();
    refused(&["config.json", "model.gguf", "weights alone", "tokenizer.json"]);
    fs::write(gguf.join("config.json"), config("llama")).unwrap();
    assert!(open_decoder(&gguf).is_ok());

    let bytes = fs::read(&file).unwrap();
    for length in [0, 3, 40, 1000, bytes.len() - 4000] {
        fs::write(&file, &bytes[..length]).unwrap();
        refused(&["model.gguf", "cut short"]);
    }
    let architecture = Value::String("llama".into());
    write_gguf(&file, &[("general.architecture", &architecture), ("general.alignment", &Value::U32(0))], &[]);
    refused(&["model.gguf", "impossible number"]);
    write_gguf(&file, &[("general.architecture", &architecture)], &[]);
    refused(&["model.gguf", "model.embed_tokens.weight", "missing"]);
    let extra = QTensor::quantize(&numbers(&[8], 1), GgmlDType::F32).unwrap();
    fs::write(&file, &bytes).unwrap();
    let mut reader = fs::File::open(&file).unwrap();
    let content = gguf_file::Content::read(&mut reader).unwrap();
    let read = |name: &String| content.tensor(&mut reader.try_clone().unwrap(), name, &Device::Cpu).unwrap();
    let tensors: Vec<(&String, QTensor)> = content.tensor_infos.keys().map(|name| (name, read(name))).collect();
    let mut all: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (&name[..], tensor)).collect();
    all.push(("blk.0.attn_sinks.weight", &extra));
    write_gguf(&file, &[("general.architecture", &architecture)], &all);
    refused(&["model.gguf", "blk.0.attn_sinks.weight", "no place"]);

    fs::copy(&file, gguf.join("other.gguf")).unwrap();
    refused(&["other.gguf", "model.gguf", "one GGUF file"]);
}
