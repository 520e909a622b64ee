//! Stores from outside: what they promise to those who use them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

mod compaction;
mod crash;
mod damage;
mod gate;
mod ingest;
mod removal;
mod sources;
mod support;
mod views;
