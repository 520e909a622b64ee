//! The output projection and its loss in one operation: logits exist a few rows at a time and are never kept.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::reference;
use super::storage::{slice, with_slice};
use super::tape::composed;
use super::types::{CrossEntropy, IGNORE};
use crate::kernels::{Matrix, MatrixMut, Threads, matmul, target_log_prob};

/// Rows of logits that exist at one time.
const CHUNK: usize = 256;

/// Mean cross-entropy of `hidden · weightᵀ` against `targets`, plus z-loss.
///
/// `hidden`: [rows, dim]; `weight`: [vocab, dim]; `targets`: one id for each row, or [`IGNORE`]. Gradients reach `hidden`
/// and `weight`, where it is trained; they are worked out in the forward pass, while the logits are at hand.
///
/// # Errors
/// A target outside the vocabulary, a number of targets other than the rows, or no target at all.
pub fn cross_entropy(hidden: &Tensor, weight: &Tensor, targets: &[u32], z_weight: f64) -> Result<CrossEntropy> {
    let counted = check_targets(hidden, weight, targets)?;
    if counted == 0 {
        candle_core::bail!("{NAME}: every target is ignored, so the mean is not defined");
    }
    if !hidden.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(loss) = super::cuda::cross_entropy(hidden, weight, targets, z_weight)? {
            return Ok(loss);
        }
        let mut found = None;
        let loss = composed([hidden, weight], |[hidden, weight]| {
            let CrossEntropy { loss, parts, .. } = reference::cross_entropy(hidden, weight, targets, z_weight)?;
            found = Some(parts);
            Ok(loss)
        })?;
        let Some(parts) = found else { candle_core::bail!("{NAME}: the loss was not computed") };
        return Ok(CrossEntropy { loss, parts, targets: counted });
    }
    let saved = Arc::new(Mutex::new(Saved::default()));
    let frozen = !weight.track_op();
    let op = HeadLoss { targets: targets.to_vec(), counted, z_weight, frozen, saved: Arc::clone(&saved) };
    let loss = hidden.contiguous()?.apply_op2(&weight.contiguous()?, op)?;
    let (nll, z_loss) = {
        let saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
        (saved.nll, saved.z_loss)
    };
    Ok(CrossEntropy { loss, parts: Tensor::new(&[nll, z_loss], &Device::Cpu)?, targets: counted })
}

/// Natural log-probability of each row's target, 0 for [`IGNORE`]; no gradients. Shapes as in [`cross_entropy`].
pub fn token_log_probs(hidden: &Tensor, weight: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
    check_targets(hidden, weight, targets)?;
    if !hidden.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(log_probs) = super::cuda::token_log_probs(hidden, weight, targets)? {
            return Ok(log_probs);
        }
        return reference::token_log_probs(hidden, weight, targets);
    }
    let (vocab, dim) = weight.dims2()?;
    with_slice(NAME, hidden, |hidden| {
        with_slice(NAME, weight, |weight| {
            let mut result = Vec::with_capacity(targets.len());
            let mut logits = vec![0.0_f32; targets.len().min(CHUNK) * vocab];
            for (chunk, targets) in targets.chunks(CHUNK).enumerate() {
                let logits = &mut logits[..targets.len() * vocab];
                project(logits, &hidden[chunk * CHUNK * dim..], weight, targets.len(), vocab, dim);
                result.par_extend(logits.par_chunks_mut(vocab).zip(targets).map(|(row, &target)| match target {
                    IGNORE => 0.0,
                    target => target_log_prob(row, target as usize).0,
                }));
            }
            Ok(result)
        })
    })
}

fn check_targets(hidden: &Tensor, weight: &Tensor, targets: &[u32]) -> Result<usize> {
    let ((rows, dim), (vocab, weight_dim)) = (hidden.dims2()?, weight.dims2()?);
    if rows != targets.len() || dim != weight_dim {
        candle_core::bail!(
            "{NAME}: hidden is {rows} × {dim}, weight {vocab} × {weight_dim}, targets {}",
            targets.len()
        );
    }
    if let Some(bad) = targets.iter().find(|&&t| t != IGNORE && t as usize >= vocab) {
        candle_core::bail!("{NAME}: target {bad} is outside the vocabulary of {vocab}");
    }
    Ok(targets.iter().filter(|&&t| t != IGNORE).count())
}

