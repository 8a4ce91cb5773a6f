//! `sweep`: many seeds, each in a process of its own, some of them twice.

mod pool;
mod state;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use xxhash_rust::xxh3::xxh3_64;

use super::child::Simulator;
use super::corpus::Corpus;
use super::output::{Output, write_file};
use super::{COMMIT, Case, End, names};
use crate::report;
use pool::{Done, Pool};
use state::{Failure, Identity, State};

#[derive(Args)]
pub struct Sweep {
    #[command(flatten)]
    case: Case,
    /// A count, for seeds 1 to N; or A..B, for A and those after it, without B
    #[arg(long, value_name = "N|A..B")]
    seeds: Seeds,
    /// Processes at a time [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Keep in this file what is done, and go on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Run the seeds of this file, and variants of them, before the others
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Write the seeds that reached what few others did to this file
    #[arg(long, value_name = "FILE")]
    corpus_out: Option<PathBuf>,
    /// End after this many failing seeds
    #[arg(long, value_name = "COUNT")]
    stop_after: Option<usize>,
    /// Run this share of the seeds twice, the second time with what they draw written out, and compare the traces;
    /// failing seeds always are
    #[arg(long, value_name = "PER_CENT", default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=100))]
    recheck: u64,
    /// Fail when a mark was never hit
    #[arg(long)]
    require_marks: bool,
    /// Keep the history and the timeline of each failing seed in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write the failing seeds for CI, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seeds {
    first: u64,
    end: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        let seeds = match text.split_once("..") {
            Some((first, end)) => Self { first: number(first)?, end: number(end)? },
            None => Self { first: 1, end: number(text)?.saturating_add(1) },
        };
        if seeds.first >= seeds.end {
            return Err(format!("{text} names no seed"));
        }
        Ok(seeds)
    }
}

impl Sweep {
    pub fn execute(self, simulator: &Simulator, out: Output) -> Result<End> {
        let scenario = self.case.read()?;
        let known_marks = simulator.names("marks")?;
        if let Some(planted) = &self.case.planted {
            names::check_planted(planted, &simulator.names("planted")?)?;
        }
        if let Some(folder) = &self.keep {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let fingerprint = format!("{:016x}", xxh3_64(&serde_json::to_vec(&scenario)?));
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: COMMIT.map(str::to_owned),
            scenario: fingerprint,
            planted: self.case.planted.clone(),
        };
        let mut state = match &self.resume {
            Some(file) if file.exists() => State::read(file, identity)?,
            _ => State::new(identity, self.seeds.first),
        };
        for mark in known_marks {
            state.marks.entry(mark.name).or_default();
        }

        let started = Instant::now();
        let jobs = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
        let first =
            self.corpus.as_deref().map(Corpus::read).transpose()?.map_or_else(Vec::new, |corpus| corpus.seeds());
        state.reached.is_varied(&first);
        let others = (self.seeds.first..self.seeds.end).filter(|seed| !first.contains(seed));
        let todo: VecDeque<u64> = first.iter().copied().chain(others).filter(|seed| !state.is_done(*seed)).collect();
        let mut all = state.count() + todo.len() as u64;
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        let pool = Pool {
            simulator,
            case: &self.case,
            scenario: &scenario,
            scratch: scratch.path(),
            recheck: self.recheck,
            keep: self.keep.as_deref(),
        };
        let before = state.seconds;
        let mut here = 0;
        let mut saved = Instant::now();
        pool.run(todo, jobs, |seed, done| {
            here += 1;
            let more = self.note(&mut state, seed, done, out);
            all += more.len() as u64;
            state.seconds = before + started.elapsed().as_secs_f64();
            out.progress(&progress(&state, here, all, started));
            if let Some(file) = self.resume.as_ref().filter(|_| saved.elapsed().as_secs() >= 1) {
                state.write(file)?;
                saved = Instant::now();
            }
            Ok(self.stop_after.is_none_or(|most| state.failures.len() < most).then_some(more))
        })?;
        if let Some(file) = &self.resume {
            state.write(file)?;
        }
        if let Some(file) = &self.corpus_out {
            state.reached.corpus().write(file)?;
        }
        if let Some(file) = &self.junit {
            write_file(file, &report::junit(&format!("sweep of {}", scenario.name), &self.cases(&state)))?;
        }
        out.progress("");
        out.print(&state, |state| self.text(state))?;
        let marks_missed = self.require_marks && state.never_hit().next().is_some();
        // A bug may well keep checkers from what they look at.
        let idle = self.case.planted.is_none() && scenario.closing && state.idle().next().is_some();
        Ok(End::held(state.failures.is_empty() && state.differing.is_empty() && !marks_missed && !idle))
    }

