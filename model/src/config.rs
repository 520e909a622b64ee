//! `config.json`: the architecture of a checkpoint, in the Hugging Face layout.

use serde::Deserialize;
use serde_json::Value;

/// The families of decoders that one [`Decoder`](crate::Decoder) covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 1–3 and what shares their layout.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: biases on q, k and v.
    Qwen2,
    /// Qwen 3, and SafeLMM's own checkpoints: RMSNorm on each query and key head.
    Qwen3,
    /// OLMo 2: norms after the blocks, RMSNorm over the whole query and key projections.
    Olmo2,
}

/// Where queries and keys are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Nowhere.
    None,
    /// Over each head, one weight of `head_dim` for all heads.
    PerHead,
    /// Over all heads at once.
    WholeProjection,
}

/// RoPE and its published scalings.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies, θ.
    pub theta: f64,
    /// How frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// A scaling of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Position interpolation (Chen et al. 2023): all frequencies divided by `factor`.
    Linear {
        /// Stretch.
        factor: f64,
    },
    /// NTK-aware scaling that grows with the sequence beyond `original` positions.
    Dynamic {
        /// Stretch.
        factor: f64,
        /// Positions of the pretraining.
        original: usize,
    },
    /// By parts of the spectrum (Llama 3.1).
    Llama3 {
        /// Stretch of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are left alone.
        high_freq_factor: f64,
        /// Positions of the pretraining.
        original: usize,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// Stretch.
        factor: f64,
        /// Positions of the pretraining.
        original: usize,
        /// Rotations above which a dimension is left alone.
        beta_fast: f64,
        /// Rotations below which a dimension is interpolated in full.
        beta_slow: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Whether the ramp's borders are rounded outwards to whole dimensions.
        truncate: bool,
    },
    /// LongRoPE (Ding et al. 2024): a factor for each dimension, one set for short and one for long sequences.
    LongRope {
        /// Factors up to `original` positions.
        short: Vec<f64>,
        /// Factors beyond.
        long: Vec<f64>,
        /// Positions of the pretraining.
        original: usize,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family, which fixes parameter names and norm placement.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: Rope,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub o_bias: bool,
    /// Biases in the feed-forward layer.
    pub mlp_bias: bool,
    /// Normalisation of queries and keys.
    pub qk_norm: QkNorm,
    /// Sliding window of each layer, in tokens; `None` sees everything.
    pub windows: Vec<Option<usize>>,
    /// Beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a value of the wrong type.
    #[error("not a model configuration: {0}")]
    Json(#[from] serde_json::Error),
    /// A family this program does not know.
    #[error(
        "unknown architecture {0:?}: expected one of LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, \
         Qwen3ForCausalLM, Olmo2ForCausalLM"
    )]
    UnknownArchitecture(String),
    /// A known key with a value that is impossible or not supported.
    #[error("{key} is {got}: expected {expected}")]
    Value {
        /// The key in `config.json`.
        key: &'static str,
        /// What stands there.
        got: String,
        /// What would be accepted.
        expected: String,
    },
}

fn refuse<T>(key: &'static str, got: impl ToString, expected: impl ToString) -> Result<T, ConfigError> {
    Err(ConfigError::Value { key, got: got.to_string(), expected: expected.to_string() })
}

/// `config.json` as written; keys as transformers 4 and 5 name them.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<TokenIds>,
    quantization_config: Option<Value>,
}

