//! The loop of every kind of training: batches, accumulated gradients, judgement, AdamW, checkpoints, and what is told.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use std::{fs, io};

use safelmm_model::Decoder;

use crate::backward::{Batch, Loss, Options, backward};
use crate::config::TrainSection;
use crate::dataset::Cursor;
use crate::groups::{Groups, NobodyInGroup};
use crate::ledger::{Event, Ledger, LedgerError};
use crate::machine::{self, Usage};
use crate::optimizer::{AdamW, norm};
use crate::parameters::Parameters;
use crate::report::Report;
use crate::run_state::{self, Identity, Policy, Progress, Saver, StateError};
use crate::schedule::learning_rate;
use crate::stability::{Judgement, Streak};
use crate::statistics;
use crate::watch::{Line, LogError, Telling, write_report};

/// Where the text of a run comes from, in an order that is a function of the place alone.
pub trait Source {
    /// The next micro-batch, with whole sequences of about `tokens` tokens; `at` moves on, over what is to be `left_out`.
    /// Empty where there is nothing to train on.
    fn next(&mut self, at: &mut Cursor, tokens: usize, left_out: &[(Cursor, Cursor)]) -> Batch;

    /// Bits per byte on held-out text; `None` where there is none.
    ///
    /// # Errors
    /// Those of the decoder.
    fn heldout(&self, decoder: &Decoder) -> candle_core::Result<Option<f64>>;
}

/// Where a place that is left out leads to.
pub fn over(mut at: Cursor, left_out: &[(Cursor, Cursor)]) -> Cursor {
    while let Some((_, until)) = left_out.iter().find(|(from, until)| *from <= at && at < *until) {
        at = *until;
    }
    at
}

/// Everything that is trained, and how.
pub struct Job<'a> {
    /// The optimisation.
    pub train: &'a TrainSection,
    /// The decoder that uses the parameters.
    pub decoder: &'a Decoder,
    /// What is trained.
    pub parameters: &'a Parameters,
    /// Parameters that have no gradient at the first update, by design.
    pub silent_at_first: &'a [&'a str],
    /// What the run is.
    pub identity: Identity,
    /// Its folder.
    pub run: &'a Path,
    /// Where its text comes from.
    pub source: &'a mut dyn Source,
    /// Asks for a checkpoint and an end after the current update.
    pub stop: &'a AtomicBool,
}

/// Why a run stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The ledger cannot be written or read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A log cannot be written or read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A group of parameters has nobody in it.
    #[error(transparent)]
    Group(#[from] NobodyInGroup),
    /// The decoder or its gradients failed.
    #[error("training step {step}: {source}")]
    Step {
        /// The step.
        step: usize,
        /// Why.
        source: candle_core::Error,
    },
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// There is nothing to train on.
    #[error("there is no text to train on: every source is empty, or is never repeated")]
    NoText,
    /// A parameter that no gradient reaches would stay as it was initialised.
    #[error("step 1: the parameter {0} has no gradient, or one of zero")]
    NoGradient(String),
    /// The run needs more memory than there is.
    #[error(
        "the run needs about {needed:.1} GB of memory, and {available:.1} GB are free: take a smaller [model], fewer \
         train.micro_batch_tokens, or train.activation_checkpointing = true"
    )]
    Memory {
        /// For weights, gradients, moments, activations and the copy that is saved.
        needed: f64,
        /// As the system says.
        available: f64,
    },
    /// The run diverged, and may not go back once more.
    #[error(
        "step {step}: {reason}: the run has diverged{after}; start another one (another --out folder) with a lower \
         train.learning_rate; {ledger} says what happened"
    )]
    Diverged {
        /// The step.
        step: usize,
        /// Why.
        reason: String,
        /// How often it went back before.
        after: String,
        /// The ledger.
        ledger: String,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop; the same command goes on from here.
    Interrupted {
        /// Updates made.
        step: usize,
    },
}

/// What one update found, before it is made.
struct Found {
    loss: f64,
    z_loss: f64,
    norm: f64,
    /// What takes the summed gradients to their mean.
    mean: f64,
    /// Tokens that were run.
    tokens: usize,
    /// Tokens that each of them attends to, in the mean.
    attended: f64,
}

