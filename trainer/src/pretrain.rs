//! Pretraining: packed passages of prepared data, in an order that is a function of the place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use safelmm_model::device::DeviceName;
use serde_json::json;

use crate::backward::Batch;
use crate::comm::{Comm, local};
use crate::config::RunConfig;
use crate::data::{DataError, Sources};
use crate::dataset::{Cursor, Dataset, DatasetError, Order, Passage};
use crate::evaluate::{bits_per_byte, nats_by};
use crate::framing::frame;
use crate::machine::{Share, parameters, short_of_memory};
use crate::mesh::Mesh;
use crate::origin::{OriginError, Start};
use crate::parameters::Parameters;
use crate::report::Report;
use crate::run_state::{Identity, Roots};
pub use crate::training::Outcome;
use crate::training::{Job, Score, Source, TrainError, over, train};

/// Why a run stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The record of the prepared data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The prepared passages cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The run cannot begin with the checkpoint that it was given.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The data belongs to another configuration.
    #[error("{0}: prepared with other settings ({1} differs): run `safelmm-train data` again")]
    OtherData(String, &'static str),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Prepared passages as a run sees them.
struct Passages<'a> {
    train: &'a Dataset,
    heldout: &'a Dataset,
    order: Order,
    untagged: f64,
}

impl Source for Passages<'_> {
    fn next(&mut self, at: &mut Cursor, tokens: usize, left_out: &[(Cursor, Cursor)]) -> Batch {
        let mut batch = Batch::default();
        while batch.tokens() < tokens {
            *at = over(*at, left_out);
            match self.order.visit(&self.train.passages, at.epoch, at.place, self.untagged) {
                Some(visit) => {
                    let passage = &self.train.passages[visit.passage];
                    batch.push(frame(&passage.tokens, visit.tagged.then_some(passage.rating)));
                    at.place += 1;
                }
                None if at.place == 0 => break, // an epoch without passages
                None => *at = Cursor { epoch: at.epoch + 1, place: 0 },
            }
        }
        batch
    }

    /// On a few held-out passages, spread over all of them.
    fn heldout(&self, score: &Score<'_>) -> candle_core::Result<Option<f64>> {
        const QUICK: usize = 64;
        let step = (self.heldout.passages.len() / QUICK).max(1);
        let passages: Vec<&Passage> = self.heldout.passages.iter().step_by(step).take(QUICK).collect();
        if passages.is_empty() {
            return Ok(None);
        }
        let losses = nats_by(score, &passages, true)?;
        Ok(Some(bits_per_byte(passages.into_iter().zip(losses))))
    }
}

/// [`pretrain_with`] in one process.
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
    pretrain_with(&local::alone(), config, data, run, init, stop, report)
}

/// Trains, or goes on training, in the folder `run` with the prepared data of `data`. Checkpoints and `log.jsonl` come
/// to lie there. A new run begins with the weights of the checkpoint folder `init` where one is given, else with fresh
/// ones; a run that goes on must be given the same. `stop` asks for a checkpoint and an end after the current step.
///
/// Every worker of `world` calls it alike, all of them with the same files before them, and with a silent report but for the
/// first.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn pretrain_with(
    world: &Arc<dyn Comm>,
    config: &RunConfig,
    data: &Path,
    run: &Path,
    init: Option<&Path>,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<Outcome, PretrainError> {
    let (decoder, train) = (config.decoder(), &config.train);
    if world.size() > 1 && train.device != DeviceName::Cpu {
        return Err(TrainError::Workers { device: train.device, workers: world.size() }.into());
    }
    let device = train.device.open().map_err(TrainError::from)?;
    let share = Share::new(train, &config.parallel, world.size());
    if let Some((needed, available)) = short_of_memory(&decoder, train, parameters(&decoder), share, &device) {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let (needed, available) = (gigabytes(needed), gigabytes(available));
        return Err(TrainError::Memory { needed, available }.into());
    }
    let mesh = Mesh::new(world, &config.parallel, train, &decoder).map_err(TrainError::from)?;
    let begin = |report: &mut Report| begin(&mesh, config, &device, data, run, init, stop, report);
    if mesh.world.size() > 1 && mesh.world.in_process() {
        // Threads that wait for each other would take the pool's.
        return begin(report);
    }
    // Inside candle's own thread pool, so that its operations and ours share one set of threads.
    Device::Cpu.with_context(|| begin(report))
}

#[allow(clippy::too_many_arguments, reason = "the arguments of a run, and what was made of them")]
fn begin(
    mesh: &Mesh,
    config: &RunConfig,
    device: &Device,
    data: &Path,
    run: &Path,
    init: Option<&Path>,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<Outcome, PretrainError> {
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
    let (training, heldout) =
        (Dataset::read(&data.join("train.safetensors"))?, Dataset::read(&data.join("heldout.safetensors"))?);
    let part = mesh.part(mesh.model.rank(), config.model.layers);
    let failed = |source| TrainError::Step { step: 0, source };
    let how = config.model.initialisation;
    let (parameters, mut decoder) =
        Parameters::initialise_part(&config.decoder(), &part, how, config.seed, device).map_err(failed)?;
    decoder.set_precision(config.train.precision).map_err(failed)?;
    let start = init.map(|folder| Start::read(folder, &config.decoder(), data)).transpose()?;
    let roots = Roots { data: data_hash, origin: start.as_ref().map(|start| start.origin.clone()) };
    report.line(&format!(
        "{:.1} M parameters{}, {} training passages, {} threads{}",
        parameters.count() as f64 / 1e6,
        if mesh.model.size() > 1 { " here" } else { "" },
        training.passages.len(),
        rayon::current_num_threads(),
        match mesh.world.size() {
            1 => String::new(),
            workers => format!(" in each of {workers} workers"),
        }
    ));
    let repeats: Vec<f64> = sources.sources.iter().map(|s| s.repeat).collect();
    let order = Order::new(config.seed, repeats);
    let mut source = Passages { train: &training, heldout: &heldout, order, untagged: config.data.untagged };
    let job = Job {
        train: &config.train,
        decoder: &decoder,
        parameters: &parameters,
        silent_at_first: &[],
        identity: Identity { config: json!(config), roots },
        run,
        source: &mut source,
        stop,
        mesh,
    };
    // Dropped once its tensors are in the parameters, or not needed.
    let shape = config.decoder();
    let first = move |parameters: &Parameters| start.map_or(Ok(()), |start| Ok(start.load(parameters, &shape)?));
    train(job, first, report)
}
