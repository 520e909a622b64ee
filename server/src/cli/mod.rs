//! The command line: arguments as the user wrote them, and the commands.

mod args;
mod generate;
mod interrupt;
mod key;
mod load;
mod log;
mod plugin;
mod serve;
mod store;
mod telemetry;
mod traces;

pub use args::{Cli, Command, GenerateArgs, KeyCommand, KeyFileArg, NewKeyArgs, ServeArgs};
pub use generate::{Ending, GenerateFailure, generate};
pub use key::{KeyFailure, key};
pub use log::say;
pub use plugin::{PluginCommand, PluginFailure, plugin};
pub use serve::{ServeFailure, serve};
pub use store::{StoreCommand, StoreFailure, store};
pub use telemetry::{Telemetry, TelemetryFailure};
