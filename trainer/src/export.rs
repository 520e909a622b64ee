//! From a training checkpoint to a checkpoint folder that the server and `transformers` open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{DType, Device, Tensor};
use half::bf16;
use safelmm_model::card::Card;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::data::{DataError, Sources, hex};
use crate::run_state::{self, Saved, StateError};
use crate::tokenizer::{self, END_OF_TEXT, MESSAGE_END, control_id};

/// Why a checkpoint cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A weight file is damaged.
    #[error("{file}: {source}")]
    Tensors {
        /// The file.
        file: PathBuf,
        /// Why.
        source: candle_core::Error,
    },
    /// The weights cannot be written.
    #[error("{file}: {source}")]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// The run has no finished checkpoint.
    #[error("{0}: no checkpoint yet: let `safelmm-train pretrain` save one")]
    NoCheckpoint(PathBuf),
    /// The run's folder cannot be read, or it was trained on other data.
    #[error(transparent)]
    State(#[from] StateError),
    /// The prepared data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Writes the newest checkpoint of `run` to the folder `out`, with weights in bf16, the tokenizer of the prepared data
/// that it was trained on, and `provenance.json`.
///
/// # Errors
/// Names the file; other prepared data than the run's is refused.
pub fn export(data: &Path, run: &Path, out: &Path) -> Result<(), ExportError> {
    let newest = run_state::checkpoints(run)?.pop().ok_or_else(|| ExportError::NoCheckpoint(run.to_owned()))?;
    let (saved, (sources, data_hash)) = (Saved::read(&newest)?, Sources::read(data)?);
    if saved.roots.data != data_hash {
        return Err(StateError::OtherData { folder: newest }.into());
    }
    let config: &RunConfig = &saved.config(&newest)?;
    let error = |file: &Path| {
        let file = file.to_owned();
        move |source| ExportError::File { file, source }
    };
    fs::create_dir_all(out).map_err(error(out))?;
    let tensors_error = |source| ExportError::Tensors { file: newest.join("model.safetensors"), source };
    let tensors = candle_core::safetensors::load_buffer(&saved.model, &Device::Cpu).map_err(tensors_error)?;
    let weights = bf16_file(&tensors.into_iter().collect()).map_err(tensors_error)?;
    let weights = weights.map_err(|source| ExportError::Write { file: out.join("model.safetensors"), source })?;
    let tokenizer = data.join("tokenizer.json");
    let tokenizer_json = fs::read(&tokenizer).map_err(error(&tokenizer))?;
    let json = |value: &Value| serde_json::to_vec_pretty(value).unwrap_or_default();
    let card = serde_json::to_value(Card::new(&config.name, config.train.precision.record())).unwrap_or_default();
    for (name, bytes) in [
        ("config.json", json(&model_config(config))),
        ("generation_config.json", json(&generation_config())),
        ("tokenizer_config.json", json(&tokenizer::tokenizer_config(config.model.context))),
        ("provenance.json", json(&provenance(config, &saved, &sources))),
        ("safelmm.json", json(&card)),
        ("tokenizer.json", tokenizer_json),
        ("model.safetensors", weights),
    ] {
        let (path, beside) = (out.join(name), out.join(format!("{name}.part")));
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path)).map_err(error(&path))?;
    }
    Ok(())
}

/// A safetensors file of these tensors in bf16, rounded to nearest even.
///
/// # Errors
/// Those of candle, and inside, of the format.
pub(crate) fn bf16_file(
    tensors: &BTreeMap<String, Tensor>,
) -> candle_core::Result<Result<Vec<u8>, safetensors::SafeTensorError>> {
    let mut rounded = Vec::new();
    for (name, tensor) in tensors {
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let data: Vec<u8> = values.into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect();
        rounded.push((name, tensor.dims().to_vec(), data));
    }
    let views = rounded
        .iter()
        .map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::BF16, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    // transformers asks for the format in the metadata.
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    Ok(views.and_then(|views| safetensors::serialize(views, Some(metadata))))
}

/// `config.json` of the Qwen 3 layout, in keys that transformers 4 and 5 both read.
fn model_config(config: &RunConfig) -> Value {
    let decoder = config.decoder();
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "num_hidden_layers": decoder.n_layers,
        "num_attention_heads": decoder.n_heads,
        "num_key_value_heads": decoder.n_kv_heads,
        "head_dim": decoder.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": decoder.rms_norm_eps,
        "rope_theta": decoder.rope.theta,
        "rope_scaling": null,
        "max_position_embeddings": decoder.max_position_embeddings,
        "tie_word_embeddings": decoder.tie_word_embeddings,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "use_sliding_window": false,
        "initializer_range": 0.02,
        "use_cache": true,
        "torch_dtype": "bfloat16",
        "bos_token_id": control_id(END_OF_TEXT),
        "eos_token_id": control_id(END_OF_TEXT),
    })
}

fn generation_config() -> Value {
    json!({
        "bos_token_id": control_id(END_OF_TEXT),
        "pad_token_id": control_id(END_OF_TEXT),
        "eos_token_id": [control_id(END_OF_TEXT), control_id(MESSAGE_END)],
        "do_sample": true,
        "temperature": 0.8,
        "top_p": 0.95,
    })
}

/// Every training source: license, documents, tokens, filters applied, content hash; those of the checkpoint that the run
/// began with stand under `init`.
fn provenance(config: &RunConfig, saved: &Saved, sources: &Sources) -> Value {
    let mut provenance = json!({
        "format_version": 1,
        "model": config.name,
        "license_rule": "only documents whose SPDX expression is of class permissive or share-alike are trained on",
        "filters": sources.filters,
        "heldout_share_of_documents": config.data.heldout,
        "untagged_share_of_passages": config.data.untagged,
        "seed": config.seed,
        "sources": sources.sources,
    });
    match &sources.tokenizer {
        Some(taken) => provenance["tokenizer"] = json!(taken),
        None => {
            let settings = serde_json::to_vec(&config.tokenizer).unwrap_or_default();
            provenance["tokenizer_settings_sha256"] = json!(hex(&<sha2::Sha256 as sha2::Digest>::digest(settings)));
        }
    }
    if let Some(origin) = &saved.roots.origin {
        provenance["init"] = json!(origin);
    }
    provenance
}
