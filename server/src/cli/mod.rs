//! The command line: arguments as the user wrote them, and the two commands.

mod args;
mod generate;
mod load;
mod serve;
mod telemetry;

pub use args::{Cli, Command, GenerateArgs, ServeArgs};
pub use generate::{Ending, GenerateFailure, generate};
pub use serve::{ServeFailure, serve};
pub use telemetry::init as init_telemetry;
