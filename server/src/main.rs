//! The binary `campanile`: a node, and the command line for a cluster of them.

#[cfg(not(madsim))]
mod allocator;
#[cfg(not(madsim))]
mod cli;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    allocator::keep_little();
    cli::main()
}

/// Under the simulator nodes run inside `campanile-sim`; this binary is empty there.
#[cfg(madsim)]
fn main() {}
