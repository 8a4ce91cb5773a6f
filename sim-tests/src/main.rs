//! `campanile-sim`.

use std::process::ExitCode;

#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: campanile_sim::world::allocator::Counting = campanile_sim::world::allocator::Counting;

fn main() -> ExitCode {
    campanile_sim::cli::main()
}
