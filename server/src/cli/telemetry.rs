//! Where the log goes, and how much of it.

use std::io;

use tracing_subscriber::EnvFilter;

/// Sends the log to standard error. `RUST_LOG` says how much; without it, `default` does.
pub fn init(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A subscriber that is there already stays: in a test, for instance.
    let _ = log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init();
}
