//! `campanile-sim`.

use std::process::ExitCode;

/// A simulation is one thread that allocates all the time; this takes a seventh off it.
#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    campanile_sim::cli::main()
}
