//! The command line: reads arguments, asks the cluster through `campanile-client` (or computes offline), prints.
//!
//! Duties: tables for people and one JSON document under `--json`, both on standard output; errors on standard error;
//! an exit status that says what is known of the effect ([`failure::Exit`]). It must never panic on what a user types,
//! a cluster answers or a pipe does, and never writes what was not asked for.

mod bench;
mod cluster;
mod connection;
mod definition;
mod demo;
mod dev;
mod failure;
mod import;
mod next;
mod output;
#[cfg(test)]
mod reference;
mod run;
mod serve;
mod task;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use connection::Connection;
use failure::{Exit, Failure};
use output::Output;

/// Campanile: a scheduling cluster that fires every occurrence exactly once.
#[derive(Debug, Parser)]
#[command(name = "campanile", version, arg_required_else_help = true, after_help = failure::EXIT_STATUS_HELP)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,

    /// Print one JSON document instead of tables
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(Box<serve::Serve>),
    /// Run a cluster of several nodes on this machine, to try things with
    Dev(dev::Dev),
    /// Show a cluster at work: real tasks, the leader killed half way, and a verdict on what fired
    Demo(demo::Demo),
    /// Measure a cluster on this machine
    Bench(bench::Bench),
    /// Create, read, change and fire tasks
    #[command(subcommand)]
    Task(Box<task::Task>),
    /// Read and cancel runs
    #[command(subcommand)]
    Run(run::Run),
    /// Show and change the cluster
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Make tasks of other programs' files
    #[command(subcommand)]
    Import(import::Import),
    /// Show when an expression is due; asks no cluster
    Next(next::Next),
    /// Print a completion script for a shell
    Completions {
        /// The shell to print it for
        shell: clap_complete::Shell,
    },
}

/// Parses, runs, reports. Usage errors and `--help` are clap's and exit with 2 and 0.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new(cli.json);
    let result = cli.command.run(&cli.connection, &mut output).and_then(|()| output.flush());
    let exit = match result {
        Ok(()) => Exit::Done,
        Err(failure) => failure.report(cli.json),
    };
    ExitCode::from(exit as u8)
}

impl Command {
    fn run(self, connection: &Connection, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Serve(serve) => serve.run(output),
            Self::Dev(dev) => dev.run(output),
            Self::Demo(demo) => demo.run(),
            Self::Bench(bench) => bench.run(output),
            Self::Next(next) => next.run(output),
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "campanile", &mut script);
                output.bytes(&script)
            }
            Self::Task(task) => connection.block_on(async |client| task.run(client, output).await),
            Self::Run(run) => connection.block_on(async |client| run.run(client, output).await),
            Self::Cluster(cluster) => connection.block_on(async |client| cluster.run(client, output).await),
            Self::Import(import) => import.run(connection, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }
}
