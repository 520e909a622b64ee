//! Pretraining: packed batches, accumulated gradients, AdamW, checkpoints, and a log.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use std::{fs, io};

use candle_core::Device;
use safelmm_model::Decoder;
use safelmm_model::ops::cross_entropy;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::data::{DataError, Sources};
use crate::dataset::{Dataset, DatasetError, Order, Passage};
use crate::evaluate::{bits_per_byte, nats};
use crate::framing::frame;
use crate::optimizer::{AdamW, accumulate, learning_rate, norm};
use crate::origin::{OriginError, Start};
use crate::parameters::Parameters;
use crate::report::Report;
use crate::run_state::{self, Progress, Roots, StateError};

/// Why a run stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The record of the prepared data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The prepared passages cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The run cannot begin with the checkpoint that it was given.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The decoder or its gradients failed.
    #[error("training step {step}: {source}")]
    Step {
        /// The step.
        step: usize,
        /// Why.
        source: candle_core::Error,
    },
    /// The data belongs to another configuration.
    #[error("{0}: prepared with other settings ({1} differs): run `safelmm-train data` again")]
    OtherData(String, &'static str),
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// A parameter that no gradient reaches would stay as it was initialised.
    #[error("step 1: the parameter {0} has no gradient, or one of zero")]
    NoGradient(String),
    /// The loss or its gradient is no number any more.
    #[error(
        "step {step}: the loss is {loss}, the gradient's norm {norm}: the run has diverged; start another one (another \
         --out folder) with a lower train.learning_rate"
    )]
    Diverged {
        /// The step.
        step: usize,
        /// Mean negative log-likelihood.
        loss: f64,
        /// Norm before clipping.
        norm: f64,
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

/// One line of `log.jsonl`.
#[derive(Serialize)]
struct LogLine {
    step: usize,
    loss: f64,
    z_loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    tokens: u64,
    tokens_per_second: f64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    heldout_bits_per_byte: Option<f64>,
}

/// Whole passages with about `tokens` tokens.
fn next_batch(config: &RunConfig, data: &Dataset, order: &mut Order, at: &mut Progress) -> Vec<(Vec<u32>, Vec<u32>)> {
    let (mut batch, mut tokens) = (Vec::new(), 0);
    while tokens < config.train.micro_batch_tokens {
        match order.visit(&data.passages, at.epoch, at.place, config.data.untagged) {
            Some(visit) => {
                let passage = &data.passages[visit.passage];
                let framed = frame(&passage.tokens, visit.tagged.then_some(passage.rating));
                tokens += framed.0.len();
                batch.push(framed);
                at.place += 1;
            }
            None if at.place == 0 => break, // an epoch without passages
            None => {
                at.epoch += 1;
                at.place = 0;
            }
        }
    }
    at.tokens += tokens as u64;
    batch
}

/// Trains, or goes on training, in the folder `run` with the prepared data of `data`. Checkpoints and `log.jsonl` come
/// to lie there. A new run begins with the weights of the checkpoint folder `init` where one is given, else with fresh
/// ones; a run that goes on must be given the same. `stop` asks for a checkpoint and an end after the current step.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn pretrain(
    config: &RunConfig,
    data: &Path,
    run: &Path,
    init: Option<&Path>,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<Outcome, PretrainError> {
    // Inside candle's own thread pool, so that its operations and ours share one set of threads.
    Device::Cpu.with_context(|| train_loop(config, data, run, init, stop, report))
}

fn train_loop(
    config: &RunConfig,
    data: &Path,
    run: &Path,
    init: Option<&Path>,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<Outcome, PretrainError> {
    let file_error = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| PretrainError::File(path, e)
    };
    let (sources, data_hash) = Sources::read(data)?;
    for (section, same) in [
        ("data", sources.config.data == config.data),
        ("tokenizer", sources.config.tokenizer == config.tokenizer),
        ("model.context", sources.config.model.context == config.model.context),
        ("seed", sources.config.seed == config.seed),
    ] {
        if !same {
            return Err(PretrainError::OtherData(data.display().to_string(), section));
        }
    }
    let (train, heldout) =
        (Dataset::read(&data.join("train.safetensors"))?, Dataset::read(&data.join("heldout.safetensors"))?);
    fs::create_dir_all(run).map_err(file_error(run))?;
    let step_error = |step: usize| move |source| PretrainError::Step { step, source };
    let (parameters, decoder) = Parameters::initialise(&config.decoder(), config.seed).map_err(step_error(0))?;
    run_state::clean_up(run)?;
    let start = init.map(|folder| Start::read(folder, &config.decoder(), data)).transpose()?;
    let roots = Roots { data: data_hash, origin: start.as_ref().map(|start| start.origin.clone()) };
    let (mut optimizer, mut at) = match run_state::checkpoints(run)?.last() {
        Some(folder) => {
            report.line(&format!("going on from {}", folder.display()));
            run_state::load(folder, config, &roots, &parameters)?
        }
        None => {
            if let Some(start) = &start {
                start.load(&parameters)?;
                report.line(&format!("beginning with the weights of {}", start.origin.model));
            }
            (AdamW::new(&parameters), Progress { step: 0, tokens: 0, epoch: 0, place: 0, seconds: 0.0 })
        }
    };
    drop(start); // its tensors are in the parameters now, or not needed
    let repeats: Vec<f64> = sources.sources.iter().map(|s| s.repeat).collect();
    let mut order = Order::new(config.seed, repeats);
    report.line(&format!(
        "{:.1} M parameters, {} training passages, {} threads",
        parameters.count() as f64 / 1e6,
        train.passages.len(),
        rayon::current_num_threads()
    ));
    let log_path = run.join("log.jsonl");
    keep_log_until(&log_path, at.step).map_err(file_error(&log_path))?;
    let mut log = fs::OpenOptions::new().create(true).append(true).open(&log_path).map_err(file_error(&log_path))?;
    let micro_batches = config.train.batch_tokens.div_ceil(config.train.micro_batch_tokens);
    let mut gradients: Vec<Vec<f32>> = parameters.iter().map(|(_, var)| vec![0.0; var.elem_count()]).collect();
    while at.step < config.train.steps {
        let started = Instant::now();
        let before = at.tokens;
        gradients.iter_mut().for_each(|g| g.fill(0.0));
        let (mut nll, mut z_loss) = (0.0, 0.0);
        for _ in 0..micro_batches {
            let batch = next_batch(config, &train, &mut order, &mut at);
            let loss = backward(config, &decoder, &parameters, &batch, &mut gradients).map_err(step_error(at.step))?;
            nll += loss.0 / micro_batches as f64;
            z_loss += loss.1 / micro_batches as f64;
        }
        if at.step == 0 {
            check_gradients(&parameters, &gradients)?;
        }
        let mean = 1.0 / micro_batches as f64;
        let gradient_norm = norm(&gradients) * mean;
        if !(nll.is_finite() && gradient_norm.is_finite()) {
            return Err(PretrainError::Diverged { step: at.step, loss: nll, norm: gradient_norm });
        }
        let clip = (config.train.clip_norm / gradient_norm).min(1.0);
        let rate = learning_rate(&config.train, at.step);
        optimizer
            .step(&parameters, &gradients, (mean * clip) as f32, rate, &config.train)
            .map_err(step_error(at.step))?;
        at.step += 1;
        let seconds = started.elapsed().as_secs_f64();
        at.seconds += seconds;
        let last = at.step == config.train.steps;
        let heldout_bits_per_byte = if at.step % config.train.eval_steps == 0 || last {
            Some(quick_bits_per_byte(&decoder, &heldout).map_err(step_error(at.step))?)
        } else {
            None
        };
        let line = LogLine {
            step: at.step,
            loss: nll,
            z_loss,
            gradient_norm,
            learning_rate: rate,
            tokens: at.tokens,
            tokens_per_second: (at.tokens - before) as f64 / seconds,
            seconds: at.seconds,
            heldout_bits_per_byte,
        };
        // In one piece, so that a killed process leaves no half line.
        log.write_all(format!("{}\n", json!(line)).as_bytes()).map_err(file_error(&log_path))?;
        report.progress(
            at.step,
            config.train.steps,
            &format!("loss {nll:.3}, |g| {gradient_norm:.2}, {:.0} tokens/s", line.tokens_per_second),
        );
        if let Some(bits) = heldout_bits_per_byte {
            report.line(&format!("step {}: held-out {bits:.3} bits per byte", at.step));
        }
        let stopping = stop.load(Ordering::Relaxed);
        if at.step % config.train.checkpoint_steps == 0 || last || stopping {
            let folder = run_state::save(run, config, &roots, &parameters, &optimizer, &at)?;
            report.line(&format!("saved {}", folder.display()));
        }
        if stopping && !last {
            return Ok(Outcome::Interrupted { step: at.step });
        }
    }
    Ok(Outcome::Finished)
}

/// Drops the lines of steps after the checkpoint that the run goes on from: they will be written again.
fn keep_log_until(log: &Path, step: usize) -> io::Result<()> {
    let Ok(text) = fs::read_to_string(log) else { return Ok(()) };
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|l| l["step"].as_u64() <= Some(step as u64)))
        .collect();
    let beside = log.with_extension("jsonl.part");
    fs::write(&beside, kept)?;
    fs::rename(beside, log)
}

