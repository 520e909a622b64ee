//! Lines for the operator's log. Never the text of a user.

pub use crate::bindings::safelmm::policy::log::Level;

/// Writes a line: to the host's log in a component, to the standard error output elsewhere.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::safelmm::policy::log::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("[{level:?}] {message}");
}

/// Writes a line for who looks for a mistake.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// Writes a line about something as it should be.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Writes a line about something that is not as it should be.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Writes a line about something that failed.
pub fn error(message: &str) {
    log(Level::Error, message);
}
