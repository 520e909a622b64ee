//! Clients of the OpenAI API as their users have them, unmodified, against the server: each file in `clients/` is what
//! the users of one package do. They are skipped where neither the packages nor an installed copy can be had.

mod harness;
pub mod venv;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safelmm_plugins::Verdict;

use crate::support::TestApp;
use venv::{LITELLM, OPENAI, Venv, blocking};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai() {
    let Some(python) = OPENAI.python().await else { return };
    run(python, "openai_client.py", &TestApp::start().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_meets_a_full_server_and_waits_as_long_as_it_is_told() {
    full_server(OPENAI, "openai_client.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn langchain() {
    let Some(python) = OPENAI.python().await else { return };
    run(python, "langchain_client.py", &TestApp::start().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn litellm() {
    let Some(python) = LITELLM.python().await else { return };
    run(python, "litellm_client.py", &TestApp::start().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn litellm_tells_a_full_server_from_a_policy_that_denies() {
    let Some(python) = LITELLM.python().await else { return };
    let app = TestApp::with().control_tokens(Verdict::Deny).start().await;
    run(python, "litellm_client.py", &app, &["denied"]).await;
    full_server(LITELLM, "litellm_client.py").await;
}

/// Runs the check `busy` of a client on a server that is full until the client says that it was refused.
async fn full_server(venv: Venv, script: &str) {
    let Some(python) = venv.python().await else { return };
    let app = TestApp::with().max_batch(1).queue(1).start().await;
    let running = app.occupy().await;
    let waiting = {
        // Small, so that the server expects to have room again soon.
        let body = serde_json::json!({"prompt": "The", "max_tokens": 1});
        let (client, url) = (app.client.clone(), format!("{}/v1/completions", app.base));
        tokio::spawn(async move { client.post(url).json(&body).send().await })
    };
    app.until_engine_has(1, 1).await;
    let mut child = command(&python, script, &app, &["busy"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    blocking(move || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "refused\n");
    })
    .await;
    drop(running);
    waiting.abort();
    assert!(blocking(move || child.wait().unwrap()).await.success());
}

/// Runs a client's checks against a server: all of them, or those named.
async fn run(python: PathBuf, script: &str, app: &TestApp, checks: &[&str]) {
    let mut command = command(&python, script, app, checks);
    let output = blocking(move || command.output().unwrap()).await;
    assert!(output.status.success(), "{}", venv::both(&output));
}

fn command(python: &Path, script: &str, app: &TestApp, checks: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(folder().join(script)).arg(&app.base).arg(app.model()).args(checks);
    command
}

/// Where the clients' files are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/clients")
}
