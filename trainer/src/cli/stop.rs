//! Signals that ask a training to stop.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use anyhow::{Context, Result};
use safelmm_trainer::slurm::SAVED;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// The exit code of a run that Ctrl-C, or a terminal that went away, ended, so that a script does not take it for a
/// finished one.
const INTERRUPTED: i32 = 130;

/// Whether the training was asked to stop, and how.
pub struct Stop {
    /// It was.
    pub asked: Arc<AtomicBool>,
    code: Arc<AtomicI32>,
}

impl Stop {
    /// Listens from now on. A second Ctrl-C ends the process.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> Result<Stop> {
        let stop = Stop { asked: Arc::default(), code: Arc::new(AtomicI32::new(INTERRUPTED)) };
        let (asked, code) = (Arc::clone(&stop.asked), Arc::clone(&stop.code));
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]).context("cannot listen for signals")?;
        thread::spawn(move || {
            let mut interrupts = 0;
            for signal in signals.forever() {
                if signal == SIGINT {
                    interrupts += 1;
                    if interrupts > 1 {
                        exit(INTERRUPTED); // at once, without a checkpoint
                    }
                }
                if asked.load(Ordering::Relaxed) {
                    continue;
                }
                let scheduler = matches!(signal, SIGTERM | SIGUSR1);
                code.store(if scheduler { SAVED } else { INTERRUPTED }, Ordering::Relaxed);
                asked.store(true, Ordering::Release);
                let more = if scheduler { "" } else { "; Ctrl-C once more to stop at once" };
                eprintln!("stopping after this step{more}");
            }
        });
        Ok(stop)
    }

    /// The exit code of a training that stopped because it was asked to.
    pub fn code(&self) -> i32 {
        self.code.load(Ordering::Acquire)
    }
}
