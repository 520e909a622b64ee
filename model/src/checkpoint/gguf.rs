//! Weights from a GGUF file, the format of llama.cpp: under the names, and in the order of rows, of the Hugging Face layout.
//!
//! candle reads the list of tensors and turns blocks into numbers. Configuration and tokenizer are not taken from the file.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::panic::catch_unwind;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use candle_core::{Device, Result};

use crate::config::{Config, Family};
use crate::ops::with_slice;

/// The tensors of a file, by their names in the Hugging Face layout.
pub(super) struct Gguf(BTreeMap<String, Place>);

/// Where a tensor lies in the file, and how.
struct Place {
    dtype: GgmlDType,
    shape: Vec<usize>,
    bytes: Range<usize>,
    /// Of queries and keys of the Llama family: the heads, inside which the two halves of the rows are interleaved.
    interleaved: Option<usize>,
}

/// A tensor of a file.
pub(super) struct GgufTensor<'a> {
    place: &'a Place,
    data: &'a [u8],
}

impl Gguf {
    /// Lists the tensors of a file that holds a model of this configuration.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read(file: &[u8], config: &Config) -> std::result::Result<Gguf, String> {
        // The reader divides by a number of the file.
        let content = catch_unwind(|| Content::read(&mut Cursor::new(file)));
        let content = content.map_err(|_| "its header holds an impossible number".to_owned())?;
        let content = content.map_err(|e| format!("{e}; it may be cut short, or hold types that are not read"))?;
        let architecture = match config.family {
            Family::Llama | Family::Mistral => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Olmo2 => "olmo2",
        };
        let said = content.metadata.get("general.architecture").and_then(|value| value.to_string().ok());
        if said.is_none_or(|said| said != architecture) {
            let said = said.map_or("none", |said| said);
            return Err(format!("its architecture is {said}: config.json beside it describes one of {architecture}"));
        }
        let places = content.tensor_infos.iter().map(|(name, info)| {
            let interleaved = match architecture {
                "llama" if name.contains(".attn_q.") => Some(config.n_heads),
                "llama" if name.contains(".attn_k.") => Some(config.n_kv_heads),
                _ => None,
            };
            let bytes = bytes(info, content.tensor_data_offset, file).map_err(|why| format!("tensor {name} {why}"))?;
            let place = Place { dtype: info.ggml_dtype, shape: info.shape.dims().to_vec(), bytes, interleaved };
            Ok((hugging_face_name(name).unwrap_or_else(|| name.clone()), place))
        });
        Ok(Gguf(places.collect::<std::result::Result<_, String>>()?))
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// A tensor of the file.
    pub fn tensor<'a>(&'a self, name: &str, file: &'a [u8]) -> Option<GgufTensor<'a>> {
        let place = self.0.get(name)?;
        Some(GgufTensor { place, data: &file[place.bytes.clone()] })
    }
}

/// Where a tensor's bytes are, which must be inside the file and lie as numbers in memory must.
fn bytes(info: &TensorInfo, data: u64, file: &[u8]) -> std::result::Result<Range<usize>, String> {
    let block = info.ggml_dtype.block_size();
    let (dims, width) = (info.shape.dims(), info.shape.dims().last().copied().unwrap_or(0));
    if width % block != 0 {
        return Err(format!("has rows of {width} elements: expected a multiple of {block}"));
    }
    let elements = dims.iter().try_fold(1_usize, |all, dim| all.checked_mul(*dim));
    let size = elements.and_then(|elements| (elements / block).checked_mul(info.ggml_dtype.type_size()));
    let start = data.checked_add(info.offset).and_then(|start| usize::try_from(start).ok());
    match start.zip(size).and_then(|(start, size)| Some(start..start.checked_add(size)?)) {
        Some(range) if range.end <= file.len() && range.start % 4 == 0 => Ok(range),
        _ => Err(format!("is not inside the file of {} bytes; it may be cut short", file.len())),
    }
}

/// The name of a tensor as Hugging Face checkpoints have it.
fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let part = match part {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "attn_norm" => "input_layernorm",
        "ffn_norm" | "post_attention_norm" => "post_attention_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{kind}"))
}

impl GgufTensor<'_> {
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.place.shape
    }

    /// What its elements are.
    pub fn dtype(&self) -> GgmlDType {
        self.place.dtype
    }

    /// All elements in f32.
    ///
    /// # Errors
    /// A type that candle does not read.
    pub fn values(&self) -> Result<Vec<f32>> {
        let width = match (&self.place.shape[..], self.place.interleaved) {
            ([all], None) => *all,
            (shape, _) => shape.iter().skip(1).product(),
        };
        let mut values = vec![0.0; self.place.shape.iter().product()];
        let mut rows = values.chunks_exact_mut(width.max(1)).enumerate();
        rows.try_for_each(|(index, row)| self.row(index, row))?;
        Ok(values)
    }

    /// Writes row `index`, of as many elements as `into` has.
    ///
    /// # Errors
    /// A type that candle does not read.
    pub fn row(&self, index: usize, into: &mut [f32]) -> Result<()> {
        let index = match self.place.interleaved {
            None => index,
            // Row i of the first half of a head is its row 2 i in the file, that of the second half row 2 i + 1.
            Some(heads) => {
                let d = self.place.shape.first().map_or(1, |rows| rows / heads.max(1)).max(2);
                let (head, row) = (index / d, index % d);
                head * d + row % (d / 2) * 2 + row / (d / 2)
            }
        };
        let size = into.len() / self.place.dtype.block_size() * self.place.dtype.type_size();
        let Some(bytes) = self.data.get(index * size..(index + 1) * size) else {
            candle_core::bail!("row {index} is outside the tensor");
        };
        let row = qtensor_from_ggml(self.place.dtype, bytes, vec![into.len()], &Device::Cpu)?;
        with_slice("dequantize", &row.dequantize(&Device::Cpu)?, |values| {
            into.copy_from_slice(values);
            Ok(())
        })
    }
}
