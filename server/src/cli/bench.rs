//! `bench`: the measurements of `campanile-bench`, as a table or JSON.

use std::path::PathBuf;

use campanile_bench::report::Report;
use campanile_bench::scenarios::{self, BenchOptions};
use campanile_model::Millis;
use clap::Args;

use super::dev::{drive, failed, this_program};
use super::failure::Failure;
use super::output::Output;

#[derive(Debug, Args)]
pub struct Bench {
    /// Only these rows of the table; a name stands for all that begin with it and an underscore
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = scenarios::row_name)]
    only: Vec<String>,
    /// Smaller numbers, each measured once
    #[arg(long)]
    quick: bool,
    /// Ten million pending tasks as well, the cost of operations as tasks grow in number, and the soak
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// How long the soak is, at least 1m
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = soak)]
    soak: Millis,
    /// Repetitions of measurements that are shorter than 20 s; the median counts
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    runs: u32,
    /// Where the nodes keep their data while they are measured: the disk that is measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir(), hide_default_value = true)]
    scratch: PathBuf,
    /// Write the JSON document to a file as well
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn soak(text: &str) -> Result<Millis, String> {
    let span = text.parse::<Millis>().map_err(|error| error.to_string())?;
    if span.to_std() < scenarios::SHORTEST_SOAK {
        return Err(format!("a soak shorter than {}", Millis::from(scenarios::SHORTEST_SOAK)));
    }
    Ok(span)
}

impl Bench {
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let options = BenchOptions {
            binary: this_program()?,
            only: self.only,
            quick: self.quick,
            full: self.full,
            soak: self.soak.to_std(),
            runs: if self.quick { 1 } else { self.runs },
            scratch: self.scratch,
        };
        let report = drive(async { scenarios::run(&options, |note| output.note(note)).await.map_err(failed) })?;
        if let Some(path) = &self.out {
            let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::failed(error.to_string()))?;
            std::fs::write(path, text).map_err(|error| Failure::unreadable(&path.display().to_string(), &error))?;
        }
        output.print(&report, Report::table)
    }
}
