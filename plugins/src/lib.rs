//! Policies: what they judge, what comes of it, and the host of those that are WebAssembly components.
//!
//! A [`Pipeline`] holds native policies and components alike, in their order. A request gets a [`Scope`] of it: the policies
//! that hold for it, and what they have found. An [`Answer`] is one answer of that request while it is written, and a
//! [`Guard`] what its text goes through before any of it leaves.

pub mod request;
pub mod verdict;

pub mod document;
pub mod hook;
pub mod session;

pub mod policy;

pub mod pipeline;

mod guard;

pub mod control_tokens;

pub mod host;

pub mod bundled;

pub use control_tokens::ControlTokens;
pub use document::{Document, Obligation, Passage};
pub use guard::{Answer, Blocked, Cleared, Guard};
pub use hook::{Hook, Hooks};
pub use pipeline::{Denial, Entry, Pipeline, Scope, Selection};
pub use policy::{About, Policy};
pub use request::{Caller, DeclaredUse, PerKey, Rating, RequestContext};
pub use session::{Action, Candidates, Inspection, Session};
pub use verdict::{Finding, Judgement, Verdict};
