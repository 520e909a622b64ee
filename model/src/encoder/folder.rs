//! The folder of an encoder: every file checked before `candle` sees it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_nn::Activation;
use candle_transformers::models::{bert, xlm_roberta};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::EncoderError;
use super::pooling::Pooling;
use crate::mapping::Bytes;
use crate::tokenizer::{Tokenizer, TokenizerParts};
use crate::widen::widen;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";

/// A folder that exists.
pub(super) struct Folder {
    path: PathBuf,
}

/// The family, by `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Kind {
    #[serde(rename = "bert")]
    Bert,
    /// Counts positions from behind the padding token.
    #[serde(rename = "xlm-roberta", alias = "roberta", alias = "camembert")]
    Roberta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum HiddenAct {
    #[serde(rename = "gelu")]
    Gelu,
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    #[serde(rename = "relu")]
    Relu,
}

/// What is needed of `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(rename = "model_type")]
    pub kind: Kind,
    pub vocab_size: usize,
    pub hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: HiddenAct,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    layer_norm_eps: f64,
    #[serde(default)]
    pad_token_id: u32,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

fn two() -> usize {
    2
}

impl Config {
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("{name} is 0: expected at least 1"));
        }
        let (size, heads) = (self.hidden_size, self.num_attention_heads);
        if !size.is_multiple_of(heads) {
            return Err(format!("hidden_size {size} is no multiple of num_attention_heads {heads}"));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return Err(format!("layer_norm_eps is {}: expected a small number above 0", self.layer_norm_eps));
        }
        if self.kind == Kind::Roberta && self.positions() == 0 {
            return Err(format!("no positions are left behind pad_token_id {}", self.pad_token_id));
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(other) => return Err(format!("position_embedding_type is {other:?}: expected \"absolute\"")),
        }
        if self.is_decoder {
            return Err("is_decoder is true: expected an encoder".into());
        }
        Ok(())
    }

    /// Tokens that have a position.
    pub fn positions(&self) -> usize {
        match self.kind {
            Kind::Bert => self.max_position_embeddings,
            Kind::Roberta => self.max_position_embeddings.saturating_sub(self.pad_token_id as usize + 1),
        }
    }

    pub fn to_bert(&self) -> bert::Config {
        bert::Config {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            hidden_act: match self.hidden_act {
                HiddenAct::Gelu => bert::HiddenAct::Gelu,
                HiddenAct::GeluTanh => bert::HiddenAct::GeluApproximate,
                HiddenAct::Relu => bert::HiddenAct::Relu,
            },
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps,
            ..bert::Config::default()
        }
    }

    pub fn to_roberta(&self) -> xlm_roberta::Config {
        xlm_roberta::Config {
            hidden_size: self.hidden_size,
            layer_norm_eps: self.layer_norm_eps,
            attention_probs_dropout_prob: 0.0,
            hidden_dropout_prob: 0.0,
            num_attention_heads: self.num_attention_heads,
            position_embedding_type: "absolute".into(),
            intermediate_size: self.intermediate_size,
            hidden_act: match self.hidden_act {
                HiddenAct::Gelu => Activation::Gelu,
                HiddenAct::GeluTanh => Activation::NewGelu,
                HiddenAct::Relu => Activation::Relu,
            },
            num_hidden_layers: self.num_hidden_layers,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            pad_token_id: self.pad_token_id,
        }
    }

    /// Every tensor with its shape, one after another: a file with fewer ends the search at the first that is missing.
    fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let embeddings = [
            ("word_embeddings.weight", vec![self.vocab_size, hidden]),
            ("position_embeddings.weight", vec![self.max_position_embeddings, hidden]),
            ("token_type_embeddings.weight", vec![self.type_vocab_size, hidden]),
            ("LayerNorm.weight", vec![hidden]),
            ("LayerNorm.bias", vec![hidden]),
        ];
        let embeddings = embeddings.into_iter().map(|(name, shape)| (format!("embeddings.{name}"), shape));
        let layers = (0..self.num_hidden_layers).flat_map(move |layer| {
            let linear = [
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("intermediate.dense", inner, hidden),
                ("output.dense", hidden, inner),
            ];
            let linear = linear.into_iter().flat_map(|(name, rows, columns)| {
                [(format!("{name}.weight"), vec![rows, columns]), (format!("{name}.bias"), vec![rows])]
            });
            let norms = ["attention.output.LayerNorm", "output.LayerNorm"].into_iter().flat_map(move |name| {
                [(format!("{name}.weight"), vec![hidden]), (format!("{name}.bias"), vec![hidden])]
            });
            linear.chain(norms).map(move |(name, shape)| (format!("encoder.layer.{layer}.{name}"), shape))
        });
        embeddings.chain(layers)
    }
}

