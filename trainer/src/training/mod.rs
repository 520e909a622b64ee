//! The loop of every kind of training: batches, accumulated gradients, judgement, AdamW, checkpoints, and what is told.
//!
//! All workers of a run go through it alike: what they decide by is the same for all of them, to the last bit. One of
//! them, the root, writes the run's files.

pub mod lock;
mod telling;
mod update;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use std::{fs, io};

use safelmm_model::Decoder;
use safelmm_model::device::{DeviceError, DeviceName};

use crate::backward::Batch;
use crate::buckets::Buckets;
use crate::comm::{CommError, all_numbers};
use crate::config::TrainSection;
use crate::dataset::Cursor;
use crate::gradients::{GradientError, Gradients};
use crate::groups::{Groups, NobodyInGroup};
use crate::ledger::{Event, Ledger, LedgerError};
use crate::machine::Usage;
use crate::mesh::{Mesh, MeshError};
use crate::optimizer::{AdamW, Settings};
use crate::parameters::Parameters;
use crate::report::Report;
use crate::run_state::{self, Identity, Policy, Progress, Saver, StateError};
use crate::schedule::learning_rate;
use crate::snapshot::Snapshot;
use crate::stability::{Judgement, Streak};
use crate::watch::{LogError, Telling, write_report};
use lock::Lock;
use update::Found;

/// Where the text of a run comes from, in an order that is a function of the place alone.
pub trait Source {
    /// The next micro-batch, with whole sequences of about `tokens` tokens; `at` moves on, over what is to be
    /// `left_out`. Empty where there is nothing to train on.
    fn next(&mut self, at: &mut Cursor, tokens: usize, left_out: &[(Cursor, Cursor)]) -> Batch;

    /// Bits per byte on held-out text; `None` where there is none.
    ///
    /// # Errors
    /// Those of the score.
    fn heldout(&self, score: &Score<'_>) -> candle_core::Result<Option<f64>>;
}

/// Natural log-probabilities of the targets of whole sequences, as
/// [`Decoder::token_log_probs`](safelmm_model::Decoder::token_log_probs) gives them.
pub type Score<'a> = dyn Fn(&[&[u32]], &[u32]) -> candle_core::Result<Vec<f32>> + 'a;

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
    /// This worker's place among the others.
    pub mesh: &'a Mesh,
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
    /// There is no such device.
    #[error("train.device: {0}")]
    Device(#[from] DeviceError),
    /// Several workers share no device.
    #[error(
        "train.device is {device}, and the run has {workers} workers: expected one process on a GPU, or train.device = \"cpu\""
    )]
    Workers {
        /// The device.
        device: DeviceName,
        /// How many there are.
        workers: usize,
    },
    /// Another worker is out of reach.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// The run cannot lie on its processes as it should.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The thread that exchanges gradients ended without an answer.
    #[error("step {step}: {source}")]
    Exchange {
        /// The step.
        step: usize,
        /// Why.
        source: GradientError,
    },
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// Another process trains in the folder.
    #[error("{}: another process is training in this folder: wait for its end, or take another --out folder", .0.display())]
    InUse(PathBuf),
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

impl TrainError {
    fn gradients(step: usize, error: GradientError) -> TrainError {
        match error {
            GradientError::Pass(source) => TrainError::Step { step, source },
            source => TrainError::Exchange { step, source },
        }
    }
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
    let (mesh, root) = (job.mesh, job.mesh.is_root());
    // The root tidies up before the others look, and says where the run stands.
    let (lock, mut ledger) = match root {
        true => tidy(job.run).map(|(lock, ledger)| (Some(lock), Some(ledger)))?,
        false => (None, None),
    };
    let newest = match root {
        true => run_state::checkpoints(job.run).map_err(TrainError::from)?.pop().and_then(|f| run_state::step_of(&f)),
        false => None,
    };
    let (optimizer, at) = match agreed(mesh, newest)? {
        Some(step) => {
            let folder = run_state::checkpoint(job.run, step);
            report.line(&format!("going on from {}", folder.display()));
            run_state::load(&folder, &job.identity, job.parameters, mesh).map_err(TrainError::from)?
        }
        None => {
            first(job.parameters)?;
            (AdamW::new(&Buckets::new(job.parameters), mesh), Progress::default())
        }
    };
    if let Some(ledger) = &mut ledger {
        ledger.forget_after(at.step).map_err(TrainError::from)?;
    }
    mesh.world.barrier().map_err(TrainError::from)?;
    let ledger = match ledger {
        Some(ledger) => ledger,
        None => Ledger::open(job.run).map_err(TrainError::from)?.read_only(),
    };
    let telling = root.then(|| Telling::open(job.run, at.step)).transpose().map_err(TrainError::from)?;
    let policy = Policy { steps: job.train.checkpoint_steps, kept: job.train.checkpoints.clone() };
    let saver = Saver::new(job.run, job.identity.clone(), policy.clone());
    let sums = Gradients::new(job.parameters, job.decoder.config().tie_word_embeddings);
    let mut training = Training { job, groups, ledger, optimizer, at, telling, policy, saver, sums, _lock: lock };
    Ok(training.run(report)?)
}

