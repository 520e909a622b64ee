//! `safelmm-train`: data preparation, pretraining, fine-tuning, evaluation and export.

mod cli;

use anyhow::Result;
use clap::Parser;

// Keeps freed memory: a training step allocates the same large buffers again and again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    cli::Args::parse().run()
}
