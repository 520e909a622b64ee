//! Safetensors files written tensor by tensor, with their hash taken on the way.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::data::hex;

/// A tensor in f32.
pub struct TensorSlice {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row by row.
    pub values: Vec<f32>,
}

/// Writes a safetensors file in f32 and waits until it is on the disk; returns its SHA-256, taken of what was to be
/// written. transformers and peft ask for `format` in the metadata.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(file: &Path, tensors: &[TensorSlice]) -> io::Result<String> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.values.len() * size_of::<f32>();
        header
            .insert(tensor.name.clone(), json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}));
    }
    let mut header = serde_json::to_string(&header)?;
    // The data begins at a multiple of 8.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut out = Hashing { hasher: Sha256::new(), out: BufWriter::with_capacity(1 << 20, File::create(file)?) };
    out.write(&(header.len() as u64).to_le_bytes())?;
    out.write(header.as_bytes())?;
    let mut bytes = Vec::new();
    for values in tensors.iter().flat_map(|tensor| tensor.values.chunks(1 << 16)) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        out.write(&bytes)?;
    }
    let file = out.out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(hex(&out.hasher.finalize()))
}

struct Hashing {
    hasher: Sha256,
    out: BufWriter<File>,
}

impl Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.safetensors");
        let tensor = |name: &str, shape: &[usize], values: &[f32]| TensorSlice {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let hash = write_tensors(&file, &[tensor("b", &[2, 1], &[1.5, -2.0]), tensor("a", &[], &[7.0])]).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(hash, hex(&Sha256::digest(&bytes)));
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("b").unwrap().shape(), [2, 1]);
        assert_eq!(read.tensor("b").unwrap().data()[4..], (-2.0_f32).to_le_bytes());
        assert_eq!(read.tensor("a").unwrap().data(), 7.0_f32.to_le_bytes());
    }
}
