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

/// The decoder as the trainer has it, and as the server has it.
fn both(folder: &Path) -> [Decoder; 2] {
    [open_decoder(folder).unwrap(), packed(folder)]
}

fn packed(folder: &Path) -> Decoder {
    let mut decoder = open_decoder(folder).unwrap();
    decoder.pack().unwrap();
    decoder
}

/// Logits of every row of whole sequences, [rows][vocab].
fn logits(decoder: &Decoder, sequences: &[&[u32]]) -> Vec<Vec<f32>> {
    let hidden = decoder.forward(sequences).unwrap();
    decoder.logits(&hidden).unwrap().to_vec2().unwrap()
}

/// Logits of every row of sequences that go on, [rows][vocab].
fn cached_logits(decoder: &Decoder, segments: &mut [Segment<'_>]) -> Vec<Vec<f32>> {
    let hidden = decoder.forward_cached(segments).unwrap();
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
        let golden = golden(family);
        for decoder in both(&fixture(family)) {
            for (prompt, want) in golden.prompts.iter().zip(&golden.logits) {
                let got = logits(&decoder, &[prompt]);
                assert_close(&got, want, &format!("{family}, {} tokens", prompt.len()));
                let hidden = decoder.forward(&[prompt]).unwrap();
                let scores = decoder.token_log_probs(&hidden.narrow(0, 0, prompt.len() - 1).unwrap(), &prompt[1..]);
                for ((row, target), score) in want.iter().zip(&prompt[1..]).zip(scores.unwrap()) {
                    let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                    assert!((f64::from(row[*target as usize]) - sum.ln() - f64::from(score)).abs() < 2e-4);
                }
            }
        }
    }
}

#[test]
fn prompts_of_different_lengths_packed_without_padding() {
    for family in FAMILIES {
        let golden = golden(family);
        let sequences: Vec<&[u32]> = golden.prompts.iter().map(Vec::as_slice).collect();
        for decoder in both(&fixture(family)) {
            assert_close(&logits(&decoder, &sequences), &golden.logits.concat(), family);
        }
    }
}

/// With caches: every prompt is cut at other places, and its parts run in one batch with the parts of the others.
#[test]
fn prompts_in_parts_through_the_cache() {
    for family in FAMILIES {
        let golden = golden(family);
        for decoder in both(&fixture(family)) {
            for cuts in [[1, 4, 9], [2, 16, 1], [4, 1, 32]] {
                let mut caches: Vec<KvCache> =
                    golden.prompts.iter().map(|p| KvCache::unpooled(decoder.config(), p.len())).collect();
                let mut got = vec![Vec::new(); golden.prompts.len()];
                for part in 0..2 {
                    let pieces: Vec<&[u32]> = golden
                        .prompts
                        .iter()
                        .zip(cuts)
                        .map(|(prompt, cut)| if part == 0 { &prompt[..cut] } else { &prompt[cut..] })
                        .collect();
                    let mut segments: Vec<_> = pieces
                        .iter()
                        .zip(&golden.prompts)
                        .zip(&mut caches)
                        .map(|((tokens, prompt), cache)| Segment { tokens, cache, total: prompt.len() })
                        .collect();
                    let mut rows = cached_logits(&decoder, &mut segments).into_iter();
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
}

#[test]
fn greedy_continuation_token_by_token() {
    let mut compared = 0;
    for family in FAMILIES {
        let (decoder, golden) = (packed(&fixture(family)), golden(family));
        let Some(want) = golden.greedy else { continue };
        let mut cache = KvCache::unpooled(decoder.config(), golden.prompts[0].len() + want.len());
        let mut tokens = golden.prompts[0].clone();
        let mut got = Vec::new();
        for _ in 0..want.len() {
            let total = cache.len() + tokens.len();
            let rows = cached_logits(&decoder, &mut [Segment { tokens: &tokens, cache: &mut cache, total }]);
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
            assert_close(&logits(&decoder, &[prompt]), want, config);
        }
    }
}

#[test]
fn yarn_with_its_own_betas_and_attention_factor() {
    let decoder = open_decoder(with_config_of("llama-yarn", "llama-yarn-betas").path()).unwrap();
    let golden = golden("llama-yarn-betas");
    for (prompt, want) in golden.prompts.iter().zip(&golden.logits) {
        assert_close(&logits(&decoder, &[prompt]), want, "llama-yarn-betas");
    }
}

#[test]
fn a_full_cache_and_a_foreign_token_are_refused() {
    let decoder = packed(&fixture("qwen3"));
    let mut cache = KvCache::unpooled(decoder.config(), 2);
    let long = vec![1; cache.capacity() + 1];
    let error = decoder.forward_cached(&mut [Segment { tokens: &long, cache: &mut cache, total: long.len() }]);
    assert!(error.unwrap_err().to_string().contains(&format!("no room for {} more", long.len())));
    let error = decoder.forward(&[&[99_999]]).unwrap_err();
    assert!(error.to_string().contains("token 99999 is outside the vocabulary"), "{error}");
    assert!(decoder.forward(&[&[]]).is_err());
    assert!(decoder.head().is_err(), "a packed decoder has no gradients");
}

/// Row by row bit for bit the same: alone and in company, in one piece and in many.
#[test]
fn a_sequence_has_the_same_logits_in_any_company_and_in_any_pieces() {
    for family in FAMILIES {
        let (decoder, golden) = (packed(&fixture(family)), golden(family));
        let prompts: Vec<&[u32]> = golden.prompts.iter().cycle().take(16).map(Vec::as_slice).collect();
        // Prefill in pieces of at most so many tokens, then one token: what `step` does.
        let run = |members: &[usize], piece: usize| -> Vec<Vec<f32>> {
            let whole: Vec<Vec<u32>> = members.iter().map(|m| [prompts[*m], &[7]].concat()).collect();
            let mut caches: Vec<KvCache> = members.iter().map(|_| KvCache::unpooled(decoder.config(), 40)).collect();
            let mut last = vec![Vec::new(); members.len()];
            while caches.iter().zip(&whole).any(|(cache, tokens)| cache.len() < tokens.len()) {
                let mut segments = Vec::new();
                let mut places = Vec::new();
                for (m, (cache, tokens)) in caches.iter_mut().zip(&whole).enumerate() {
                    let prompt = tokens.len() - 1;
                    let end = if cache.len() < prompt { prompt.min(cache.len() + piece) } else { tokens.len() };
                    let tokens = &tokens[cache.len()..end];
                    if !tokens.is_empty() {
                        let total = end.max(prompt);
                        segments.push(Segment { tokens, cache, total });
                        places.extend(tokens.iter().map(|_| m));
                    }
                }
                for (row, m) in cached_logits(&decoder, &mut segments).into_iter().zip(places) {
                    last[m] = row;
                }
            }
            last
        };
        let alone: Vec<Vec<f32>> = (0..3).map(|m| run(&[m], usize::MAX / 2).remove(0)).collect();
        for (company, piece) in
            [(vec![0, 1], 3), (vec![2, 0, 1], 1), ((0..8).collect(), 5), ((0..16).collect::<Vec<_>>(), 64)]
        {
            for (row, member) in run(&company, piece).iter().zip(&company) {
                let same = row.iter().zip(&alone[member % 3]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{family}: sequence {member} in a company of {}, pieces of {piece}", company.len());
            }
        }
    }
}
