//! Dedup (RELIABILITY 15): within its window an idempotency key stands for one request. The same request gets the same
//! answer and has one effect, whoever leads; another request is refused (422). When the window is over the key counts as
//! new, whether its row has been removed or not.
//!
//! The window begins when the leader accepts the first request, which is between its sending and its answer; only what
//! is certainly inside is judged.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::api::Change;
use campanile_model::sim::Bound;
use campanile_model::{Origin, RunId, TaskId, limits};

use super::operations::{Operation, operations};
use super::{finding, violation};
use crate::history::{Action, Event, History, Outcome};
use crate::verdict::{Finding, Violation};

pub const NAME: &str = "dedup";

/// Refusals that depend on the state: a key that is remembered is answered before it is looked at.
const OF_STATE: [&str; 4] = ["task_exists", "task_not_found", "version_mismatch", "task_finished"];
const MISMATCH: &str = "idempotency_mismatch";

pub fn check(history: &History) -> Finding {
    let operations = operations(history);
    let mut by_key: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in &operations {
        if let Some(key) = operation.key() {
            by_key.entry(key).or_default().push(*operation);
        }
    }
    if by_key.is_empty() {
        return Finding::NotApplicable { needs: "requests with an Idempotency-Key" };
    }
    let window = Window::of(history);
    let mut violations = Vec::new();
    let mut checked = 0;
    for (key, uses) in &by_key {
        checked += uses.len() as u64;
        judge(key, uses, &window, &mut violations);
    }
    one_effect(history, &operations, &window, &mut violations);
    finding(checked, violations)
}

/// How long a key is remembered, in microseconds, for sure and at most.
struct Window {
    surely: u64,
    at_most: u64,
}

impl Window {
    fn of(history: &History) -> Self {
        let ttl = history.header.time(Bound::IdempotencyTtl, limits::IDEMPOTENCY_TTL).0 * 1000;
        // Two leaders' clocks may be off to different sides.
        let error = history.header.clock_error_ms.unsigned_abs() * 2000;
        Self { surely: ttl.saturating_sub(error), at_most: ttl + error }
    }

    /// Whether `later` came, for sure, when the key of `first`, which was accepted, was remembered no longer.
    fn is_over(&self, first: &Operation, later: &Operation) -> bool {
        first.returned.is_some_and(|returned| later.invoked > returned.saturating_add(self.at_most))
    }

    /// Whether `later` came, for sure, while the key of `first`, which was accepted, was remembered. Where the two
    /// overlap either may have been accepted first, and for the same request it is all the same.
    fn holds(&self, first: &Operation, later: &Operation) -> bool {
        later.returned.is_some_and(|returned| returned < first.invoked + self.surely)
    }
}

fn judge(key: &str, uses: &[Operation], window: &Window, violations: &mut Vec<Violation>) {
    // The acceptance that is remembered: after it has surely gone, the next one takes its place.
    let mut accepted: Option<Operation> = None;
    for operation in uses {
        let t = operation.returned.unwrap_or(operation.invoked);
        let told = |what: String| format!("operation {} with idempotency key {key:?} {what}", operation.id);
        match operation.outcome {
            None => {}
            Some(Outcome::Refused { code, .. }) if code == MISMATCH => {
                let by_another = uses.iter().any(|other| {
                    other.invoked <= t
                        && !same_request(other, operation)
                        && other.refused().is_none()
                        && operation.invoked <= other.returned.unwrap_or(u64::MAX).saturating_add(window.at_most)
                });
                if !by_another {
                    let what = told("was refused as a mismatch, and no other request used the key".into());
                    violations.push(violation(NAME, t, what));
                }
            }
            Some(Outcome::Refused { code, .. }) => {
                let first = accepted.as_ref().filter(|first| window.holds(first, operation));
                // What was sent before the first was answered may have been refused before it.
                let first = first.filter(|first| first.returned.is_some_and(|at| at <= operation.invoked));
                if let Some(first) = first.filter(|_| OF_STATE.contains(&code.as_str())) {
                    let what = told(format!("was refused as {code}, and operation {} had used the key", first.id));
                    violations.push(violation(NAME, t, what));
                }
            }
            Some(outcome) => match accepted.as_ref().filter(|first| window.holds(first, operation)) {
                None => {
                    let over = accepted.as_ref().filter(|first| window.is_over(first, operation));
                    if let Some(first) = over.filter(|first| repeats(first.outcome, outcome)) {
                        let what = told(format!("was answered as operation {}, whose time was over", first.id));
                        violations.push(violation(NAME, t, what));
                    }
                    accepted = Some(*operation);
                }
                Some(first) if !same_request(first, operation) => {
                    let what = told(format!("was accepted, and operation {} had used the key for another", first.id));
                    violations.push(violation(NAME, t, what));
                }
                Some(first) => {
                    if let Some(answer) = first.outcome.filter(|answer| !same_answer(answer, outcome)) {
                        let what = told(format!("was answered {outcome:?}, and operation {} {answer:?}", first.id));
                        violations.push(violation(NAME, t, what));
                    }
                }
            },
        }
    }
}

