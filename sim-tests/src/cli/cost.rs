//! `cost`: what a fire costs, counted and not timed, and whether that is more than it was.
//!
//! A simulation does the same work each time, on every machine: so many messages, syncs, rows and allocations. The
//! recorded counts (`sim-tests/cost.toml`) are part of the source; a change that makes one of them a tenth larger fails
//! CI, or records it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use super::End;
use super::child::{Ended, Simulator, Trial};
use super::output::{Output, write_file};
use super::speed::STANDING;

/// What was counted when it was last recorded.
const RECORDED: &str = include_str!("../../cost.toml");
/// How much more than recorded a count may be.
const TOLERANCE: f64 = 1.1;
const SEED: u64 = 1;
/// Tasks of the burst.
const TOGETHER: usize = 500;

#[derive(Args)]
pub struct Cost {
    /// Write what is counted, to be recorded as sim-tests/cost.toml
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// By workload and count, for each fire.
type Counts = BTreeMap<String, BTreeMap<String, f64>>;

#[derive(Serialize)]
struct Row {
    workload: String,
    count: String,
    per_fire: f64,
    recorded: Option<f64>,
    /// More than the tolerance above what was recorded.
    grown: bool,
}

impl Cost {
    pub fn execute(self, simulator: &Simulator, out: Output) -> Result<End> {
        let recorded: Counts = toml::from_str(RECORDED).context("sim-tests/cost.toml")?;
        let folder = tempfile::tempdir().context("cannot make a temporary directory")?;
        let counted = count(simulator, folder.path(), out)?;
        if let Some(file) = &self.record {
            let about =
                "# For each fire, counted by `campanile-sim cost --record`; CI fails where one grows by a tenth.\n\n";
            write_file(file, &format!("{about}{}", toml::to_string(&counted)?))?;
        }
        let rows = compare(&counted, &recorded);
        out.print(&rows, |rows| markdown(rows))?;
        Ok(End::held(self.record.is_some() || rows.iter().all(|row| !row.grown)))
    }
}

fn count(simulator: &Simulator, folder: &Path, out: Output) -> Result<Counts> {
    let mut counts = Counts::new();
    for (workload, scenario) in [("standing", STANDING.to_owned()), ("burst", burst())] {
        out.progress(&format!("counting {workload}"));
        let file = folder.join(format!("{workload}.toml"));
        write_file(&file, &scenario)?;
        let ended = simulator.run(&Trial { scenario: Some(&file), seed: SEED, ..Trial::default() })?;
        let Ended::Judged(summary) = &ended else { bail!("{workload}: {}", ended.why()) };
        if !summary.held {
            bail!("{workload} does not hold: {}", ended.why());
        }
        let work = summary.facts.work.context("a verdict without its work")?;
        let per_fire = |count: u64| (count as f64 / summary.fired.max(1) as f64 * 100.0).round() / 100.0;
        let of = work.counts().map(|(name, count)| (name.to_owned(), per_fire(count)));
        counts.insert(workload.to_owned(), of.into());
    }
    Ok(counts)
}

/// Tasks that are all due at the same instants.
fn burst() -> String {
    let mut text = String::from("name = \"burst\"\nspan = \"60s\"\n");
    for n in 0..TOGETHER {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n[workload.tasks.together-{n}]\nschedules = [{{ cron = \"*/10 * * * * *\" }}]\n\
             target.http.url = \"http://worker-{}.internal/beat\"\n",
            n % 10
        );
    }
    text
}

fn compare(counted: &Counts, recorded: &Counts) -> Vec<Row> {
    let mut rows = Vec::new();
    for (workload, counts) in counted {
        for (count, per_fire) in counts {
            let recorded = recorded.get(workload).and_then(|counts| counts.get(count)).copied();
            rows.push(Row {
                workload: workload.clone(),
                count: count.clone(),
                per_fire: *per_fire,
                recorded,
                // What was never recorded has no bound to keep to.
                grown: recorded.is_none_or(|recorded| *per_fire > recorded * TOLERANCE),
            });
        }
    }
    rows
}

fn markdown(rows: &[Row]) -> String {
    let mut text = String::from("| Workload | Count | For each fire | Recorded | |\n|---|---|---:|---:|---|\n");
    for row in rows {
        let recorded = row.recorded.map_or(String::from("-"), |recorded| recorded.to_string());
        let mark = match row.recorded {
            _ if row.grown => "GROWN",
            Some(recorded) if row.per_fire * TOLERANCE < recorded => "less: record it",
            _ => "",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | {} | {} | {recorded} | {mark} |", row.workload, row.count, row.per_fire);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(syncs: f64) -> Counts {
        Counts::from([("standing".to_owned(), BTreeMap::from([("syncs".to_owned(), syncs)]))])
    }

    #[test]
    fn what_has_grown_by_more_than_a_tenth_is_found() {
        let grown = |now| compare(&counts(now), &counts(10.0))[0].grown;
        assert_eq!([grown(5.0), grown(10.0), grown(10.9), grown(11.1)], [false, false, false, true]);
        assert!(compare(&counts(1.0), &Counts::new())[0].grown, "what is not recorded fails, or it would never be");
    }

    #[test]
    fn what_is_recorded_can_be_read_and_is_of_both_workloads() {
        let recorded: Counts = toml::from_str(RECORDED).unwrap();
        let names: Vec<_> = crate::order::Work::default().counts().iter().map(|(name, _)| (*name).to_owned()).collect();
        for workload in ["standing", "burst"] {
            assert!(names.iter().all(|name| recorded[workload].contains_key(name)), "{workload}");
        }
    }
}
