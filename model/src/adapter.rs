//! Low-rank adapters (Hu et al. 2021) in the layout of the `peft` library: a folder with `adapter_config.json` and
//! `adapter_model.safetensors`, read to be merged into the weights that they were trained on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use crate::mapping::Bytes;
use crate::widen::widen;

/// An adapter: for each module its A, [rank, in], and B, [out, rank].
pub struct Adapter {
    folder: PathBuf,
    modules: BTreeMap<String, (Tensor, Tensor)>,
    /// Factor of B · A where it is α over the rank, or over its root.
    alpha: f64,
    root: bool,
}

/// Why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is missing or cannot be read.
    #[error("{file}: {source}: expected an adapter folder with adapter_config.json and adapter_model.safetensors")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `adapter_config.json` is not what it must be.
    #[error("{file}: {reason}")]
    Config {
        /// The file.
        file: PathBuf,
        /// What stands there, and what was expected.
        reason: String,
    },
    /// A tensor is missing, of another shape, or has no place.
    #[error("{file}: {reason}")]
    Tensor {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

#[derive(Deserialize)]
struct Raw {
    peft_type: String,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
    bias: Option<String>,
    modules_to_save: Option<Value>,
}

/// What peft puts before the names of a causal language model's modules.
pub const PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Reads an adapter folder.
    ///
    /// # Errors
    /// Names the file, the key or the tensor, and what was expected.
    pub fn open(folder: &Path) -> Result<Adapter, AdapterError> {
        let file = folder.join("adapter_config.json");
        let bytes = fs::read(&file).map_err(|source| AdapterError::File { file: file.clone(), source })?;
        let raw: Raw = serde_json::from_slice(&bytes)
            .map_err(|e| AdapterError::Config { file: file.clone(), reason: e.to_string() })?;
        let refusals = [
            (raw.peft_type != "LORA", "peft_type is not LORA, the only kind that is read"),
            (raw.use_dora, "use_dora is true: only plain LoRA is read"),
            (raw.fan_in_fan_out, "fan_in_fan_out is true: expected weights as [out, in]"),
            (raw.lora_bias, "lora_bias is true: only plain LoRA is read"),
            (!raw.alpha_pattern.is_empty(), "alpha_pattern is not empty: expected one lora_alpha for all modules"),
            (raw.bias.as_deref().is_some_and(|bias| bias != "none"), "bias is not \"none\": biases are not trained"),
            (raw.modules_to_save.is_some_and(|m| !m.is_null()), "modules_to_save is set: whole modules are not read"),
            (!raw.lora_alpha.is_finite(), "lora_alpha is no number"),
        ];
        if let Some((_, reason)) = refusals.into_iter().find(|(refused, _)| *refused) {
            return Err(AdapterError::Config { file, reason: reason.to_owned() });
        }
        let modules = modules(&folder.join("adapter_model.safetensors"))?;
        Ok(Adapter { folder: folder.to_owned(), modules, alpha: raw.lora_alpha, root: raw.use_rslora })
    }

    /// Whether the adapter has a part for the weight of this name that is not merged yet.
    pub fn changes(&self, name: &str) -> bool {
        name.strip_suffix(".weight").is_some_and(|module| self.modules.contains_key(module))
    }

    /// Adds scale · B · A to the weight of this name where the adapter has a part for it.
    ///
    /// # Errors
    /// A part of another shape than the weight.
    pub fn merge(&mut self, name: &str, weight: Tensor) -> Result<Tensor, AdapterError> {
        let Some(module) = name.strip_suffix(".weight") else { return Ok(weight) };
        let Some((a, b)) = self.modules.remove(module) else { return Ok(weight) };
        let wrong =
            |reason: String| AdapterError::Tensor { file: self.folder.join("adapter_model.safetensors"), reason };
        let rank = a.dims()[0];
        let fits = weight.rank() == 2 && b.dims()[0] == weight.dims()[0] && a.dims()[1] == weight.dims()[1];
        if !fits {
            let (a, b, w) = (a.dims(), b.dims(), weight.dims());
            return Err(wrong(format!("{module}: B is {b:?} and A {a:?}, the weight {w:?}: made for another model")));
        }
        let divisor = if self.root { (rank as f64).sqrt() } else { rank as f64 };
        let merged = b.matmul(&a).and_then(|delta| weight + (delta * (self.alpha / divisor))?);
        merged.map_err(|e| wrong(format!("{module}: {e}")))
    }

    /// Once every weight was offered: whether every part has found its own.
    ///
    /// # Errors
    /// Names a part that no weight was found for.
    pub fn finish(self) -> Result<(), AdapterError> {
        match self.modules.keys().next() {
            Some(module) => Err(AdapterError::Tensor {
                file: self.folder.join("adapter_model.safetensors"),
                reason: format!("{module} is no module of the model: the adapter was made for another one"),
            }),
            None => Ok(()),
        }
    }
}

fn modules(file: &Path) -> Result<BTreeMap<String, (Tensor, Tensor)>, AdapterError> {
    let bytes = Bytes::map(file).map_err(|source| AdapterError::File { file: file.to_owned(), source })?;
    let wrong = |reason: String| AdapterError::Tensor { file: file.to_owned(), reason };
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| wrong(format!("{e}; it may be cut short")))?;
    let mut halves: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let path = name.strip_prefix(PREFIX).unwrap_or(&name);
        let (module, half) = match (path.strip_suffix(".lora_A.weight"), path.strip_suffix(".lora_B.weight")) {
            (Some(module), _) => (module, 0),
            (_, Some(module)) => (module, 1),
            _ => return Err(wrong(format!("{name} is no part of plain LoRA: expected lora_A and lora_B"))),
        };
        if view.shape().len() != 2 || view.shape().contains(&0) {
            return Err(wrong(format!("{name} has shape {:?}: expected a matrix", view.shape())));
        }
        let values = widen(&view).ok_or_else(|| wrong(format!("{name} is of type {:?}", view.dtype())))?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(wrong(format!("{name} holds a value that is no finite number")));
        }
        let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu).map_err(|e| wrong(format!("{name}: {e}")))?;
        halves.entry(module.to_owned()).or_default()[half] = Some(tensor);
    }
    let joined = halves.into_iter().map(|(module, halves)| match halves {
        [Some(a), Some(b)] if a.dims()[0] == b.dims()[1] => Ok((module, (a, b))),
        [Some(a), Some(b)] => Err(wrong(format!("{module}: A is {:?} and B {:?}: ranks differ", a.dims(), b.dims()))),
        _ => Err(wrong(format!("{module}: expected lora_A and lora_B, got one of them"))),
    });
    joined.collect()
}
