//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), in place.

use std::borrow::Cow;
use std::mem;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use rayon::prelude::*;
use safelmm_model::ops;

use crate::buckets::{Buckets, Buffers, Place, common};
use crate::config::TrainSection;
use crate::gradients::{GradientError, Sums};
use crate::groups::Groups;
use crate::mesh::Mesh;
use crate::parameters::{Parameters, read_values, write_values};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Moments of the values that a worker updates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient, by bucket.
    pub first: Buffers,
    /// Running mean of its square, by bucket.
    pub second: Buffers,
}

/// The optimiser's state: moments of the values that this worker keeps of each bucket, all of them or its piece
/// (ZeRO-1; Rajbhandari et al. 2020, section 5.1).
pub struct AdamW {
    kept: Vec<Range<usize>>,
    moments: Moments,
    /// First and second moment of each parameter, in the order of names, where gradients stay on a device: from the first
    /// update on in the place of `moments`.
    on_device: Vec<(Tensor, Tensor)>,
    updates: usize,
}

/// ε of the update.
const EPSILON: f32 = 1e-8;

/// Elements handed to one parallel task.
const TASK: usize = 1 << 14;

/// What an update is made with.
pub struct Settings<'a> {
    /// Takes the gradients to what is learnt from.
    pub gradient_scale: f32,
    /// The scheduled rate.
    pub learning_rate: f64,
    /// Decays of the moments.
    pub train: &'a TrainSection,
    /// Rates and decays of parameters.
    pub groups: &'a Groups,
}

impl AdamW {
    /// Zero moments of what a worker keeps.
    pub fn new(buckets: &Buckets, mesh: &Mesh) -> AdamW {
        let kept: Vec<Range<usize>> =
            buckets.lengths().iter().map(|length| mesh.kept(mesh.data.rank(), *length)).collect();
        let zeros = |kept: &[Range<usize>]| kept.iter().map(|range| vec![0.0; range.len()]).collect::<Buffers>();
        AdamW {
            moments: Moments { first: zeros(&kept), second: zeros(&kept) },
            kept,
            on_device: Vec::new(),
            updates: 0,
        }
    }

    /// Takes what is kept out of the moments of a whole parameter, which lies at `place`.
    pub fn restore(&mut self, place: &Place, first: &[f32], second: &[f32]) {
        let kept = &self.kept[place.bucket];
        let part = common(&place.range, kept);
        if part.is_empty() {
            return;
        }
        let (from, to) = (part.start - place.range.start..part.end - place.range.start, part.start - kept.start);
        self.moments.first[place.bucket][to..][..from.len()].copy_from_slice(&first[from.clone()]);
        self.moments.second[place.bucket][to..][..from.len()].copy_from_slice(&second[from]);
    }

    /// Sets the number of updates made.
    pub fn set_updates(&mut self, updates: usize) {
        self.updates = updates;
    }

    /// What is kept of each bucket.
    pub fn kept(&self) -> &[Range<usize>] {
        &self.kept
    }

