//! The command `safelmm`: parse, resolve the configuration, start telemetry, run.

use std::process::ExitCode;

use clap::Parser;
use safelmm_server::Config;
use safelmm_server::cli::{self, Cli, Command, Ending, Telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What shells report for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Dropped at the very end: what went wrong is written through it.
    let mut telemetry = None;
    match run(Cli::parse(), &mut telemetry) {
        Ok(code) => code,
        Err(error) => {
            // Each error tells its cause in its own text.
            cli::say(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, telemetry: &mut Option<Telemetry>) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => {
            let config = Config::resolve(args.into())?;
            *telemetry = Some(Telemetry::for_server(&config.telemetry)?);
            cli::serve(&config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Key(command) => {
            cli::key(command)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Store(command) => {
            cli::store(command)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Plugin(command) => {
            *telemetry = Some(Telemetry::for_command());
            cli::plugin(command)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Generate(args) => {
            *telemetry = Some(Telemetry::for_command());
            Ok(match cli::generate(args)? {
                Ending::Complete => ExitCode::SUCCESS,
                Ending::Interrupted => ExitCode::from(INTERRUPTED),
            })
        }
    }
}
