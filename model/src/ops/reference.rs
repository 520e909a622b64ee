//! The same operations composed of candle's differentiable ones: slower, on every device, with candle's own gradients.
//! Used where there is no fused kernel and as what the kernels are tested against. Activations may be bf16: everything but
//! the matrix products is computed in f32, and rounded at the end.

use candle_core::{D, DType, Result, Tensor};

/// In f32.
fn wide(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)
}

use super::types::{CrossEntropy, IGNORE, Rotation, Span};

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

/// See [`super::attention`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, spans: &[Span], window: Option<usize>) -> Result<Tensor> {
    let (_, heads, d) = q.dims3()?;
    let (_, kv_heads, _) = k.dims3()?;
    let per_head = |x: &Tensor, rows: &std::ops::Range<usize>, repeat: usize| -> Result<Tensor> {
        let x = x.narrow(0, rows.start, rows.len())?.transpose(0, 1)?; // [h, rows, d]
        let (h, n, d) = x.dims3()?;
        x.unsqueeze(1)?.expand((h, repeat, n, d))?.contiguous()?.reshape((h * repeat, n, d))
    };
    let mut outputs = Vec::with_capacity(spans.len());
    for span in spans {
        let (m, n) = (span.queries.len(), span.keys.len());
        let q = per_head(q, &span.queries, 1)?; // [heads, m, d]
        let k = per_head(k, &span.keys, heads / kv_heads)?; // [heads, n, d]
        let v = per_head(v, &span.keys, heads / kv_heads)?;
        let scores = (wide(&q.matmul(&k.transpose(1, 2)?)?)? / (d as f64).sqrt())?; // [heads, m, n]
        let mask: Vec<f32> = (0..m * n)
            .map(|i| {
                let (position, key) = (n - m + i / n, i % n);
                let seen = key <= position && window.is_none_or(|w| key + w > position);
                if seen { 0.0 } else { f32::NEG_INFINITY }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, m, n), q.device())?;
        let scores = scores.broadcast_add(&mask)?;
        let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let p = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        outputs.push(p.to_dtype(v.dtype())?.matmul(&v)?.transpose(0, 1)?); // [m, heads, d]
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
