//! What tells one set of parameters from another.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::linear::{Parameter, Weight};
use super::{Decoder, Result};
use crate::ops::with_slice;

/// Elements that one digest covers: a megabyte.
const LEAF: usize = 1 << 18;

impl Decoder {
    /// SHA-256 over all parameters as f32, in a fixed order with their shapes: of the numbers, not of the files, so that
    /// another cut into shards changes nothing; quantised ones are not those of the file, and say so. A tree of digests,
    /// computed in parallel.
    ///
    /// # Errors
    /// Parameters on another device than the CPU.
    pub fn digest(&self) -> Result<[u8; 32]> {
        let own = [self.embedding.as_ref(), self.head.as_ref()].into_iter().flatten().map(Parameter::Matrix);
        let all =
            own.chain(self.norm.as_ref().map(Parameter::Vector)).chain(self.layers.iter().flat_map(|l| l.parameters()));
        let mut hasher = Sha256::new();
        for parameter in all {
            let (rows, width) = match parameter {
                Parameter::Matrix(weight) => weight.shape()?,
                Parameter::Vector(vector) => (1, vector.elem_count()),
            };
            hasher.update((rows as u64).to_le_bytes());
            hasher.update((width as u64).to_le_bytes());
            if let Parameter::Matrix(Weight::Quantized(weight)) = parameter {
                // Its products are not those of the same numbers in f32: activations are quantised too.
                hasher.update(weight.scheme());
            }
            for leaf in leaves(parameter, rows, width)? {
                hasher.update(leaf);
            }
        }
        Ok(hasher.finalize().into())
    }
}

/// The digests of blocks of rows, in order.
fn leaves(parameter: Parameter<'_>, rows: usize, width: usize) -> Result<Vec<[u8; 32]>> {
    let block = (LEAF / width.max(1)).max(1);
    let firsts: Vec<usize> = (0..rows).step_by(block).collect();
    let of = |write: &(dyn Fn(usize, &mut [f32]) + Sync)| {
        let leaf = |first: &usize| {
            let (mut hasher, mut row, mut bytes) = (Sha256::new(), vec![0.0_f32; width], Vec::with_capacity(width * 4));
            for index in *first..(first + block).min(rows) {
                write(index, &mut row);
                bytes.clear();
                bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
                hasher.update(&bytes);
            }
            hasher.finalize().into()
        };
        firsts.par_iter().map(leaf).collect()
    };
    match parameter {
        Parameter::Matrix(weight @ (Weight::Packed(_) | Weight::Quantized(_))) => {
            Ok(of(&|index, row| weight.copy_row(index, row)))
        }
        Parameter::Matrix(Weight::Tensor(tensor)) | Parameter::Vector(tensor) => {
            with_slice("digest", tensor, |x| Ok(of(&|index, row| row.copy_from_slice(&x[index * width..][..width]))))
        }
    }
}
