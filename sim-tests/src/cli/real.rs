//! `real`: the program `campanile` in real processes, under faults, in real time.

use std::path::PathBuf;

use anyhow::Result;
use campanile_model::Millis;
use clap::Args;

use super::output::Output;
use super::run::{Files, judge};
use super::{End, quoted, read_scenario};
use crate::order::RealOrder;
use crate::report::{self, Facts, Summary};

#[derive(Args)]
pub struct Real {
    /// Scenario file (TOML) [default: three nodes, a minute of random clients, random faults]
    scenario: Option<PathBuf>,
    /// What is asked and done is drawn from it; what comes of it is not [default: the scenario's, else 1]
    #[arg(long)]
    seed: Option<u64>,
    /// The program `campanile`
    #[arg(long, value_name = "FILE", default_value = "campanile")]
    binary: PathBuf,
    /// How long workload and faults go on [default: the scenario's]
    #[arg(long, value_name = "SPAN")]
    span: Option<Millis>,
    /// Keep the nodes' logs in this directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
}

impl Real {
    pub fn execute(self, out: Output) -> Result<End> {
        let line = self.line();
        let mut scenario = read_scenario(self.scenario.as_deref())?;
        if let Some(span) = self.span {
            scenario.span = span;
        }
        let seed = self.seed.or(scenario.seed).unwrap_or(1);
        let order = RealOrder { scenario, seed, binary: self.binary, logs: self.logs };
        let started = std::time::Instant::now();
        let driven = drive(&order, &|text| out.progress(text))?;
        out.progress("");
        let facts = Facts {
            real_ms: Some(started.elapsed().as_millis() as u64),
            cpu_ms: None,
            replay: Some(format!("{line} --seed {seed}")),
            ..Facts::default()
        };
        let verdict = judge(&driven.history, Some(&order.scenario));
        let summary = Summary::of(&driven.history, &verdict, facts);
        self.files.write(&driven.history, &summary)?;
        out.print(&summary, report::text)?;
        Ok(End::held(summary.held))
    }

    /// The command line that asks and does the same again, but for the seed.
    fn line(&self) -> String {
        let mut line = "campanile-sim real".to_owned();
        if let Some(file) = &self.scenario {
            line += &format!(" {}", quoted(&file.display().to_string()));
        }
        line += &format!(" --binary {}", quoted(&self.binary.display().to_string()));
        if let Some(span) = self.span {
            line += &format!(" --span {span}");
        }
        line
    }
}

/// Only the native build has processes.
#[cfg(not(madsim))]
use crate::real::drive;

#[cfg(madsim)]
fn drive(_order: &RealOrder, _say: &(dyn Fn(&str) + Sync)) -> Result<crate::order::Driven> {
    anyhow::bail!(
        "this build simulates, and starts no real processes: take one of `cargo build -p campanile-sim-tests`"
    )
}
