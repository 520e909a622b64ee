//! What the README shows is run.

use std::path::{Path, PathBuf};
use std::process::Command;

use safelmm_server::Config;
use serde_json::{Value, json};

use crate::clients::venv::OPENAI;
use crate::support::TestApp;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The fenced blocks of a language in README.md.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks: Vec<String> =
        text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect();
    assert!(!blocks.is_empty(), "README.md shows no {language}");
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_of_the_readme_runs() {
    let Some(python) = OPENAI.python().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let app = TestApp::with().stores(folder.path()).start().await;
    app.ok("/v1/stores", json!({"name": "harbour"})).await;
    let tales = std::fs::read_to_string(root().join("demo/store/harbour.jsonl")).unwrap();
    let documents: Vec<Value> = tales.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    app.ok("/v1/stores/harbour/documents", json!({"documents": documents})).await;
    for block in blocks("python") {
        let code = block.replace("http://127.0.0.1:8080", &app.base);
        assert_ne!(code, block, "the example talks to another address");
        let python = python.clone();
        let run = move || Command::new(python).args(["-c", &code]).output().unwrap();
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.len() > 100, "it printed next to nothing");
    }
}

#[test]
fn the_configuration_with_every_setting_is_the_default() {
    let overrides =
        safelmm_server::config::Overrides { file: Some(root().join("demo/safelmm.toml")), ..Default::default() };
    let mut resolved = Config::resolve(overrides).unwrap();
    // Where it was read from, so that it can be read again.
    assert!(resolved.policy.file.take().is_some());
    assert_eq!(format!("{resolved:?}"), format!("{:?}", Config::default()));
}

#[test]
fn the_commands_of_the_readme_name_what_is_there() {
    let commands = blocks("sh").join("\n");
    for command in ["cargo run --release -- serve", "cargo test --release --workspace"] {
        assert!(commands.lines().any(|line| line == command), "README.md does not show `{command}`");
    }
    for word in commands.split_whitespace().filter(|w| w.starts_with("demo/") || w.starts_with(".ci/")) {
        assert!(root().join(word).exists(), "README.md names {word}, which is not there");
    }
}
