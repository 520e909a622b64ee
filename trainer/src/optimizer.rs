//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), in place.

use std::sync::Mutex;
use std::sync::PoisonError;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, Var};
use rayon::prelude::*;

use crate::config::TrainSection;
use crate::parameters::Parameters;

/// The moments of one parameter, as long as it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
}

/// The optimiser's state: a parameter's moments stand at its place in the order of names.
pub struct AdamW {
    moments: Vec<Moments>,
    steps: usize,
}

/// ε of the update.
const EPSILON: f32 = 1e-8;

/// Elements handed to one parallel task.
const TASK: usize = 1 << 14;

impl AdamW {
    /// Zero moments.
    pub fn new(parameters: &Parameters) -> AdamW {
        let zero = |var: &Var| Moments { first: vec![0.0; var.elem_count()], second: vec![0.0; var.elem_count()] };
        AdamW { moments: parameters.iter().map(|(_, var)| zero(var)).collect(), steps: 0 }
    }

    /// State as it was saved after `steps` updates, in the order of names.
    pub fn restore(moments: Vec<Moments>, steps: usize) -> AdamW {
        AdamW { moments, steps }
    }

    /// The moments, in the order of names.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// One update with the gradients of all parameters, in the order of names, each times `gradient_scale`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &[Vec<f32>],
        gradient_scale: f32,
        learning_rate: f64,
        train: &TrainSection,
    ) -> Result<()> {
        self.steps += 1;
        let correction = |beta: f64| (1.0 - beta.powi(self.steps.try_into().unwrap_or(i32::MAX))) as f32;
        for (((_, var), moments), gradient) in parameters.iter().zip(&mut self.moments).zip(gradients) {
            let decay = if var.rank() > 1 { train.weight_decay } else { 0.0 };
            let update = Update {
                gradient,
                gradient_scale,
                moments: Mutex::new(moments),
                beta1: train.beta1 as f32,
                beta2: train.beta2 as f32,
                step_size: learning_rate as f32 / correction(train.beta1),
                second_correction: correction(train.beta2),
                keep: (1.0 - learning_rate * decay) as f32,
            };
            var.as_tensor().inplace_op1(&update)?;
        }
        Ok(())
    }
}

struct Update<'a> {
    gradient: &'a [f32],
    gradient_scale: f32,
    moments: Mutex<&'a mut Moments>,
    beta1: f32,
    beta2: f32,
    step_size: f32,
    second_correction: f32,
    keep: f32,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(weights), Some((0, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("adamw: a variable is not f32 and contiguous");
        };
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let Moments { first, second } = &mut **moments;
        let (b1, b2) = (self.beta1, self.beta2);
        weights[..end]
            .par_chunks_mut(TASK)
            .zip(first.par_chunks_mut(TASK))
            .zip(second.par_chunks_mut(TASK))
            .zip(self.gradient.par_chunks(TASK))
            .for_each(|(((w, m), v), g)| {
                for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
                    let g = g * self.gradient_scale;
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *w = *w * self.keep - self.step_size * *m / ((*v / self.second_correction).sqrt() + EPSILON);
                }
            });
        Ok(())
    }
}

/// Adds a gradient to a running sum.
///
/// # Errors
/// A gradient that is not on the CPU in f32.
pub fn accumulate(sum: &mut [f32], gradient: &Tensor) -> Result<()> {
    let gradient = gradient.contiguous()?;
    let (storage, layout) = gradient.storage_and_layout();
    let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("a gradient is not on the CPU");
    };
    let values = &cpu.as_slice::<f32>()?[start..end];
    sum.par_chunks_mut(TASK).zip(values.par_chunks(TASK)).for_each(|(sum, values)| {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += value;
        }
    });
    Ok(())
}

/// The Euclidean norm over all gradients, summed in a fixed order in f64.
pub fn norm(gradients: &[Vec<f32>]) -> f64 {
    gradients
        .iter()
        .map(|gradient| {
            let parts: Vec<f64> =
                gradient.par_chunks(TASK).map(|c| c.iter().map(|g| f64::from(*g) * f64::from(*g)).sum()).collect();
            parts.into_iter().sum::<f64>()
        })
        .sum::<f64>()
        .sqrt()
}

/// Linear warm-up to the greatest rate, then half a cosine down to the final share of it. `step` counts from 0.
pub fn learning_rate(train: &TrainSection, step: usize) -> f64 {
    if step < train.warmup_steps {
        return train.learning_rate * (step + 1) as f64 / train.warmup_steps as f64;
    }
    let length = (train.steps - train.warmup_steps).max(1) as f64;
    let progress = ((step - train.warmup_steps) as f64 / length).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    train.learning_rate * (train.final_learning_rate + (1.0 - train.final_learning_rate) * cosine)
}
