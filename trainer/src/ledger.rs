//! `ledger.jsonl`: what happened to a run out of the ordinary, one line for each event, for people and for the run itself.
//!
//! Rollbacks are commands: whoever goes on with the run leaves out the data that they name and lowers the rate as often
//! as they say. A rollback is on the disk before anything else of it happens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::dataset::Cursor;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Rollbacks before this line: which attempt at the run it belongs to.
    pub attempt: usize,
    /// Seconds since 1970.
    pub time: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The gradient's norm was unusual; the update was made.
    Warned {
        /// The update.
        step: usize,
        /// Mean negative log-likelihood of its tokens, in nats.
        loss: f64,
        /// The gradient's norm before clipping.
        gradient_norm: f64,
        /// Deviations of its logarithm above the running mean.
        z: f64,
    },
    /// The gradient's norm was too large; the update was left out, its data counts as seen.
    Skipped {
        /// The update.
        step: usize,
        /// Mean negative log-likelihood of its tokens, in nats.
        loss: f64,
        /// The gradient's norm before clipping.
        gradient_norm: f64,
        /// Deviations of its logarithm above the running mean.
        z: f64,
    },
    /// The run diverged, and went back to a checkpoint.
    RolledBack {
        /// The update at which it was noticed.
        step: usize,
        /// Updates of the checkpoint that it went back to.
        to_step: usize,
        /// The first place of the data that is left out from now on.
        from: Cursor,
        /// The first place behind it.
        until: Cursor,
        /// What the learning rate is multiplied by from here on, all rollbacks together.
        rate: f64,
        /// Why.
        reason: String,
    },
}

impl Event {
    /// The update.
    pub fn step(&self) -> usize {
        match self {
            Event::Warned { step, .. } | Event::Skipped { step, .. } | Event::RolledBack { step, .. } => *step,
        }
    }
}

/// The ledger of one run.
pub struct Ledger {
    file: PathBuf,
    entries: Vec<Entry>,
    /// Whether this worker writes the file.
    writes: bool,
}

/// The file's name in the run's folder.
pub const LEDGER: &str = "ledger.jsonl";

/// Why a ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is damaged.
    #[error(
        "{file}: line {line}: {source}: without it nobody knows which data the run leaves out; put the line right, or \
         begin another run"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// How.
        source: serde_json::Error,
    },
}

impl Ledger {
    /// Reads the ledger of a run; an absent one is empty. Half a line at the end, of a process that was killed, is dropped.
    ///
    /// # Errors
    /// Names the file and the line.
    pub fn open(run: &Path) -> Result<Ledger, LedgerError> {
        let file = run.join(LEDGER);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(LedgerError::File { file, source }),
        };
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let entries = whole
            .enumerate()
            .map(|(i, line)| {
                serde_json::from_str(line).map_err(|source| LedgerError::Damaged {
                    file: file.clone(),
                    line: i + 1,
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Ledger { file, entries, writes: true })
    }

    /// The same, of a worker that leaves the writing to another one.
    #[must_use]
    pub fn read_only(self) -> Ledger {
        Ledger { writes: false, ..self }
    }

    /// All lines.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The rollbacks, as (updates of the checkpoint, the data left out), in order.
    pub fn rollbacks(&self) -> impl Iterator<Item = (usize, Cursor, Cursor)> {
        self.entries.iter().filter_map(|entry| match entry.event {
            Event::RolledBack { to_step, from, until, .. } => Some((to_step, from, until)),
            _ => None,
        })
    }

    /// Adds a line, and returns when it is on the disk.
    ///
    /// # Errors
    /// Names the file.
    pub fn add(&mut self, event: Event) -> Result<(), LedgerError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let entry = Entry { attempt: self.rollbacks().count(), time, event };
        if !self.writes {
            self.entries.push(entry);
            return Ok(());
        }
        let error = |source| LedgerError::File { file: self.file.clone(), source };
        let line = serde_json::to_string(&entry).map_err(|e| error(e.into()))? + "\n";
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file).map_err(error)?;
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(error)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Drops the warnings and skips of the last attempt behind the checkpoint that the run goes on from, since they will
    /// be written again, and half a line.
    ///
    /// # Errors
    /// Names the file.
    pub fn forget_after(&mut self, step: usize) -> Result<(), LedgerError> {
        let attempt = self.rollbacks().count();
        let gone = |entry: &Entry| entry.attempt == attempt && entry.event.step() > step;
        self.entries.retain(|entry| !gone(entry));
        if !self.writes || !self.file.exists() {
            return Ok(());
        }
        let error = |source| LedgerError::File { file: self.file.clone(), source };
        let beside = self.file.with_extension("jsonl.part");
        let mut text = String::new();
        for entry in &self.entries {
            text += &serde_json::to_string(entry).map_err(|e| error(e.into()))?;
            text.push('\n');
        }
        fs::write(&beside, text)
            .and_then(|()| File::open(&beside)?.sync_all())
            .and_then(|()| fs::rename(&beside, &self.file))
            .map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_those_that_will_be_written_again_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        ledger.forget_after(0).unwrap();
        let at = |place| Cursor { epoch: 0, place };
        ledger.add(Event::Warned { step: 8, loss: 2.0, gradient_norm: 3.0, z: 4.5 }).unwrap();
        let reason = "why".to_owned();
        ledger.add(Event::RolledBack { step: 9, to_step: 5, from: at(7), until: at(12), rate: 0.5, reason }).unwrap();
        for step in [6, 8] {
            ledger.add(Event::Skipped { step, loss: 2.0, gradient_norm: 30.0, z: 9.0 }).unwrap();
        }
        let file = folder.path().join(LEDGER);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\"event\":\"rolled-back\"") && text.lines().count() == 4, "{text}");
        fs::write(&file, format!("{text}{{\"attem")).unwrap();
        let mut again = Ledger::open(folder.path()).unwrap();
        assert_eq!(again.entries(), ledger.entries());
        assert_eq!(again.rollbacks().collect::<Vec<_>>(), [(5, at(7), at(12))]);
        again.forget_after(6).unwrap();
        let steps: Vec<usize> = again.entries().iter().map(|e| e.event.step()).collect();
        assert_eq!(steps, [8, 9, 6], "the warning of the attempt before stays");
        assert_eq!(Ledger::open(folder.path()).unwrap().entries(), again.entries());
        fs::write(&file, "nonsense\n").unwrap();
        assert!(Ledger::open(folder.path()).err().unwrap().to_string().contains("line 1"));
    }
}
