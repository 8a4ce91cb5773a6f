//! `hunt`: does every planted bug get caught, how soon, and by the checkers that are meant to?
//!
//! A bug for which too much has to meet in the default scenario has one of its own ([`returned`]), which brings that
//! about. A seed counts only if it holds without the bug: else it would be caught by something else.

mod meant;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use super::child::{Ended, Simulator, Trial};
use super::corpus::Corpus;
use super::output::{Output, write_file};
use super::{Case, End, names};
use crate::returned::{self, Returned};

#[derive(Args)]
pub struct Hunt {
    #[command(flatten)]
    case: Case,
    /// Seeds after which a bug counts as not caught
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_seeds: u64,
    /// Try the seeds of this file, and variants of them, before the others in the default scenario
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
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
    /// The scenario that was tried, by name.
    scenario: String,
    /// The invariants, expectations or the crash; empty when it was not caught.
    caught_by: Vec<String>,
    /// What it broke in other seeds that no checker meant for it saw.
    beside: Vec<String>,
    seed: Option<u64>,
    /// Seeds it took, that one included.
    seeds: u64,
    seconds: f64,
}

/// With what a bug is hunted.
struct Ground<'g> {
    bug: &'g str,
    scenario: Option<&'g Path>,
    /// Those that are tried, in order.
    seeds: Vec<u64>,
    jobs: usize,
}

/// The first seed that catches a bug, and what was broken; or what was broken by seeds that do not count.
#[derive(Default)]
struct Hunted {
    seed: Option<u64>,
    tried: u64,
    by: Vec<String>,
    beside: Vec<String>,
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
        let first =
            self.corpus.as_deref().map(Corpus::read).transpose()?.map_or_else(Vec::new, |corpus| corpus.seeds());
        let jobs = self.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
        let folder = tempfile::tempdir().context("cannot make a temporary directory")?;
        let mut rows = Vec::new();
        for (i, bug) in bugs.iter().enumerate() {
            let started = Instant::now();
            // A scenario on the command line is what is to be tried, for all of them.
            let own = returned::scenario_of(&bug.name).filter(|_| self.case.scenario.is_none());
            let written = own.map(|own| own_file(folder.path(), own)).transpose()?;
            let scenario = written.as_deref().or(self.case.scenario.as_deref());
            let first = if scenario.is_none() { &first[..] } else { &[] };
            let most = own.map_or(self.max_seeds, |own| own.seeds.min(self.max_seeds));
            let others = (1..=most).filter(|seed| !first.contains(seed));
            let seeds = first.iter().copied().chain(others).take(usize::try_from(most)?).collect();
            let ground = Ground { bug: &bug.name, scenario, seeds, jobs };
            let hunted = hunt(simulator, &ground, |tried| {
                out.progress(&format!("{} of {}: {}, {tried} seeds", i + 1, bugs.len(), bug.name));
            })?;
            let row = Row {
                bug: bug.name.clone(),
                about: bug.about.clone(),
                scenario: match (own, &self.case.scenario) {
                    (Some(own), _) => format!("returned/{}", own.bug),
                    (None, Some(file)) => file.display().to_string(),
                    (None, None) => "default".into(),
                },
                seed: hunted.seed,
                seeds: hunted.tried,
                caught_by: hunted.by,
                beside: hunted.beside,
                seconds: started.elapsed().as_secs_f64(),
            };
            out.note(&said(&row));
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
}

/// The bug's own scenario, as a file for the processes that simulate.
fn own_file(folder: &Path, own: &Returned) -> Result<PathBuf> {
    let file = folder.join(format!("{}.toml", own.bug));
    write_file(&file, own.text)?;
    Ok(file)
}

/// The first seed that catches a bug. Seeds are tried in waves; of a wave the first counts, so that the table is the
/// same however many processes there are.
fn hunt(simulator: &Simulator, ground: &Ground<'_>, mut progress: impl FnMut(u64)) -> Result<Hunted> {
    let mut hunted = Hunted::default();
    for wave in ground.seeds.chunks(ground.jobs) {
        progress(hunted.tried);
        let results: Vec<Result<Ended>> = thread::scope(|scope| {
            let running: Vec<_> = wave
                .iter()
                .map(|seed| scope.spawn(|| simulator.run(&trial(ground, *seed, Some(ground.bug)))))
                .collect();
            let joined = running.into_iter().map(|run| match run.join() {
                Ok(result) => result,
                Err(_) => bail!("a thread ended early"),
            });
            joined.collect()
        });
        for (seed, result) in wave.iter().zip(results) {
            hunted.tried += 1;
            let broken = result?.broken();
            if !meant::catches(ground.bug, &broken) {
                hunted.beside.extend(broken);
                continue;
            }
            let without = simulator.run(&trial(ground, *seed, None))?;
            if without.held() {
                (hunted.seed, hunted.by) = (Some(*seed), broken);
                return Ok(hunted);
            }
            hunted.beside.extend(without.broken().iter().map(|name| format!("{name} (without the bug)")));
        }
    }
    Ok(hunted)
}

fn trial<'t>(ground: &Ground<'t>, seed: u64, planted: Option<&'t str>) -> Trial<'t> {
    Trial { scenario: ground.scenario, seed, planted, ..Trial::default() }
}

fn said(row: &Row) -> String {
    let Row { bug, scenario, seeds, .. } = row;
    match row.seed {
        Some(seed) => format!("{bug}: caught by {} at seed {seed} of {scenario}", row.caught_by.join(", ")),
        None if row.beside.is_empty() => format!("{bug}: NOT CAUGHT in {seeds} seeds of {scenario}"),
        None => format!("{bug}: NOT CAUGHT in {seeds} seeds of {scenario}, but {}", counted(&row.beside)),
    }
}

/// How often each name is in the list.
fn counted(names: &[String]) -> String {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for name in names {
        *times.entry(name).or_default() += 1;
    }
    let each: Vec<String> = times.iter().map(|(name, times)| format!("{times} of {name}")).collect();
    each.join(", ")
}

fn markdown(table: &Table) -> String {
    let mut text =
        String::from("| Bug | Scenario | Caught by | Seed | Seeds needed | Seconds |\n|---|---|---|---:|---:|---:|\n");
    for row in &table.rows {
        let seed = row.seed.map_or_else(|| "**none**".into(), |seed| seed.to_string());
        let caught_by = if row.caught_by.is_empty() { "**nothing**".into() } else { row.caught_by.join(", ") };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {caught_by} | {seed} | {} | {:.1} |",
            row.bug, row.scenario, row.seeds, row.seconds
        );
    }
    let caught = table.rows.iter().filter(|row| row.seed.is_some()).count();
    let median = table.median_seeds.map_or_else(String::new, |median| format!("; median {median} seeds"));
    let _ = writeln!(text, "\n{caught} of {} caught{median}.", table.rows.len());
    text
}
