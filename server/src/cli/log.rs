//! Standard error: the log, and what the user is told.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines wait for a reader of standard error that is slow; more are lost.
const WAITING_LINES: usize = 10_000;

/// Where [`say`] writes once the server's log is set up.
static SERVER: OnceLock<NonBlocking> = OnceLock::new();

/// Makes a thread of its own write what [`say`], the log and panics put on standard error, so that a pipe that is full
/// and that nobody reads does not stop the server. What waits is written when the guard is dropped, for a second at most;
/// what is said later is lost.
pub(super) fn for_server() -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("log");
    let (writer, guard) = builder.finish(io::stderr());
    if SERVER.set(writer.clone()).is_ok() {
        panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            say(&format!("thread '{}' {panic}\n", thread.name().unwrap_or("unnamed")));
            let trace = Backtrace::capture();
            if trace.status() == BacktraceStatus::Captured {
                say(&format!("{trace}\n"));
            }
        }));
    }
    (writer, guard)
}

/// Writes to standard error for the user. That it is closed is no reason to stop.
pub fn say(text: &str) {
    let write = |to: &mut dyn Write| to.write_all(text.as_bytes()).and_then(|()| to.flush());
    let _ = match SERVER.get() {
        Some(server) => write(&mut server.clone()),
        None => write(&mut io::stderr()),
    };
}
