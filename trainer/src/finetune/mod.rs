//! Fine-tuning of a checkpoint on conversations: instruction tuning with losses on the answers alone, of all weights or of
//! low-rank adapters.

mod config;
pub mod conversations;
mod export;
mod lora;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::{fs, io};

use candle_core::Device;
use safelmm_model::checkpoint::open_decoder_with;
use safelmm_model::{Checkpoint, CheckpointError, Config, Rating, Tokenizer};
use serde_json::{Value, json};

pub use config::{FinetuneConfig, LoraSection, MODULES};
use conversations::{InstructionError, InstructionRecord, Tokenised};
pub use export::{Exported, FinetuneExportError, export};
pub use lora::{FIRST_FACTOR, Trained, adapter_config, write_adapter};

use crate::backward::Batch;
use crate::dataset::{Cursor, Order, Passage, mix, unit};
use crate::machine::{self, Share, short_of_memory};
use crate::mesh::Mesh;
use crate::origin::Origin;
use crate::parameters::Parameters;
use crate::report::Report;
use crate::run_state::{Identity, Roots};
use crate::training::{Job, Outcome, Score, Source, TrainError, over, train};

/// Why a fine-tuning stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// The checkpoint to begin with cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The instructions cannot be used.
    #[error(transparent)]
    Instructions(#[from] InstructionError),
    /// Conversations longer than the model's context would be trained on.
    #[error("context is {asked}: the checkpoint in {folder} has one of {has} tokens")]
    Context {
        /// The configuration's.
        asked: usize,
        /// The checkpoint.
        folder: PathBuf,
        /// Its context.
        has: usize,
    },
    /// The checkpoint has no token to begin a sequence with.
    #[error("{0}: its tokenizer names no token that begins or ends a sequence, so that no conversation can begin")]
    NoStart(PathBuf),
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// What a fine-tuning begins with.
struct Base {
    tokenizer: std::sync::Arc<Tokenizer>,
    neutral: u32,
    rated: bool,
    origin: Origin,
}

impl Base {
    fn open(folder: &Path) -> Result<Base, FinetuneError> {
        // Opened as a server would, so that what is trained can be served.
        let checkpoint = Checkpoint::open(folder)?;
        let neutral = checkpoint.neutral_start().ok_or_else(|| FinetuneError::NoStart(folder.to_owned()))?;
        let provenance = checkpoint.provenance().cloned().unwrap_or(Value::Null);
        let fingerprint = checkpoint.fingerprint().map_err(|source| TrainError::Step { step: 0, source })?;
        let origin = Origin { model: checkpoint.name().to_owned(), sha256: fingerprint.to_owned(), provenance };
        Ok(Base { tokenizer: checkpoint.tokenizer.clone(), neutral, rated: checkpoint.rated(), origin })
    }

    fn start(&self, rating: Option<Rating>) -> u32 {
        let token = rating.filter(|_| self.rated).and_then(|rating| self.tokenizer.rating_id(rating));
        token.unwrap_or(self.neutral)
    }
}

/// Tokenised conversations as a run sees them.
struct Conversations<'a> {
    base: &'a Base,
    train: Vec<Tokenised>,
    heldout: Vec<Tokenised>,
    /// Stand for the conversations in the order of training.
    places: Vec<Passage>,
    order: Order,
    untagged: f64,
}

impl Source for Conversations<'_> {
    fn next(&mut self, at: &mut Cursor, tokens: usize, left_out: &[(Cursor, Cursor)]) -> Batch {
        let mut batch = Batch::default();
        while batch.tokens() < tokens {
            *at = over(*at, left_out);
            match self.order.visit(&self.places, at.epoch, at.place, self.untagged) {
                Some(visit) => {
                    let conversation = &self.train[visit.passage];
                    batch.push(conversation.frame(self.base.start(visit.tagged.then_some(conversation.rating))));
                    at.place += 1;
                }
                None if at.place == 0 => break,
                None => *at = Cursor { epoch: at.epoch + 1, place: 0 },
            }
        }
        batch
    }

    /// Bits for each byte of the held-out answers.
    fn heldout(&self, score: &Score<'_>) -> candle_core::Result<Option<f64>> {
        let (mut nats, mut bytes) = (0.0, 0);
        for batch in self.heldout.chunks(8) {
            let framed: Vec<_> = batch.iter().map(|c| c.frame(self.base.start(Some(c.rating)))).collect();
            let inputs: Vec<&[u32]> = framed.iter().map(|(inputs, _)| &inputs[..]).collect();
            let targets: Vec<u32> = framed.iter().flat_map(|(_, targets)| targets.iter().copied()).collect();
            let log_probs = score(&inputs, &targets)?;
            nats -= log_probs.iter().map(|p| f64::from(*p)).sum::<f64>();
            bytes += batch.iter().map(|c| c.bytes).sum::<usize>();
        }
        Ok((bytes > 0).then(|| nats / std::f64::consts::LN_2 / bytes as f64))
    }
}

/// What the run's folder says of the conversations, for an export.
pub const INSTRUCTIONS: &str = "instructions.json";

