//! lm-evaluation-harness over HTTP, beside its own backend for `transformers` on the same checkpoint.
//!
//! The demo's weights are served as an unrated model: a rated one puts the rating before every prompt, of which the
//! other backend knows nothing.

use std::process::Command;

use super::folder;
use super::venv::{blocking, both, find};
use crate::support::{TestApp, bare_checkpoint};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lm_evaluation_harness_finds_what_it_finds_with_transformers() {
    let Some(python) = std::env::var_os("SAFELMM_TEST_TRANSFORMERS") else {
        eprintln!("skipped: SAFELMM_TEST_TRANSFORMERS names no Python with torch, transformers and lm_eval");
        return;
    };
    if let Err(reason) = find(python.as_ref(), &["lm_eval", "torch", "transformers", "accelerate"]) {
        eprintln!("skipped: {reason}");
        return;
    }
    let (checkpoint, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    bare_checkpoint(checkpoint.path());
    let app = TestApp::with().checkpoint(checkpoint.path()).start().await;
    let mut command = Command::new(python);
    command.arg(folder().join("lm_eval_client.py")).arg(&app.base).arg(app.model()).arg(checkpoint.path());
    command.env("HF_HOME", cache.path());
    let output = blocking(move || command.output().unwrap()).await;
    assert!(output.status.success(), "{}", both(&output));
}
