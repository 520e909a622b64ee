//! Ctrl-C for commands that stop by themselves.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::log::say;

/// What shells report for a command that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Sets the flag at the first Ctrl-C; the second one ends the program. The thread that waits ends with the process.
pub(super) fn watch(flag: &Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let flag = Arc::clone(flag);
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(INTERRUPTED);
                }
                say("\nstopping; Ctrl-C again to stop at once\n");
            }
        });
    })?;
    Ok(())
}
