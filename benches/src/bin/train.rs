//! Training of a decoder beside PyTorch on the same architecture, from the same weights, with the same batch, device,
//! precision and threads, in the same rounds.
//!
//! `cargo run --release -p safelmm-benches --bin train -- --python PATH`, with a Python that has torch, numpy and safetensors;
//! on a GPU with `--features cuda` and `-- --device cuda --precision bf16`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use clap::Parser;
use safelmm_benches::median;
use safelmm_benches::process::Script;
use safelmm_model::config::{Family, QkNorm, Rope, RopeScaling};
use safelmm_model::device::{self, DeviceName, Precision};
use safelmm_model::{Config, Decoder, Part};
use safelmm_trainer::backward::{Batch, Options};
use safelmm_trainer::config::{Initialisation, TrainSection};
use safelmm_trainer::gradients::Gradients;
use safelmm_trainer::groups::Groups;
use safelmm_trainer::machine::peak_memory;
use safelmm_trainer::mesh::Mesh;
use safelmm_trainer::optimizer::{AdamW, Settings};
use safelmm_trainer::parameters::Parameters;
use safelmm_trainer::pipeline::Stage;
use safelmm_trainer::presets::{Preset, preset};
use safelmm_trainer::tensors::{TensorSlice, write_tensors};
use serde_json::json;

// The trainer's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The losses of two programs may drift apart by this much, in nats. bf16 keeps 8 bits: the same weights give losses that
/// are near, and rounding at other places leads to other weights, so that later ones are compared roughly.
fn drift(precision: Precision, round: usize) -> f64 {
    match (precision, round) {
        (Precision::F32, _) => 2e-3,
        (Precision::Bf16, 0) => 1e-2,
        (Precision::Bf16, _) => 0.5,
    }
}

/// AdamW without decay, a clipping that never happens, no z-loss.
const TRAIN: &str = "steps = 1000
batch_tokens = 4096
micro_batch_tokens = 4096
learning_rate = 3e-4
final_learning_rate = 1.0
warmup_steps = 0
weight_decay = 0.0
beta1 = 0.9
beta2 = 0.95
clip_norm = 1e9
z_loss = 0.0
checkpoint_steps = 1000
eval_steps = 1000
";

/// Measures updates (forward, backward, AdamW) of a decoder. RAYON_NUM_THREADS says how many threads both use.
#[derive(Parser)]
struct Args {
    /// A Python with torch, numpy and safetensors; without one, our own figures alone are printed
    #[arg(long)]
    python: Option<PathBuf>,
    /// The decoder: 8 layers, 256 wide, with a vocabulary of 8,192 (11 million parameters), or the shape of a preset of the
    /// trainer, such as 160m
    #[arg(long, default_value = "11m")]
    size: String,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, default_value_t)]
    device: DeviceName,
    /// f32, or bf16 with weights, gradients and moments in f32
    #[arg(long, default_value_t)]
    precision: Precision,
    /// Updates that are measured; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Sequences of a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 256)]
    context: usize,
    /// Beside torch.compile too, which needs a C++ compiler
    #[arg(long)]
    compile: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // The trainer runs inside candle's thread pool too.
    Device::Cpu.with_context(|| measure(&args))
}

fn measure(args: &Args) -> Result<()> {
    let threads = candle_core::utils::get_num_threads();
    let mut ours = Ours::new(args)?;
    let folder = tempfile::tempdir()?;
    ours.write(folder.path())?;
    let (mut peers, count) = (Vec::new(), threads.to_string());
    if let Some(python) = &args.python {
        for mode in ["eager", "compile"].into_iter().take(1 + usize::from(args.compile)) {
            let (device, precision) = (args.device.to_string(), args.precision.to_string());
            let words = [&count[..], mode, &device, &precision].map(OsStr::new);
            let arguments: Vec<&OsStr> = [folder.path().as_os_str()].into_iter().chain(words).collect();
            peers.push((mode, Script::start(python, "torch_train.py", &arguments)?, Vec::new(), 0.0));
        }
    }
    let tokens = (args.batch * args.context) as f64;
    let (mut seconds, mut apart) = (Vec::new(), 0.0_f64);
    for round in 0..args.rounds + 2 {
        let (loss, took) = ours.update()?;
        let mut losses = vec![loss];
        for (_, peer, times, memory) in &mut peers {
            let [loss, took, bytes] = peer.ask_numbers("update")?;
            losses.push(loss);
            // The first updates warm up.
            if round >= 2 {
                times.push(took);
            }
            *memory = bytes;
        }
        if round >= 2 {
            seconds.push(took);
        }
        let furthest = losses.iter().map(|other| (other - loss).abs()).fold(0.0, f64::max);
        apart = furthest.max(apart);
        let most = drift(args.precision, round);
        ensure!(furthest <= most, "update {round}: the losses {losses:?} are further apart than {most}");
    }
    let speed = |times: Vec<f64>| tokens / median(times);
    let held = device::memory(&ours.parameters.device()).map_or_else(peak_memory, |memory| memory.peak);
    let (own, memory) = (speed(seconds), held as f64);
    println!(
        "{} parameters, {} × {} tokens, {} in {}, {threads} threads, losses {apart:.4} nats apart at most",
        ours.parameters(),
        args.batch,
        args.context,
        args.device,
        args.precision,
    );
    println!("{:<16} {:>10} {:>7} {:>12} {:>7}", "", "tokens/s", "ratio", "memory, MB", "ratio");
    println!("{:<16} {own:>10.0} {:>7} {:>12.0} {:>7}", "ours", "", memory / 1e6, "");
    for (mode, _, times, bytes) in peers {
        let theirs = speed(times);
        let (speeds, memories) = (own / theirs, memory / bytes);
        println!("{:<16} {theirs:>10.0} {speeds:>7.2} {:>12.0} {memories:>7.2}", format!("torch {mode}"), bytes / 1e6);
    }
    Ok(())
}