    /// What is to be run next because of this seed. A failure is said at once: the rest of the sweep may take hours.
    fn note(&self, state: &mut State, seed: u64, done: Done, out: Output) -> Vec<u64> {
        let Done { ended, again, kept } = done;
        state.add(seed);
        state.rechecked += u64::from(again.is_some());
        if let Some(again) = again.filter(|again| !again.same) {
            state.differing.push(seed);
            out.note(&format!(
                "seed {seed}: NOT DETERMINISTIC: {}\n  {}",
                again.difference,
                self.case.replay_line(seed)
            ));
        }
        let mut next = Vec::new();
        if let super::child::Ended::Judged(summary) = &ended {
            state.looked(&summary.findings);
            state.simulated_ms += summary.facts.simulated_ms.unwrap_or(0);
            for (mark, count) in &summary.marks {
                *state.marks.entry(mark.clone()).or_default() += count;
            }
            let marks = summary.marks.iter().filter(|(_, count)| **count > 0).map(|(mark, _)| mark.as_str());
            next = state.reached.note(seed, marks);
            next.retain(|seed| !state.is_done(*seed));
        }
        if !ended.held() {
            let (why, replay) = (ended.why(), self.case.replay_line(seed));
            let kept = kept.map_or_else(String::new, |file| format!("\n  {}", file.display()));
            out.note(&format!("seed {seed}: {why}\n  {replay}{kept}"));
            state.failures.push(Failure { seed, broken: ended.broken(), why, replay });
        }
        next
    }

    fn text(&self, state: &State) -> String {
        let mut text = String::new();
        let mut say = |line: String| text += &(line + "\n");
        let (count, seconds) = (state.count(), state.seconds.max(0.001));
        say(format!(
            "{count} seeds in {seconds:.0} s: {:.0} a minute, {:.0} simulated seconds a second",
            count as f64 * 60.0 / seconds,
            state.simulated_ms as f64 / 1000.0 / seconds
        ));
        say(format!("{} run twice: {} differed", state.rechecked, state.differing.len()));
        for seed in &state.differing {
            say(format!("  seed {seed}: {}", self.case.replay_line(*seed)));
        }
        say(format!("{} failed", state.failures.len()));
        for failure in &state.failures {
            say(format!("  seed {}: {}\n    {}", failure.seed, failure.why, failure.replay));
        }
        let hit = state.marks.values().filter(|count| **count > 0).count();
        say(format!("{hit} of {} marks hit", state.marks.len()));
        for mark in state.never_hit() {
            say(format!("  never: {mark}"));
        }
        for (mark, seeds) in state.reached.rare_marks() {
            say(format!("  rare: {mark}, by {seeds}"));
        }
        let looked: Vec<String> = state.checked.iter().map(|(name, checked)| format!("{name} {checked}")).collect();
        say(format!("Looked at: {}", looked.join(", ")));
        for name in state.idle() {
            say(format!("  nothing: {name}"));
        }
        text
    }

    fn cases(&self, state: &State) -> Vec<report::Case> {
        let failed = |name: String, why: &str, replay: &str| report::Case {
            name,
            failure: Some((why.into(), format!("{why}\n{replay}"))),
            ..Default::default()
        };
        let held = state.count() - state.failures.len() as u64;
        let mut cases =
            vec![report::Case { name: format!("{held} seeds held"), seconds: state.seconds, ..Default::default() }];
        cases.extend(
            state
                .failures
                .iter()
                .map(|failure| failed(format!("seed {}", failure.seed), &failure.why, &failure.replay)),
        );
        cases.extend(state.differing.iter().map(|seed| {
            failed(format!("seed {seed} runs the same again"), "the traces differ", &self.case.replay_line(*seed))
        }));
        if self.require_marks {
            cases.extend(state.never_hit().map(|mark| failed(format!("mark {mark}"), "never hit", "")));
        }
        cases
    }
}

fn progress(state: &State, here: u64, all: u64, started: Instant) -> String {
    let rate = here as f64 * 60.0 / started.elapsed().as_secs_f64().max(0.001);
    let (count, failures) = (state.count(), state.failures.len());
    format!("{count} of {all} seeds, {rate:.0} a minute, {failures} failing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_count_or_a_range() {
        for (text, expected) in
            [("3", Ok((1, 4))), ("10..12", Ok((10, 12))), ("0", Err(())), ("5..5", Err(())), ("x", Err(()))]
        {
            let seeds = text.parse::<Seeds>().map(|seeds| (seeds.first, seeds.end)).map_err(drop);
            assert_eq!(seeds, expected, "{text}");
        }
    }
}