/// Trains, or goes on training, in the folder `job.run`. `first` puts weights into the parameters of a run that begins.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn train<E: From<TrainError>>(
    job: Job<'_>,
    first: impl FnOnce(&Parameters) -> Result<(), E>,
    report: &mut Report,
) -> Result<Outcome, E> {
    let groups = Groups::new(job.train, job.parameters).map_err(TrainError::from)?;
    let file_error = |e: io::Error| TrainError::File(job.run.display().to_string(), e);
    fs::create_dir_all(job.run).map_err(file_error)?;
    run_state::clean_up(job.run).map_err(TrainError::from)?;
    let mut ledger = Ledger::open(job.run).map_err(TrainError::from)?;
    let went_to: Vec<usize> = ledger.rollbacks().map(|(to_step, ..)| to_step).collect();
    run_state::delete_abandoned(job.run, &went_to).map_err(TrainError::from)?;
    let (optimizer, at) = match run_state::checkpoints(job.run).map_err(TrainError::from)?.last() {
        Some(folder) => {
            report.line(&format!("going on from {}", folder.display()));
            run_state::load(folder, &job.identity, job.parameters).map_err(TrainError::from)?
        }
        None => {
            first(job.parameters)?;
            (AdamW::new(job.parameters), Progress::default())
        }
    };
    ledger.forget_after(at.step).map_err(TrainError::from)?;
    let telling = Telling::open(job.run, at.step).map_err(TrainError::from)?;
    let policy = Policy { steps: job.train.checkpoint_steps, kept: job.train.checkpoints.clone() };
    let saver = Saver::new(job.run, job.identity.clone(), policy.clone());
    let gradients = job.parameters.iter().map(|(_, var)| vec![0.0; var.elem_count()]).collect();
    let mut training = Training { job, groups, ledger, optimizer, at, telling, policy, saver, gradients };
    Ok(training.run(report)?)
}

struct Training<'a> {
    job: Job<'a>,
    groups: Groups,
    ledger: Ledger,
    optimizer: AdamW,
    at: Progress,
    telling: Telling,
    policy: Policy,
    saver: Saver,
    gradients: Vec<Vec<f32>>,
}