/// logits [rows, vocab] = hidden · weightᵀ
fn project(logits: &mut [f32], hidden: &[f32], weight: &[f32], rows: usize, vocab: usize, dim: usize) {
    let hidden = Matrix::new(hidden, rows, dim, dim);
    let weight = Matrix::new(weight, vocab, dim, dim);
    matmul(MatrixMut::new(logits, rows, vocab, vocab), false, hidden, weight.t(), 1.0, Threads::All);
}

const NAME: &str = "cross-entropy";

#[derive(Default)]
struct Saved {
    nll: f64,
    z_loss: f64,
    /// Of the hidden states, and of the weight, which is empty where that is frozen.
    gradients: Option<(Vec<f32>, Vec<f32>)>,
}

struct HeadLoss {
    targets: Vec<u32>,
    counted: usize,
    z_weight: f64,
    /// The weight is not trained.
    frozen: bool,
    saved: Arc<Mutex<Saved>>,
}

impl CustomOp2 for HeadLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        hidden: &CpuStorage,
        lh: &Layout,
        weight: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (hidden, weight) = (slice(NAME, hidden, lh)?, slice(NAME, weight, lw)?);
        let (vocab, dim) = lw.shape().dims2()?;
        let mut dhidden = vec![0.0_f32; hidden.len()];
        let mut dweight = vec![0.0_f32; if self.frozen { 0 } else { weight.len() }];
        let mut logits = vec![0.0_f32; self.targets.len().min(CHUNK) * vocab];
        let (mut nll, mut square) = (0.0_f64, 0.0_f64);
        for (chunk, targets) in self.targets.chunks(CHUNK).enumerate() {
            let (rows, first) = (targets.len(), chunk * CHUNK * dim);
            let logits = &mut logits[..rows * vocab];
            project(logits, &hidden[first..], weight, rows, vocab, dim);
            let losses: Vec<(f64, f64)> = logits
                .par_chunks_mut(vocab)
                .zip(targets)
                .map(|(row, &target)| self.loss_and_gradient(row, target))
                .collect();
            for (row_nll, row_square) in losses {
                nll += row_nll;
                square += row_square;
            }
            let dlogits = Matrix::new(logits, rows, vocab, vocab);
            let dh = MatrixMut::new(&mut dhidden[first..], rows, dim, dim);
            matmul(dh, false, dlogits, Matrix::new(weight, vocab, dim, dim), 1.0, Threads::All);
            if !self.frozen {
                let dw = MatrixMut::new(&mut dweight, vocab, dim, dim);
                matmul(dw, true, dlogits.t(), Matrix::new(&hidden[first..], rows, dim, dim), 1.0, Threads::All);
            }
        }
        let n = self.counted as f64;
        let (nll, z_loss) = (nll / n, self.z_weight * square / n);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) =
            Saved { nll, z_loss, gradients: Some((dhidden, dweight)) };
        Ok((CpuStorage::F32(vec![(nll + z_loss) as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        hidden: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dloss: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let taken = self.saved.lock().unwrap_or_else(PoisonError::into_inner).gradients.take();
        let Some((dhidden, dweight)) = taken else {
            candle_core::bail!("{NAME}: backward was called twice on one loss");
        };
        let scale = f64::from(dloss.to_scalar::<f32>()?);
        let scaled = |gradient: Vec<f32>, like: &Tensor| {
            let gradient = Tensor::from_vec(gradient, like.shape(), like.device())?;
            if scale == 1.0 { Ok(gradient) } else { gradient * scale }
        };
        let dweight = if self.frozen { None } else { Some(scaled(dweight, weight)?) };
        Ok((Some(scaled(dhidden, hidden)?), dweight))
    }
}

impl HeadLoss {
    /// Turns a row of logits into the gradient of the mean loss; returns (−log p, log² Z) of the row.
    /// ∂/∂zᵢ = (pᵢ − [i = target] + 2·w·log Z·pᵢ) / n
    fn loss_and_gradient(&self, row: &mut [f32], target: u32) -> (f64, f64) {
        if target == IGNORE {
            row.fill(0.0);
            return (0.0, 0.0);
        }
        let (log_p, log_z) = target_log_prob(row, target as usize);
        let n = self.counted as f32;
        let scale = (1.0 + 2.0 * self.z_weight as f32 * log_z) / n;
        for p in row.iter_mut() {
            *p *= scale;
        }
        row[target as usize] -= 1.0 / n;
        (f64::from(-log_p), f64::from(log_z) * f64::from(log_z))
    }
}
