//! `campanile-sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    campanile_sim::cli::main()
}
