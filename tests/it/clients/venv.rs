//! Virtual environments with the packages of the clients.
//!
//! Each is made once, in the folder `SAFELMM_TEST_CACHE` or else below the build folder. `SAFELMM_TEST_VENV` names one that
//! has all the packages already.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// A virtual environment: its name, and what it holds under the names of the index and of the language.
#[derive(Clone, Copy)]
pub struct Venv {
    name: &'static str,
    packages: &'static [&'static str],
    modules: &'static [&'static str],
}

/// The `openai` package, and LangChain's, which takes the newest of it.
pub const OPENAI: Venv =
    Venv { name: "openai", packages: &["openai", "langchain-openai"], modules: &["openai", "langchain_openai"] };
/// LiteLLM, alone because it asks for one release of `openai`.
pub const LITELLM: Venv = Venv { name: "litellm", packages: &["litellm"], modules: &["litellm"] };

impl Venv {
    /// Its interpreter; where it can neither be found nor made, the reason is printed.
    pub async fn python(&self) -> Option<PathBuf> {
        let venv = *self;
        match blocking(move || venv.find_or_make()).await {
            Ok(python) => Some(python),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    fn find_or_make(&self) -> Result<PathBuf, String> {
        if let Some(venv) = std::env::var_os("SAFELMM_TEST_VENV") {
            let python = PathBuf::from(venv).join("bin/python");
            // Asked for by name: a venv without the packages is an error, not a reason to skip.
            find(&python, self.modules).unwrap();
            return Ok(python);
        }
        // Tests run side by side and share the environments.
        static MAKING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = std::env::var_os("SAFELMM_TEST_CACHE").unwrap_or(env!("CARGO_TARGET_TMPDIR").into());
        let venv = Path::new(&cache).join(self.name);
        let python = venv.join("bin/python");
        if find(&python, self.modules).is_err() {
            command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"];
            command(Command::new(&python).args(install))?;
            // uv, because pip takes minutes to choose releases for these.
            let install = ["-m", "uv", "pip", "install", "--quiet", "--python"];
            command(Command::new(&python).args(install).arg(&python).args(self.packages))?;
        }
        Ok(python)
    }
}

/// Whether an interpreter has all these modules, without the seconds it takes to import them; if not, what it says.
pub fn find(python: &Path, modules: &[&str]) -> Result<(), String> {
    const FIND: &str =
        "import sys, importlib.util as u; sys.exit([m for m in sys.argv[1:] if not u.find_spec(m)] or 0)";
    command(Command::new(python).args(["-c", FIND]).args(modules))
}

/// Runs what blocks away from the threads that serve.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn command(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", both(&output))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// What a command wrote.
pub fn both(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
