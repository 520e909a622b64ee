//! `log.jsonl`, a line for each update, and `statistics.jsonl`, a line for each look into the layers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::statistics::LayerStatistics;

/// One line of `log.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The update, from 1.
    pub step: usize,
    /// Mean negative log-likelihood of its tokens, in nats.
    pub loss: f64,
    /// Mean z-loss.
    pub z_loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Whether the update was left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Tokens seen so far.
    pub tokens: u64,
    /// Tokens of this update for each second of it.
    pub tokens_per_second: f64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Seconds of this update.
    #[serde(default)]
    pub step_seconds: f64,
    /// CPU seconds of all threads for this update.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// Memory of the process behind the update, in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The most memory that the process has held, in bytes.
    #[serde(default)]
    pub peak_memory_bytes: u64,
    /// Share of the machine's measured peak that the model's arithmetic came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Bits per byte on held-out text, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout_bits_per_byte: Option<f64>,
}

/// One line of `statistics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// The update, from 1.
    pub step: usize,
    /// Every part of the model.
    pub layers: Vec<LayerStatistics>,
}

/// Why a file of the run cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {source}")]
pub struct LogError {
    file: PathBuf,
    source: io::Error,
}

impl LogError {
    pub(super) fn new(file: PathBuf, source: io::Error) -> LogError {
        LogError { file, source }
    }
}

/// The file with a line for each update.
pub const LOG: &str = "log.jsonl";
/// The file with a line for each look into the layers.
pub const STATISTICS: &str = "statistics.jsonl";
/// Lines of courses that the run has left.
pub const ABANDONED: &str = "log.abandoned.jsonl";

/// The logs of a run.
pub struct Log {
    run: PathBuf,
    log: File,
    statistics: File,
}

impl Log {
    /// Opens the logs of the run, without the lines behind update `step`: they will be written again.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(run: &Path, step: usize) -> Result<Log, LogError> {
        keep_until(&run.join(LOG), step)?;
        keep_until(&run.join(STATISTICS), step)?;
        Ok(Log { run: run.to_owned(), log: append(&run.join(LOG))?, statistics: append(&run.join(STATISTICS))? })
    }

    /// Adds the line of an update.
    ///
    /// # Errors
    /// Names the file.
    pub fn line(&mut self, line: &Line) -> Result<(), LogError> {
        write(&mut self.log, &self.run.join(LOG), line)
    }

    /// Adds a look into the layers.
    ///
    /// # Errors
    /// Names the file.
    pub fn look(&mut self, step: usize, layers: Vec<LayerStatistics>) -> Result<(), LogError> {
        write(&mut self.statistics, &self.run.join(STATISTICS), &Look { step, layers })
    }

    /// Goes back to update `step`: the lines behind it are moved to a file of their own.
    ///
    /// # Errors
    /// Names the file.
    pub fn go_back(&mut self, step: usize) -> Result<(), LogError> {
        let error = |file: &Path| {
            let file = file.to_owned();
            move |source| LogError { file, source }
        };
        let (log, abandoned) = (self.run.join(LOG), self.run.join(ABANDONED));
        let text = fs::read_to_string(&log).map_err(error(&log))?;
        let left: String = text.split_inclusive('\n').filter(|line| !belongs(line, step)).collect();
        append(&abandoned)?.write_all(left.as_bytes()).map_err(error(&abandoned))?;
        *self = Log::open(&self.run, step)?;
        Ok(())
    }
}

fn append(file: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().create(true).append(true).open(file);
    opened.map_err(|source| LogError { file: file.to_owned(), source })
}

/// In one piece, so that a killed process leaves no half line.
fn write(out: &mut File, file: &Path, line: &impl Serialize) -> Result<(), LogError> {
    let text = serde_json::to_string(line).map_err(io::Error::from);
    text.and_then(|text| out.write_all((text + "\n").as_bytes()))
        .map_err(|source| LogError { file: file.to_owned(), source })
}

/// Whether a line is whole and of an update up to `step`.
fn belongs(line: &str, step: usize) -> bool {
    line.ends_with('\n')
        && serde_json::from_str::<Value>(line).is_ok_and(|l| l["step"].as_u64().is_some_and(|s| s <= step as u64))
}

fn keep_until(file: &Path, step: usize) -> Result<(), LogError> {
    let Ok(text) = fs::read_to_string(file) else { return Ok(()) };
    let kept: String = text.split_inclusive('\n').filter(|line| belongs(line, step)).collect();
    let beside = file.with_extension("jsonl.part");
    fs::write(&beside, kept)
        .and_then(|()| fs::rename(&beside, file))
        .map_err(|source| LogError { file: file.to_owned(), source })
}

/// The whole lines of a file that can be read; none where there is no file.
pub fn read_lines<T: for<'d> Deserialize<'d>>(file: &Path) -> Vec<T> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
