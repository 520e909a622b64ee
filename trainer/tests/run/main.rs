//! Runs in small, from documents to what is served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking, in helpers too")]

mod finetune;
mod gpu;
mod parallel;
mod pretrain;
mod slurm;
mod stability;
mod support;
mod tools;
mod watch;