/// One token id or several: both spellings occur in `config.json` and `generation_config.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl From<TokenIds> for Vec<u32> {
    fn from(ids: TokenIds) -> Self {
        match ids {
            TokenIds::One(id) => vec![id],
            TokenIds::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
    partial_rotary_factor: Option<f64>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Says which key holds what, and what was expected.
    pub fn from_json(json: &[u8]) -> Result<Config, ConfigError> {
        let raw: Raw = serde_json::from_slice(json)?;
        let family = family(&raw)?;
        if let Some(quantization) = &raw.quantization_config {
            return refuse("quantization_config", quantization, "none: only f32, f16 and bf16 weights are read");
        }
        match raw.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(other) => return refuse("hidden_act", other, "silu"),
        }
        let n_heads = raw.num_attention_heads;
        let n_kv_heads = raw.num_key_value_heads.unwrap_or(n_heads);
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size.checked_div(n_heads).unwrap_or(0));
        let rope = rope(&raw, head_dim)?;
        // Qwen2 has biases on q, k and v whatever `attention_bias` says; the others where it says so.
        let attention_bias = raw.attention_bias.unwrap_or(false);
        let config = Config {
            family,
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            n_layers: raw.num_hidden_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            rms_norm_eps: raw.rms_norm_eps,
            rope,
            max_position_embeddings: raw.max_position_embeddings,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            qkv_bias: attention_bias || family == Family::Qwen2,
            o_bias: attention_bias && matches!(family, Family::Llama | Family::Qwen3 | Family::Olmo2),
            mlp_bias: raw.mlp_bias.unwrap_or(false) && family == Family::Llama,
            qk_norm: match family {
                Family::Qwen3 => QkNorm::PerHead,
                Family::Olmo2 => QkNorm::WholeProjection,
                _ => QkNorm::None,
            },
            windows: windows(&raw, family)?,
            bos_token_id: raw.bos_token_id,
            eos_token_ids: raw.eos_token_id.map(Vec::from).unwrap_or_default(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Refuses shapes that no decoder can have.
    ///
    /// # Errors
    /// Names the first key whose value is impossible.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Far above any published model; keeps products of two of these within 64 bits and catches hostile files.
        const LARGEST: usize = 1 << 24;
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.n_layers),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 || value > LARGEST {
                return refuse(key, value, format!("a number from 1 to {LARGEST}"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return refuse("num_key_value_heads", self.n_kv_heads, format!("a divisor of {}", self.n_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse("head_dim", self.head_dim, "an even number, which RoPE needs");
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            return refuse("rms_norm_eps", self.rms_norm_eps, "a small positive number");
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 1.0) {
            return refuse("rope_theta", self.rope.theta, "a number above 1");
        }
        if self.context_length() > LARGEST {
            return refuse(
                "rope_scaling.factor",
                self.context_length(),
                format!("a context of at most {LARGEST} tokens"),
            );
        }
        Ok(())
    }

    /// The longest sequence in tokens, prompt and answer together.
    pub fn context_length(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Dynamic { factor, original } => (factor * original as f64) as usize,
            _ => self.max_position_embeddings,
        }
    }

    /// Up to which sequence length, in tokens, positions are encoded the same in every sequence: some scalings of RoPE
    /// look at the length of the whole.
    pub fn fixed_positions(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Dynamic { original, .. } | RopeScaling::LongRope { original, .. } => original,
            _ => usize::MAX,
        }
    }

    /// Whether the norms stand after the blocks (OLMo 2) and not before them.
    pub fn post_norm(&self) -> bool {
        self.family == Family::Olmo2
    }
}

fn family(raw: &Raw) -> Result<Family, ConfigError> {
    match raw.architectures.first().map(String::as_str) {
        Some("LlamaForCausalLM") => Ok(Family::Llama),
        Some("MistralForCausalLM") => Ok(Family::Mistral),
        Some("Qwen2ForCausalLM") => Ok(Family::Qwen2),
        Some("Qwen3ForCausalLM") => Ok(Family::Qwen3),
        Some("Olmo2ForCausalLM") => Ok(Family::Olmo2),
        other => Err(ConfigError::UnknownArchitecture(other.unwrap_or("none").to_owned())),
    }
}

fn windows(raw: &Raw, family: Family) -> Result<Vec<Option<usize>>, ConfigError> {
    let layers = raw.num_hidden_layers.min(1 << 16);
    let window = match family {
        Family::Mistral => raw.sliding_window,
        Family::Qwen2 | Family::Qwen3 if raw.use_sliding_window == Some(true) => raw.sliding_window,
        _ => None,
    };
    if window == Some(0) {
        return refuse("sliding_window", 0, "at least 1, or null");
    }
    if family == Family::Mistral {
        return Ok(vec![window; layers]);
    }
    if let (Some(types), Some(_)) = (&raw.layer_types, window) {
        if types.len() != layers {
            return refuse("layer_types", format!("a list of {}", types.len()), format!("{layers} entries"));
        }
        return types
            .iter()
            .map(|kind| match kind.as_str() {
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(window),
                other => refuse("layer_types", other, "full_attention or sliding_attention"),
            })
            .collect();
    }
    let first = raw.max_window_layers.unwrap_or(layers);
    Ok((0..layers).map(|layer| if layer >= first { window } else { None }).collect())
}

fn rope(raw: &Raw, head_dim: usize) -> Result<Rope, ConfigError> {
    let parameters = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    let theta = parameters.and_then(|p| p.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0);
    let partial = raw.partial_rotary_factor.or(parameters.and_then(|p| p.partial_rotary_factor));
    if let Some(partial) = partial.filter(|p| *p != 1.0) {
        return refuse("partial_rotary_factor", partial, "1.0");
    }
    let scaling = match parameters {
        None => RopeScaling::None,
        Some(p) => scaling(p, raw.max_position_embeddings, head_dim)?,
    };
    Ok(Rope { theta, scaling })
}

fn scaling(p: &RawRope, max_positions: usize, head_dim: usize) -> Result<RopeScaling, ConfigError> {
    let need = |key: &'static str, value: Option<f64>| match value {
        Some(v) if v.is_finite() && v > 0.0 => Ok(v),
        Some(v) => refuse(key, v, "a positive number"),
        None => refuse(key, "missing", "a positive number, which this kind of RoPE scaling needs"),
    };
    let factor = || need("rope_scaling.factor", p.factor);
    let original = p.original_max_position_embeddings.unwrap_or(max_positions);
    if original < 2 {
        return refuse("rope_scaling.original_max_position_embeddings", original, "at least 2");
    }
    for (key, value) in [
        ("rope_scaling.beta_fast", p.beta_fast),
        ("rope_scaling.beta_slow", p.beta_slow),
        ("rope_scaling.attention_factor", p.attention_factor),
    ] {
        if value.is_some() {
            need(key, value)?;
        }
    }
    Ok(match p.rope_type.as_deref().unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor()? },
        // transformers counts from `max_position_embeddings` here, whatever `original_max_position_embeddings` says.
        "dynamic" => RopeScaling::Dynamic { factor: factor()?, original: max_positions },
        "llama3" => RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: need("rope_scaling.low_freq_factor", p.low_freq_factor)?,
            high_freq_factor: need("rope_scaling.high_freq_factor", p.high_freq_factor)?,
            original,
        },
        "yarn" => {
            let factor = factor()?;
            // YaRN section 3.4: 0.1·ln s + 1, with DeepSeek's optional multipliers.
            let mscale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
            let attention_factor = p.attention_factor.unwrap_or(match (p.mscale, p.mscale_all_dim) {
                (Some(m), Some(all)) if m != 0.0 && all != 0.0 => mscale(m) / mscale(all),
                _ => mscale(1.0),
            });
            RopeScaling::Yarn {
                factor,
                original,
                beta_fast: p.beta_fast.unwrap_or(32.0),
                beta_slow: p.beta_slow.unwrap_or(1.0),
                attention_factor,
                truncate: p.truncate.unwrap_or(true),
            }
        }
        "longrope" | "su" => {
            let factors = |key: &'static str, list: &Option<Vec<f64>>| match list {
                Some(list) if list.iter().any(|f| !(f.is_finite() && *f > 0.0)) => {
                    refuse(key, "a factor that is not above 0", "positive numbers")
                }
                Some(list) if list.len() == head_dim / 2 => Ok(list.clone()),
                Some(list) => refuse(key, format!("{} factors", list.len()), format!("{}", head_dim / 2)),
                None => refuse(key, "missing", format!("a list of {} factors", head_dim / 2)),
            };
            let factor = p.factor.unwrap_or(max_positions as f64 / original as f64);
            let attention_factor = p.attention_factor.unwrap_or(match factor {
                f if f <= 1.0 => 1.0,
                f => (1.0 + f.ln() / (original as f64).ln()).sqrt(),
            });
            RopeScaling::LongRope {
                short: factors("rope_scaling.short_factor", &p.short_factor)?,
                long: factors("rope_scaling.long_factor", &p.long_factor)?,
                original,
                attention_factor,
            }
        }
        other => return refuse("rope_scaling.rope_type", other, "default, linear, dynamic, llama3, yarn or longrope"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: Value) -> Result<Config, ConfigError> {
        let mut json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-5, "max_position_embeddings": 64,
        });
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        Config::from_json(&serde_json::to_vec(&json).unwrap())
    }

    #[test]
    fn defaults_are_those_of_the_family() {
        let config = with(serde_json::json!({})).unwrap();
        assert_eq!((config.n_kv_heads, config.head_dim, config.qkv_bias), (4, 4, false));
        let config = with(serde_json::json!({"architectures": ["Qwen2ForCausalLM"], "eos_token_id": [1, 2]})).unwrap();
        assert_eq!((config.qkv_bias, config.o_bias, config.eos_token_ids), (true, false, vec![1, 2]));
    }

    #[test]
    fn both_spellings_of_rope_are_read() {
        let old = serde_json::json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}});
        let new = serde_json::json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}});
        assert_eq!(with(old).unwrap().rope, with(new).unwrap().rope);
    }

    #[test]
    fn what_is_refused_is_named() {
        for (changes, words) in [
            (serde_json::json!({"architectures": ["GPT2LMHeadModel"]}), "GPT2LMHeadModel"),
            (serde_json::json!({"num_attention_heads": 0}), "num_attention_heads"),
            (serde_json::json!({"num_key_value_heads": 3}), "a divisor of 4"),
            (serde_json::json!({"vocab_size": 1u64 << 40}), "vocab_size"),
            (serde_json::json!({"head_dim": 5}), "even"),
            (serde_json::json!({"hidden_act": "gelu"}), "silu"),
            (serde_json::json!({"rope_scaling": {"rope_type": "yarn"}}), "rope_scaling.factor"),
            (serde_json::json!({"rope_scaling": {"rope_type": "spiral"}}), "spiral"),
            (serde_json::json!({"rope_scaling": {"rope_type": "dynamic", "factor": 1e300}}), "rope_scaling.factor"),
            (serde_json::json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": -1.0}}), "beta_fast"),
            (serde_json::json!({"rope_theta": 1.0}), "rope_theta"),
            (serde_json::json!({"quantization_config": {"bits": 4}}), "quantization_config"),
            (serde_json::json!({"vocab_size": -1}), "vocab_size"),
        ] {
            let message = with(changes).unwrap_err().to_string();
            assert!(message.contains(words) || message.contains("invalid value: integer `-1`"), "{message}");
        }
    }
}
