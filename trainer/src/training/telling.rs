//! What is told of an update.

use super::update::Found;
use super::{Job, TrainError, Training};
use crate::backward::Options;
use crate::machine::{self, Usage};
use crate::pipeline::Stage;
use crate::report::Report;
use crate::watch::Line;

impl Training<'_> {
    /// The line of an update, and how the run goes on.
    pub(super) fn tell(
        &mut self,
        found: &Found,
        rate: f64,
        skipped: bool,
        seconds: f64,
        usage: &Usage,
        report: &mut Report,
    ) -> Result<(), TrainError> {
        let (step, steps) = (self.at.step, self.job.train.steps);
        let heldout_bits_per_byte = match step % self.job.train.eval_steps == 0 || step == steps {
            true => self.heldout().map_err(|source| TrainError::Step { step, source })?,
            false => None,
        };
        let Some(telling) = &mut self.telling else { return Ok(()) };
        let speed = found.tokens as f64 / seconds;
        // Where a worker holds a part of the model, everything is trained.
        let whole = self.job.mesh.model.size() == 1;
        let trained = |name: &str| !whole || self.job.parameters.get(name).is_some();
        let work = machine::training_operations(self.job.decoder.config(), trained, found.attended);
        let workers = self.job.mesh.world.size() as f64;
        let line = Line {
            step,
            loss: found.loss,
            z_loss: found.z_loss,
            gradient_norm: found.norm,
            learning_rate: rate,
            skipped,
            tokens: self.at.tokens,
            tokens_per_second: speed,
            seconds: self.at.seconds,
            step_seconds: seconds,
            cpu_seconds: Usage::now().cpu_seconds - usage.cpu_seconds,
            memory_bytes: machine::memory(),
            peak_memory_bytes: machine::peak_memory(),
            mfu: report.peak.map(|peak| speed * work / (peak * workers)),
            heldout_bits_per_byte,
        };
        telling.line(&line)?;
        let mfu = line.mfu.map_or(String::new(), |mfu| format!(", MFU {:.0} %", mfu * 100.0));
        let left = self.at.seconds / step as f64 * (steps - step) as f64;
        report.progress(
            step,
            steps,
            &format!(
                "loss {:.3}, |g| {:.2}, {speed:.0} tokens/s{mfu}, {} left",
                line.loss,
                line.gradient_norm,
                duration(left)
            ),
        );
        if let Some(bits) = heldout_bits_per_byte {
            report.line(&format!("step {step}: held-out {bits:.3} bits per byte"));
        }
        Ok(())
    }

    /// Bits per byte on held-out text, at every worker of the first copy of the model.
    fn heldout(&self) -> candle_core::Result<Option<f64>> {
        let Job { mesh, decoder, parameters, source, .. } = &self.job;
        if mesh.data.rank() > 0 {
            return Ok(None);
        }
        let options = Options { z_loss: 0.0, checkpointing: false };
        let stage = Stage { mesh, decoder, parameters, options };
        source.heldout(&|sequences, targets| stage.token_log_probs(sequences, targets))
    }
}

/// Hours, minutes or seconds, as they are left.
fn duration(seconds: f64) -> String {
    match seconds.round() as u64 {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}
