//! Kernels over one row, written so that the compiler turns them into the widest vector instructions at hand.

use multiversion::multiversion;

/// Partial sums kept side by side: one register of 16 lanes, added up in a fixed order.
const LANES: usize = 16;

/// e^x with a relative error of about 1e-7 over the range of `f32`; vectorises, unlike `f32::exp`.
/// Cody–Waite reduction and the degree-5 polynomial of Cephes `expf`. −∞ gives 0.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.0, 88.0);
    // Adding and subtracting 1.5 · 2^23 rounds to the nearest integer.
    let n = (clamped * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let r = n.mul_add(-0.693_145_75, clamped);
    let r = n.mul_add(-1.428_606_8e-6, r);
    let p = 1.987_569_2e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_65);
    let p = p.mul_add(r, 0.5);
    let y = (p * r).mul_add(r, r) + 1.0;
    let scaled = y * f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { scaled }
}

#[inline(always)]
fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut total = 0.0;
    for lane in lanes {
        total += lane;
    }
    total
}

#[inline(always)]
fn dot_inline(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a16, a_tail) = a.as_chunks::<LANES>();
    let (b16, b_tail) = b.as_chunks::<LANES>();
    for (x, y) in a16.iter().zip(b16) {
        for i in 0..LANES {
            lanes[i] = x[i].mul_add(y[i], lanes[i]);
        }
    }
    let mut total = sum_lanes(lanes);
    for (x, y) in a_tail.iter().zip(b_tail) {
        total = x.mul_add(*y, total);
    }
    total
}

/// Σ aᵢ·bᵢ.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_inline(a, b)
}

/// y = w · x / √(mean(x²) + ε) (Zhang and Sennrich 2019, equation 4).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn rms_norm_row(y: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let r = 1.0 / (dot_inline(x, x) / x.len() as f32 + eps).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
        *y = w * (x * r);
    }
}

/// Gradients of [`rms_norm_row`]: writes `dx` and adds to `dweight`. `scaled` is scratch of the row's length.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn rms_norm_row_grad(
    dx: &mut [f32],
    dweight: &mut [f32],
    scaled: &mut [f32],
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    eps: f32,
) {
    let n = x.len();
    let (dx, dweight, scaled) = (&mut dx[..n], &mut dweight[..n], &mut scaled[..n]);
    let (weight, dy) = (&weight[..n], &dy[..n]);
    let r = 1.0 / (dot_inline(x, x) / n as f32 + eps).sqrt();
    for i in 0..n {
        scaled[i] = dy[i] * weight[i];
        dweight[i] += dy[i] * x[i] * r;
    }
    let c = dot_inline(scaled, x) * r * r / n as f32;
    for i in 0..n {
        dx[i] = r * (scaled[i] - x[i] * c);
    }
}

/// y = silu(gate) · up (Shazeer 2020, SwiGLU without biases).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn swiglu_row(y: &mut [f32], gate: &[f32], up: &[f32]) {
    for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
        *y = g / (1.0 + exp(-g)) * u;
    }
}

/// Gradients of [`swiglu_row`].
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn swiglu_row_grad(dgate: &mut [f32], dup: &mut [f32], gate: &[f32], up: &[f32], dy: &[f32]) {
    let n = gate.len();
    let (dgate, dup, up, dy) = (&mut dgate[..n], &mut dup[..n], &up[..n], &dy[..n]);
    for i in 0..n {
        let s = 1.0 / (1.0 + exp(-gate[i]));
        dgate[i] = dy[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
        dup[i] = dy[i] * gate[i] * s;
    }
}

#[inline(always)]
fn max_inline(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    let mut max = f32::NEG_INFINITY;
    for &v in lanes.iter().chain(tail) {
        max = if v > max { v } else { max };
    }
    max
}

/// Replaces each element by e^(x − max) and returns (max, sum).
#[inline(always)]
fn exp_sum_inline(row: &mut [f32]) -> (f32, f32) {
    let max = max_inline(row);
    let mut lanes = [0.0_f32; LANES];
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] - max);
            lanes[i] += chunk[i];
        }
    }
    let mut sum = sum_lanes(lanes);
    for v in tail {
        *v = exp(*v - max);
        sum += *v;
    }
    (max, sum)
}

/// Softmax over `row[visible]`, in place; everything outside `visible` becomes 0: softmax with a mask.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn softmax_row(row: &mut [f32], visible: std::ops::Range<usize>) {
    row[..visible.start].fill(0.0);
    row[visible.end..].fill(0.0);
    let seen = &mut row[visible];
    let (_, sum) = exp_sum_inline(seen);
    let inverse = 1.0 / sum;
    for v in seen {
        *v *= inverse;
    }
}

/// The gradient through a softmax: `d[i] = p[i] · (d[i] − Σ pⱼ·dⱼ) · scale`, in place, where `weighted_sum` is Σ pⱼ·dⱼ.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn softmax_row_grad(d: &mut [f32], p: &[f32], weighted_sum: f32, scale: f32) {
    for (d, p) in d.iter_mut().zip(p) {
        *d = p * (*d - weighted_sum) * scale;
    }
}

/// log Σ exp(xᵢ), natural. −∞ elements add nothing; NaN where an element is NaN or all are −∞.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let max = max_inline(row);
    let mut lanes = [0.0_f32; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += exp(chunk[i] - max);
        }
    }
    let mut sum = sum_lanes(lanes);
    for x in tail {
        sum += exp(x - max);
    }
    max + sum.ln()
}

/// Turns a row of logits into softmax(logits) in place.
/// Returns (log softmax(logits)[target], log Σ exp(logits)), both natural.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn target_log_prob(logits: &mut [f32], target: usize) -> (f32, f32) {
    let at_target = logits[target];
    let (max, sum) = exp_sum_inline(logits);
    let inverse = 1.0 / sum;
    for v in logits.iter_mut() {
        *v *= inverse;
    }
    let log_sum = max + sum.ln();
    (at_target - log_sum, log_sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_standard_one_everywhere() {
        let mut worst = 0.0_f64;
        for i in -8_600..8_800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - want) / want).abs());
        }
        assert!(worst < 3e-7, "relative error {worst}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn softmax_ignores_what_the_mask_hides() {
        for n in [1, 5, 16, 37] {
            let mut row: Vec<f32> = (0..n + 6).map(|i| (i * 7 % 11) as f32 - 3.0).collect();
            let seen = row[2..2 + n].to_vec();
            row[0] = 1e30;
            row[n + 5] = f32::NAN;
            softmax_row(&mut row, 2..2 + n);
            let sum: f32 = seen.iter().map(|x| x.exp()).sum();
            for (i, v) in row.iter().enumerate() {
                let want = if (2..2 + n).contains(&i) { seen[i - 2].exp() / sum } else { 0.0 };
                assert!((v - want).abs() < 1e-6, "{i}: {v} against {want}");
            }
        }
    }

    #[test]
    fn log_probability_of_the_target() {
        let mut logits = vec![0.5, -1.0, 2.0];
        let (log_p, log_sum) = target_log_prob(&mut logits, 2);
        let want = (0.5_f64.exp() + (-1.0_f64).exp() + 2.0_f64.exp()).ln();
        assert!((f64::from(log_sum) - want).abs() < 1e-6);
        assert!((f64::from(log_p) - (2.0 - want)).abs() < 1e-6);
        assert!((logits.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
