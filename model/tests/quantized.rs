//! Checkpoints whose weights are quantised as they are read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safelmm_model::checkpoint::open_decoder_quantized;
use safelmm_model::{Checkpoint, CheckpointError, Decoder, KvCache, Opening, Quantize, Segment};
use safetensors::tensor::{Dtype, TensorView};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn demo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint")
}

fn demo(quantize: Quantize) -> Checkpoint {
    Checkpoint::open_with(&demo_folder(), Opening { quantize, ..Opening::default() }).unwrap()
}

const TEXT: &str = "The old woman lived alone at the end of the lane, in a small house with a red door. Every morning she \
    went down to the river with her basket, and the children of the village ran after her and asked for a story. \"Sit \
    down,\" she said, \"and I will tell you of the time when the king's daughter was lost in the forest.\" They sat down \
    in the grass, and for a while there was no sound but the wind in the trees and the water over the stones. It was late \
    in the year; the leaves had turned, and the nights were already cold. When she had come to the end, nobody said a \
    word. Then the smallest of the boys asked whether the princess had ever found the way home again.";

/// The text's tokens behind the one that begins it, and the natural logarithms of the probabilities that stand before each.
fn predictions(checkpoint: &Checkpoint) -> (Vec<u32>, Vec<Vec<f64>>) {
    let mut tokens = vec![checkpoint.neutral_start().unwrap()];
    tokens.extend(checkpoint.tokenizer.encode(TEXT, false).unwrap());
    let hidden = checkpoint.decoder.forward(&[&tokens[..tokens.len() - 1]]).unwrap();
    let rows = checkpoint.decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
    let normalised = rows.into_iter().map(|row| {
        let row: Vec<f64> = row.into_iter().map(f64::from).collect();
        let total = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        row.into_iter().map(|logit| logit - total).collect()
    });
    (tokens.split_off(1), normalised.collect())
}

/// Perplexity on a text this short goes up or down by chance, by several percent where distributions hardly differ. What
/// fewer bits cost is how far the distributions are from those of f32: the mean of Σ p · ln (p / q) (Kullback and Leibler
/// 1951, section 2) is the logarithm of the factor by which perplexity grows on texts that the model would write itself.
#[test]
fn quantised_weights_predict_little_worse() {
    let (tokens, exact) = predictions(&demo(Quantize::None));
    // What is reached with this model of 6 million parameters: 0.0005 and 0.0056.
    for (quantize, divergence_allowed, ratio_allowed) in [(Quantize::Q8, 0.001, 1.01), (Quantize::Q4, 0.008, 1.03)] {
        let (_, got) = predictions(&demo(quantize));
        let (mut divergence, mut nats) = (0.0, 0.0);
        for ((p, q), &token) in exact.iter().zip(&got).zip(&tokens) {
            divergence += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / tokens.len() as f64;
            nats += (p[token as usize] - q[token as usize]) / tokens.len() as f64;
        }
        let ratio = nats.exp();
        println!("{quantize}: {divergence:.5} nats from f32, perplexity of the text times {ratio:.4}");
        assert!(divergence < divergence_allowed, "{quantize}: {divergence} nats from f32");
        assert!(ratio < ratio_allowed, "{quantize}: perplexity times {ratio}");
    }
}

#[test]
fn keys_of_one_precision_are_not_taken_for_those_of_another() {
    let all = Quantize::ALL.map(|quantize| demo(quantize).fingerprint().unwrap().to_owned());
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
    assert_eq!(all[2], demo(Quantize::Q4).fingerprint().unwrap());
}

fn segment<'a>(tokens: &'a [u32], cache: &'a mut KvCache, total: usize) -> Segment<'a> {
    Segment { tokens, cache, total }
}

