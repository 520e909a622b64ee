//! Generation: running sequences, advanced together, prompts in pieces of any length and answers token by token.

mod context;
mod error;
mod progress;
mod request;
mod sequence;
mod step;

pub use context::ContextSource;
pub use error::GenerateError;
pub use progress::{FinishReason, Progress, Step, TokenLogprob};
pub use request::GenerationRequest;
pub use sequence::Generation;
pub use step::{Work, step, step_each};
