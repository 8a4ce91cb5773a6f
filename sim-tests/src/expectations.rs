//! What a scenario expects beside the invariants (`[expect]`).

use std::collections::BTreeMap;

use campanile_model::{AttemptResult, Kind, RunState};

use crate::history::{Event, History, RunRow};
use crate::scenario::Scenario;
use crate::verdict::{Finding, Violation};

/// The names under which violations are reported.
pub const NAMES: [&str; 4] = ["max_lateness", "no_missed", "no_repeats", "all_succeed"];

/// Judges a history by what its scenario expects.
pub fn check(scenario: &Scenario, history: &History) -> Finding {
    let expect = &scenario.expect;
    let mut judge = Judge { history, checked: 0, violations: Vec::new() };
    if let Some(most) = expect.max_lateness {
        judge.max_lateness(i64::try_from(most.0).unwrap_or(i64::MAX));
    }
    if expect.no_missed {
        judge.no_missed();
    }
    if expect.no_repeats {
        judge.no_repeats();
    }
    if expect.all_succeed {
        judge.all_succeed();
    }
    let Judge { checked, mut violations, .. } = judge;
    if violations.is_empty() {
        return Finding::Held { checked };
    }
    violations.sort_by_key(|violation| violation.t);
    Finding::Violated(violations)
}

/// Fires of schedules: when, and the row. The log's where the history has it, else what the converged cluster told.
pub fn fires(history: &History) -> Vec<(u64, RunRow)> {
    let fire = |row: &RunRow| row.is_scheduled() && row.index == row.run.place().index();
    let mut seen = std::collections::BTreeSet::new();
    let from_log: Vec<(u64, RunRow)> = history
        .events
        .iter()
        .filter_map(|timed| match &timed.event {
            Event::Run(row) if fire(row) && seen.insert(row.run) => Some((timed.t, row.clone())),
            _ => None,
        })
        .collect();
    if !from_log.is_empty() {
        return from_log;
    }
    let mut told: Vec<(u64, RunRow)> = history
        .events
        .iter()
        .filter_map(|timed| match &timed.event {
            Event::FinalRun { run } => {
                let row = RunRow {
                    index: run.id.place().index(),
                    run: run.id,
                    occurrence: run.occurrence_id,
                    version: run.version,
                    due_at: run.due_at,
                    fired_at: run.fired_at,
                    state: run.state,
                    attempt: run.attempt,
                    token: run.fencing_token,
                    owner: run.node,
                    epoch: 0,
                    retry_at: run.retry_at,
                    finished_at: run.finished_at,
                    last: run.attempts.last().cloned(),
                };
                let t = (run.fired_at.as_millis() - history.header.epoch_ms).max(0) as u64 * 1000;
                row.is_scheduled().then_some((t, row))
            }
            _ => None,
        })
        .collect();
    told.sort_by_key(|(t, row)| (*t, row.run));
    told
}

/// How late a fire was by the true clock, in milliseconds.
pub fn lateness_ms(history: &History, t: u64, row: &RunRow) -> i64 {
    history.wall_ms(t) - row.due_at.as_millis()
}

struct Judge<'h> {
    history: &'h History,
    checked: u64,
    violations: Vec<Violation>,
}

impl Judge<'_> {
    fn refuse(&mut self, invariant: &str, t: u64, what: String) {
        self.violations.push(Violation { invariant: invariant.into(), t, what });
    }

    fn max_lateness(&mut self, most: i64) {
        for (t, row) in fires(self.history) {
            self.checked += 1;
            let late = lateness_ms(self.history, t, &row);
            if late > most {
                let what = format!("occurrence {} fired {late} ms late; {most} ms are allowed", row.occurrence);
                self.refuse("max_lateness", t, what);
            }
        }
    }

    fn no_missed(&mut self) {
        let in_log = self.history.events.iter().any(|timed| matches!(timed.event, Event::Lapse { .. }));
        for timed in &self.history.events {
            match &timed.event {
                Event::Lapse { task, first, last, count, reason, .. } if reason.kind() == Kind::Missed => {
                    let what =
                        format!("{count} occurrences of task {task} from {first} to {last} were missed ({reason:?})");
                    self.refuse("no_missed", timed.t, what);
                }
                Event::FinalLedger { ledger } if !in_log => {
                    for line in ledger.items.iter().filter(|line| line.kind == Kind::Missed) {
                        let (task, count) = (ledger.task_id, line.count);
                        let what = format!(
                            "{count} occurrences of task {task} from {} to {} were missed",
                            line.scheduled_at, line.last
                        );
                        self.refuse("no_missed", timed.t, what);
                    }
                    self.checked += 1;
                }
                Event::Run(_) | Event::Lapse { .. } => self.checked += 1,
                _ => {}
            }
        }
    }

    /// Whatever the receiver saw twice, or the log handed out after an attempt whose outcome was lost.
    fn no_repeats(&mut self) {
        let mut seen = BTreeMap::new();
        for timed in &self.history.events {
            match &timed.event {
                Event::Deliver(delivery) => {
                    self.checked += 1;
                    if let Some(first) = seen.insert((delivery.run, delivery.attempt), delivery.delivery) {
                        let (run, attempt) = (delivery.run, delivery.attempt);
                        let what = format!(
                            "attempt {attempt} of run {run} arrived as delivery {first} and again as {}",
                            delivery.delivery
                        );
                        self.refuse("no_repeats", timed.t, what);
                    }
                }
                Event::FinalRun { run } => {
                    self.checked += 1;
                    let lost =
                        |attempt: &&campanile_model::AttemptRecord| attempt.result == AttemptResult::OutcomeUnknown;
                    if let Some(attempt) = run.attempts.iter().find(lost).filter(|attempt| attempt.number < run.attempt)
                    {
                        let what =
                            format!("run {} repeated attempt {}, whose outcome was lost", run.id, attempt.number);
                        self.refuse("no_repeats", timed.t, what);
                    }
                }
                _ => {}
            }
        }
    }

    fn all_succeed(&mut self) {
        let mut last: BTreeMap<_, (u64, RunState)> = BTreeMap::new();
        for timed in &self.history.events {
            match &timed.event {
                Event::Run(row) => _ = last.insert(row.run, (timed.t, row.state)),
                Event::FinalRun { run } => _ = last.insert(run.id, (timed.t, run.state)),
                _ => {}
            }
        }
        for (run, (t, state)) in last {
            self.checked += 1;
            if state != RunState::Succeeded {
                self.refuse("all_succeed", t, format!("run {run} is {} in the end", state.as_str()));
            }
        }
    }
}

#[cfg(test)]
#[path = "expectations_tests.rs"]
mod tests;
