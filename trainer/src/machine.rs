//! What this machine has, uses and can do.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor};
use cpu_time::ProcessTime;
use safelmm_model::Config;
use safelmm_model::device::{self, Precision};

use crate::comm::halvings;
use crate::config::{ParallelSection, TrainSection};
use crate::parameters::shapes;

/// What the process has used up to now.
pub struct Usage {
    /// CPU seconds of all its threads.
    pub cpu_seconds: f64,
}

impl Usage {
    /// As the system says; 0 where it says nothing.
    pub fn now() -> Usage {
        Usage { cpu_seconds: ProcessTime::try_now().map_or(0.0, |time| time.as_duration().as_secs_f64()) }
    }
}

/// A figure of a file of `/proc`, given in kB, in bytes.
fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Bytes of memory that the process holds; 0 where the system does not say.
pub fn memory() -> u64 {
    kilobytes("/proc/self/status", "VmRSS").unwrap_or(0)
}

/// The most bytes of memory that the process has held.
pub fn peak_memory() -> u64 {
    kilobytes("/proc/self/status", "VmHWM").unwrap_or(0)
}

/// Bytes of memory that a process could take, where the system says.
pub fn available_memory() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable")
}

/// Floating-point operations a second that matrix products of this device come to, on the CPU with the threads of the
/// calling pool: the best of several products of square matrices (1024 × 1024 on the CPU, 8192 × 8192 elsewhere) within
/// about half a second. What a run's use of the machine (MFU, Chowdhery et al. 2022, appendix B) is measured against.
///
/// # Errors
/// Those of candle.
pub fn measure_peak(device: &Device, precision: Precision) -> Result<f64> {
    let side = if device.is_cpu() { 1024 } else { 8192 };
    let matrix = |factor: usize| {
        let values: Vec<f32> = (0..side * side).map(|i| (i * factor % 17) as f32 - 8.0).collect();
        Tensor::from_vec(values, (side, side), device)?.to_dtype(precision.dtype())
    };
    let (a, b) = (matrix(3)?, matrix(5)?);
    let began = Instant::now();
    let mut best = f64::INFINITY;
    while best.is_infinite() || began.elapsed() < Duration::from_millis(500) {
        let started = Instant::now();
        black_box(a.matmul(&b)?);
        device.synchronize()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * (side as f64).powi(3) / best)
}

/// Floating-point operations of the model for one token of training, by Chowdhery et al. 2022, appendix B, where a
/// token attends to `attended` others in the mean: 6 for each weight of a matrix product, 4 where the weight is frozen,
/// and those of attention. Recomputation counts for nothing.
pub fn training_operations(config: &Config, trained: impl Fn(&str) -> bool, attended: f64) -> f64 {
    let weights = shapes(config).unwrap_or_else(|_| BTreeMap::new());
    let products: f64 = weights
        .iter()
        .filter(|(name, shape)| shape.len() == 2 && (config.tie_word_embeddings || !name.contains("embed_tokens")))
        .map(|(name, shape)| {
            let each = if trained(name) { 6.0 } else { 4.0 };
            each * shape.iter().product::<usize>() as f64
        })
        .sum();
    products + 12.0 * (config.n_layers * config.n_heads * config.head_dim) as f64 * attended
}

/// How much of a run one of its workers holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Micro-batches of an update that it runs.
    pub micro_batches: usize,
    /// Workers that share the model.
    pub model: usize,
    /// Of these, those that share each layer.
    pub tensor: usize,
    /// Workers that share the optimiser's state of a part of the model.
    pub optimizer: usize,
}

impl Share {
    /// Of a run in one process.
    pub fn alone(train: &TrainSection) -> Share {
        Share { micro_batches: train.micro_batches(), model: 1, tensor: 1, optimizer: 1 }
    }

    /// Of a run that lies on `workers` workers.
    pub fn new(train: &TrainSection, parallel: &ParallelSection, workers: usize) -> Share {
        let model = (parallel.tensor * parallel.pipeline).max(1);
        let data = (workers / model).max(1);
        let optimizer = if parallel.zero { data } else { 1 };
        Share { micro_batches: train.micro_batches() / data, model, tensor: parallel.tensor, optimizer }
    }
}

/// Bytes that a worker of a training run needs, roughly: its weights, gradients with their unfinished sums
/// (`gradients.rs`) and share of both moments in f32, a copy of all weights and moments while a checkpoint is written,
/// and the activations of the micro-batches that are on their way. `trained`: numbers that are trained.
pub fn training_memory(config: &Config, train: &TrainSection, trained: usize, share: Share) -> u64 {
    let all = parameters(config);
    let width = config.head_dim * (config.n_heads + 2 * config.n_kv_heads);
    let layer = 8 * config.hidden_size + (4 * width + 4 * config.intermediate_size) / share.tensor;
    let (stages, own) = (share.model / share.tensor, config.n_layers * share.tensor / share.model);
    let layers = if train.activation_checkpointing { 1 } else { own };
    // The first stage has as many micro-batches on their way as there are stages.
    let running = stages.min(share.micro_batches);
    let activations = train.micro_batch_tokens * running * (layer * layers + config.hidden_size * own);
    let head = 256 * config.vocab_size + config.vocab_size * config.hidden_size;
    let sums = 1 + halvings(share.micro_batches) as usize;
    let own = trained / share.model;
    4 * (all / share.model + sums * own + 2 * own / share.optimizer + 3 * trained + activations + head) as u64
}

/// Bytes that a training run in one process needs on a GPU, roughly: weights, their bf16 copies, gradients and both
/// moments, the activations of a micro-batch and a chunk of logits.
pub fn device_memory(config: &Config, train: &TrainSection, trained: usize) -> u64 {
    const LOGITS: usize = 3 << 28;
    let all = parameters(config);
    let width = config.head_dim * (config.n_heads + 2 * config.n_kv_heads);
    let layer = 8 * config.hidden_size + 4 * width + 4 * config.intermediate_size;
    let layers = if train.activation_checkpointing { 1 } else { config.n_layers };
    let activations = train.micro_batch_tokens * (layer * layers + config.hidden_size * config.n_layers);
    let weights: usize = all * (4 + 2) + trained * (4 + 8);
    (weights + activations * train.precision.dtype().size_in_bytes() + LOGITS) as u64
}

/// The memory that one of a run's workers needs and that there is, in bytes, where it needs more: of the device, where
/// that says how much it has.
pub fn short_of_memory(
    config: &Config,
    train: &TrainSection,
    trained: usize,
    share: Share,
    device: &Device,
) -> Option<(u64, u64)> {
    let (needed, available) = match device::memory(device) {
        Some(memory) => (device_memory(config, train, trained), Some(memory.free)),
        None => (training_memory(config, train, trained, share), available_memory()),
    };
    available.filter(|available| needed > *available).map(|available| (needed, available))
}

/// Numbers in all parameters of a decoder.
pub fn parameters(config: &Config) -> usize {
    shapes(config).map_or(0, |shapes| shapes.values().map(|shape| shape.iter().product::<usize>()).sum())
}
