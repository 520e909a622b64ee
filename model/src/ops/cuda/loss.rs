//! The output projection and its loss, a chunk of rows at a time.

use std::sync::{Mutex, PoisonError};

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::products::{plain, rounded, turned};
use super::{kernel, recorded, takes};
use crate::kernels::cuda::{Arg, Fresh, Grid, Module, launch, product};
use crate::ops::types::{CrossEntropy, IGNORE};

/// Bytes of logits that exist at one time.
const LOGITS: usize = 1 << 29;

/// Rows of a chunk, for this many tokens of the vocabulary.
fn chunk(vocab: usize) -> usize {
    (LOGITS / (4 * vocab)).next_multiple_of(64).max(64)
}

/// A block for each row.
fn rows_of(rows: usize) -> Grid {
    Grid { blocks: (rows, 1), threads: (256, 1) }
}

/// Logits in f32 of some rows.
fn logits(device: &CudaDevice, hidden: &Tensor, weight: &Tensor) -> Result<Fresh> {
    let logits = Fresh::new(device, (hidden.dim(0)?, weight.dim(0)?), DType::F32)?;
    product(device, plain(hidden), turned(weight), &logits, false)?;
    Ok(logits)
}

/// See [`cross_entropy`](crate::ops::cross_entropy). Logits and the sums of the weight's gradient are f32, the gradients
/// of the logits in the type of `hidden`.
pub fn cross_entropy(hidden: &Tensor, weight: &Tensor, targets: &[u32], z_weight: f64) -> Result<Option<CrossEntropy>> {
    let ((rows, dim), vocab) = (hidden.dims2()?, weight.dim(0)?);
    let (Some(device), Some(loss)) = (takes(&[hidden, weight], vocab), kernel("loss", hidden.dtype())) else {
        return Ok(None);
    };
    if weight.dtype() != DType::F32 {
        return Ok(None);
    }
    let counted = targets.iter().filter(|target| **target != IGNORE).count();
    let share = 1.0 / counted as f64;
    let (dtype, trained) = (hidden.dtype(), weight.track_op());
    let (inputs, hidden, used) = ([hidden, weight], hidden.detach().contiguous()?, rounded(weight, dtype)?);
    let own = Tensor::from_slice(targets, rows, hidden.device())?;
    let (nll, square) = (Fresh::new(device, rows, DType::F32)?, Fresh::new(device, rows, DType::F32)?);
    let (nll, square) = (nll.tensor(&hidden)?, square.tensor(&hidden)?);
    let dweight = if trained { Some(Fresh::new(device, (vocab, dim), DType::F32)?) } else { None };
    let mut dhidden = Vec::new();
    for first in (0..rows).step_by(chunk(vocab)) {
        let count = chunk(vocab).min(rows - first);
        let part = |tensor: &Tensor| tensor.narrow(0, first, count);
        let (hidden, nll, square, targets) = (part(&hidden)?, part(&nll)?, part(&square)?, part(&own)?);
        let logits = logits(device, &hidden, &used)?.tensor(&hidden)?;
        let grads = match dtype {
            DType::F32 => logits.clone(), // written over
            _ => Fresh::new(device, (count, vocab), dtype)?.tensor(&hidden)?,
        };
        let numbers = [Arg::F32(z_weight as f32), Arg::F32(share as f32), Arg::U32(vocab)];
        let [z, s, v] = numbers;
        let (to, from, ids) = (Arg::At(&grads), Arg::At(&logits), Arg::At(&targets));
        launch(
            device,
            &Module::rows(),
            &loss,
            rows_of(count),
            &[to, Arg::At(&nll), Arg::At(&square), from, ids, z, s, v],
        )?;
        drop(logits);
        let back = Fresh::new(device, (count, dim), dtype)?;
        product(device, plain(&grads), plain(&used), &back, false)?;
        dhidden.push(back.tensor(&hidden)?);
        if let Some(dweight) = &dweight {
            product(device, turned(&grads), plain(&hidden), dweight, first > 0)?;
        }
    }
    let (parts, result) = (Fresh::new(device, 2, DType::F64)?, Fresh::new(device, (), DType::F32)?);
    let (first, second) = (Arg::F64(share), Arg::F64(share * z_weight));
    let sums = [Arg::Out(&parts), Arg::Out(&result)];
    let own = sums.into_iter().chain([Arg::At(&nll), Arg::At(&square), first, second, Arg::U32(rows)]);
    let own: Vec<_> = own.collect();
    launch(device, &Module::rows(), "loss_sums", rows_of(1), &own)?;
    let parts = parts.tensor(&hidden)?;
    // The gradients come to nothing where nobody goes backward.
    let dhidden = Tensor::cat(&dhidden, 0)?;
    let dweight = dweight.map(|dweight| dweight.tensor(&hidden)).transpose()?;
    let (saved, of) = (Mutex::new(Some((dhidden, dweight))), device.clone());
    let backward = move |dloss: &Tensor| {
        let Some((dhidden, dweight)) = saved.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            candle_core::bail!("cross-entropy: backward was called twice on one loss");
        };
        // In place: nobody else has them.
        let scaled = |gradient: Tensor| -> Result<Tensor> {
            let packs = gradient.elem_count() * gradient.dtype().size_in_bytes() / 16;
            match kernel("scale", gradient.dtype()).filter(|_| gradient.elem_count().is_multiple_of(8)) {
                None => gradient.broadcast_mul(&dloss.to_dtype(gradient.dtype())?),
                Some(scale) => {
                    let own = [Arg::At(&gradient), Arg::At(dloss), Arg::U64(packs)];
                    launch(&of, &Module::rows(), &scale, Grid::of(packs), &own)?;
                    Ok(gradient)
                }
            }
        };
        Ok([Some(scaled(dhidden)?), dweight.map(scaled).transpose()?])
    };
    let loss = recorded(result, inputs, backward)?;
    Ok(Some(CrossEntropy { loss, parts, targets: counted }))
}

/// See [`token_log_probs`](crate::ops::token_log_probs).
pub fn token_log_probs(hidden: &Tensor, weight: &Tensor, targets: &[u32]) -> Result<Option<Vec<f32>>> {
    let (rows, vocab) = (targets.len(), weight.dim(0)?);
    let (hidden, weight) = (&hidden.detach(), &weight.detach()); // no gradient goes through
    let Some(device) = takes(&[hidden, weight], vocab).filter(|_| weight.dtype() == DType::F32) else {
        return Ok(None);
    };
    let (hidden, used) = (hidden.contiguous()?, rounded(weight, hidden.dtype())?);
    let mut result = Vec::with_capacity(rows);
    for (number, targets) in targets.chunks(chunk(vocab)).enumerate() {
        let hidden = hidden.narrow(0, number * chunk(vocab), targets.len())?;
        let (logits, out) = (logits(device, &hidden, &used)?, Fresh::new(device, targets.len(), DType::F32)?);
        let own = Tensor::from_slice(targets, targets.len(), hidden.device())?;
        let own = [Arg::Out(&out), Arg::Out(&logits), Arg::At(&own), Arg::U32(vocab)];
        launch(device, &Module::rows(), "target_log_probs", rows_of(targets.len()), &own)?;
        result.extend(out.tensor(&hidden)?.to_vec1::<f32>()?);
    }
    Ok(Some(result))
}
