//! Progress: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress is told.
pub struct Report {
    silent: bool,
    bar: Option<ProgressBar>,
    last: Option<Instant>,
    /// Floating-point operations a second that the machine was measured to come to, where it was.
    pub peak: Option<f64>,
}

/// Without a terminal, a line is written at most this often.
const EVERY: Duration = Duration::from_secs(10);

impl Report {
    /// Reports to standard error.
    pub fn new() -> Report {
        Report { silent: false, bar: stderr().is_terminal().then(ProgressBar::new_spinner), last: None, peak: None }
    }

    /// Says nothing: of a worker that leaves it to another one.
    pub fn silent() -> Report {
        Report { silent: true, bar: None, last: None, peak: None }
    }

    /// One line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            _ if self.silent => {}
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// How far a long piece of work is; shown as a bar, or as a line now and then.
    pub fn progress(&mut self, done: usize, all: usize, message: &str) {
        match &self.bar {
            _ if self.silent => {}
            Some(bar) => {
                if bar.length() != Some(all as u64) {
                    bar.set_length(all as u64);
                    if let Ok(style) =
                        ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} (eta {eta}) {msg}")
                    {
                        bar.set_style(style);
                    }
                }
                bar.set_position(done as u64);
                bar.set_message(message.to_owned());
            }
            None if done == all || self.last.is_none_or(|last| last.elapsed() >= EVERY) => {
                eprintln!("{done}/{all} {message}");
                self.last = Some(Instant::now());
            }
            None => {}
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Report::new()
    }
}
