//! The policy pipeline: what screens a request, in which order, and what comes of its verdicts.

pub mod control_tokens;
pub mod pipeline;
pub mod verdict;

pub use control_tokens::ControlTokens;
pub use pipeline::{Denial, Entry, Pipeline, Policy};
pub use verdict::{Finding, Screening, Verdict};
