//! How much memory it takes to open a checkpoint with quantised weights. A program of its own, since it looks at the
//! memory of the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::path::Path;

use half::bf16;
use safelmm_model::Quantize;
use safelmm_model::checkpoint::open_decoder_quantized;
use safetensors::tensor::{Dtype, TensorView};

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2048,
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 16, "num_attention_heads": 8,
    "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": true, "hidden_act": "silu"}"#;

/// A checkpoint of 53 million parameters in bf16: 105 MB.
fn write(folder: &Path) {
    let (hidden, wide) = (512, 1408);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![2048, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..16 {
        let names = |name: &str| format!("model.layers.{layer}.{name}.weight");
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            shapes.push((names(&format!("self_attn.{name}")), vec![hidden, hidden]));
        }
        shapes.extend([
            (names("mlp.gate_proj"), vec![wide, hidden]),
            (names("mlp.up_proj"), vec![wide, hidden]),
            (names("mlp.down_proj"), vec![hidden, wide]),
            (names("input_layernorm"), vec![hidden]),
            (names("post_attention_layernorm"), vec![hidden]),
        ]);
    }
    let largest = 2048 * hidden;
    let value = |i: usize| bf16::from_f32(((i * 2_654_435_761) % 1009) as f32 / 25_000.0 - 0.02);
    let bytes: Vec<u8> = (0..largest).flat_map(|i| value(i).to_le_bytes()).collect();
    let views = shapes.iter().map(|(name, shape)| {
        let size = 2 * shape.iter().product::<usize>();
        (name, TensorView::new(Dtype::BF16, shape.clone(), &bytes[..size]).unwrap())
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
}

/// A figure of /proc/self/status, in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn opening_never_holds_the_original_beside_the_packed_weights() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    // The program's own pages and threads are no part of what is measured.
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    open_decoder_quantized(&small, Quantize::Q4).unwrap();
    let before = status("VmRSS");
    for quantize in [Quantize::Q8, Quantize::Q4] {
        if std::fs::write("/proc/self/clear_refs", "5").is_err() {
            println!("skipped: the highest mark of the memory cannot be reset here");
            return;
        }
        let decoder = open_decoder_quantized(folder.path(), quantize).unwrap();
        let (peak, packed) = (status("VmHWM") - before, decoder.matrix_bytes());
        println!("{quantize}: {packed} bytes packed, {peak} at the peak, {:.3}", peak as f64 / packed as f64);
        assert!(peak as f64 <= 1.15 * packed as f64, "{quantize}: {peak} bytes at the peak for {packed} packed");
    }
}
