//! The section `[train]`: the optimisation, what guards it, and what is kept.

use safelmm_model::device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};

use super::{RunConfigError, is_default};

/// The optimisation: AdamW (Loshchilov and Hutter 2019), linear warm-up, then a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Updates.
    pub steps: usize,
    /// Tokens of one update.
    pub batch_tokens: usize,
    /// Tokens of one forward and backward pass; several make one update.
    pub micro_batch_tokens: usize,
    /// Greatest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end, as a share of the greatest.
    pub final_learning_rate: f64,
    /// Updates until the greatest learning rate.
    pub warmup_steps: usize,
    /// How the rate goes on behind the warm-up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: Schedule,
    /// Updates of the decay at the end, where the schedule is `warmup-stable-decay`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decay_steps: usize,
    /// Decoupled weight decay of the matrices; norms have none.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Largest norm of the gradient; a larger one is scaled down to it.
    pub clip_norm: f64,
    /// Weight of the z-loss.
    pub z_loss: f64,
    /// Keep the inputs of the layers alone and run each layer again in the backward pass: the same gradients for a
    /// third more work, with the activations of one layer in memory instead of those of all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activation_checkpointing: bool,
    /// Where it is computed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device: DeviceName,
    /// What matrix products and activations are computed in; weights, sums of gradients and moments are f32.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Updates between two checkpoints.
    pub checkpoint_steps: usize,
    /// Which checkpoints are kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoints: CheckpointSection,
    /// Updates between two measurements on held-out text.
    pub eval_steps: usize,
    /// Updates between two looks into the layers; 0 for none.
    #[serde(default = "twenty", skip_serializing_if = "is_twenty")]
    pub statistics_steps: usize,
    /// Parameters with a rate or a decay of their own; the first group that fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupSection>,
    /// What is done when the loss or its gradient leaves its course.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spikes: SpikeSection,
}

/// The learning rate behind the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Half a cosine down to the final rate (Loshchilov and Hutter 2017).
    #[default]
    Cosine,
    /// The greatest rate, and at the end a decay of `decay_steps` by 1 − √progress (Hu et al. 2024; Hägele et al. 2024,
    /// section 3.2): a run can be made longer without beginning anew.
    WarmupStableDecay,
}

/// Which checkpoints of a run are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// The newest ones.
    pub newest: usize,
    /// Those of every so many updates, for ever; 0 for none.
    pub every: usize,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        CheckpointSection { newest: 2, every: 0 }
    }
}

/// Parameters with settings of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSection {
    /// Names as in `model.safetensors`; `*` stands for any characters.
    pub parameters: Vec<String>,
    /// Their rate as a multiple of the scheduled one.
    #[serde(default = "super::one")]
    pub learning_rate: f64,
    /// Their decoupled weight decay, instead of `train.weight_decay` for matrices and 0 for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// What is done when the loss or its gradient leaves its course.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpikeSection {
    /// Whether anything is done. Without it, a loss that is no number ends the run.
    pub enabled: bool,
    /// Updates that are only watched, since early gradients say nothing of later ones.
    pub after: usize,
    /// Updates that the running means look back on.
    pub memory: usize,
    /// The z-score of the logarithm of the gradient's norm from which on a line of the ledger warns.
    pub warn: f64,
    /// The z-score from which on an update is left out.
    pub skip: f64,
    /// Updates that may be left out one after another; one more is a divergence.
    pub skips: usize,
    /// Nats above its running mean at which a loss counts as risen.
    pub rise: f64,
    /// Updates one after another with a risen loss that are a divergence.
    pub patience: usize,
    /// What the learning rate is multiplied by at each divergence.
    pub rate: f64,
    /// Divergences that are met; one more ends the run.
    pub rollbacks: usize,
}

impl Default for SpikeSection {
    fn default() -> Self {
        SpikeSection {
            enabled: true,
            after: 100,
            memory: 100,
            warn: 4.0,
            skip: 7.0,
            skips: 4,
            rise: 1.0,
            patience: 8,
            rate: 0.7,
            rollbacks: 10,
        }
    }
}

