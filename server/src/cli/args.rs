//! The arguments as the user wrote them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use safelmm_model::Rating;

use crate::config::Overrides;

/// A language model trained only on text that may be trained on.
#[derive(Debug, Parser)]
#[command(name = "safelmm", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over the OpenAI-compatible HTTP API, with a playground
    Serve(ServeArgs),
    /// Continue a text on the terminal
    Generate(GenerateArgs),
}

/// Arguments of `safelmm serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Checkpoint folder [default: the embedded demo]
    #[arg(long, value_name = "DIR", env = "SAFELMM_MODEL")]
    model: Option<PathBuf>,
    /// Folder of an encoder (BERT, RoBERTa, XLM-RoBERTa) that answers /v1/embeddings under its own name
    #[arg(long, value_name = "DIR", env = "SAFELMM_EMBEDDINGS")]
    embeddings: Option<PathBuf>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "SAFELMM_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "SAFELMM_LISTEN")]
    listen: Option<String>,
    /// How many requests may wait before others are refused with 429 [default: 64]
    #[arg(long, value_name = "N")]
    queue: Option<usize>,
    /// How many sequences are decoded together [default: 8]
    #[arg(long, value_name = "N")]
    max_batch: Option<usize>,
    /// Listen on an address that other machines can reach, although anyone who can connect may then use the model
    #[arg(long)]
    allow_remote_without_keys: bool,
}

impl From<ServeArgs> for Overrides {
    fn from(args: ServeArgs) -> Self {
        Overrides {
            file: args.config,
            model: args.model,
            embeddings: args.embeddings,
            listen: args.listen,
            queue: args.queue,
            max_batch: args.max_batch,
            allow_remote_without_keys: args.allow_remote_without_keys,
        }
    }
}

/// Arguments of `safelmm generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The text to continue
    #[arg(allow_hyphen_values = true)]
    pub prompt: String,
    /// Rating of the continuation: G, PG, R or X [default: PG, for a model trained with ratings]
    #[arg(long)]
    pub rating: Option<Rating>,
    /// Strength of the rating, 1 to 10; more than 1 costs a second pass
    #[arg(long, value_name = "STRENGTH", default_value_t = 1.0, allow_negative_numbers = true)]
    pub guidance: f32,
    /// The most tokens [default: 128, or what the context has room for]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// 0 takes the most probable token each time [default: the checkpoint's, or 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Sample from the most probable tokens that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Sample from this many of the most probable tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample from tokens at least this probable, relative to the most probable one
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Makes the continuation reproducible
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Checkpoint folder [default: the embedded demo]
    #[arg(long, value_name = "DIR", env = "SAFELMM_MODEL")]
    pub model: Option<PathBuf>,
}