/// The decoder of this size.
fn shape(size: &str, context: usize) -> Result<Config> {
    let (vocab_size, [hidden_size, intermediate_size, layers, heads, kv_heads, head_dim]) = match size {
        "11m" => (8192, [256, 768, 8, 8, 8, 32]),
        name => {
            let Preset { model: m, vocab_size, .. } = preset(name).map_err(anyhow::Error::msg)?;
            (vocab_size, [m.hidden_size, m.intermediate_size, m.layers, m.heads, m.kv_heads, m.head_dim])
        }
    };
    ensure!(heads == kv_heads, "the peer has as many heads of keys as of queries: {size} has not");
    Ok(Config {
        family: Family::Qwen3,
        vocab_size,
        hidden_size,
        intermediate_size,
        n_layers: layers,
        n_heads: heads,
        n_kv_heads: kv_heads,
        head_dim,
        rms_norm_eps: 1e-6,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        max_position_embeddings: context,
        tie_word_embeddings: size != "11m",
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: QkNorm::PerHead,
        windows: vec![None; layers],
        bos_token_id: None,
        eos_token_ids: Vec::new(),
    })
}

/// SafeLMM's trainer, down to what an update is made of.
struct Ours {
    config: Config,
    parameters: Parameters,
    decoder: Decoder,
    train: TrainSection,
    groups: Groups,
    mesh: Mesh,
    gradients: Gradients,
    optimizer: AdamW,
    batch: Batch,
}

impl Ours {
    fn new(args: &Args) -> Result<Ours> {
        let config = shape(&args.size, args.context)?;
        let device = args.device.open()?;
        let whole = Part::whole(&config);
        let (parameters, mut decoder) =
            Parameters::initialise_part(&config, &whole, Initialisation::Fixed, 1, &device)?;
        decoder.set_precision(args.precision)?;
        let train: TrainSection = toml::from_str(TRAIN)?;
        let groups = Groups::new(&train, &parameters)?;
        let (mesh, gradients) = (Mesh::alone(), Gradients::new(&parameters, config.tie_word_embeddings));
        let optimizer = AdamW::new(gradients.buckets(), &mesh);
        let mut batch = Batch::default();
        let token = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u32 % config.vocab_size as u32;
        for row in 0..args.batch {
            let tokens: Vec<u32> = (0..=args.context).map(|i| token(row * (args.context + 1) + i)).collect();
            batch.push((tokens[..args.context].to_vec(), tokens[1..].to_vec()));
        }
        Ok(Ours { config, parameters, decoder, train, groups, mesh, gradients, optimizer, batch })
    }

    fn parameters(&self) -> usize {
        self.parameters.iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Writes what a peer begins with.
    fn write(&self, folder: &Path) -> Result<()> {
        let tensor = |(name, var): (&str, &candle_core::Var)| -> Result<TensorSlice> {
            let values = var.as_tensor().flatten_all()?.to_vec1()?;
            Ok(TensorSlice { name: name.to_owned(), shape: var.dims().to_vec(), values })
        };
        let tensors: Vec<TensorSlice> = self.parameters.iter().map(tensor).collect::<Result<_>>()?;
        write_tensors(&folder.join("weights.safetensors"), &tensors)?;
        let Config { n_layers, n_heads, head_dim, rms_norm_eps, max_position_embeddings, .. } = self.config;
        let shape = json!({
            "layers": n_layers, "heads": n_heads, "head_dim": head_dim, "eps": rms_norm_eps, "theta": self.config.rope.theta,
            "context": max_position_embeddings, "learning_rate": self.train.learning_rate,
        });
        fs::write(folder.join("shape.json"), shape.to_string())?;
        let rows = self.batch.inputs.iter().zip(&self.batch.targets);
        let tokens = rows.flat_map(|(inputs, targets)| inputs.iter().chain(targets.last()));
        fs::write(folder.join("batch.u32"), tokens.flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())?;
        Ok(())
    }

    /// One update; the loss before it, and its seconds.
    fn update(&mut self) -> Result<(f64, f64)> {
        let Ours { parameters, decoder, train, groups, mesh, gradients, optimizer, batch, .. } = self;
        let begun = Instant::now();
        let options = Options { z_loss: train.z_loss, checkpointing: train.activation_checkpointing };
        let stage = Stage { mesh, decoder, parameters, options };
        let losses = gradients.sum(mesh, 1, |sums| stage.run(std::slice::from_ref(batch), sums, None))?;
        let loss = losses.first().context("an update without a loss")?;
        let mean = 1.0 / loss.targets as f64;
        let settings = Settings { gradient_scale: mean as f32, learning_rate: train.learning_rate, train, groups };
        optimizer.step(parameters, gradients.buckets(), gradients.sums(), &settings)?;
        parameters.device().synchronize()?;
        Ok((loss.nll * mean, begun.elapsed().as_secs_f64()))
    }
}
