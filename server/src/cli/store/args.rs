//! The arguments of `safelmm store`, as the user wrote them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use safelmm_datastore::{License, Rating};
use safelmm_model::Quantize;

use crate::keys::Use;

/// What to do with stores. A store that a server has open is changed through the server.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Make an empty store for a model
    Create(CreateArgs),
    /// Add documents: JSON lines (.jsonl, also .gz and .zst), Parquet, Markdown and text files, or folders of these
    Add(AddArgs),
    /// List the stores in a folder
    List {
        /// The folder that holds one folder for each store
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Show what a store holds
    Inspect(InspectArgs),
    /// Find passages
    Search(SearchArgs),
    /// Remove documents: they inform nothing from then on. Prints a signed receipt
    Remove(RemoveArgs),
    /// Erase the bytes of removed documents, and gather small segments
    Compact {
        /// The store's folder
        #[arg(value_name = "STORE")]
        store: PathBuf,
    },
    /// Read everything and hold it against its checksums, or check a receipt
    Verify(VerifyArgs),
    /// Find the parameters of retrieval that suit a store
    Tune(TuneArgs),
    /// Find where a text stands word for word
    Trace(TraceArgs),
}

/// The model of a store.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Checkpoint folder [default: the embedded demo]
    #[arg(long, value_name = "DIR", env = "SAFELMM_MODEL")]
    pub model: Option<PathBuf>,
    /// Weights of q8 or q4 bits, as the server has them that the store is for, or none
    #[arg(long, value_name = "FORMAT", env = "SAFELMM_QUANTIZE", default_value_t)]
    pub quantize: Quantize,
    /// Folder of an encoder that makes the vectors of passages [default: the model's own states]
    #[arg(long, value_name = "DIR", env = "SAFELMM_EMBEDDINGS")]
    pub embeddings: Option<PathBuf>,
}

/// What a request for the store's text would declare.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// What the text will be used for
    #[arg(long = "use", value_name = "USE", value_enum, default_value = "non-commercial")]
    pub declared_use: Use,
    /// The highest rating: G, PG, R or X
    #[arg(long, default_value = "X")]
    pub rating: Rating,
}

/// Arguments of `safelmm store create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The store's folder, which must not exist or be empty
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// The name by which requests attach it [default: that of the folder]
    #[arg(long)]
    pub name: Option<String>,
    /// Tokens of a passage [default: 1024, or a quarter of the model's context]
    #[arg(long, value_name = "N")]
    pub passage_tokens: Option<usize>,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `safelmm store add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// Files and folders
    #[arg(value_name = "SOURCE", required = true)]
    pub sources: Vec<PathBuf>,
    /// License of documents that name none, as an SPDX expression; documents without a license are refused
    #[arg(long, value_name = "SPDX")]
    pub license: Option<License>,
    /// Rating of documents that name none; they count as X otherwise
    #[arg(long)]
    pub rating: Option<Rating>,
    /// Author of documents that name none
    #[arg(long, default_value = "", hide_default_value = true)]
    pub author: String,
    /// Language of documents that name none
    #[arg(long, default_value = "", hide_default_value = true)]
    pub lang: String,
    /// Rights holder of documents that name none
    #[arg(long, default_value = "", hide_default_value = true)]
    pub rights_holder: String,
    /// Address of documents that name none
    #[arg(long, default_value = "", hide_default_value = true)]
    pub url: String,
    /// Name of the collection
    #[arg(long, default_value = "", hide_default_value = true)]
    pub collection: String,
    /// Pass over documents that cannot enter, instead of stopping at the first
    #[arg(long)]
    pub skip_bad: bool,
    /// Tokens after which documents are made durable: work that a kill loses at most
    #[arg(long, value_name = "N", default_value_t = 1 << 18)]
    pub commit_every: usize,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `safelmm store inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// List the documents
    #[arg(long)]
    pub documents: bool,
    /// Print the receipts, one JSON object a line
    #[arg(long)]
    pub receipts: bool,
}

/// Arguments of `safelmm store search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// Words to look for
    #[arg(value_name = "QUERY", allow_hyphen_values = true)]
    pub query: String,
    /// Rank by vectors instead of by words
    #[arg(long)]
    pub dense: bool,
    /// How many passages
    #[arg(short, value_name = "N", default_value_t = 5)]
    pub n: usize,
    /// Which documents.
    #[command(flatten)]
    pub access: AccessArgs,
    /// The model, for vectors.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `safelmm store remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// Which documents.
    #[command(flatten)]
    pub which: WhichArgs,
}

/// Which documents go: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct WhichArgs {
    /// The document with this id
    #[arg(long)]
    pub id: Option<String>,
    /// All documents of this author
    #[arg(long)]
    pub author: Option<String>,
    /// All documents of this rights holder
    #[arg(long)]
    pub rights_holder: Option<String>,
    /// All documents found at this address
    #[arg(long)]
    pub url: Option<String>,
}

/// Arguments of `safelmm store verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// A receipt to check against the store's public key, instead of the store
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// The public key that signed the receipt [default: that of the store]
    #[arg(long, value_name = "HEX", requires = "receipt")]
    pub public_key: Option<String>,
}

/// Arguments of `safelmm store tune`.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// Text of the same kind that is not in the store, in the forms that `add` takes; may be given several times [default:
    /// the store's own documents, each left out of the store while it is looked at]
    #[arg(long = "text", value_name = "SOURCE")]
    pub texts: Vec<PathBuf>,
    /// The most tokens to look at
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub tokens: usize,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Arguments of `safelmm store trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The store's folder
    #[arg(value_name = "STORE")]
    pub store: PathBuf,
    /// The text; `-` reads standard input
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub text: String,
    /// The shortest stretch that is told, in tokens
    #[arg(long, value_name = "N", default_value_t = crate::retrieval::VERBATIM_TOKENS)]
    pub min_tokens: usize,
    /// Which documents.
    #[command(flatten)]
    pub access: AccessArgs,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
}