/// Takes the run's folder for this process, clears away what an interrupted run left, and opens its ledger.
fn tidy(run: &Path) -> Result<(Lock, Ledger), TrainError> {
    fs::create_dir_all(run).map_err(|e| TrainError::File(run.display().to_string(), e))?;
    let lock = Lock::take(run)?;
    run_state::clean_up(run)?;
    let ledger = Ledger::open(run)?;
    let went_to: Vec<usize> = ledger.rollbacks().map(|(to_step, ..)| to_step).collect();
    run_state::delete_abandoned(run, &went_to)?;
    Ok((lock, ledger))
}

/// What the root says, at every worker.
fn agreed(mesh: &Mesh, step: Option<usize>) -> Result<Option<usize>, TrainError> {
    let all = all_numbers(&*mesh.world, &[step.map_or(-1.0, |step| step as f64)])?;
    Ok(all.first().map(|numbers| numbers[0]).filter(|step| *step >= 0.0).map(|step| step as usize))
}

struct Training<'a> {
    job: Job<'a>,
    groups: Groups,
    ledger: Ledger,
    optimizer: AdamW,
    at: Progress,
    /// Of the root.
    telling: Option<Telling>,
    policy: Policy,
    saver: Saver,
    sums: Gradients,
    /// Of the root; dropped behind the saver, which may still be writing.
    _lock: Option<Lock>,
}

impl Training<'_> {
    fn run(&mut self, report: &mut Report) -> Result<Outcome, TrainError> {
        let train = self.job.train;
        if self.at.step == 0 && train.spikes.enabled {
            // What a run that diverges before its first checkpoint goes back to.
            self.save()?;
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
                None => self.update(&found, rate)?,
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
            if self.at.step.is_multiple_of(train.checkpoint_steps) || last || found.stop {
                self.at.rollbacks = self.ledger.rollbacks().count();
                if let Some(folder) = self.save()? {
                    report.line(&format!("saved {}", folder.display()));
                }
                self.write_report()?;
            }
            if found.stop && !last {
                self.saver.wait()?;
                return Ok(Outcome::Interrupted { step: self.at.step });
            }
        }
        if let Some(folder) = self.saver.wait()? {
            report.line(&format!("saved {}", folder.display()));
        }
        Ok(Outcome::Finished)
    }

    /// Makes an update.
    fn update(&mut self, found: &Found, rate: f64) -> Result<(), TrainError> {
        let Job { train, parameters, mesh, .. } = self.job;
        let step = self.at.step + 1;
        let clip = (train.clip_norm / found.norm).min(1.0);
        let settings =
            Settings { gradient_scale: (found.mean * clip) as f32, learning_rate: rate, train, groups: &self.groups };
        let buckets = self.sums.buckets().clone();
        self.optimizer
            .step(parameters, &buckets, self.sums.sums(), &settings)
            .map_err(|source| TrainError::Step { step, source })?;
        self.optimizer.gather(parameters, &buckets, mesh, self.sums.room()).map_err(|e| TrainError::gradients(step, e))
    }

    /// Begins to write a checkpoint; the folder of the one before it.
    fn save(&mut self) -> Result<Option<PathBuf>, TrainError> {
        let Job { parameters, mesh, decoder, .. } = self.job;
        let snapshot = Snapshot::take(parameters, self.sums.buckets(), &self.optimizer, decoder.config(), mesh)
            .map_err(|e| TrainError::gradients(self.at.step, e))?;
        match snapshot {
            Some(snapshot) => Ok(self.saver.begin(snapshot, &self.at)?),
            None => Ok(None),
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
        let good = match self.job.mesh.is_root() {
            true => run_state::scheduled_until(self.job.run, &self.policy, since.step)?.map(|(_, step)| step),
            false => None,
        };
        let good = agreed(self.job.mesh, good)?;
        let Some(to_step) = good.filter(|_| spikes.enabled && before < spikes.rollbacks) else {
            let after = match before {
                0 => String::new(),
                n => format!(", after it went back {n} times"),
            };
            let ledger = self.job.run.join(crate::ledger::LEDGER).display().to_string();
            return Err(TrainError::Diverged { step, reason, after, ledger });
        };
        let folder = run_state::checkpoint(self.job.run, to_step);
        let (from, until) = (since.data, self.at.data);
        let rate = spikes.rate.powi(before as i32 + 1);
        report.line(&format!(
            "step {step}: {reason}: going back to {}, without the data of steps {} to {step}, at {rate:.3} times the rate",
            folder.display(),
            since.step + 1,
        ));
        self.ledger.add(Event::RolledBack { step, to_step, from, until, rate, reason })?;
        if self.job.mesh.is_root() {
            run_state::delete_after(self.job.run, to_step)?;
        }
        let Job { identity, parameters, mesh, .. } = &self.job;
        (self.optimizer, self.at) = run_state::load(&folder, identity, parameters, mesh)?;
        match &mut self.telling {
            Some(telling) => Ok(telling.go_back(to_step)?),
            None => Ok(()),
        }
    }

    fn write_report(&self) -> Result<(), LogError> {
        if self.telling.is_none() {
            return Ok(());
        }
        let config = &self.job.identity.config;
        let name = config["name"].as_str().unwrap_or("a run");
        write_report(self.job.run, name, Some(config)).map(|_| ())
    }
}
