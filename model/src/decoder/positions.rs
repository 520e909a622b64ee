//! Rotary angles for positions, with the published scalings.
//!
//! Angles are computed in `f32`, as transformers does, so that long positions agree with it.

use crate::config::{Rope, RopeScaling};
use crate::ops::Rotation;

/// Angles of packed sequences; each is (first position, tokens, total length of the sequence).
pub fn rotation(rope: &Rope, head_dim: usize, sequences: &[(usize, usize, usize)]) -> Rotation {
    let half = head_dim / 2;
    let rows: usize = sequences.iter().map(|(_, tokens, _)| tokens).sum();
    let (mut cos, mut sin) = (Vec::with_capacity(rows * half), Vec::with_capacity(rows * half));
    let factor = attention_factor(&rope.scaling);
    for &(first, tokens, total) in sequences {
        let frequencies = inverse_frequencies(rope, head_dim, total);
        for position in first..first + tokens {
            for frequency in &frequencies {
                let (s, c) = (position as f32 * frequency).sin_cos();
                cos.push(c * factor);
                sin.push(s * factor);
            }
        }
    }
    Rotation::new(cos.into(), sin.into(), half)
}

/// Whether angles depend on the length of the sequence beside the position.
pub fn looks_at_length(rope: &Rope) -> bool {
    matches!(rope.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
}

fn attention_factor(scaling: &RopeScaling) -> f32 {
    match scaling {
        RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. } => {
            *attention_factor as f32
        }
        _ => 1.0,
    }
}

/// θ^(−2i/d) for i in 0..d/2.
fn plain(theta: f64, d: usize) -> Vec<f64> {
    (0..d / 2).map(|i| theta.powf(-((2 * i) as f64) / d as f64)).collect()
}

fn inverse_frequencies(rope: &Rope, d: usize, sequence: usize) -> Vec<f32> {
    let theta = rope.theta;
    let frequencies = match &rope.scaling {
        RopeScaling::None => plain(theta, d),
        RopeScaling::Linear { factor } => plain(theta, d).into_iter().map(|f| f / factor).collect(),
        RopeScaling::Dynamic { factor, original } => {
            let stretch = factor * sequence.max(*original) as f64 / *original as f64 - (factor - 1.0);
            plain(theta * stretch.powf(d as f64 / (d as f64 - 2.0)), d)
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => plain(theta, d)
            .into_iter()
            .map(|f| {
                let wavelength = 2.0 * std::f64::consts::PI / f;
                let rotations = *original as f64 / wavelength;
                let blend = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                match blend {
                    b if b <= 0.0 => f / factor,
                    b if b >= 1.0 => f,
                    b => (1.0 - b) * f / factor + b * f,
                }
            })
            .collect(),
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
            // The dimension that turns `rotations` times within the original context (YaRN, equation 16).
            let dimension = |rotations: f64| {
                d as f64 * (*original as f64 / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
            };
            let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, mut high) = (low.max(0.0), high.min(d as f64 - 1.0));
            if low == high {
                high += 0.001; // no division by zero
            }
            plain(theta, d)
                .into_iter()
                .enumerate()
                .map(|(i, f)| {
                    let interpolated = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    f / factor * interpolated + f * (1.0 - interpolated)
                })
                .collect()
        }
        RopeScaling::LongRope { short, long, original, .. } => {
            let factors = if sequence > *original { long } else { short };
            plain(theta, d).into_iter().zip(factors).map(|(f, factor)| f / factor).collect()
        }
    };
    frequencies.into_iter().map(|f| f as f32).collect()
}
