//! The trained parts of a checkpoint: all of its weights, or low-rank factors beside them.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use candle_core::{Device, Tensor, Var};
use safelmm_model::adapter::PREFIX;
use safelmm_model::checkpoint::Prepare;
use safelmm_model::{CheckpointError, LowRank};
use serde_json::{Value, json};

use super::config::LoraSection;
use crate::dataset::{mix, unit};
use crate::parameters::stream;
use crate::tensors::{TensorSlice, write_tensors};

/// Makes variables of what is trained, while a decoder is put together.
pub struct Trained<'a> {
    /// The adapters; every weight is trained without them.
    pub lora: Option<&'a LoraSection>,
    /// What the first factors are drawn from.
    pub seed: u64,
    /// Where the decoder comes to lie.
    pub device: Device,
    /// What is trained, by name.
    pub vars: BTreeMap<String, Var>,
}

/// What the names of the first factors hold: they have no gradient while the second ones are zero.
pub const FIRST_FACTOR: &str = "lora_A";

/// What the names of the second factors hold.
pub const SECOND_FACTOR: &str = "lora_B";

impl Trained<'_> {
    fn var(&mut self, name: String, tensor: &Tensor) -> Result<Tensor, CheckpointError> {
        let var = tensor.to_device(&self.device).and_then(|tensor| Var::from_tensor(&tensor));
        let var = var.map_err(|source| failed(&name, source))?;
        let tensor = var.as_tensor().clone();
        self.vars.insert(name, var);
        Ok(tensor)
    }
}

fn failed(name: &str, source: candle_core::Error) -> CheckpointError {
    CheckpointError::Prepared { tensor: name.to_owned(), source: Box::new(source) }
}

impl Prepare for Trained<'_> {
    fn parameter(&mut self, name: &str, tensor: Tensor) -> Result<Tensor, CheckpointError> {
        match self.lora {
            Some(_) => tensor.to_device(&self.device).map_err(|source| failed(name, source)),
            None => self.var(name.to_owned(), &tensor),
        }
    }

    /// A is uniform within ±1/√in, as peft's `kaiming_uniform_(a=√5)` comes to; B is zero, so that training begins with
    /// the model as it is (Hu et al. 2021, section 4.1).
    fn low_rank(&mut self, name: &str, out: usize, input: usize) -> Result<Option<LowRank>, CheckpointError> {
        let Some(lora) = self.lora.filter(|lora| lora.targets(name)) else { return Ok(None) };
        let (a_name, b_name) = (format!("{name}.{FIRST_FACTOR}.weight"), format!("{name}.{SECOND_FACTOR}.weight"));
        let (numbers, bound) = (stream(&a_name, self.seed), 1.0 / (input as f64).sqrt());
        let a = (0..(lora.rank * input) as u64)
            .map(|i| ((2.0 * unit(mix(&[numbers, i])) - 1.0) * bound) as f32)
            .collect::<Vec<_>>();
        let a = Tensor::from_vec(a, (lora.rank, input), &Device::Cpu).map_err(|e| failed(&a_name, e))?;
        let b = Tensor::from_vec(vec![0.0_f32; out * lora.rank], (out, lora.rank), &Device::Cpu);
        let b = b.map_err(|e| failed(&b_name, e))?;
        let scale = lora.alpha / lora.rank as f64;
        Ok(Some(LowRank { a: self.var(a_name, &a)?, b: self.var(b_name, &b)?, scale }))
    }
}

/// `adapter_config.json` as peft 0.7 and later read it.
pub fn adapter_config(lora: &LoraSection, base: &str) -> Value {
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": true,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": lora.modules(),
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "modules_to_save": null,
        "layers_to_transform": null,
        "layers_pattern": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "revision": null,
    })
}

/// Writes an adapter folder in the layout of peft from factors by name.
///
/// # Errors
/// When a file cannot be written.
pub fn write_adapter(
    folder: &Path,
    lora: &LoraSection,
    base: &str,
    factors: &BTreeMap<String, Tensor>,
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let tensors = factors
        .iter()
        .map(|(name, tensor)| {
            let values = tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(io::Error::other)?;
            Ok(TensorSlice { name: format!("{PREFIX}{name}"), shape: tensor.dims().to_vec(), values })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let beside = folder.join("adapter_model.safetensors.part");
    write_tensors(&beside, &tensors)?;
    fs::rename(&beside, folder.join("adapter_model.safetensors"))?;
    let config = serde_json::to_vec_pretty(&adapter_config(lora, base))?;
    fs::write(folder.join("adapter_config.json"), config)
}