fn twenty() -> usize {
    20
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_twenty(steps: &usize) -> bool {
    *steps == twenty()
}

impl TrainSection {
    /// Micro-batches of an update.
    pub fn micro_batches(&self) -> usize {
        self.batch_tokens.div_ceil(self.micro_batch_tokens)
    }

    /// Refuses what no run can have. `context`: the longest sequence in tokens.
    ///
    /// # Errors
    /// Names the first such key.
    pub fn validate(&self, context: usize) -> Result<(), RunConfigError> {
        let refuse = |key, got: String, expected| Err(RunConfigError::Value { key, got, expected });
        let at_least_one = [
            ("train.steps", self.steps),
            ("train.checkpoint_steps", self.checkpoint_steps),
            ("train.eval_steps", self.eval_steps),
            ("train.checkpoints.newest", self.checkpoints.newest),
            ("train.spikes.memory", self.spikes.memory),
            ("train.spikes.patience", self.spikes.patience),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return refuse(key, "0".to_owned(), "at least 1");
        }
        if self.micro_batch_tokens < context || self.batch_tokens < self.micro_batch_tokens {
            let got = format!("{} (batch_tokens {})", self.micro_batch_tokens, self.batch_tokens);
            return refuse("train.micro_batch_tokens", got, "at least model.context, and at most train.batch_tokens");
        }
        if self.device == DeviceName::Cpu && self.precision != Precision::F32 {
            let expected = "f32 on the CPU; bf16 needs a GPU, such as train.device = \"cuda\"";
            return refuse("train.precision", "bf16".to_owned(), expected);
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let share = |value: f64| (0.0..1.0).contains(&value);
        let part = |value: f64| (0.0..=1.0).contains(&value);
        let spikes = &self.spikes;
        for (key, value, fits, expected) in [
            ("train.learning_rate", self.learning_rate, positive(self.learning_rate), "a positive number"),
            ("train.clip_norm", self.clip_norm, positive(self.clip_norm), "a positive number"),
            ("train.beta1", self.beta1, share(self.beta1), "a share from 0 up to 1"),
            ("train.beta2", self.beta2, share(self.beta2), "a share from 0 up to 1"),
            ("train.final_learning_rate", self.final_learning_rate, part(self.final_learning_rate), "from 0 to 1"),
            ("train.weight_decay", self.weight_decay, part(self.weight_decay), "a number from 0 to 1"),
            ("train.z_loss", self.z_loss, part(self.z_loss), "a number from 0 to 1"),
            ("train.spikes.warn", spikes.warn, positive(spikes.warn), "a positive number"),
            ("train.spikes.skip", spikes.skip, positive(spikes.skip) && spikes.skip >= spikes.warn, "at least warn"),
            ("train.spikes.rise", spikes.rise, positive(spikes.rise), "a positive number"),
            ("train.spikes.rate", spikes.rate, positive(spikes.rate) && spikes.rate <= 1.0, "above 0, at most 1"),
        ] {
            if !fits {
                return refuse(key, value.to_string(), expected);
            }
        }
        if self.warmup_steps > self.steps {
            return refuse("train.warmup_steps", self.warmup_steps.to_string(), "at most train.steps");
        }
        let decays = self.schedule == Schedule::WarmupStableDecay;
        if decays && !(1..=self.steps - self.warmup_steps).contains(&self.decay_steps) {
            let expected = "from 1 to the steps behind the warm-up, as warmup-stable-decay needs";
            return refuse("train.decay_steps", self.decay_steps.to_string(), expected);
        }
        if !decays && self.decay_steps != 0 {
            return refuse("train.decay_steps", self.decay_steps.to_string(), "0: only warmup-stable-decay has it");
        }
        for group in &self.group {
            if group.parameters.is_empty() {
                return refuse("train.group.parameters", "empty".to_owned(), "names of parameters, `*` for any");
            }
            if !(group.learning_rate.is_finite() && group.learning_rate >= 0.0) {
                return refuse("train.group.learning_rate", group.learning_rate.to_string(), "a number from 0 on");
            }
            if let Some(decay) = group.weight_decay.filter(|decay| !part(*decay)) {
                return refuse("train.group.weight_decay", decay.to_string(), "a number from 0 to 1");
            }
        }
        Ok(())
    }
}
