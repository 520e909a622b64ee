//! Tests of what crosses crates: the server as its clients see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

mod client;
mod clients;
mod demo;
#[path = "../../plugins/tests/support/mod.rs"]
mod guests;
mod invariance;
mod playground;
mod readme;
mod rules;
mod server;
mod support;
mod transformers;
