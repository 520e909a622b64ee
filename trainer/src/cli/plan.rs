//! `safelmm-train plan`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use safelmm_trainer::config::RunConfig;
use safelmm_trainer::plan::{self, Footprint, Layout, Plan, Shape};
use safelmm_trainer::presets::preset;

/// What is planned.
#[derive(clap::Args)]
pub struct PlanArgs {
    /// The model: demo, 160m, 1b, 7b, 13b, 34b
    #[arg(long, conflicts_with = "config", required_unless_present = "config")]
    preset: Option<String>,
    /// The model of a run's configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// Devices
    #[arg(long)]
    gpus: usize,
    /// The machine: a100-64, a100-40, a100-80, h100-80
    #[arg(long)]
    gpu: String,
    /// Devices that share each layer
    #[arg(long, default_value_t = 1)]
    tensor: usize,
    /// Stages that the layers are divided into
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Sequences of one forward and backward pass
    #[arg(long, default_value_t = 8)]
    micro_batch: usize,
    /// Sequences of an update; without it 512, or one pass on every copy where that is more
    #[arg(long)]
    global_batch: Option<usize>,
    /// Tokens of a sequence; without it the model's context
    #[arg(long)]
    sequence: Option<usize>,
    /// Tokens of the run, such as 300B or 2T
    #[arg(long, default_value = "2T", value_parser = count_of_tokens)]
    tokens: f64,
    /// The building's energy over the devices'
    #[arg(long, default_value_t = 1.2)]
    pue: f64,
    /// Grams of CO2 equivalents for each kWh; 242: the European Union's mean in 2023 (European Environment Agency)
    #[arg(long, default_value_t = 242.0)]
    co2: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A number with K, M, B or T behind it, or without.
fn count_of_tokens(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 1e3),
        Some((at, 'M' | 'm')) => (&text[..at], 1e6),
        Some((at, 'B' | 'b' | 'G' | 'g')) => (&text[..at], 1e9),
        Some((at, 'T' | 't')) => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let expected = || format!("'{text}' is no number of tokens, expected one such as 300B, 2T or 1000000");
    let number: f64 = digits.parse().map_err(|_| expected())?;
    if number.is_finite() && number > 0.0 { Ok(number * factor) } else { Err(expected()) }
}

/// Prints the plan.
///
/// # Errors
/// A model, a machine or a division that there cannot be.
pub fn plan(args: &PlanArgs) -> Result<()> {
    let (model, vocab_size) = match (&args.preset, &args.config) {
        (_, Some(config)) => {
            let config = RunConfig::read(config)?;
            (config.model, config.tokenizer.vocab_size)
        }
        (name, None) => {
            let preset = preset(name.as_deref().unwrap_or_default()).map_err(anyhow::Error::msg)?;
            (preset.model, preset.vocab_size)
        }
    };
    let machine = plan::machine(&args.gpu).map_err(anyhow::Error::msg)?;
    for (option, value) in [("--pue", args.pue), ("--co2", args.co2)] {
        ensure!(value.is_finite() && value >= 0.0, "{option} is {value}: expected a number from 0 on");
    }
    let PlanArgs { gpus, tensor, pipeline, micro_batch, .. } = *args;
    let sequence = args.sequence.unwrap_or(model.context);
    let pass = (gpus / tensor.saturating_mul(pipeline).max(1)).saturating_mul(micro_batch).max(1);
    // The least multiple of a pass that has 512 sequences.
    let global_batch = args.global_batch.unwrap_or_else(|| pass.saturating_mul(512_usize.div_ceil(pass)));
    let layout = Layout { gpus, tensor, pipeline, micro_batch, global_batch, sequence };
    let shape = Shape::new(&model, vocab_size, sequence);
    let footprint = Footprint { pue: args.pue, grams_per_kwh: args.co2 };
    let plan = Plan::new(&shape, layout, machine, args.tokens, footprint)?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&plan)?),
        false => print!("{plan}"),
    }
    Ok(())
}