/// One forward and backward pass; adds to `gradients` and returns (mean negative log-likelihood, z-loss).
fn backward(
    config: &RunConfig,
    decoder: &Decoder,
    parameters: &Parameters,
    batch: &[(Vec<u32>, Vec<u32>)],
    gradients: &mut [Vec<f32>],
) -> candle_core::Result<(f64, f64)> {
    let sequences: Vec<&[u32]> = batch.iter().map(|(inputs, _)| inputs.as_slice()).collect();
    let targets: Vec<u32> = batch.iter().flat_map(|(_, targets)| targets.iter().copied()).collect();
    let hidden = decoder.forward(&sequences)?;
    let loss = cross_entropy(&hidden, decoder.head()?, &targets, config.train.z_loss)?;
    let grads = loss.loss.backward()?;
    for ((_, var), sum) in parameters.iter().zip(gradients) {
        if let Some(gradient) = grads.get(var) {
            accumulate(sum, gradient)?;
        }
    }
    Ok((loss.nll, loss.z_loss))
}

/// Every parameter must have a gradient at the first step: an operation without a backward would lose it silently.
fn check_gradients(parameters: &Parameters, gradients: &[Vec<f32>]) -> Result<(), PretrainError> {
    match parameters.iter().zip(gradients).find(|(_, g)| g.iter().all(|v| *v == 0.0)) {
        Some(((name, _), _)) => Err(PretrainError::NoGradient(name.to_owned())),
        None => Ok(()),
    }
}

/// Passages of the quick measurement during training.
const QUICK: usize = 64;

/// Bits per byte on a few held-out passages, spread over all of them.
fn quick_bits_per_byte(decoder: &Decoder, heldout: &Dataset) -> candle_core::Result<f64> {
    let step = (heldout.passages.len() / QUICK).max(1);
    let passages: Vec<&Passage> = heldout.passages.iter().step_by(step).take(QUICK).collect();
    let losses = nats(decoder, &passages, true)?;
    Ok(bits_per_byte(passages.into_iter().zip(losses)))
}