/// Whether an answer is an earlier one given again: it tells of what can only have been made once.
fn repeats(first: Option<&Outcome>, again: &Outcome) -> bool {
    match (first, again) {
        (Some(Outcome::Triggered { triggered: a }), Outcome::Triggered { triggered: b }) => a.run == b.run,
        (Some(Outcome::Written { task: a }), Outcome::Written { task: b }) => {
            a.change == Change::Created && b.change == Change::Created && a.id == b.id
        }
        _ => false,
    }
}

fn same_request(a: &Operation, b: &Operation) -> bool {
    match (a.action, b.action) {
        (Action::Put { name: a, spec: x, .. }, Action::Put { name: b, spec: y, .. }) => a == b && x == y,
        (Action::Trigger { name: a, .. }, Action::Trigger { name: b, .. }) => a == b,
        _ => false,
    }
}

/// Advice given with an answer (`warnings`) is no part of it: it goes by the clock of the node that is asked.
fn same_answer(a: &Outcome, b: &Outcome) -> bool {
    match (a, b) {
        (Outcome::Written { task: a }, Outcome::Written { task: b }) => {
            (a.id, a.version, a.state, a.change, &a.next) == (b.id, b.version, b.state, b.change, &b.next)
        }
        _ => a == b,
    }
}

/// No name has more runs by hand, and no more tasks created, than requests that can have made them, a key counting once
/// in each of its windows.
fn one_effect(history: &History, operations: &[Operation], window: &Window, violations: &mut Vec<Violation>) {
    let end = history.end();
    let mut asked: BTreeMap<&str, Asked> = BTreeMap::new();
    let mut key_until: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.refused().is_none()) {
        // Those without a name count together: whose answer was lost created one too.
        let created_unnamed = operation.action.task_name() == Some("");
        let Some(name) = operation.name().or(created_unnamed.then_some("")) else { continue };
        if let Some(key) = operation.key() {
            let until = key_until.entry((name, key)).or_default();
            // Without an answer it may have been accepted until the end.
            if operation.returned.unwrap_or(end) < *until {
                continue;
            }
            *until = operation.invoked + window.surely;
        }
        let asked = asked.entry(if created_unnamed { "" } else { name }).or_default();
        match operation.action {
            Action::Trigger { .. } => asked.triggers += 1,
            Action::Put { .. } => asked.puts += 1,
            _ => {}
        }
    }
    let mut names = BTreeMap::new();
    let mut created: BTreeMap<&str, u64> = BTreeMap::new();
    let mut runs: BTreeMap<&str, BTreeSet<RunId>> = BTreeMap::new();
    for timed in &history.events {
        match &timed.event {
            Event::Task(row) if names.insert(row.task, row.name.as_str()).is_none() => {
                let name = if row.name.parse::<TaskId>().is_ok() { "" } else { row.name.as_str() };
                *created.entry(name).or_default() += 1;
            }
            Event::Run(row) if matches!(row.occurrence.origin, Origin::Manual(_)) => {
                if let Some(name) = names.get(&row.occurrence.task) {
                    runs.entry(name).or_default().insert(row.run);
                }
            }
            _ => {}
        }
    }
    for (name, runs) in runs {
        let asked = asked.get(name).map_or(0, |asked| asked.triggers);
        if runs.len() as u64 > asked {
            let told = format!("task {name:?} has {} runs by hand, and {asked} requests asked for one", runs.len());
            violations.push(violation(NAME, end, told));
        }
    }
    for (name, created) in created {
        let asked = asked.get(name).map_or(0, |asked| asked.puts);
        if created > asked {
            let told = format!("task {name:?} was created {created} times, and {asked} requests asked for it");
            violations.push(violation(NAME, end, told));
        }
    }
}

