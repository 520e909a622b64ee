//! The `openai` package for Python, unmodified, against the server.
//!
//! The package is installed into a virtual environment below the build folder; `SAFELMM_TEST_VENV` names one that has it
//! already. Where neither python3 nor the package can be had, the test says so and passes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::TestApp;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openai_client_works_unmodified() {
    let python = match tokio::task::spawn_blocking(python_with_openai).await.unwrap() {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let app = TestApp::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/openai_client.py");
    let (base, model) = (app.base.clone(), app.model().to_owned());
    let run = move || Command::new(python).arg(script).arg(base).arg(model).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

/// The interpreter of a virtual environment that has the package, or why there is none.
pub fn python_with_openai() -> Result<PathBuf, String> {
    if let Some(venv) = std::env::var_os("SAFELMM_TEST_VENV") {
        let python = PathBuf::from(venv).join("bin/python");
        // Asked for by name: a venv without the package is an error, not a reason to skip.
        command(Command::new(&python).args(["-c", "import openai"])).unwrap();
        return Ok(python);
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-venv");
    let python = venv.join("bin/python");
    if command(Command::new(&python).args(["-c", "import openai"])).is_ok() {
        return Ok(python);
    }
    command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    command(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "openai"]))?;
    Ok(python)
}

fn command(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", both(&output))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
