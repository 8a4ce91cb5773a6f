//! `check` and `report`: a stored history, judged by the checkers of this build.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::output::{Output, write_file};
use super::run::{cases, judge};
use super::{Case, End};
use crate::history::{self, History, Source};
use crate::report::{self, Facts, Summary};
use crate::scenario;

#[derive(Args)]
pub struct Check {
    /// A history, as `run --history` writes it
    history: PathBuf,
    /// The scenario whose expectations are judged as well
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Write the verdict for CI, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Args)]
pub struct Report {
    /// A history, as `run --history` writes it
    history: PathBuf,
    /// The HTML file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The scenario whose expectations are judged as well
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

impl Check {
    pub fn execute(self, out: Output) -> Result<End> {
        let (_, summary) = read_and_judge(&self.history, self.scenario.as_deref())?;
        if let Some(file) = &self.junit {
            write_file(file, &report::junit(&self.history.display().to_string(), &cases(&summary)))?;
        }
        out.print(&summary, report::text)?;
        Ok(End::held(summary.held))
    }
}

impl Report {
    pub fn execute(self, out: Output) -> Result<End> {
        let (history, summary) = read_and_judge(&self.history, self.scenario.as_deref())?;
        write_file(&self.out, &report::html(&history, &summary))?;
        out.print(&summary, |summary| format!("{}\nTimeline: {}", report::text(summary), self.out.display()))?;
        Ok(End::held(summary.held))
    }
}

fn read_and_judge(file: &Path, scenario: Option<&Path>) -> Result<(History, Summary)> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let history = history::read(BufReader::new(opened)).with_context(|| file.display().to_string())?;
    let named = scenario.map(scenario::read).transpose()?;
    let verdict = judge(&history, named.as_ref());
    let header = &history.header;
    // The default scenario needs no file; of another one only the name is known, unless it was given.
    let replayable = scenario.is_some() || header.scenario == "default";
    let replay = header.seed.filter(|_| header.source == Source::Simulated && replayable).map(|seed| {
        Case { scenario: scenario.map(Path::to_path_buf), planted: header.planted.clone() }.replay_line(seed)
    });
    let facts = Facts { pace: named.map(|scenario| scenario.pace), replay, ..Facts::default() };
    let summary = Summary::of(&history, &verdict, facts);
    Ok((history, summary))
}
