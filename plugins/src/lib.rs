//! The policy pipeline: what screens a request, in which order, and what comes of its verdicts.

pub mod request;
pub mod verdict;

pub mod pipeline;

pub mod control_tokens;

pub use control_tokens::ControlTokens;
pub use pipeline::{Denial, Entry, Pipeline, Policy};
pub use request::{Caller, DeclaredUse, PerKey, Rating, RequestContext};
pub use verdict::{Finding, Screening, Verdict};
