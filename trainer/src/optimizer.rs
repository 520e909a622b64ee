//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), in place.

use std::sync::Mutex;
use std::sync::PoisonError;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, Var};
use rayon::prelude::*;

use crate::config::TrainSection;
use crate::groups::Groups;
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
    updates: usize,
}

/// ε of the update.
const EPSILON: f32 = 1e-8;

/// Elements handed to one parallel task.
const TASK: usize = 1 << 14;

impl AdamW {
    /// Zero moments.
    pub fn new(parameters: &Parameters) -> AdamW {
        let zero = |var: &Var| Moments { first: vec![0.0; var.elem_count()], second: vec![0.0; var.elem_count()] };
        AdamW { moments: parameters.iter().map(|(_, var)| zero(var)).collect(), updates: 0 }
    }

    /// State as it was saved after `updates` updates, in the order of names.
    pub fn restore(moments: Vec<Moments>, updates: usize) -> AdamW {
        AdamW { moments, updates }
    }

    /// Updates made.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// The moments, in the order of names.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// One update with the gradients of all parameters, in the order of names, each times `gradient_scale`, each parameter
    /// by the rate and the decay of its group.
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
        groups: &Groups,
    ) -> Result<()> {
        self.updates += 1;
        let correction = |beta: f64| (1.0 - beta.powi(self.updates.try_into().unwrap_or(i32::MAX))) as f32;
        for (i, (((_, var), moments), gradient)) in parameters.iter().zip(&mut self.moments).zip(gradients).enumerate()
        {
            let (factor, decay) = groups.of(i);
            let learning_rate = learning_rate * factor;
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

#[cfg(test)]
mod tests {
    use safelmm_model::config::Config;

    use super::*;
    use crate::config::Initialisation;

    const TRAIN: &str = "steps = 100\nbatch_tokens = 1\nmicro_batch_tokens = 1\nlearning_rate = 0.1\n\
        final_learning_rate = 0.2\nwarmup_steps = 10\nweight_decay = 0.5\nbeta1 = 0.9\nbeta2 = 0.99\n\
        clip_norm = 1.0\nz_loss = 0.0\ncheckpoint_steps = 1\neval_steps = 1\n";

    fn parameters() -> Parameters {
        let json = serde_json::json!({
            "architectures": ["Qwen3ForCausalLM"], "vocab_size": 4, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 8, "tie_word_embeddings": true,
        });
        let config = Config::from_json(&serde_json::to_vec(&json).unwrap()).unwrap();
        Parameters::initialise(&config, Initialisation::Fixed, 1).unwrap().0
    }

    fn values(parameters: &Parameters, name: &str) -> Vec<f32> {
        parameters.get(name).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn two_updates_are_those_of_the_paper() {
        let group = "[[group]]\nparameters = [\"*mlp.up*\"]\nlearning_rate = 0.5\nweight_decay = 0.25\n";
        let train: TrainSection = toml::from_str(&format!("{TRAIN}{group}")).unwrap();
        // A matrix decays, a norm does not, and a group does as it says.
        for (name, decay, rate) in [
            ("model.embed_tokens.weight", 0.5, 0.1),
            ("model.norm.weight", 0.0, 0.1),
            ("model.layers.0.mlp.up_proj.weight", 0.25, 0.05),
        ] {
            let parameters = parameters();
            let groups = Groups::new(&train, &parameters).unwrap();
            let mut optimizer = AdamW::new(&parameters);
            let start = f64::from(values(&parameters, name)[0]);
            let (mut m, mut v, mut w) = (0.0, 0.0, start);
            for step in 1..=2_i32 {
                let gradient = 0.3 * f64::from(step);
                let gradients: Vec<Vec<f32>> =
                    parameters.iter().map(|(_, var)| vec![2.0 * gradient as f32; var.elem_count()]).collect();
                optimizer.step(&parameters, &gradients, 0.5, 0.1, &train, &groups).unwrap();
                m = 0.9 * m + 0.1 * gradient;
                v = 0.99 * v + 0.01 * gradient * gradient;
                let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.99_f64.powi(step)));
                w -= rate * (m_hat / (v_hat.sqrt() + 1e-8) + decay * w);
            }
            assert!((f64::from(values(&parameters, name)[0]) - w).abs() < 1e-5, "{name}");
        }
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        assert!((norm(&[vec![3.0], vec![0.0, 4.0]]) - 5.0).abs() < 1e-12);
    }
}