impl Folder {
    pub fn open(path: &Path) -> Result<Self, EncoderError> {
        if !path.is_dir() {
            return Err(EncoderError::NoFolder(path.to_owned()));
        }
        Ok(Self { path: path.to_owned() })
    }

    pub fn name(&self) -> String {
        let full = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        full.file_name().map_or_else(|| "encoder".into(), |name| name.to_string_lossy().into_owned())
    }

    fn wrong(&self, file: &str, reason: impl Into<String>) -> EncoderError {
        EncoderError::File { file: self.path.join(file).display().to_string(), reason: reason.into() }
    }

    fn optional(&self, file: &str) -> Result<Option<Bytes>, EncoderError> {
        match Bytes::map(&self.path.join(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.wrong(file, e.to_string())),
        }
    }

    fn required(&self, file: &str) -> Result<Bytes, EncoderError> {
        let missing = || self.wrong(file, "the file is missing from the encoder folder");
        self.optional(file)?.ok_or_else(missing)
    }

    fn json<T: DeserializeOwned>(&self, file: &str, bytes: &Bytes) -> Result<T, EncoderError> {
        serde_json::from_slice(bytes).map_err(|e| self.wrong(file, e.to_string()))
    }

    pub fn config(&self) -> Result<Config, EncoderError> {
        let config: Config = self.json(CONFIG, &self.required(CONFIG)?)?;
        config.check().map_err(|reason| self.wrong(CONFIG, reason))?;
        Ok(config)
    }

    /// The pooling, and whether embeddings are scaled to length 1.
    pub fn pooling(&self, dimensions: usize) -> Result<(Pooling, bool), EncoderError> {
        const MODULES: &str = "modules.json";
        #[derive(Deserialize)]
        struct Module {
            path: String,
            r#type: String,
        }
        let Some(bytes) = self.optional(MODULES)? else { return Ok((Pooling::Mean, false)) };
        let modules: Vec<Module> = self.json(MODULES, &bytes)?;
        let (mut pooling, mut is_normalized) = (None, false);
        for (position, module) in modules.iter().enumerate() {
            let kind = module.r#type.rsplit('.').next().unwrap_or_default();
            match (position, kind) {
                (0, "Transformer") if module.path.is_empty() => {}
                (1, "Pooling") => pooling = Some(self.read_pooling(&module.path, dimensions)?),
                (2, "Normalize") => is_normalized = true,
                _ => {
                    let reason = format!(
                        "module {position} is a {kind:?} in {:?}: expected Transformer in the folder itself, Pooling, and \
                         perhaps Normalize",
                        module.path
                    );
                    return Err(self.wrong(MODULES, reason));
                }
            }
        }
        let pooling = pooling.ok_or_else(|| self.wrong(MODULES, "it names no Pooling module"))?;
        Ok((pooling, is_normalized))
    }

