//! The decoder, its tokenizer, checkpoint folders and sampling: one model definition for training and serving.

pub mod rating;

mod kernels;

pub mod device;
pub mod ops;

pub mod config;
pub mod decoder;

pub mod card;
pub mod logits;
mod mapping;
pub mod sampling;
pub mod stop;
pub mod tokenizer;
mod widen;

pub mod adapter;

pub mod grammar;

pub mod checkpoint;
pub mod encoder;
pub mod generate;

pub use checkpoint::{Checkpoint, CheckpointError, GenerationDefaults, Opening, Quantize};
pub use config::{Config, ConfigError};
pub use decoder::{
    BLOCK_TOKENS, Batch, Decoder, KvBlock, KvCache, KvPool, LowRank, ParameterSource, Part, PartError, Segment, Slice,
    Weight,
};
pub use encoder::{Encoder, EncoderError};
pub use generate::{
    ContextSource, FinishReason, GenerateError, Generation, GenerationRequest, Progress, Step, TokenLogprob, Work,
    step, step_each,
};
pub use grammar::{Grammar, GrammarError, Grammars};
pub use logits::{History, LogitsStage, StageError};
pub use rating::Rating;
pub use sampling::{Sampler, SamplingError, SamplingParams};
pub use stop::{StopError, StopStrings};
pub use tokenizer::{
    ChatMessage, Detokenizer, Tokenizer, TokenizerError, TokenizerParts, Tool, ToolCall, ToolError, ToolFormat,
    ToolParser, ToolPiece,
};