/// Fine-tunes the checkpoint in `base` on the conversations of `instructions` (files or folders of `.jsonl`), or goes on
/// with it, in the folder `run`.
///
/// # Errors
/// Says what is wrong and what to do.
pub fn finetune(
    config: &FinetuneConfig,
    base: &Path,
    instructions: &[PathBuf],
    run: &Path,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<Outcome, FinetuneError> {
    // Inside candle's own thread pool, so that its operations and ours share one set of threads.
    Device::Cpu.with_context(|| begin(config, base, instructions, run, stop, report))
}

fn begin(
    config: &FinetuneConfig,
    folder: &Path,
    instructions: &[PathBuf],
    run: &Path,
    stop: &AtomicBool,
    report: &mut Report,
) -> Result<Outcome, FinetuneError> {
    let base = Base::open(folder)?;
    let mut files = Vec::new();
    for path in instructions {
        files.extend(conversations::files(path)?);
    }
    let (read, sha256) = conversations::read(&files)?;
    let mut record = InstructionRecord { sha256: sha256.clone(), ..InstructionRecord::default() };
    record.files = files.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned())).collect();
    let (mut train_set, mut heldout) = (Vec::new(), Vec::new());
    for conversation in &read {
        let tokenised = conversations::tokenise(&base.tokenizer, conversation)?;
        if tokenised.tokens.len() > config.context {
            record.too_long += 1;
            continue;
        }
        if share_of(&conversation.id) < config.heldout {
            record.heldout_conversations += 1;
            heldout.push(tokenised);
            continue;
        }
        record.conversations += 1;
        *record.languages.entry(conversation.lang.clone()).or_default() += 1;
        *record.topics.entry(conversation.topic.clone()).or_default() += 1;
        train_set.push(tokenised);
    }
    if train_set.is_empty() {
        return Err(InstructionError::Nothing(record.too_long).into());
    }
    let shape = config_of(folder)?;
    if config.context > shape.context_length() {
        let has = shape.context_length();
        return Err(FinetuneError::Context { asked: config.context, folder: folder.to_owned(), has });
    }
    let device = config.train.device.open().map_err(TrainError::from)?;
    check_memory(config, &shape, &device)?;
    let mut trained = Trained { lora: config.lora.as_ref(), seed: config.seed, device, vars: Default::default() };
    let mut decoder = open_decoder_with(folder, &mut trained)?;
    let precise = decoder.set_precision(config.train.precision);
    precise.map_err(|source| TrainError::Step { step: 0, source })?;
    let parameters = Parameters::new(trained.vars);
    report.line(&format!(
        "{}: {:.2} M of {:.2} M parameters are trained, on {} conversations in {} languages ({} kept out, {} too long)",
        base.origin.model,
        parameters.count() as f64 / 1e6,
        machine::parameters(&shape) as f64 / 1e6,
        record.conversations,
        record.languages.len(),
        record.heldout_conversations,
        record.too_long,
    ));
    fs::create_dir_all(run).map_err(|source| FinetuneError::File { file: run.to_owned(), source })?;
    let file = run.join(INSTRUCTIONS);
    let json = serde_json::to_vec_pretty(&record).map_err(io::Error::from);
    json.and_then(|json| fs::write(&file, json)).map_err(|source| FinetuneError::File { file, source })?;
    let places =
        train_set.iter().map(|_| Passage { tokens: Vec::new(), bytes: 0, rating: Rating::G, source: 0, language: 0 });
    let mut source = Conversations {
        base: &base,
        places: places.collect(),
        train: train_set,
        heldout,
        order: Order::new(config.seed, vec![1.0]),
        untagged: config.untagged,
    };
    let roots = Roots { data: sha256, origin: Some(base.origin.clone()) };
    let silent_at_first: &[&str] = if config.lora.is_some() { &[FIRST_FACTOR] } else { &[] };
    let job = Job {
        train: &config.train,
        decoder: &decoder,
        parameters: &parameters,
        silent_at_first,
        identity: Identity { config: json!(config), roots },
        run,
        source: &mut source,
        stop,
        mesh: &Mesh::alone(),
    };
    train(job, |_| Ok(()), report)
}

fn config_of(folder: &Path) -> Result<Config, FinetuneError> {
    let file = folder.join("config.json");
    let bytes = fs::read(&file).map_err(|source| FinetuneError::File { file: file.clone(), source })?;
    Config::from_json(&bytes)
        .map_err(|e| FinetuneError::File { file, source: io::Error::new(io::ErrorKind::InvalidData, e) })
}

fn check_memory(config: &FinetuneConfig, shape: &Config, device: &Device) -> Result<(), TrainError> {
    let trained = match &config.lora {
        None => machine::parameters(shape),
        Some(lora) => lora.modules().len() * lora.rank * 2 * shape.intermediate_size * shape.n_layers,
    };
    match short_of_memory(shape, &config.train, trained, Share::alone(&config.train), device) {
        Some((needed, available)) => {
            Err(TrainError::Memory { needed: needed as f64 / 1e9, available: available as f64 / 1e9 })
        }
        None => Ok(()),
    }
}

/// A number from 0 up to 1 for a conversation: those below the held-out share are kept out.
fn share_of(id: &str) -> f64 {
    let bytes: Vec<u64> = id.bytes().map(u64::from).collect();
    unit(mix(&bytes))
}