    /// The moments of what is kept of parameters that lie at these places.
    ///
    /// # Errors
    /// Those of the device that they are on.
    pub fn moments(&self, places: &[Place]) -> Result<Cow<'_, Moments>> {
        if self.on_device.is_empty() {
            return Ok(Cow::Borrowed(&self.moments));
        }
        let zeros = || self.kept.iter().map(|range| vec![0.0; range.len()]).collect::<Buffers>();
        let mut moments = Moments { first: zeros(), second: zeros() };
        for (place, (first, second)) in places.iter().zip(&self.on_device) {
            for (buffers, tensor) in [(&mut moments.first, first), (&mut moments.second, second)] {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                buffers[place.bucket][place.range.clone()].copy_from_slice(&values);
            }
        }
        Ok(Cow::Owned(moments))
    }

    /// One update of what is kept, with the gradients of all buckets.
    ///
    /// # Errors
    /// Those of candle.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        buckets: &Buckets,
        gradients: Sums<'_>,
        settings: &Settings<'_>,
    ) -> Result<()> {
        let gradients = match gradients {
            Sums::Host(gradients) => gradients,
            Sums::Device(gradients) => return self.step_on_device(parameters, buckets, gradients, settings),
        };
        let Settings { gradient_scale, learning_rate, train, groups } = *settings;
        self.updates += 1;
        let correction = |beta: f64| (1.0 - beta.powi(self.updates.try_into().unwrap_or(i32::MAX))) as f32;
        for (i, ((_, var), place)) in parameters.iter().zip(buckets.places()).enumerate() {
            let kept = &self.kept[place.bucket];
            let part = common(&place.range, kept);
            if part.is_empty() {
                continue;
            }
            let (factor, decay) = groups.of(i);
            let learning_rate = learning_rate * factor;
            let own = part.start - kept.start..part.end - kept.start;
            let Moments { first, second } = &mut self.moments;
            let update = Update {
                gradient: &gradients[place.bucket][part.clone()],
                gradient_scale,
                at: part.start - place.range.start,
                moments: Mutex::new((&mut first[place.bucket][own.clone()], &mut second[place.bucket][own])),
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

    /// The same where parameters, gradients and moments are on a device.
    fn step_on_device(
        &mut self,
        parameters: &Parameters,
        buckets: &Buckets,
        gradients: &[Option<Tensor>],
        settings: &Settings<'_>,
    ) -> Result<()> {
        let Settings { gradient_scale, learning_rate, train, groups } = *settings;
        if self.on_device.is_empty() {
            let Moments { first, second } = mem::take(&mut self.moments);
            for ((_, var), place) in parameters.iter().zip(buckets.places()) {
                let moment = |buffers: &Buffers| {
                    Tensor::from_slice(&buffers[place.bucket][place.range.clone()], var.shape(), var.device())
                };
                self.on_device.push((moment(&first)?, moment(&second)?));
            }
        }
        self.updates += 1;
        let correction = |beta: f64| (1.0 - beta.powi(self.updates.try_into().unwrap_or(i32::MAX))) as f32;
        let each = parameters.iter().zip(gradients).zip(&mut self.on_device).enumerate();
        for (i, (((_, var), gradient), moments)) in each {
            let (factor, decay) = groups.of(i);
            let learning_rate = learning_rate * factor;
            let update = ops::Update {
                gradient_scale,
                beta1: train.beta1 as f32,
                beta2: train.beta2 as f32,
                step_size: learning_rate as f32 / correction(train.beta1),
                second_correction: correction(train.beta2),
                keep: (1.0 - learning_rate * decay) as f32,
                epsilon: EPSILON,
            };
            match gradient {
                Some(gradient) => ops::adamw(var, moments, gradient, &update)?,
                None => ops::adamw(var, moments, &var.zeros_like()?, &update)?,
            }
        }
        Ok(())
    }

    /// Everyone gets the parameters that others have updated; `room` is as large as all buckets.
    ///
    /// # Errors
    /// Those of candle and of the exchange.
    pub fn gather(
        &self,
        parameters: &Parameters,
        buckets: &Buckets,
        mesh: &Mesh,
        room: &mut Buffers,
    ) -> Result<(), GradientError> {
        if !mesh.zero || mesh.data.size() == 1 {
            return Ok(());
        }
        for ((_, var), place) in parameters.iter().zip(buckets.places()) {
            read_values(var, &mut room[place.bucket][place.range.clone()])?;
        }
        room.iter_mut().try_for_each(|bucket| mesh.data.all_gather(bucket))?;
        for ((_, var), place) in parameters.iter().zip(buckets.places()) {
            write_values(var, &room[place.bucket][place.range.clone()])?;
        }
        Ok(())
    }
}

struct Update<'a> {
    gradient: &'a [f32],
    gradient_scale: f32,
    /// The first value that is updated.
    at: usize,
    moments: Mutex<(&'a mut [f32], &'a mut [f32])>,
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
        let (CpuStorage::F32(weights), Some((0, _))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("adamw: a variable is not f32 and contiguous");
        };
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = &mut *moments;
        let (b1, b2) = (self.beta1, self.beta2);
        weights[self.at..][..self.gradient.len()]
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
            let (buckets, mesh) = (Buckets::new(&parameters), Mesh::alone());
            let mut optimizer = AdamW::new(&buckets, &mesh);
            let start = f64::from(values(&parameters, name)[0]);
            let (mut m, mut v, mut w) = (0.0, 0.0, start);
            for step in 1..=2_i32 {
                let gradient = 0.3 * f64::from(step);
                let gradients: Buffers =
                    buckets.lengths().iter().map(|length| vec![2.0 * gradient as f32; *length]).collect();
                let settings = Settings { gradient_scale: 0.5, learning_rate: 0.1, train: &train, groups: &groups };
                optimizer.step(&parameters, &buckets, Sums::Host(&gradients), &settings).unwrap();
                m = 0.9 * m + 0.1 * gradient;
                v = 0.99 * v + 0.01 * gradient * gradient;
                let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.99_f64.powi(step)));
                w -= rate * (m_hat / (v_hat.sqrt() + 1e-8) + decay * w);
            }
            assert!((f64::from(values(&parameters, name)[0]) - w).abs() < 1e-5, "{name}");
        }
    }
}
