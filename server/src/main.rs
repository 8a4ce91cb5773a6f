//! The binary `campanile`: a node, and the command line for a cluster of them.

#[cfg(not(madsim))]
mod cli;

/// Submits and fires are many small allocations on several threads.
#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    cli::main()
}

/// Under the simulator nodes run inside `campanile-sim`; this binary is empty there.
#[cfg(madsim)]
fn main() {}
