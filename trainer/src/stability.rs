//! When an update is suspicious, and what is then done: warn, leave it out, or go back.
//!
//! The judgement of an update is a function of the updates before it: the state is part of every checkpoint, so that a
//! run that goes on judges as one that was never interrupted.

use serde::{Deserialize, Serialize};

use crate::config::SpikeSection;
use crate::dataset::Cursor;
use crate::exact;

/// Running mean and variance of a figure, the newest counting 1/memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    #[serde(with = "exact")]
    mean: f64,
    #[serde(with = "exact")]
    variance: f64,
    seen: usize,
}

impl Running {
    fn add(&mut self, value: f64, memory: usize) {
        // A plain mean until there are `memory` values, an exponential one behind that.
        let weight = 1.0 / (self.seen.min(memory.max(1) - 1) + 1) as f64;
        let difference = value - self.mean;
        self.mean += weight * difference;
        self.variance = (1.0 - weight) * (self.variance + weight * difference * difference);
        self.seen += 1;
    }

    /// Standard deviations above the mean. A deviation below 5 % of an e-fold is taken for that: the norm of a calm run
    /// is so even that ordinary noise would be many deviations.
    fn z(&self, value: f64) -> f64 {
        (value - self.mean) / self.variance.sqrt().max(0.05)
    }
}

/// What is remembered of the updates so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The logarithm of the gradient's norm.
    norm: Running,
    loss: Running,
    /// Updates left out, one after another, up to now.
    skips: usize,
    /// Updates with a risen loss, one after another, up to now.
    risen: usize,
    /// Where the suspicious updates began.
    since: Option<Streak>,
}

/// The first of a row of suspicious updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// Updates that were made before it.
    pub step: usize,
    /// Where its data begins.
    pub data: Cursor,
}

/// What is to be done with an update.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Make it.
    Fine,
    /// Make it, and say so.
    Warn {
        /// Of the logarithm of the gradient's norm.
        z: f64,
    },
    /// Leave it out.
    Skip {
        /// Of the logarithm of the gradient's norm.
        z: f64,
    },
    /// Go back to a checkpoint at or before the beginning of the streak.
    Diverged {
        /// Where it began.
        since: Streak,
        /// Why, for a person.
        reason: String,
    },
}

impl Watch {
    /// Judges the update that would be number `streak.step` + 1, whose data begins at `streak.data`.
    pub fn judge(&mut self, settings: &SpikeSection, loss: f64, norm: f64, here: Streak) -> Judgement {
        let since = self.since.unwrap_or(here);
        if !(loss.is_finite() && norm.is_finite()) {
            let reason = format!("the loss is {loss}, the gradient's norm {norm}");
            return Judgement::Diverged { since, reason };
        }
        let log_norm = norm.max(f64::MIN_POSITIVE).ln();
        let watching = self.norm.seen >= settings.after;
        let z = if watching { self.norm.z(log_norm) } else { 0.0 };
        let risen = watching && loss > self.loss.mean + settings.rise;
        let skip = z >= settings.skip;
        self.skips = if skip { self.skips + 1 } else { 0 };
        self.risen = if risen { self.risen + 1 } else { 0 };
        self.since = (skip || risen).then_some(since);
        if self.skips > settings.skips {
            let reason = format!("{} gradients in a row were too large, the last one by {z:.1} deviations", self.skips);
            return Judgement::Diverged { since, reason };
        }
        if self.risen >= settings.patience {
            let reason = format!(
                "the loss was {:.2} nats above its running mean, and more than {} for {} updates",
                loss - self.loss.mean,
                settings.rise,
                self.risen
            );
            return Judgement::Diverged { since, reason };
        }
        if skip {
            return Judgement::Skip { z };
        }
        self.norm.add(log_norm, settings.memory);
        if !risen {
            self.loss.add(loss, settings.memory);
        }
        if z >= settings.warn { Judgement::Warn { z } } else { Judgement::Fine }
    }

    /// The step at which suspicious updates began, while they last: checkpoints from there on may be spoilt.
    pub fn suspicious_since(&self) -> Option<usize> {
        self.since.map(|streak| streak.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SpikeSection {
        SpikeSection { after: 20, skips: 2, patience: 3, ..SpikeSection::default() }
    }

    fn here(step: usize) -> Streak {
        Streak { step, data: Cursor { epoch: 0, place: step * 10 } }
    }

    /// A calm run of `steps`.
    fn calm(watch: &mut Watch, steps: usize) {
        for step in 0..steps {
            let noise = (step * 37 % 19) as f64 / 19.0 - 0.5;
            let judgement = watch.judge(&settings(), 3.0 + noise * 0.2, 1.0 + noise * 0.4, here(step));
            assert_eq!(judgement, Judgement::Fine, "{step}");
        }
    }

    #[test]
    fn noise_is_fine_and_a_spike_is_warned_of_or_left_out() {
        let mut watch = Watch::default();
        assert_eq!(watch.judge(&settings(), 3.0, 500.0, here(0)), Judgement::Fine, "too early to say");
        let mut watch = Watch::default();
        calm(&mut watch, 100);
        assert!(matches!(watch.judge(&settings(), 3.0, 2.1, here(100)), Judgement::Warn { z } if z > 4.0));
        let before = watch.norm;
        assert!(matches!(watch.judge(&settings(), 3.0, 9.0, here(101)), Judgement::Skip { z } if z > 7.0));
        assert_eq!(watch.norm, before, "what is left out is not learnt from");
        assert_eq!(watch.judge(&settings(), 3.0, 1.0, here(102)), Judgement::Fine);
        assert_eq!(watch.suspicious_since(), None);
    }

    #[test]
    fn skips_in_a_row_and_a_risen_loss_are_divergences_since_their_first_update() {
        let mut watch = Watch::default();
        calm(&mut watch, 50);
        for step in 50..52 {
            assert!(matches!(watch.judge(&settings(), 3.0, 9.0, here(step)), Judgement::Skip { .. }));
        }
        let judgement = watch.judge(&settings(), 3.0, 9.0, here(52));
        assert!(matches!(&judgement, Judgement::Diverged { since, .. } if *since == here(50)), "{judgement:?}");

        let mut watch = Watch::default();
        calm(&mut watch, 50);
        for step in 50..52 {
            assert_eq!(watch.judge(&settings(), 5.0, 1.0, here(step)), Judgement::Fine);
            assert_eq!(watch.suspicious_since(), Some(50));
        }
        let judgement = watch.judge(&settings(), 5.0, 1.0, here(52));
        assert!(matches!(&judgement, Judgement::Diverged { since, .. } if *since == here(50)), "{judgement:?}");
        let judgement = Watch::default().judge(&settings(), f64::NAN, 1.0, here(0));
        assert!(matches!(&judgement, Judgement::Diverged { reason, .. } if reason.contains("NaN")));
    }

    #[test]
    fn the_state_comes_back_from_json_with_the_same_bits() {
        let mut watch = Watch::default();
        for step in 0..500_u32 {
            watch.judge(
                &settings(),
                f64::from(step).sin() + 3.0,
                f64::from(step).cos().abs() + 0.1,
                here(step as usize),
            );
            let json = serde_json::to_string(&watch).unwrap();
            assert_eq!(serde_json::from_str::<Watch>(&json).unwrap(), watch);
        }
    }
}
