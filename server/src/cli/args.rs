//! The arguments as the user wrote them.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use safelmm_model::{Quantize, Rating};

use super::plugin::PluginCommand;
use super::store::StoreCommand;
use crate::config::Overrides;
use crate::keys::{KeyId, Use};

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
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make, fill and look after stores: licensed text that requests may attach
    #[command(subcommand)]
    Store(StoreCommand),
    /// Begin, check, try and list plugins: safety policies that are WebAssembly components
    #[command(subcommand)]
    Plugin(PluginCommand),
}

/// What to do with keys. A running server notices within about a second.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key: it is printed once, and kept as a hash
    New(NewKeyArgs),
    /// List the keys of a file
    List {
        /// Where the keys are.
        #[command(flatten)]
        file: KeyFileArg,
    },
    /// Take a key out of a file
    Revoke {
        /// Where the keys are.
        #[command(flatten)]
        file: KeyFileArg,
        /// The key's id, as `list` shows it
        id: KeyId,
    },
}

/// The key file.
#[derive(Debug, Args)]
pub struct KeyFileArg {
    /// Key file
    #[arg(long = "keys", value_name = "FILE", env = "SAFELMM_KEYS")]
    pub path: PathBuf,
}

/// Arguments of `safelmm key new`.
#[derive(Debug, Args)]
pub struct NewKeyArgs {
    /// Where the key is kept; created where it is missing.
    #[command(flatten)]
    pub file: KeyFileArg,
    /// What the key is called in listings
    #[arg(long)]
    pub name: String,
    /// The highest rating it may ask for: G, PG, R or X [default: the server's ceiling]
    #[arg(long, value_name = "RATING")]
    pub rating_ceiling: Option<Rating>,
    /// A use that its requests may declare; may be given twice
    #[arg(long = "use", value_name = "USE", value_enum, default_value = "commercial")]
    pub uses: Vec<Use>,
    /// A store it may ask; may be given several times [default: none]
    #[arg(long = "store", value_name = "NAME", conflicts_with = "all_stores")]
    pub stores: Vec<String>,
    /// Let it ask every store
    #[arg(long)]
    pub all_stores: bool,
    /// Let it make stores, add documents and remove them
    #[arg(long)]
    pub manage_stores: bool,
    /// A model it may use; may be given several times [default: all]
    #[arg(long = "model", value_name = "NAME")]
    pub models: Vec<String>,
    /// The most requests a minute [default: no limit]
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// The most tokens a minute, of prompts and answers together [default: no limit]
    #[arg(long, value_name = "N")]
    pub tokens_per_minute: Option<NonZeroU32>,
    /// The most requests at once [default: no limit]
    #[arg(long, value_name = "N")]
    pub concurrent: Option<NonZeroU32>,
    /// Days until it counts no more [default: it never ends]
    #[arg(long = "expires", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub expires_days: Option<u32>,
}

/// Arguments of `safelmm serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Checkpoint folder [default: the embedded demo]
    #[arg(long, value_name = "DIR", env = "SAFELMM_MODEL")]
    model: Option<PathBuf>,
    /// Folder of a low-rank adapter (LoRA, in the layout of peft) that was trained on that checkpoint [default: none]
    #[arg(long, value_name = "DIR", env = "SAFELMM_ADAPTER")]
    adapter: Option<PathBuf>,
    /// Hold the weights in q8 (8 bits) or q4 (4 bits), which take less memory, or none: f32 [default: none]
    #[arg(long, value_name = "FORMAT", env = "SAFELMM_QUANTIZE")]
    quantize: Option<Quantize>,
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
    /// Key file, made by `safelmm key new`; without one, this machine alone is served
    #[arg(long, value_name = "FILE", env = "SAFELMM_KEYS")]
    keys: Option<PathBuf>,
    /// Folder of stores, one folder in it for each [default: no stores]
    #[arg(long, value_name = "DIR", env = "SAFELMM_STORES")]
    stores: Option<PathBuf>,
    /// Collector that gets the traces of requests, over OTLP/HTTP, such as http://localhost:4318 [default: none]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
}

impl From<ServeArgs> for Overrides {
    fn from(args: ServeArgs) -> Self {
        Overrides {
            file: args.config,
            model: args.model,
            adapter: args.adapter,
            quantize: args.quantize,
            embeddings: args.embeddings,
            listen: args.listen,
            queue: args.queue,
            max_batch: args.max_batch,
            keys: args.keys,
            stores: args.stores,
            otlp_endpoint: args.otlp_endpoint,
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
    /// Sample from this many of the most probable tokens; 0 takes all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample from tokens at least this probable, relative to the most probable one
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Makes the continuation reproducible; any integer of 64 bits, signed or not, as in the API
    #[arg(long, value_name = "N", value_parser = seed, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Checkpoint folder [default: the embedded demo]
    #[arg(long, value_name = "DIR", env = "SAFELMM_MODEL")]
    pub model: Option<PathBuf>,
    /// Folder of a low-rank adapter that was trained on that checkpoint [default: none]
    #[arg(long, value_name = "DIR", env = "SAFELMM_ADAPTER", requires = "model")]
    pub adapter: Option<PathBuf>,
    /// Hold the weights in q8 (8 bits) or q4 (4 bits), which take less memory, or none: f32
    #[arg(long, value_name = "FORMAT", env = "SAFELMM_QUANTIZE", default_value_t)]
    pub quantize: Quantize,
}

/// A negative seed is its two's complement.
fn seed(text: &str) -> Result<u64, String> {
    let signed = || text.parse::<i64>().ok().map(i64::cast_unsigned);
    text.parse().ok().or_else(signed).ok_or_else(|| "expected an integer of 64 bits".into())
}
