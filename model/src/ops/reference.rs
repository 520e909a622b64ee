//! The same operations composed of candle's differentiable ones: slower, on every device, with candle's own gradients.
//! Used where there is no fused kernel and as what the kernels are tested against. Activations may be bf16: everything but
//! the matrix products is computed in f32, and rounded at the end.

use candle_core::{D, DType, Result, Tensor};

use super::types::{CrossEntropy, IGNORE, Rotation, Span};

/// In f32.
fn wide(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)
}

/// See [`super::rms_norm`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (dtype, x) = (x.dtype(), wide(x)?);
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)?.to_dtype(dtype)
}

/// See [`super::swiglu`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (dtype, gate, up) = (gate.dtype(), wide(gate)?, wide(up)?);
    let sigmoid = ((gate.neg()?.exp()? + 1.0)?).recip()?;
    ((gate * sigmoid)? * up)?.to_dtype(dtype)
}

/// See [`super::rope`].
pub fn rope(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    let (_, _, d) = x.dims3()?;
    let half = rotation.half;
    let angles = rotation.on(x.device())?;
    let of_rows = |table: &Tensor| table.index_select(&angles.places, 0)?.unsqueeze(1); // [rows, 1, half]
    let (cos, sin) = (of_rows(&angles.cos)?, of_rows(&angles.sin)?);
    let (dtype, x) = (x.dtype(), wide(x)?);
    let (x1, x2) = (x.narrow(2, 0, half)?, x.narrow(2, half, d - half)?);
    let y1 = (x1.broadcast_mul(&cos)? - x2.broadcast_mul(&sin)?)?;
    let y2 = (x2.broadcast_mul(&cos)? + x1.broadcast_mul(&sin)?)?;
    Tensor::cat(&[y1, y2], 2)?.to_dtype(dtype)
}

/// See [`super::attention`]. Neighbouring sequences of one length without a past are run at once.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spans: &[Span], window: Option<usize>) -> Result<Tensor> {
    const UNSEEN: f64 = -1e30; // makes a score whose exponential is zero
    let ((_, heads, d), (_, kv_heads, _)) = (q.dims3()?, k.dims3()?);
    // `count` sequences of `length` rows from `first` on: [count · heads, length, d].
    let per_head = |x: &Tensor, first: usize, count: usize, length: usize| -> Result<Tensor> {
        let h = x.dim(1)?;
        let x = x.narrow(0, first, count * length)?.reshape((count, length, h, d))?.transpose(1, 2)?;
        let repeated = x.unsqueeze(2)?.expand((count, h, heads / h, length, d))?;
        repeated.contiguous()?.reshape((count * heads, length, d))
    };
    if kv_heads == 0 || heads % kv_heads != 0 {
        candle_core::bail!("attention: {heads} heads of queries over {kv_heads} of keys");
    }
    let mut outputs = Vec::with_capacity(spans.len());
    for run in spans.chunk_by(|a, b| [a, b].iter().all(|s| s.keys == s.queries) && a.keys.len() == b.keys.len()) {
        let (span, count) = (&run[0], run.len());
        let (m, n) = (span.queries.len(), span.keys.len());
        let q = per_head(q, span.queries.start, count, m)?; // [count · heads, m, d]
        let k = per_head(k, span.keys.start, count, n)?; // [count · heads, n, d]
        let v = per_head(v, span.keys.start, count, n)?;
        let scores = (wide(&q.matmul(&k.transpose(1, 2)?)?)? / (d as f64).sqrt())?; // [count · heads, m, n]
        let places = |from: usize, to: usize| Tensor::arange(from as u32, to as u32, scores.device());
        let (positions, keys) = (places(n - m, n)?.reshape((m, 1))?, places(0, n)?.reshape((1, n))?);
        let mut unseen = wide(&keys.broadcast_gt(&positions)?)?;
        if let Some(window) = window.filter(|window| *window < n) {
            let begins = places(n - m + n - window, n + n - window)?.reshape((m, 1))?; // of each row, n later
            let keys = places(n - 1, n + n - 1)?.reshape((1, n))?;
            unseen = unseen.maximum(&wide(&keys.broadcast_lt(&begins)?)?)?;
        }
        let scores = scores.broadcast_add(&(unseen * UNSEEN)?)?;
        let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let p = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        let out = p.to_dtype(v.dtype())?.matmul(&v)?.reshape((count, heads, m, d))?;
        outputs.push(out.transpose(1, 2)?.reshape((count * m, heads, d))?);
    }
    Tensor::cat(&outputs, 0)
}

/// See [`super::linear`].
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.to_dtype(x.dtype())?.t()?)
}

fn log_softmax(hidden: &Tensor, weight: &Tensor) -> Result<(Tensor, Tensor)> {
    let logits = wide(&linear(hidden, weight)?)?; // [rows, vocab]
    let log_z = logits.log_sum_exp(1)?; // [rows]
    Ok((logits.broadcast_sub(&log_z.unsqueeze(1)?)?, log_z))
}

/// See [`super::cross_entropy`].
pub fn cross_entropy(hidden: &Tensor, weight: &Tensor, targets: &[u32], z_weight: f64) -> Result<CrossEntropy> {
    let (device, rows) = (hidden.device(), targets.len());
    let counted = targets.iter().filter(|&&t| t != IGNORE).count();
    let keep: Vec<f32> = targets.iter().map(|&t| if t == IGNORE { 0.0 } else { 1.0 }).collect();
    let keep = Tensor::from_vec(keep, rows, device)?;
    let ids: Vec<u32> = targets.iter().map(|&t| if t == IGNORE { 0 } else { t }).collect();
    let (log_p, log_z) = log_softmax(hidden, weight)?;
    let at_target = log_p.gather(&Tensor::from_vec(ids, (rows, 1), device)?, 1)?.squeeze(1)?;
    let nll = ((at_target * &keep)?.sum_all()?.neg()? / counted as f64)?;
    let z_loss = ((log_z.sqr()? * &keep)?.sum_all()? * (z_weight / counted as f64))?;
    let parts = Tensor::stack(&[nll.detach(), z_loss.detach()], 0)?.to_dtype(DType::F64)?;
    Ok(CrossEntropy { parts, loss: (nll + z_loss)?, targets: counted })
}

/// See [`super::token_log_probs`].
pub fn token_log_probs(hidden: &Tensor, weight: &Tensor, targets: &[u32]) -> Result<Vec<f32>> {
    let ids: Vec<u32> = targets.iter().map(|&t| if t == IGNORE { 0 } else { t }).collect();
    let ids = Tensor::from_vec(ids, (targets.len(), 1), hidden.device())?;
    let mut result = log_softmax(hidden, weight)?.0.gather(&ids, 1)?.squeeze(1)?.to_vec1::<f32>()?;
    for (value, &target) in result.iter_mut().zip(targets) {
        if target == IGNORE {
            *value = 0.0;
        }
    }
    Ok(result)
}
