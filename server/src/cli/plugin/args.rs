//! The arguments of `safelmm plugin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use safelmm_model::Rating;

/// What to do with plugins: safety policies that are WebAssembly components.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Begin a plugin: a folder with sources, a test and what builds it
    New(NewArgs),
    /// Check a component as the server does: contract, settings, golden vectors, and what it costs
    Check(CheckArgs),
    /// Print what a component says of itself, from its section and without running it
    Describe(DescribeArgs),
    /// Ask a component about a prompt, an answer, or both
    Run(RunArgs),
    /// List the plugins that come with the server
    List,
}

/// Arguments of `safelmm plugin new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Its name: lower-case letters, digits and '-'; the folder's name too
    pub name: String,
    /// The language it is written in
    #[arg(long, value_enum, default_value = "rust")]
    pub lang: Language,
}

/// What plugins can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust
    Rust,
    /// Python
    Python,
    /// JavaScript
    Js,
    /// C
    C,
}

/// A component and its settings.
#[derive(Debug, Args)]
pub struct ComponentArgs {
    /// The component, or bundled:NAME
    #[arg(value_name = "FILE")]
    pub source: String,
    /// Settings as JSON, or @FILE that holds them [default: its own]
    #[arg(long, value_name = "JSON")]
    pub settings: Option<String>,
    /// Instructions of a call, at most, beside those for each byte
    #[arg(long, value_name = "N")]
    pub fuel: Option<u64>,
}

/// Arguments of `safelmm plugin check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The component.
    #[command(flatten)]
    pub component: ComponentArgs,
}

/// Arguments of `safelmm plugin describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The component, or bundled:NAME
    #[arg(value_name = "FILE")]
    pub source: String,
    /// Ask the component, and write what it says into its file
    #[arg(long)]
    pub write: bool,
}

/// Arguments of `safelmm plugin run`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("texts").args(["prompt", "answer"]).required(true).multiple(true))]
pub struct RunArgs {
    /// The component.
    #[command(flatten)]
    pub component: ComponentArgs,
    /// A prompt to screen
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// An answer to inspect while it is written, four characters at a time, and to review
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub answer: Option<String>,
    /// The rating of the request: G, PG, R or X [default: none]
    #[arg(long)]
    pub rating: Option<Rating>,
}

/// Where a `--settings` comes from.
pub(super) fn settings_text(given: &str) -> Result<String, (PathBuf, std::io::Error)> {
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| (path.into(), error)),
        None => Ok(given.to_owned()),
    }
}
