//! Random checkpoints in Llama's layout, for measurements that need a size and no meaning: the same seed, the same bits.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde_json::{Map, Value, json};

/// The shape of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of the hidden states.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate: usize,
    /// Tokens of the vocabulary; at least 258.
    pub vocab: usize,
}

/// TinyLlama's 1.1 billion parameters.
pub const TINY_LLAMA: Shape =
    Shape { hidden: 2048, layers: 22, heads: 32, kv_heads: 4, intermediate: 5632, vocab: 32_000 };
/// 110 million parameters, GPT-2's smallest width and depth.
pub const SMALL: Shape = Shape { hidden: 768, layers: 12, heads: 12, kv_heads: 12, intermediate: 2048, vocab: 16_000 };
/// The longest sequence of a checkpoint, in tokens.
pub const CONTEXT: usize = 2048;
/// The token that ends a text. Those before it are single bytes, so that a text of ASCII has as many tokens as characters.
pub const END_OF_TEXT: &str = "<|endoftext|>";

impl Shape {
    /// How many parameters it has.
    pub fn parameters(&self) -> usize {
        self.tensors(0).iter().map(|(_, tensor)| tensor.shape.iter().product::<usize>()).sum()
    }

    /// Writes the folder: weights in bf16, configuration and a tokenizer.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path, seed: u64) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        serialize_to_file(self.tensors(seed), None, &folder.join("model.safetensors"))?;
        let json = |name: &str, value: Value| fs::write(folder.join(name), value.to_string());
        json("tokenizer.json", self.tokenizer())?;
        let class = "PreTrainedTokenizerFast";
        json("tokenizer_config.json", json!({"tokenizer_class": class, "eos_token": END_OF_TEXT}))?;
        json("generation_config.json", json!({"eos_token_id": 256}))?;
        json("config.json", self.config())?;
        Ok(())
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
            "vocab_size": self.vocab, "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false, "bos_token_id": null,
            "eos_token_id": 256,
        })
    }

    /// Bytes, the end of text, one merge (of what no prompt here holds) and words that no text yields.
    fn tokenizer(&self) -> Value {
        let mut vocab = Map::new();
        for (id, symbol) in byte_symbols().into_iter().enumerate() {
            vocab.insert(symbol.to_string(), json!(id));
        }
        vocab.insert(END_OF_TEXT.to_owned(), json!(256));
        vocab.insert("zz".to_owned(), json!(257));
        for id in vocab.len()..self.vocab {
            vocab.insert(format!("w{id}"), json!(id));
        }
        let flags = json!({"single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
        let mut end = json!({"id": 256, "content": END_OF_TEXT, "special": true});
        for (name, value) in flags.as_object().into_iter().flatten() {
            end[name] = value.clone();
        }
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
            "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                "merges": [["z", "z"]],
            },
        })
    }

    fn tensors(&self, seed: u64) -> Vec<(String, Tensor)> {
        let Shape { hidden, intermediate, vocab, .. } = *self;
        let kv = self.kv_heads * (hidden / self.heads);
        let mut list = vec![
            ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
            ("lm_head.weight".to_owned(), vec![vocab, hidden]),
        ];
        for layer in 0..self.layers {
            for (name, shape) in [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![hidden, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
            ] {
                list.push((format!("model.layers.{layer}.{name}.weight"), shape));
            }
        }
        let numbered = list.into_iter().zip(1..);
        numbered.map(|((name, shape), stream)| (name, Tensor { shape, seed, stream })).collect()
    }
}

/// The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table).
fn byte_symbols() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut shifted = (0x100..).filter_map(char::from_u32);
    (0..=255u8).map(|byte| if printable(&byte) { byte as char } else { shifted.next().unwrap_or_default() }).collect()
}

/// A tensor whose values are drawn when they are written.
struct Tensor {
    shape: Vec<usize>,
    seed: u64,
    stream: u64,
}

impl View for Tensor {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Norms are 1; other values have random signs and random mantissas under one exponent: ±(1 to 2) / 64.
    fn data(&self) -> Cow<'_, [u8]> {
        const ONE: [u8; 2] = 0x3F80u16.to_le_bytes();
        const SIXTY_FOURTH: u16 = 121 << 7;
        let mut bytes = vec![0; self.data_len()];
        if self.shape.len() > 1 {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(self.stream);
            random.fill_bytes(&mut bytes);
        }
        for pair in bytes.as_chunks_mut::<2>().0 {
            *pair = match self.shape.len() {
                1 => ONE,
                _ => ((u16::from_le_bytes(*pair) & 0x807F) | SIXTY_FOURTH).to_le_bytes(),
            };
        }
        bytes.into()
    }

    fn data_len(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use safelmm_model::Checkpoint;

    use super::*;

    #[test]
    fn a_random_checkpoint_opens_and_a_character_is_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape { hidden: 32, layers: 2, heads: 4, kv_heads: 2, intermediate: 48, vocab: 300 };
        shape.write(folder.path(), 1).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.parameters(), shape.parameters());
        assert_eq!(checkpoint.tokenizer.encode("Four words, no more.", true).unwrap().len(), 20);
        let again = tempfile::tempdir().unwrap();
        shape.write(again.path(), 1).unwrap();
        let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert!(weights(folder.path()) == weights(again.path()), "one seed gave two checkpoints");
    }
}