impl Training<'_> {
    fn run(&mut self, report: &mut Report) -> Result<Outcome, TrainError> {
        let train = self.job.train;
        if self.at.step == 0 && train.spikes.enabled {
            // What a run that diverges before its first checkpoint goes back to.
            self.saver.begin(self.job.parameters, &self.optimizer, &self.at)?;
        }
        while self.at.step < train.steps {
            let (started, usage) = (Instant::now(), Usage::now());
            let here = Streak { step: self.at.step, data: self.at.data };
            let found = self.gradients()?;
            if self.at.step == 0 {
                self.check_gradients()?;
            }
            let z = match self.judge(&found, here) {
                Judgement::Fine => None,
                Judgement::Warn { z } => {
                    let (loss, gradient_norm) = (found.loss, found.norm);
                    self.ledger.add(Event::Warned { step: here.step + 1, loss, gradient_norm, z })?;
                    report.line(&format!("step {}: gradient norm {gradient_norm:.2}, z {z:.1}", here.step + 1));
                    None
                }
                Judgement::Skip { z } => Some(z),
                Judgement::Diverged { since, reason } => {
                    self.go_back(since, reason, report)?;
                    continue;
                }
            };
            let factor = train.spikes.rate.powi(self.ledger.rollbacks().count() as i32);
            let rate = learning_rate(train, self.at.step) * factor;
            match z {
                None => {
                    let clip = (train.clip_norm / found.norm).min(1.0);
                    self.optimizer
                        .step(
                            self.job.parameters,
                            &self.gradients,
                            (found.mean * clip) as f32,
                            rate,
                            train,
                            &self.groups,
                        )
                        .map_err(|source| TrainError::Step { step: here.step + 1, source })?;
                }
                Some(z) => {
                    self.at.skipped += 1;
                    let (step, loss, gradient_norm) = (here.step + 1, found.loss, found.norm);
                    self.ledger.add(Event::Skipped { step, loss, gradient_norm, z })?;
                    report.line(&format!("step {step}: left out, gradient norm {gradient_norm:.2}, z {z:.1}"));
                }
            }
            self.at.step += 1;
            let seconds = started.elapsed().as_secs_f64();
            self.at.seconds += seconds;
            self.tell(&found, rate, z.is_some(), seconds, &usage, report)?;
            let last = self.at.step == train.steps;
            let stopping = self.job.stop.load(Ordering::Relaxed);
            if self.at.step.is_multiple_of(train.checkpoint_steps) || last || stopping {
                self.at.rollbacks = self.ledger.rollbacks().count();
                if let Some(folder) = self.saver.begin(self.job.parameters, &self.optimizer, &self.at)? {
                    report.line(&format!("saved {}", folder.display()));
                }
                self.write_report()?;
            }
            if stopping && !last {
                self.saver.wait()?;
                return Ok(Outcome::Interrupted { step: self.at.step });
            }
        }
        if let Some(folder) = self.saver.wait()? {
            report.line(&format!("saved {}", folder.display()));
        }
        Ok(Outcome::Finished)
    }

    /// The gradients of one update, from as many micro-batches as make its tokens; statistics of the last one where they
    /// are due.
    fn gradients(&mut self) -> Result<Found, TrainError> {
        let train = self.job.train;
        let step = self.at.step + 1;
        let error = |source| TrainError::Step { step, source };
        let left_out: Vec<(Cursor, Cursor)> = self.ledger.rollbacks().map(|(_, from, until)| (from, until)).collect();
        let micro_batches = train.batch_tokens.div_ceil(train.micro_batch_tokens);
        let options = Options { z_loss: train.z_loss, checkpointing: train.activation_checkpointing };
        self.gradients.iter_mut().for_each(|g| g.fill(0.0));
        let (mut sum, mut tokens, mut attended) = (Loss::default(), 0, 0);
        let due = train.statistics_steps > 0 && (step == 1 || step.is_multiple_of(train.statistics_steps));
        let mut activations = Vec::new();
        for micro_batch in 1..=micro_batches {
            let batch = self.job.source.next(&mut self.at.data, train.micro_batch_tokens, &left_out);
            if !batch.has_targets() {
                return Err(TrainError::NoText);
            }
            tokens += batch.tokens();
            attended += batch.inputs.iter().map(|inputs| inputs.len() * (inputs.len() + 1) / 2).sum::<usize>();
            let look = (due && micro_batch == micro_batches).then_some(&mut activations);
            let loss = backward(self.job.decoder, self.job.parameters, &batch, options, &mut self.gradients, look)
                .map_err(error)?;
            sum.nll += loss.nll;
            sum.z_loss += loss.z_loss;
            sum.targets += loss.targets;
        }
        self.at.tokens += tokens as u64;
        let mean = 1.0 / sum.targets as f64;
        if due {
            let layers = statistics::layers(self.job.parameters, &self.gradients, mean, &activations).map_err(error)?;
            self.telling.look(step, layers)?;
        }
        let norm = norm(&self.gradients) * mean;
        let attended = attended as f64 / tokens as f64;
        Ok(Found { loss: sum.nll * mean, z_loss: sum.z_loss * mean, norm, mean, tokens, attended })
    }

    /// Every parameter must have a gradient at the first update: an operation without a backward would lose it silently.
    fn check_gradients(&self) -> Result<(), TrainError> {
        let silent = |name: &str| self.job.silent_at_first.iter().any(|part| name.contains(part));
        let missing = self
            .job
            .parameters
            .iter()
            .zip(&self.gradients)
            .find(|((name, _), gradient)| !silent(name) && gradient.iter().all(|v| *v == 0.0));
        match missing {
            Some(((name, _), _)) => Err(TrainError::NoGradient(name.to_owned())),
            None => Ok(()),
        }
    }

    fn judge(&mut self, found: &Found, here: Streak) -> Judgement {
        let spikes = &self.job.train.spikes;
        if !spikes.enabled && found.loss.is_finite() && found.norm.is_finite() {
            return Judgement::Fine;
        }
        self.at.watch.judge(spikes, found.loss, found.norm, here)
    }

    /// Returns to the last checkpoint before the trouble began, leaves its data out and lowers the rate.
    fn go_back(&mut self, since: Streak, reason: String, report: &Report) -> Result<(), TrainError> {
        let (step, spikes) = (self.at.step + 1, &self.job.train.spikes);
        let before = self.ledger.rollbacks().count();
        self.saver.wait()?;
        let good = run_state::scheduled_until(self.job.run, &self.policy, since.step)?;
        let Some((folder, to_step)) = good.filter(|_| spikes.enabled && before < spikes.rollbacks) else {
            let after = match before {
                0 => String::new(),
                n => format!(", after it went back {n} times"),
            };
            let ledger = self.job.run.join(crate::ledger::LEDGER).display().to_string();
            return Err(TrainError::Diverged { step, reason, after, ledger });
        };
        let (from, until) = (since.data, self.at.data);
        let rate = spikes.rate.powi(before as i32 + 1);
        report.line(&format!(
            "step {step}: {reason}: going back to {}, without the data of steps {} to {step}, at {rate:.3} times the rate",
            folder.display(),
            since.step + 1,
        ));
        self.ledger.add(Event::RolledBack { step, to_step, from, until, rate, reason })?;
        run_state::delete_after(self.job.run, to_step)?;
        (self.optimizer, self.at) = run_state::load(&folder, &self.job.identity, self.job.parameters)?;
        self.telling.go_back(to_step)?;
        Ok(())
    }

    fn write_report(&self) -> Result<(), LogError> {
        let config = &self.job.identity.config;
        let name = config["name"].as_str().unwrap_or("a run");
        write_report(self.job.run, name, Some(config)).map(|_| ())
    }

    fn tell(
        &mut self,
        found: &Found,
        rate: f64,
        skipped: bool,
        seconds: f64,
        usage: &Usage,
        report: &mut Report,
    ) -> Result<(), TrainError> {
        let (step, steps) = (self.at.step, self.job.train.steps);
        let heldout_bits_per_byte = if step % self.job.train.eval_steps == 0 || step == steps {
            self.job.source.heldout(self.job.decoder).map_err(|source| TrainError::Step { step, source })?
        } else {
            None
        };
        let speed = found.tokens as f64 / seconds;
        let work = machine::training_operations(self.job.decoder.config(), self.job.parameters, found.attended);
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
            mfu: report.peak.map(|peak| speed * work / peak),
            heldout_bits_per_byte,
        };
        self.telling.line(&line)?;
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
}

/// Hours, minutes or seconds, as they are left.
fn duration(seconds: f64) -> String {
    match seconds.round() as u64 {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}
