//! The `synfit` command: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    synfit::cli::main()
}
