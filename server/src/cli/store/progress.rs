//! How far long work has come: a bar on a terminal, plain lines elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::log::say;

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// The progress of one piece of work.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    unit: &'static str,
    begun: Instant,
    told: Cell<Instant>,
}

impl Progress {
    /// Begins now.
    pub(super) fn new(unit: &'static str) -> Self {
        let bar = stderr().is_terminal().then(ProgressBar::new_spinner);
        let now = Instant::now();
        Progress { bar, unit, begun: now, told: Cell::new(now) }
    }

    /// So much is done, of so much where that is known.
    pub(super) fn at(&self, done: u64, total: Option<u64>, more: &str) {
        if let Some(bar) = &self.bar {
            if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                bar.set_length(total);
                if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {msg} ({eta} left)") {
                    bar.set_style(style);
                }
            }
            bar.set_position(done);
            let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(1e-3);
            bar.set_message(match total {
                Some(_) => self.unit.to_owned(),
                None => format!("{done} {}, {rate:.0}/s; {more}", self.unit),
            });
        } else if self.told.get().elapsed() >= EVERY {
            self.told.set(Instant::now());
            let of = total.map_or_else(String::new, |total| format!(" of {total}"));
            let more = if more.is_empty() { String::new() } else { format!("; {more}") };
            say(&format!("{done}{of} {}{more}\n", self.unit));
        }
    }

    /// Ends the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
