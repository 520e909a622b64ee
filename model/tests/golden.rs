//! Logits and greedy continuations of small random checkpoints of every family, compared with those of the
//! `transformers` library (`tests/fixtures/README.md` says how the files are made).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safelmm_model::checkpoint::open_decoder;
use safelmm_model::{Decoder, KvCache, Segment};

/// Greatest absolute difference of any logit, in f32.
const TOLERANCE: f32 = 1e-4;

const FAMILIES: [&str; 8] =
    ["llama", "llama-linear", "llama-yarn", "llama-dynamic", "mistral", "qwen2", "qwen3", "olmo2"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

struct Golden {
    prompts: Vec<Vec<u32>>,
    logits: Vec<Vec<Vec<f32>>>,
    greedy: Option<Vec<u32>>,
}

fn golden(name: &str) -> Golden {
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(fixture(name).join("golden.safetensors"), &Device::Cpu).unwrap();
    let ids = |t: &Tensor| -> Vec<u32> { t.to_dtype(DType::U32).unwrap().to_vec1().unwrap() };
    Golden {
        prompts: (0..3).map(|i| ids(&tensors[&format!("prompt.{i}")])).collect(),
        logits: (0..3).map(|i| tensors[&format!("logits.{i}")].to_vec2().unwrap()).collect(),
        greedy: tensors.get("greedy.0").map(ids),
    }
}

/// Logits of every row of the segments, [rows][vocab].
fn logits(decoder: &Decoder, segments: &mut [Segment<'_>]) -> Vec<Vec<f32>> {
    let hidden = decoder.forward(segments).unwrap();
    decoder.logits(&hidden).unwrap().to_vec2().unwrap()
}

fn difference(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    assert_eq!(got.len(), want.len());
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    // A NaN must not pass for a small difference.
    pairs.map(|(g, w)| (g - w).abs()).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

fn assert_close(got: &[Vec<f32>], want: &[Vec<f32>], what: &str) {
    let worst = difference(got, want);
    assert!(worst <= TOLERANCE, "{what}: logits differ by {worst}");
}

/// A folder with the weights of one fixture and the configuration of another.
fn with_config_of(weights: &str, config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(weights).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(fixture(config).join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

#[test]
fn each_prompt_alone() {
    for family in FAMILIES {
        let (decoder, golden) = (open_decoder(&fixture(family)).unwrap(), golden(family));
        for (prompt, want) in golden.prompts.iter().zip(&golden.logits) {
            let got = logits(&decoder, &mut [Segment { tokens: prompt, cache: None }]);
            assert_close(&got, want, &format!("{family}, {} tokens", prompt.len()));
        }
    }
}

#[test]
fn prompts_of_different_lengths_packed_without_padding() {
    for family in FAMILIES {
        let (decoder, golden) = (open_decoder(&fixture(family)).unwrap(), golden(family));
        let mut segments: Vec<_> = golden.prompts.iter().map(|p| Segment { tokens: p, cache: None }).collect();
        let got = logits(&decoder, &mut segments);
        assert_close(&got, &golden.logits.concat(), family);
    }
}

/// With caches: every prompt is cut at another place, and its parts run in one batch with the parts of the others.
#[test]
fn prompts_in_parts_through_the_cache() {
    for family in FAMILIES.into_iter().filter(|f| *f != "llama-dynamic") {
        let (decoder, golden) = (open_decoder(&fixture(family)).unwrap(), golden(family));
        let new_cache = |p: &Vec<u32>| KvCache::new(decoder.config(), p.len(), &Device::Cpu).unwrap();
        for cuts in [[1, 4, 9], [2, 16, 1], [4, 1, 32]] {
            let mut caches: Vec<KvCache> = golden.prompts.iter().map(new_cache).collect();
            let mut got = vec![Vec::new(); golden.prompts.len()];
            for part in 0..2 {
                let pieces: Vec<&[u32]> = golden
                    .prompts
                    .iter()
                    .zip(cuts)
                    .map(|(prompt, cut)| if part == 0 { &prompt[..cut] } else { &prompt[cut..] })
                    .collect();
                let mut segments: Vec<_> =
                    pieces.iter().zip(&mut caches).map(|(tokens, c)| Segment { tokens, cache: Some(c) }).collect();
                let mut rows = logits(&decoder, &mut segments).into_iter();
                for (rows_of, piece) in got.iter_mut().zip(&pieces) {
                    rows_of.extend(rows.by_ref().take(piece.len()));
                }
            }
            for (got, want) in got.iter().zip(&golden.logits) {
                assert_close(got, want, &format!("{family}, cut at {cuts:?}"));
            }
        }
    }
}

#[test]
fn greedy_continuation_token_by_token() {
    let mut compared = 0;
    for family in FAMILIES {
        let (decoder, golden) = (open_decoder(&fixture(family)).unwrap(), golden(family));
        let Some(want) = golden.greedy else { continue };
        let mut cache = KvCache::new(decoder.config(), golden.prompts[0].len() + want.len(), &Device::Cpu).unwrap();
        let mut tokens = golden.prompts[0].clone();
        let mut got = Vec::new();
        for _ in 0..want.len() {
            let rows = logits(&decoder, &mut [Segment { tokens: &tokens, cache: Some(&mut cache) }]);
            let last = rows.last().unwrap();
            let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
            got.push(best as u32);
            tokens = vec![best as u32];
        }
        assert_eq!(got, want, "{family}");
        compared += 1;
    }
    assert!(compared >= 7, "only {compared} families have a greedy continuation");
}

/// The keys of transformers 4 (`rope_theta`, `rope_scaling`) mean what those of transformers 5 mean.
#[test]
fn configurations_as_transformers_4_wrote_them() {
    for (weights, config) in [("llama", "llama-v4-config"), ("llama-linear", "llama-linear-v4-config")] {
        let decoder = open_decoder(with_config_of(weights, config).path()).unwrap();
        let golden = golden(weights);
        for (prompt, want) in golden.prompts.iter().zip(&golden.logits) {
            assert_close(&logits(&decoder, &mut [Segment { tokens: prompt, cache: None }]), want, config);
        }
    }
}

#[test]
fn yarn_with_its_own_betas_and_attention_factor() {
    let decoder = open_decoder(with_config_of("llama-yarn", "llama-yarn-betas").path()).unwrap();
    let golden = golden("llama-yarn-betas");
    for (prompt, want) in golden.prompts.iter().zip(&golden.logits) {
        assert_close(&logits(&decoder, &mut [Segment { tokens: prompt, cache: None }]), want, "llama-yarn-betas");
    }
}

#[test]
fn a_full_cache_and_a_foreign_token_are_refused() {
    let decoder = open_decoder(&fixture("qwen3")).unwrap();
    let mut cache = KvCache::new(decoder.config(), 2, &Device::Cpu).unwrap();
    let error = decoder.forward(&mut [Segment { tokens: &[1, 2, 3], cache: Some(&mut cache) }]).unwrap_err();
    assert!(error.to_string().contains("no room for 3 more"), "{error}");
    let error = decoder.forward(&mut [Segment { tokens: &[99_999], cache: None }]).unwrap_err();
    assert!(error.to_string().contains("token 99999 is outside the vocabulary"), "{error}");
    assert!(decoder.forward(&mut [Segment { tokens: &[], cache: None }]).is_err());
}

/// Row by row bit for bit the same, alone and in company, with caches of different lengths.
#[test]
fn a_sequence_has_the_same_logits_in_any_company() {
    for family in ["llama", "mistral", "qwen3", "olmo2"] {
        let (decoder, golden) = (open_decoder(&fixture(family)).unwrap(), golden(family));
        let prompts: Vec<&[u32]> = golden.prompts.iter().cycle().take(16).map(Vec::as_slice).collect();
        // Prefill, then one token for each: what `step` does.
        let run = |members: &[usize]| -> Vec<Vec<f32>> {
            let mut caches: Vec<KvCache> =
                members.iter().map(|_| KvCache::new(decoder.config(), 40, &Device::Cpu).unwrap()).collect();
            let mut last = Vec::new();
            for tokens in [None, Some([7_u32])] {
                let mut segments: Vec<_> = members
                    .iter()
                    .zip(&mut caches)
                    .map(|(m, cache)| Segment {
                        tokens: tokens.as_ref().map_or(prompts[*m], |t| &t[..]),
                        cache: Some(cache),
                    })
                    .collect();
                last = logits(&decoder, &mut segments);
            }
            last
        };
        let alone: Vec<Vec<f32>> = (0..3).map(|m| run(&[m]).remove(0)).collect();
        for company in [vec![0, 1], vec![2, 0, 1], (0..8).collect(), (0..16).collect::<Vec<_>>()] {
            for (row, member) in run(&company).iter().zip(&company) {
                assert!(*row == alone[member % 3], "{family}: sequence {member} in a company of {}", company.len());
            }
        }
    }
}
