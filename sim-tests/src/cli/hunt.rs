//! `hunt`: does every planted bug get caught, and how soon?

use std::fmt::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::child::{Ended, Simulator, Trial};
use super::output::{Output, write_file};
use super::{Case, End, names};

#[derive(Args)]
pub struct Hunt {
    #[command(flatten)]
    case: Case,
    /// Seeds after which a bug counts as not caught
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_seeds: u64,
    /// Processes at a time [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Write the table, as Markdown
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    bug: String,
    about: String,
    /// The invariants, expectations or the crash; empty when it was not caught.
    caught_by: Vec<String>,
    seed: Option<u64>,
    /// Seeds it took, that one included.
    seeds: u64,
    seconds: f64,
}

/// The lowest seed that catches a bug, and what was broken.
struct Caught {
    seed: u64,
    by: Vec<String>,
}

#[derive(Serialize)]
struct Table {
    all_caught: bool,
    median_seeds: Option<u64>,
    rows: Vec<Row>,
}

impl Hunt {
    pub fn execute(self, simulator: &Simulator, out: Output) -> Result<End> {
        self.case.read()?;
        let mut bugs = simulator.names("planted")?;
        if let Some(planted) = &self.case.planted {
            names::check_planted(planted, &bugs)?;
            bugs.retain(|bug| bug.name == *planted);
        }
        if bugs.is_empty() {
            bail!("there are no bugs to plant");
        }
        let jobs = self.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
        let mut rows = Vec::new();
        for (i, bug) in bugs.iter().enumerate() {
            let started = Instant::now();
            let caught = self.hunt(simulator, &bug.name, jobs, |tried| {
                out.progress(&format!("{} of {}: {}, {tried} seeds", i + 1, bugs.len(), bug.name));
            })?;
            let row = Row {
                bug: bug.name.clone(),
                about: bug.about.clone(),
                seed: caught.as_ref().map(|caught| caught.seed),
                // They are tried from 1 on.
                seeds: caught.as_ref().map_or(self.max_seeds, |caught| caught.seed),
                caught_by: caught.map(|caught| caught.by).unwrap_or_default(),
                seconds: started.elapsed().as_secs_f64(),
            };
            out.note(&match row.seed {
                Some(seed) => format!("{}: caught by {} at seed {seed}", row.bug, row.caught_by.join(", ")),
                None => format!("{}: NOT CAUGHT in {} seeds", row.bug, row.seeds),
            });
            rows.push(row);
        }
        let mut counts: Vec<u64> = rows.iter().filter(|row| row.seed.is_some()).map(|row| row.seeds).collect();
        counts.sort_unstable();
        let table = Table {
            all_caught: rows.iter().all(|row| row.seed.is_some()),
            median_seeds: counts.get(counts.len().saturating_sub(1) / 2).copied(),
            rows,
        };
        if let Some(file) = &self.out {
            write_file(file, &markdown(&table))?;
        }
        out.print(&table, markdown)?;
        Ok(End::held(table.all_caught))
    }

    /// The first seed that catches a bug. Seeds are tried in waves; of a wave the lowest counts, so that the table is
    /// the same however many processes there are.
    fn hunt(
        &self,
        simulator: &Simulator,
        bug: &str,
        jobs: usize,
        mut progress: impl FnMut(u64),
    ) -> Result<Option<Caught>> {
        let seeds: Vec<u64> = (1..=self.max_seeds).collect();
        for wave in seeds.chunks(jobs) {
            progress(wave[0] - 1);
            let results: Vec<Result<Ended>> = thread::scope(|scope| {
                let running: Vec<_> =
                    wave.iter().map(|seed| scope.spawn(|| simulator.run(&self.trial(bug, *seed)))).collect();
                let joined = running.into_iter().map(|run| match run.join() {
                    Ok(result) => result,
                    Err(_) => bail!("a thread ended early"),
                });
                joined.collect()
            });
            for (seed, result) in wave.iter().zip(results) {
                let ended = result?;
                if !ended.held() {
                    return Ok(Some(Caught { seed: *seed, by: ended.broken() }));
                }
            }
        }
        Ok(None)
    }

    fn trial<'t>(&'t self, bug: &'t str, seed: u64) -> Trial<'t> {
        Trial { scenario: self.case.scenario.as_deref(), seed, planted: Some(bug), ..Trial::default() }
    }
}

fn markdown(table: &Table) -> String {
    let mut text = String::from("| Bug | Caught by | Seed | Seeds needed | Seconds |\n|---|---|---:|---:|---:|\n");
    for row in &table.rows {
        let seed = row.seed.map_or_else(|| "**none**".into(), |seed| seed.to_string());
        let caught_by = if row.caught_by.is_empty() { "**nothing**".into() } else { row.caught_by.join(", ") };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | {caught_by} | {seed} | {} | {:.1} |", row.bug, row.seeds, row.seconds);
    }
    let caught = table.rows.iter().filter(|row| row.seed.is_some()).count();
    let median = table.median_seeds.map_or_else(String::new, |median| format!("; median {median} seeds"));
    let _ = writeln!(text, "\n{caught} of {} caught{median}.", table.rows.len());
    text
}
