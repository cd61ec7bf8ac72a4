//! The `synfit` command: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Mesa's device-select layer asks the desktop which GPU it prefers, and complains on stderr where there is none.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    synfit::cli::main()
}
