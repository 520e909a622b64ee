//! The command `safelmm`: parse, resolve the configuration, start telemetry, run.

use std::process::ExitCode;

use clap::Parser;
use safelmm_server::Config;
use safelmm_server::cli::{self, Cli, Command, Ending};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What shells report for a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => {
            cli::init_telemetry("info");
            let config = Config::resolve(args.into())?;
            cli::serve(&config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Key(command) => {
            cli::key(command)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Generate(args) => {
            cli::init_telemetry("warn");
            Ok(match cli::generate(args)? {
                Ending::Complete => ExitCode::SUCCESS,
                Ending::Interrupted => ExitCode::from(INTERRUPTED),
            })
        }
    }
}
