//! The command line: one file a command. Exit codes: 0 done, 1 the work failed, 2 wrong use or unreadable input.

mod bench;
mod check;
mod chips;
mod convert;
mod demo;
mod devices;
mod graph;
mod images;
mod inspect;
mod job;
mod kept;
mod memory;
mod output;
mod progress;
mod prune;
mod search;
mod simulate;
mod solve;
mod table;
mod timing;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Kind, Result};

/// Fits a trained network to a spiking chip, layer by layer.
#[derive(Parser)]
#[command(name = "synfit", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Convert the built-in digits network and report: no other file needed
    Demo(demo::Args),
    /// Convert an ONNX network to a spiking network for a chip
    Convert(Box<convert::Args>),
    /// Run a converted network on images and compare it with the original
    Simulate(simulate::Args),
    /// Repeat a conversion and have its layer problems solved again by an independent code
    Check(check::Args),
    /// Make a finished conversion smaller, or see what smaller layers would cost
    Prune(prune::Args),
    /// Solve one bare layer problem
    Solve(solve::Args),
    /// Show a model's layers and whether they map, before any work
    Inspect(inspect::Args),
    /// Measure the kernels and whole conversions on this machine's devices
    Bench(bench::Args),
    /// List the devices that synfit can compute on
    Devices(devices::Args),
    /// List the built-in chips, or show one
    Chips(chips::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SYNFIT_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error")),
        )
        .with_writer(std::io::stderr)
        .init();
    let cli = match parsed() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}{e}", if e.kind == Kind::Interrupted { "synfit: " } else { "error: " });
            ExitCode::from(e.exit_code())
        }
    }
}

/// The command line; what is wrong with it is told in one line, like any other bad input.
fn parsed() -> std::result::Result<Cli, ExitCode> {
    // a value below zero is a value, for its own flag to refuse
    let command = Cli::command().mut_subcommands(|command| command.allow_negative_numbers(true));
    let cli = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    cli.map_err(|e| {
        use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Nothing;
        if !e.use_stderr() || e.kind() == Nothing {
            // help and version, or help instead of a command
            let _ = e.print();
        } else {
            let text = e.render().to_string();
            let line: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
            let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: a similar"));
            let tip = tip.map(|tip| format!(" (a similar{tip})")).unwrap_or_default();
            eprintln!("{}{tip}", line.join(" "));
        }
        ExitCode::from(e.exit_code() as u8)
    })
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Solve(args) => solve::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Chips(args) => chips::run(&args),
    }
}
