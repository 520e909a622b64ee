//! Keys of contexts, and the fingerprint that says whose keys they are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safelmm_model::checkpoint::open_decoder;
use safelmm_model::{Checkpoint, Decoder, KvCache, Segment};

const FAMILIES: [&str; 6] = ["llama", "llama-yarn", "mistral", "qwen2", "qwen3", "olmo2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/checkpoint")
}

fn packed(name: &str) -> Decoder {
    let mut decoder = open_decoder(&fixture(name)).unwrap();
    decoder.pack().unwrap();
    decoder
}

fn tokens(length: usize, seed: usize, vocab: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 31 + seed * 17 + i * i % 7) % vocab) as u32).collect()
}

fn bits(keys: &Tensor) -> Vec<Vec<u32>> {
    let rows: Vec<Vec<f32>> = keys.to_vec2().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
}

/// The keys of a sequence that runs in pieces beside another one, of every second row.
fn in_pieces(decoder: &Decoder, tokens: &[u32], piece: usize) -> Vec<(usize, Vec<u32>)> {
    let mut cache = KvCache::unpooled(decoder.config(), tokens.len());
    let mut found = Vec::new();
    while cache.len() < tokens.len() {
        let first = cache.len();
        let end = tokens.len().min(first + piece);
        let mut other = KvCache::unpooled(decoder.config(), 5);
        let segments = &mut [
            Segment { tokens: &[3, 1, 4, 1, 5], cache: &mut other, total: 5 },
            Segment { tokens: &tokens[first..end], cache: &mut cache, total: tokens.len() },
        ];
        let places: Vec<usize> = (first..end).filter(|place| place % 2 == 0).collect();
        let wanted: Vec<u32> = places.iter().map(|place| (5 + place - first) as u32).collect();
        let (hidden, keys) = decoder.forward_cached_with_keys(segments, &wanted).unwrap();
        assert_eq!(hidden.dims(), [5 + end - first, decoder.config().hidden_size]);
        assert_eq!(keys.is_none(), wanted.is_empty());
        found.extend(keys.iter().flat_map(|keys| places.iter().copied().zip(bits(keys))));
    }
    found
}

#[test]
fn a_key_has_the_same_bits_from_whole_sequences_and_from_running_ones() {
    for family in FAMILIES {
        let decoder = packed(family);
        let vocab = decoder.config().vocab_size;
        let longest = decoder.config().context_length().min(200);
        // More rows than are run at once, so that sequences are cut.
        let sequences: Vec<Vec<u32>> =
            [longest, 1, 33].into_iter().cycle().take(20).enumerate().map(|(i, n)| tokens(n, i, vocab)).collect();
        let all = bits(&decoder.keys(&sequences.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap());
        assert_eq!(all.len(), sequences.iter().map(Vec::len).sum::<usize>());
        let mut row = 0;
        for (i, sequence) in sequences.iter().enumerate() {
            let own = &all[row..row + sequence.len()];
            row += sequence.len();
            if i % 5 == 0 {
                assert_eq!(own, bits(&decoder.keys(&[sequence]).unwrap()), "{family}: alone");
                for piece in [1, 7, 64] {
                    for (place, key) in in_pieces(&decoder, sequence, piece) {
                        assert_eq!(own[place], key, "{family}: place {place} in pieces of {piece}");
                    }
                }
            }
        }
    }
}

/// Behind a norm, what is divided by the norm's weight has a mean square of 1.
#[test]
fn a_key_is_the_input_of_the_last_feed_forward_behind_its_norm() {
    for family in ["llama", "qwen3"] {
        let decoder = packed(family);
        let last = decoder.config().n_layers - 1;
        assert_eq!(decoder.key_layer(), format!("model.layers.{last}.mlp.input"));
        let weights = candle_core::safetensors::load(fixture(family).join("model.safetensors"), &Device::Cpu).unwrap();
        let weight = &weights[&format!("model.layers.{last}.post_attention_layernorm.weight")];
        let weight: Vec<f32> = weight.to_dtype(candle_core::DType::F32).unwrap().to_vec1().unwrap();
        let keys: Vec<Vec<f32>> = decoder.keys(&[&tokens(12, 1, 90)]).unwrap().to_vec2().unwrap();
        for key in keys {
            let squares: f32 = key.iter().zip(&weight).map(|(x, w)| (x / w).powi(2)).sum();
            assert!((squares / weight.len() as f32 - 1.0).abs() < 1e-2, "{family}: {squares}");
        }
    }
}

#[test]
fn what_has_no_keys_is_refused() {
    let decoder = packed("qwen3");
    let long = vec![1; decoder.config().context_length() + 1];
    let error = decoder.keys(&[&[1], &long]).unwrap_err().to_string();
    assert!(error.contains("does not fit the context"), "{error}");
    assert!(decoder.keys(&[&[1], &[]]).is_err());
    assert!(decoder.keys(&[&[99_999]]).is_err());
    assert!(decoder.keys(&[]).is_err());
}

/// The demo in a folder of its own.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(demo()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn a_fingerprint_tells_models_apart_by_what_they_compute() {
    let of = |folder: &Path| Checkpoint::open(folder).unwrap().fingerprint().unwrap().to_owned();
    let own = of(&demo());
    assert_eq!(own.len(), 64);
    let folder = copy();
    assert_eq!(of(folder.path()), own, "where a folder lies does not matter");
    let weights = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2; // the tensors' type has at least two bytes: the lowest bit of the last number
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(of(folder.path()), own, "one bit of one weight");
    for file in ["config.json", "tokenizer.json"] {
        let folder = copy();
        let mut text = fs::read_to_string(folder.path().join(file)).unwrap();
        text.push('\n');
        fs::write(folder.path().join(file), text).unwrap();
        assert_ne!(of(folder.path()), own, "{file}");
    }
}

#[test]
fn packing_does_not_change_the_digest() {
    for family in FAMILIES {
        let mut decoder = open_decoder(&fixture(family)).unwrap();
        let before = decoder.digest().unwrap();
        decoder.pack().unwrap();
        assert_eq!(decoder.digest().unwrap(), before, "{family}");
    }
}