/// Logits of every row, as bits.
fn logits(decoder: &Decoder, segments: &mut [Segment<'_>]) -> Vec<Vec<u32>> {
    let hidden = decoder.forward_cached(segments).unwrap();
    let rows = decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
}

#[test]
fn a_sequence_has_the_same_bits_alone_in_company_and_in_pieces() {
    for family in ["llama", "mistral", "qwen2", "qwen3", "olmo2"] {
        for quantize in [Quantize::Q8, Quantize::Q4] {
            let decoder = open_decoder_quantized(&fixture(family), quantize).unwrap();
            let vocab = decoder.config().vocab_size as u32;
            let one: Vec<u32> = (0..23).map(|i| (i * 7 + 3) % vocab).collect();
            let other: Vec<u32> = (0..19).map(|i| (i * 5 + 1) % vocab).collect();
            let cache = || KvCache::unpooled(decoder.config(), 64);
            let alone = logits(&decoder, &mut [segment(&one, &mut cache(), 23)]);
            let (mut a, mut b) = (cache(), cache());
            let together = logits(&decoder, &mut [segment(&other, &mut a, 19), segment(&one, &mut b, 23)]);
            assert!(together[19..] == alone, "{family} {quantize}: another sequence beside it changes the bits");
            let (mut cache, mut pieces) = (cache(), Vec::new());
            for piece in [&one[..1], &one[1..18], &one[18..]] {
                pieces.extend(logits(&decoder, &mut [segment(piece, &mut cache, 23)]));
            }
            assert!(pieces == alone, "{family} {quantize}: pieces change the bits");
        }
    }
}

#[test]
fn weights_beyond_all_scales_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("qwen3").join("config.json"), folder.path().join("config.json")).unwrap();
    let bytes = std::fs::read(fixture("qwen3").join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    let shape = tensors.tensor(name).unwrap().shape().to_vec();
    let mut values = vec![0.5_f32; shape.iter().product()];
    values[5] = 1e9;
    let large: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let views = tensors.tensors().into_iter().map(|(key, view)| match key == name {
        true => (key, TensorView::new(Dtype::F32, shape.clone(), &large).unwrap()),
        false => (key, view),
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    assert!(open_decoder_quantized(folder.path(), Quantize::None).is_ok());
    match open_decoder_quantized(folder.path(), Quantize::Q8) {
        Err(error @ CheckpointError::Quantize { .. }) => {
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("element 5") && text.contains("1000000000"), "{text}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn an_adapter_is_merged_before_the_weights_are_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let (adapter, merged) = (folder.path().join("adapter"), folder.path().join("merged"));
    for made in [&adapter, &merged] {
        std::fs::create_dir(made).unwrap();
    }
    for file in std::fs::read_dir(demo_folder()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), merged.join(file.file_name())).unwrap();
    }
    let mut weights = candle_core::safetensors::load(merged.join("model.safetensors"), &Device::Cpu).unwrap();
    weights.values_mut().for_each(|weight| *weight = weight.to_dtype(DType::F32).unwrap());
    let (mut factors, rank, alpha) = (std::collections::HashMap::new(), 3, 6.0);
    for module in ["model.layers.1.mlp.down_proj", "model.layers.4.self_attn.q_proj"] {
        let weight = weights.get_mut(&format!("{module}.weight")).unwrap();
        let (out, input) = weight.dims2().unwrap();
        let factor = |rows: usize, columns: usize| {
            let values = (0..rows * columns).map(|i| ((i * 2_654_435_761) % 1009) as f32 / 5045.0 - 0.1).collect();
            Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
        };
        let (a, b) = (factor(rank, input), factor(out, rank));
        *weight = (&*weight + (b.matmul(&a).unwrap() * (alpha / rank as f64)).unwrap()).unwrap();
        factors.insert(format!("base_model.model.{module}.lora_A.weight"), a);
        factors.insert(format!("base_model.model.{module}.lora_B.weight"), b);
    }
    candle_core::safetensors::save(&weights, merged.join("model.safetensors")).unwrap();
    candle_core::safetensors::save(&factors, adapter.join("adapter_model.safetensors")).unwrap();
    let config = format!(r#"{{"peft_type": "LORA", "lora_alpha": {alpha}, "bias": "none"}}"#);
    std::fs::write(adapter.join("adapter_config.json"), config).unwrap();
    for quantize in Quantize::ALL {
        let opened = Checkpoint::open_with(&demo_folder(), Opening { adapter: Some(&adapter), quantize }).unwrap();
        let joined = Checkpoint::open_with(&merged, Opening { adapter: None, quantize }).unwrap();
        assert_eq!(opened.decoder.digest().unwrap(), joined.decoder.digest().unwrap(), "{quantize}");
        assert_ne!(opened.decoder.digest().unwrap(), demo(quantize).decoder.digest().unwrap(), "{quantize}");
    }
}
