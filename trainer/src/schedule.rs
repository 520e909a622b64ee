//! The learning rate of every update.

use std::f64::consts::PI;

use crate::config::{Schedule, TrainSection};

/// Linear warm-up to the greatest rate, then what the schedule says, down to the final share of it. `step` counts from 0.
pub fn learning_rate(train: &TrainSection, step: usize) -> f64 {
    if step < train.warmup_steps {
        return train.learning_rate * (step + 1) as f64 / train.warmup_steps as f64;
    }
    let since = |start: usize, length: usize| ((step - start) as f64 / length.max(1) as f64).min(1.0);
    let left = match train.schedule {
        Schedule::Cosine => 0.5 * (1.0 + (PI * since(train.warmup_steps, train.steps - train.warmup_steps)).cos()),
        Schedule::WarmupStableDecay => match train.steps - train.decay_steps {
            start if step < start => 1.0,
            start => 1.0 - since(start, train.decay_steps).sqrt(),
        },
    };
    train.learning_rate * (train.final_learning_rate + (1.0 - train.final_learning_rate) * left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(more: &str) -> TrainSection {
        let train = "steps = 100\nbatch_tokens = 1\nmicro_batch_tokens = 1\nlearning_rate = 0.1\n\
            final_learning_rate = 0.2\nwarmup_steps = 10\nweight_decay = 0.5\nbeta1 = 0.9\nbeta2 = 0.99\n\
            clip_norm = 1.0\nz_loss = 0.0\ncheckpoint_steps = 1\neval_steps = 1\n";
        toml::from_str(&format!("{train}{more}")).unwrap()
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-9, "{got} against {want}");
    }

    #[test]
    fn the_rate_rises_falls_and_stays_above_its_end() {
        let train = train("");
        near(learning_rate(&train, 0), 0.01);
        near(learning_rate(&train, 9), 0.1);
        near(learning_rate(&train, 55), 0.06);
        near(learning_rate(&train, 100), 0.02);
        near(learning_rate(&train, 500), 0.02);
    }

    #[test]
    fn a_stable_rate_decays_at_the_end_alone() {
        let train = train("schedule = \"warmup-stable-decay\"\ndecay_steps = 16\n");
        train.validate(1).unwrap();
        near(learning_rate(&train, 4), 0.05);
        near(learning_rate(&train, 10), 0.1);
        near(learning_rate(&train, 84), 0.1);
        near(learning_rate(&train, 88), 0.1 * (0.2 + 0.8 * 0.5));
        near(learning_rate(&train, 100), 0.02);
        let message = |more: &str| self::train(more).validate(1).unwrap_err().to_string();
        assert!(message("schedule = \"warmup-stable-decay\"\n").contains("train.decay_steps is 0"));
        assert!(message("decay_steps = 3\n").contains("only warmup-stable-decay"));
    }
}
