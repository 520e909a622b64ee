//! Programs that are measured: servers, and scripts that answer line by line.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a program may take to load a model.
const LOADING: Duration = Duration::from_secs(600);

/// The folder of the peers' scripts.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Builds the binary `safelmm`, so that what is measured is what stands here, and returns its place.
///
/// # Errors
/// When it does not compile.
pub fn build_safelmm() -> Result<PathBuf> {
    // Chosen together with this package, so that no dependency is built again with fewer features.
    let build = ["build", "--release", "--quiet", "-p", "safelmm-server", "-p", "safelmm-benches", "--bin", "safelmm"];
    let status = Command::new(env!("CARGO")).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    ensure!(status.success(), "safelmm does not compile");
    let here = std::env::current_exe()?;
    Ok(here.with_file_name("safelmm"))
}

/// A free port of this machine.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A child process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of the OpenAI API.
pub struct Server {
    /// Such as `http://127.0.0.1:1234`.
    pub base: String,
    _running: Running,
}

impl Server {
    /// Starts a program and waits until it lists its models on this port.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready within ten minutes.
    pub async fn start(command: &mut Command, port: u16) -> Result<Server> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut running = Running(child.with_context(|| format!("{command:?} cannot be run"))?);
        let base = format!("http://127.0.0.1:{port}");
        let started = Instant::now();
        loop {
            if let Some(status) = running.0.try_wait()? {
                bail!("{command:?} ended before it served: {status}");
            }
            let answer = reqwest::get(format!("{base}/v1/models")).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(Server { base, _running: running });
            }
            ensure!(started.elapsed() < LOADING, "{command:?} was not ready within {} s", LOADING.as_secs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A script that measures itself: a line in, a line with numbers out.
pub struct Script {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _running: Running,
}

impl Script {
    /// Starts a script of [`peers`] and waits for its first line.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn start(python: &Path, name: &str, arguments: &[&OsStr]) -> Result<Script> {
        let mut command = Command::new(python);
        command.arg(peers().join(name)).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{command:?} cannot be run"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        let mut script = Script { input, output: BufReader::new(output), _running: Running(child) };
        script.line()?;
        Ok(script)
    }

    /// What the script measures for these words.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&mut self, words: &str) -> Result<f64> {
        let [number] = self.ask_numbers(words)?;
        Ok(number)
    }

    /// As [`Self::ask`], of a script that measures several things at once.
    ///
    /// # Errors
    /// When it fails, or answers with another number of numbers.
    pub fn ask_numbers<const N: usize>(&mut self, words: &str) -> Result<[f64; N]> {
        writeln!(self.input, "{words}")?;
        let line = self.line()?;
        let numbers: Option<Vec<f64>> = line.split_whitespace().map(|number| number.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.with_context(|| format!("expected {N} numbers for {words:?}, found {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the peer's script ended");
        Ok(line)
    }
}