    fn read_pooling(&self, path: &str, dimensions: usize) -> Result<Pooling, EncoderError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if path.is_empty() || !path.chars().all(is_plain) {
            return Err(self.wrong("modules.json", format!("{path:?} is no plain name of a folder")));
        }
        let file = format!("{path}/config.json");
        let fields: serde_json::Map<String, serde_json::Value> = self.json(&file, &self.required(&file)?)?;
        if let Some(other) = fields.get("word_embedding_dimension").filter(|d| **d != dimensions) {
            let reason =
                format!("word_embedding_dimension is {other}: expected {dimensions}, the hidden_size of {CONFIG}");
            return Err(self.wrong(&file, reason));
        }
        let modes = fields.iter().filter(|(name, on)| name.starts_with("pooling_mode_") && **on == true);
        let modes: Vec<&str> = modes.map(|(name, _)| name.trim_start_matches("pooling_mode_")).collect();
        match modes.as_slice() {
            ["cls_token"] => Ok(Pooling::Cls),
            ["mean_tokens"] => Ok(Pooling::Mean),
            ["max_tokens"] => Ok(Pooling::Max),
            other => {
                let reason = format!("it pools by {other:?}: expected one of cls_token, mean_tokens and max_tokens");
                Err(self.wrong(&file, reason))
            }
        }
    }

    /// Tokens of a text, by `sentence_bert_config.json` and by the number of positions.
    pub fn max_tokens(&self, positions: usize) -> Result<usize, EncoderError> {
        const LENGTHS: &str = "sentence_bert_config.json";
        #[derive(Deserialize)]
        struct Lengths {
            max_seq_length: Option<usize>,
        }
        let Some(bytes) = self.optional(LENGTHS)? else { return Ok(positions) };
        let lengths: Lengths = self.json(LENGTHS, &bytes)?;
        match lengths.max_seq_length {
            Some(0) => Err(self.wrong(LENGTHS, "max_seq_length is 0: expected at least 1")),
            length => Ok(length.unwrap_or(positions).min(positions)),
        }
    }

    pub fn tokenizer(&self, vocab_size: usize) -> Result<Tokenizer, EncoderError> {
        let config = self.optional("tokenizer_config.json")?;
        let tokenizer = Tokenizer::from_parts(TokenizerParts {
            tokenizer_json: &self.required(TOKENIZER)?,
            tokenizer_config: config.as_deref(),
            ..TokenizerParts::default()
        })?;
        if tokenizer.vocab_size() > vocab_size {
            let ids = tokenizer.vocab_size();
            return Err(
                self.wrong(TOKENIZER, format!("it has {ids} token ids, vocab_size of {CONFIG} is {vocab_size}"))
            );
        }
        Ok(tokenizer)
    }

    /// Every tensor of the architecture as f32, by its name without the prefix of the whole model. Others in the file (a
    /// pooler, a head) are left alone.
    pub fn tensors(&self, config: &Config) -> Result<HashMap<String, Tensor>, EncoderError> {
        let bytes = self.required(WEIGHTS)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| {
            self.wrong(WEIGHTS, format!("not a complete safetensors file ({e}); it may be cut short: copy it again"))
        })?;
        let prefixes = ["", "bert.", "roberta.", "0.auto_model."];
        let is_prefix = |prefix: &&str| file.tensor(&format!("{prefix}embeddings.word_embeddings.weight")).is_ok();
        let prefix = prefixes.into_iter().find(is_prefix).unwrap_or_default();
        let mut tensors = HashMap::new();
        for (name, shape) in config.tensors() {
            let Ok(view) = file.tensor(&format!("{prefix}{name}")) else {
                return Err(self.wrong(WEIGHTS, format!("tensor {name} is missing: expected shape {shape:?}")));
            };
            if view.shape() != shape {
                let reason = format!("tensor {name} has shape {:?}: {CONFIG} asks for {shape:?}", view.shape());
                return Err(self.wrong(WEIGHTS, reason));
            }
            let values = widen(&view).ok_or_else(|| {
                self.wrong(WEIGHTS, format!("tensor {name} is of type {:?}: expected F32, F16 or BF16", view.dtype()))
            })?;
            if let Some((at, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(
                    self.wrong(WEIGHTS, format!("tensor {name} holds {value} at element {at}: expected numbers"))
                );
            }
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        Ok(tensors)
    }
}
