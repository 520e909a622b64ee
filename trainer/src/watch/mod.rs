//! What a run tells while it trains: files that people and their tools read.

mod energy;
mod html;
mod log;
mod plot;
mod tensorboard;
mod wandb;

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Map, Value};

pub use energy::{Footprint, METHOD, Method, footprint};
pub use log::{ABANDONED, LOG, Line, Log, LogError, Look, STATISTICS, read_lines};
use tensorboard::TensorBoard;

use crate::run_state::{self, StateError};
use crate::statistics::LayerStatistics;

/// The page in a run's folder.
pub const REPORT: &str = "report.html";

/// Everything that is written of a run while it goes on.
pub struct Telling {
    run: PathBuf,
    log: Log,
    board: TensorBoard,
}

impl Telling {
    /// Opens the files of the run, which goes on behind update `step`.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(run: &Path, step: usize) -> Result<Telling, LogError> {
        let board = TensorBoard::open(run, step).map_err(LogError::from)?;
        Ok(Telling { run: run.to_owned(), log: Log::open(run, step)?, board })
    }

    /// Tells of an update.
    ///
    /// # Errors
    /// Names the file.
    pub fn line(&mut self, line: &Line) -> Result<(), LogError> {
        self.log.line(line)?;
        let mut scalars = vec![
            ("train/loss".to_owned(), line.loss),
            ("train/z_loss".to_owned(), line.z_loss),
            ("train/gradient_norm".to_owned(), line.gradient_norm),
            ("train/learning_rate".to_owned(), line.learning_rate),
            ("speed/tokens_per_second".to_owned(), line.tokens_per_second),
            ("machine/memory_bytes".to_owned(), line.memory_bytes as f64),
        ];
        scalars.extend(line.mfu.map(|mfu| ("speed/mfu".to_owned(), mfu)));
        scalars.extend(line.heldout_bits_per_byte.map(|bits| ("heldout/bits_per_byte".to_owned(), bits)));
        Ok(self.board.scalars(line.step, &scalars)?)
    }

    /// Tells of a look into the layers.
    ///
    /// # Errors
    /// Names the file.
    pub fn look(&mut self, step: usize, layers: Vec<LayerStatistics>) -> Result<(), LogError> {
        let scalars: Vec<(String, f64)> = layers
            .iter()
            .flat_map(|layer| {
                let name = &layer.layer;
                let mut scalars = vec![
                    (format!("gradient_norm/{name}"), layer.gradient_norm),
                    (format!("weight_norm/{name}"), layer.weight_norm),
                ];
                if let Some(activations) = layer.activations {
                    scalars.push((format!("activation_rms/{name}"), activations.rms));
                    scalars.push((format!("activation_largest/{name}"), activations.largest));
                    scalars.push((format!("attention_logit/{name}"), activations.attention_logit));
                }
                scalars
            })
            .collect();
        self.board.scalars(step, &scalars)?;
        self.log.look(step, layers)
    }

    /// Goes back to update `step`: what was told of later ones is put aside.
    ///
    /// # Errors
    /// Names the file.
    pub fn go_back(&mut self, step: usize) -> Result<(), LogError> {
        self.log.go_back(step)?;
        self.board = TensorBoard::open(&self.run, step)?;
        Ok(())
    }
}

/// Writes `report.html` into a run's folder and returns its path. `name` and `config` are the run's.
///
/// # Errors
/// Names the file.
pub fn write_report(run: &Path, name: &str, config: Option<&Value>) -> Result<PathBuf, LogError> {
    let (file, beside) = (run.join(REPORT), run.join("report.html.part"));
    fs::write(&beside, html::page(run, name, config))
        .and_then(|()| fs::rename(&beside, &file))
        .map_err(|e| LogError::from((file.clone(), e)))?;
    Ok(file)
}

/// The name and the configuration of a run, by its newest checkpoint; the name of its folder where it has none.
///
/// # Errors
/// A damaged checkpoint.
pub fn name_and_config(run: &Path) -> Result<(String, Option<Value>), StateError> {
    let folder = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(newest) = run_state::checkpoints(run)?.pop() else { return Ok((folder, None)) };
    let config = run_state::read_config(&newest)?;
    let name = config["name"].as_str().map_or(folder, str::to_owned);
    Ok((name, Some(config)))
}

/// Writes the run as an offline run of W&B into `folder`, and returns what `wandb sync` takes.
///
/// # Errors
/// Names the file.
pub fn write_wandb(
    run: &Path,
    folder: &Path,
    project: &str,
    name: &str,
    config: Option<&Value>,
) -> Result<PathBuf, LogError> {
    let history: Vec<Map<String, Value>> = read_lines(&run.join(LOG));
    let empty = Map::new();
    let config = config.and_then(Value::as_object).unwrap_or(&empty);
    let started = fs::metadata(run.join(LOG)).and_then(|meta| meta.created().or_else(|_| meta.modified()));
    let started = started.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let started = started.map_or(0, |since| since.as_secs());
    let export = wandb::Export { name, project, config, history: &history, started };
    Ok(wandb::write(folder, &export)?)
}

impl From<(PathBuf, io::Error)> for LogError {
    fn from((file, source): (PathBuf, io::Error)) -> LogError {
        LogError::new(file, source)
    }
}
