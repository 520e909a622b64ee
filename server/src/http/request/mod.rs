//! What clients may send: one struct for each endpoint, which is its schema in `/openapi.json` too.

mod chat;
mod completions;
mod embeddings;
mod extension;
mod moderations;
mod stores;
mod tokens;
mod values;

pub use chat::{
    ChatRequest, Content, ContentPart, FormatKind, Function, FunctionName, JsonSchema, Message, NamedTool,
    ResponseFormat, Tool, ToolCall, ToolChoice, ToolMode,
};
pub use completions::CompletionRequest;
pub use embeddings::{EmbeddingRequest, Encoding};
pub use extension::{Attribution, ExtensionFields, Mode, PassageRanking, Retrieval};
pub use moderations::{
    DirectionPolicy, InlineModerationFields, ModerationInput, ModerationMode, ModerationPolicy, ModerationRequest,
};
pub use stores::{AttributionRequest, DocumentFields, DocumentsRequest, PermissionFields, SearchRequest, StoreRequest};
pub use tokens::{DetokenizeRequest, TokenizeRequest};
pub use values::{LogitBias, Prompt, Seed, Stop};

use super::json::objects;

objects! {
    /// How an answer is streamed.
    pub struct StreamOptions {
        /// Whether a last chunk tells the token counts.
        pub include_usage: Option<bool>,
        /// Not supported: only false.
        pub continuous_usage_stats: Option<bool>,
        /// Not supported: only false. Chunks are not padded.
        pub include_obfuscation: Option<bool>,
    }
}

/// Declares a request with the fields that completions and chat completions share, and how they are taken out of it.
///
/// A struct inside the struct would do, had serde not to choose between flattening and refusing unknown fields.
macro_rules! generation_request {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $crate::http::json::objects! {
            $(#[$meta])*
            pub struct $name {
                $($own)*
                /// The model's id, as `/v1/models` tells it. May be left out.
                pub model: Option<String>,
                /// The client's own name for its user, up to 256 bytes: the log records it.
                #[schema(max_length = 256)]
                pub user: Option<String>,
                /// Server-sent events instead of one body.
                pub stream: Option<bool>,
                /// How the answer is streamed; needs `stream`.
                pub stream_options: Option<$crate::http::request::StreamOptions>,
                /// Sampling temperature; 0 takes the most probable token each time.
                #[schema(minimum = 0, maximum = 100)]
                pub temperature: Option<f32>,
                /// Samples from this many of the most probable tokens; 0 and -1 mean all.
                #[schema(minimum = -1)]
                pub top_k: Option<i64>,
                /// Samples from the most probable tokens that together have this probability; above 0.
                #[schema(minimum = 0, maximum = 1)]
                pub top_p: Option<f32>,
                /// Samples from tokens at least this probable, relative to the most probable one.
                #[schema(minimum = 0, maximum = 1)]
                pub min_p: Option<f32>,
                /// Makes tokens of the prompt and the answer less probable (more, below 1); above 0, 1 is off.
                #[schema(minimum = 0)]
                pub repetition_penalty: Option<f32>,
                /// Taken from the logits of tokens that the answer has already.
                #[schema(minimum = -2, maximum = 2)]
                pub presence_penalty: Option<f32>,
                /// Taken from the logits of tokens for each time that the answer has them.
                #[schema(minimum = -2, maximum = 2)]
                pub frequency_penalty: Option<f32>,
                /// Added to the logits of tokens: from token ids, as strings, to numbers between -100 and 100.
                pub logit_bias: Option<$crate::http::request::LogitBias>,
                /// The same seed gives the same answer; choice i has this seed plus i.
                pub seed: Option<$crate::http::request::Seed>,
                /// How many answers each prompt gets.
                #[schema(minimum = 1, maximum = 16)]
                pub n: Option<usize>,
                /// What ends the answer, which does not hold it: a string or several.
                pub stop: Option<$crate::http::request::Stop>,
                /// Whether the end-of-text token is generated like any other; for measurements.
                pub ignore_eos: Option<bool>,
                /// What is SafeLMM's own.
                pub safelmm: Option<$crate::http::request::ExtensionFields>,
            }
        }

        impl $name {
            /// Takes the shared fields out, and leaves nothing of them.
            pub fn take_shared(&mut self) -> $crate::http::request::SharedFields {
                $crate::http::request::SharedFields {
                    model: self.model.take(),
                    user: self.user.take(),
                    stream: self.stream.take(),
                    stream_options: self.stream_options.take(),
                    temperature: self.temperature.take(),
                    top_k: self.top_k.take(),
                    top_p: self.top_p.take(),
                    min_p: self.min_p.take(),
                    repetition_penalty: self.repetition_penalty.take(),
                    presence_penalty: self.presence_penalty.take(),
                    frequency_penalty: self.frequency_penalty.take(),
                    logit_bias: self.logit_bias.take(),
                    seed: self.seed.take(),
                    n: self.n.take(),
                    stop: self.stop.take(),
                    ignore_eos: self.ignore_eos.take(),
                    safelmm: self.safelmm.take(),
                }
            }
        }
    };
}
use generation_request;

/// The fields that completions and chat completions share; their documentation stands above.
#[allow(missing_docs)]
pub struct SharedFields {
    pub model: Option<String>,
    pub user: Option<String>,
    pub stream: Option<bool>,
    pub stream_options: Option<StreamOptions>,
    pub temperature: Option<f32>,
    pub top_k: Option<i64>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Option<LogitBias>,
    pub seed: Option<Seed>,
    pub n: Option<usize>,
    pub stop: Option<Stop>,
    pub ignore_eos: Option<bool>,
    pub safelmm: Option<ExtensionFields>,
}
