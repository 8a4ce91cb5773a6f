//! The command line: simulate a seed, many seeds, the same seed again, a smaller case of it; judge a stored history.
//!
//! One process simulates one seed, because madsim allows no more. Whatever needs several starts this program again.

mod check;
mod child;
mod corpus;
mod cost;
mod hunt;
mod mutate;
mod names;
mod output;
mod real;
#[cfg(test)]
mod reference;
mod replay;
mod run;
mod shrink;
mod simulator;
mod speed;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::scenario::{self, Scenario};
use child::Simulator;
use output::Output;

pub const EXIT_STATUS_HELP: &str = "Exit status:\n  \
    0  all that was promised and expected held\n  \
    1  something was violated, or a seed ran differently the second time, or what was to be found was not\n  \
    2  the command line, a scenario, a plan or a history is wrong, or this build has no simulator\n  \
    3  simulated time stood still: a node tries something again and again without a pause";

/// The last of these.
pub const STOOD_STILL: u8 = 3;

/// Runs clusters in a bottle: whole clusters, with faults, in simulated time, from a seed
#[derive(Parser)]
#[command(name = "campanile-sim", version, after_help = EXIT_STATUS_HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Program that simulates, for verbs that start processes [default: this program]
    #[arg(long, global = true, value_name = "FILE", env = "CAMPANILE_SIMULATOR", hide_env_values = true)]
    simulator: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate one seed and judge it
    Run(run::Run),
    /// Simulate many seeds, each in a process of its own
    Sweep(sweep::Sweep),
    /// Simulate a seed twice, in two processes, and compare the traces to the byte
    Replay(replay::Replay),
    /// Find the fewest faults, operations and tasks with which a seed still fails
    Shrink(shrink::Shrink),
    /// Find out whether every planted bug is caught, and after how many seeds
    Hunt(hunt::Hunt),
    /// Find out which changes of the product's code nobody notices
    Mutate(mutate::Mutate),
    /// Measure how much faster than time simulations go
    Speed(speed::Speed),
    /// Count what a fire costs, and compare that with what was recorded
    Cost(cost::Cost),
    /// Drive real processes through faults, in real time, and judge them by the same checkers
    Real(real::Real),
    /// Judge a stored history with the checkers of this build
    Check(check::Check),
    /// Make the HTML timeline of a stored history
    Report(check::Report),
    /// List the bugs that can be planted
    Planted,
    /// List the rare things that a sweep should have seen
    Marks,
}

/// What is simulated.
#[derive(Clone, Debug, Args)]
struct Case {
    /// Scenario file (TOML) [default: one to seven nodes, a minute of random clients, random faults]
    scenario: Option<PathBuf>,
    /// Switch a bug on, to see whether it is caught
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
}

impl Case {
    fn read(&self) -> Result<Scenario> {
        read_scenario(self.scenario.as_deref())
    }

    /// The command line that runs a seed of it again.
    fn replay_line(&self, seed: u64) -> String {
        let mut line = format!("campanile-sim replay --seed {seed}");
        if let Some(commit) = COMMIT {
            line += &format!(" --build {commit}");
        }
        if let Some(planted) = &self.planted {
            line += &format!(" --planted {planted}");
        }
        if let Some(file) = &self.scenario {
            line += &format!(" {}", quoted(&file.display().to_string()));
        }
        line
    }
}

/// The scenario of a file, or the default one.
fn read_scenario(file: Option<&Path>) -> Result<Scenario> {
    Ok(match file {
        Some(file) => scenario::read(file)?,
        None => scenario::read_str(scenario::DEFAULT, Path::new("default.toml"))?,
    })
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The commit this program was built from; seeds mean something else in another one. `make` sets it.
const COMMIT: Option<&str> = option_env!("CAMPANILE_COMMIT");

/// How a verb ended, unless it could not be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Held,
    Violated,
}

impl End {
    fn held(held: bool) -> Self {
        if held { Self::Held } else { Self::Violated }
    }
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    match dispatch(cli) {
        Ok(End::Held) => ExitCode::SUCCESS,
        Ok(End::Violated) => ExitCode::from(1),
        Err(error) => {
            let text = format!("{error:#}");
            eprintln!(
                "{}",
                if json { serde_json::json!({ "error": text }).to_string() } else { format!("error: {text}") }
            );
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli) -> Result<End> {
    let out = Output { json: cli.json };
    let children = || Simulator::new(cli.simulator.clone());
    match cli.command {
        Command::Run(run) => run.execute(out),
        Command::Sweep(sweep) => sweep.execute(&children()?, out),
        Command::Replay(replay) => replay.execute(&children()?, out),
        Command::Shrink(shrink) => shrink.execute(&children()?, out),
        Command::Hunt(hunt) => hunt.execute(&children()?, out),
        Command::Mutate(mutate) => mutate.execute(out),
        Command::Speed(speed) => speed.execute(&children()?, out),
        Command::Cost(cost) => cost.execute(&children()?, out),
        Command::Real(real) => real.execute(out),
        Command::Check(check) => check.execute(out),
        Command::Report(report) => report.execute(out),
        Command::Planted => names::planted(cli.simulator, out),
        Command::Marks => names::marks(cli.simulator, out),
    }
}

/// The command tree, for the documentation.
#[cfg(test)]
fn command() -> clap::Command {
    use clap::CommandFactory;
    Cli::command()
}