#[derive(Default)]
struct Asked {
    triggers: u64,
    puts: u64,
}

#[cfg(test)]
mod tests {
    use super::super::minutes::*;
    use super::*;

    const MINUTE: u64 = 60_000_000;

    fn put(key: &str, every: &str) -> Action {
        Action::Put {
            name: "a".into(),
            spec: Box::new(spec_every(every)),
            if_version: None,
            create_only: false,
            idempotency_key: Some(key.into()),
        }
    }

    fn trigger(key: &str) -> Action {
        Action::Trigger { name: "a".into(), idempotency_key: Some(key.into()) }
    }

    #[test]
    fn the_same_answer_is_accepted() {
        let first = written(1, 1, Change::Created);
        let history = asked(&[
            (1, 2, put("k", "1m"), first.clone()),
            (3, 4, put("k", "1m"), unknown()),
            (5, 6, put("k", "1m"), first),
            (7, 8, put("k", "2m"), refused(422, MISMATCH)),
            (11 * MINUTE, 11 * MINUTE + 1, put("k", "2m"), refused(409, "task_exists")),
        ]);
        assert!(matches!(check(&history), Finding::Held { checked: 5 }), "{:?}", check(&history));
    }

    #[test]
    fn two_effects_of_one_key_are_seen() {
        let twice = asked(&[(1, 2, trigger("k"), triggered(1, 1)), (3, 4, trigger("k"), triggered(1, 2))]);
        assert!(told(&check(&twice)).contains("was answered"));
        let later = 11 * MINUTE;
        let expired =
            asked(&[(1, 2, trigger("k"), triggered(1, 1)), (later, later + 1, trigger("k"), triggered(1, 2))]);
        assert!(matches!(check(&expired), Finding::Held { .. }), "the key was free again");
        let recalled =
            asked(&[(1, 2, trigger("k"), triggered(1, 1)), (later, later + 1, trigger("k"), triggered(1, 1))]);
        assert!(told(&check(&recalled)).contains("time was over"));
    }

    #[test]
    fn runs_that_nobody_asked_for_are_seen() {
        // The second request got no answer, but both made a run.
        let operations = [(1, 2, trigger("k"), triggered(1, 1)), (3, 4, trigger("k"), unknown())];
        let one = with_manual_runs(asked(&operations), 1);
        assert!(matches!(check(&one), Finding::Held { .. }), "{:?}", check(&one));
        let two = with_manual_runs(asked(&operations), 2);
        assert!(told(&check(&two)).contains("2 runs by hand"));
    }

    #[test]
    fn another_request_under_the_key_is_seen() {
        let accepted = asked(&[
            (1, 2, put("k", "1m"), written(1, 1, Change::Created)),
            (3, 4, put("k", "2m"), written(1, 2, Change::Updated)),
        ]);
        assert!(told(&check(&accepted)).contains("for another"));
        let looked_at = asked(&[
            (1, 2, put("k", "1m"), written(1, 1, Change::Created)),
            (3, 4, put("k", "1m"), refused(409, "task_exists")),
        ]);
        assert!(told(&check(&looked_at)).contains("refused as task_exists"));
        let unasked = asked(&[(1, 2, put("k", "1m"), refused(422, MISMATCH))]);
        assert!(told(&check(&unasked)).contains("no other request"));
    }

    #[test]
    fn a_history_without_keys_is_not_judged() {
        assert!(matches!(check(&empty()), Finding::NotApplicable { .. }));
    }
}
