//! `speed`: how much faster than time a simulation goes, one process at a time on this machine.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use super::End;
use super::child::{Ended, Simulator, Trial};
use super::output::{Output, write_file};

pub const STANDING: &str = include_str!("../../scenarios/standing-workload.toml");
const NODES: [u32; 2] = [3, 5];

#[derive(Args)]
pub struct Speed {
    /// Runs of each row; the median counts
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    runs: u64,
}

#[derive(Serialize)]
struct Row {
    workload: String,
    nodes: u32,
    runs: u64,
    /// Simulated seconds in a second of a processor: median, lowest and highest.
    speed: f64,
    lowest: f64,
    highest: f64,
    /// Simulated seconds in a real second: the median.
    real_speed: f64,
    /// Runs a minute, the start of the process and the checkers included.
    runs_per_minute: f64,
}

impl Speed {
    pub fn execute(self, simulator: &Simulator, out: Output) -> Result<End> {
        if self.runs == 0 {
            bail!("--runs 0: there must be a run to measure");
        }
        let folder = tempfile::tempdir().context("cannot make a temporary directory")?;
        let rows = self.measure(simulator, folder.path(), out)?;
        out.print(&rows, |rows| markdown(rows))?;
        Ok(End::Held)
    }

    fn measure(&self, simulator: &Simulator, folder: &Path, out: Output) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for nodes in NODES {
            let file = folder.join(format!("standing-{nodes}.toml"));
            write_file(&file, &STANDING.replace("nodes = 3", &format!("nodes = {nodes}")))?;
            rows.push(self.row("10 tasks/s, no faults, 5 min", nodes, simulator, Some(&file), out)?);
        }
        rows.push(self.row("random clients and faults, 1 min", 3, simulator, None, out)?);
        Ok(rows)
    }

    fn row(
        &self,
        workload: &str,
        nodes: u32,
        simulator: &Simulator,
        scenario: Option<&Path>,
        out: Output,
    ) -> Result<Row> {
        let started = Instant::now();
        let (mut speeds, mut real_speeds) = (Vec::new(), Vec::new());
        for seed in 1..=self.runs {
            out.progress(&format!("{workload}, {nodes} nodes: run {seed} of {}", self.runs));
            let ended = simulator.run(&Trial { scenario, seed, ..Trial::default() })?;
            let Ended::Judged(summary) = &ended else { bail!("seed {seed}: {}", ended.why()) };
            if !summary.held {
                bail!("seed {seed} does not hold: {}", ended.why());
            }
            let facts = &summary.facts;
            let simulated = facts.simulated_ms.context("a verdict without its simulated time")? as f64;
            speeds.push(simulated / facts.cpu_ms.context("a verdict without its processor time")?.max(1) as f64);
            real_speeds.push(simulated / facts.real_ms.context("a verdict without its real time")?.max(1) as f64);
        }
        speeds.sort_by(f64::total_cmp);
        real_speeds.sort_by(f64::total_cmp);
        Ok(Row {
            workload: workload.to_owned(),
            nodes,
            runs: self.runs,
            speed: speeds[speeds.len() / 2],
            lowest: speeds[0],
            highest: speeds[speeds.len() - 1],
            real_speed: real_speeds[real_speeds.len() / 2],
            runs_per_minute: self.runs as f64 * 60.0 / started.elapsed().as_secs_f64(),
        })
    }
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| Workload | Nodes | Simulated s in a CPU s | Lowest to highest | In a real s | Runs | Runs a minute, one core |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let Row { workload, nodes, runs, speed, lowest, highest, real_speed, runs_per_minute } = row;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {workload} | {nodes} | {speed:.0} | {lowest:.0} to {highest:.0} | {real_speed:.0} | {runs} | {runs_per_minute:.0} |"
        );
    }
    text
}
