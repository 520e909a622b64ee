//! The host of policies that are WebAssembly components.
//!
//! A component is compiled once and instantiated beforehand; its instances are configured once, kept, and lent to one call
//! or one answer at a time. Every call has a budget of instructions (fuel) and of memory, and a deadline in case it finds a
//! way to burn time without instructions. A call that overdraws one of them, traps, or answers something impossible has
//! failed: its instance is dropped, others go on, and the operator's choice for that policy and hook decides.
//!
//! Calls block. Those of [`Policy::is_quick`](crate::Policy::is_quick) take less than about 20 ms however they end, since
//! their fuel is worth no more; all others belong on threads that may block.

mod bindings;

mod failure;
mod limits;

mod state;

mod answers;
mod instance;

mod sandbox;
mod settings;

mod component;
mod description;
mod vectors;

mod pool;

mod wasm;

mod cache;

pub use component::{Component, LoadError};
pub use description::{Description, DescriptionError, SECTION};
pub use failure::{Failure, OnError, POLICY_FAILURE};
pub use limits::{Limits, SandboxLimits};
pub use sandbox::{Sandbox, SandboxError};
pub use settings::{Problem, SettingsError};
pub use state::Vocabulary;
pub use vectors::{VectorResult, VectorsFailed};
pub use wasm::{Observer, Reported, WasmPolicy, WasmSettings};
