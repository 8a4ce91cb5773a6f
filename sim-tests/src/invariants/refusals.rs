//! A refusal has a cause. Each code goes with its status and says something of a state, and one of those between question
//! and answer must be so: by the log, what the name stood for, how far a run had come, how many keys were remembered. A
//! definition is refused if the second opinion finds the fault that the code names, and one with such a fault is refused.
//! That nobody served is a cause only where something was wrong or a bound was small.
//!
//! | Code | Status | The state that explains it |
//! |---|---|---|
//! | `task_not_found` | 404 | the name is free, and the request would not have taken it |
//! | `task_exists` | 409 | the name is taken, and the request only creates |
//! | `version_mismatch` | 412 | the name is taken, at another version than asked for |
//! | `task_finished` | 409 | the task is finished, and was to be paused or resumed |
//! | `conflict` | 409 | the task has changed as often as the leader tries again |
//! | `catching_up` | 503 | more is overdue than one entry may decide |
//! | `run_finished` | 409 | the run has ended |
//! | `run_not_found` | 404 | the run's line may have been folded, or its task has gone |
//! | `idempotency_mismatch` | 422 | another request has used the key (which one `dedup` asks) |
//! | `invalid_page_token` | 400 | the name stands for another task than on the page before |
//! | `quota_exceeded` | 429 | as many keys have been used as are remembered |
//! | `invalid_field`, `limit_exceeded` | 400 | the definition has that fault, or the request asks for too many items or none |
//! | `never_occurs` | 400 | the definition has no occurrence from then on |
//! | `overloaded` | 503 | the buffer of the task is full, a lane is small, or something is wrong |
//! | `no_leader`, `clock_skew`, `shutting_down`, `disk_full`, `outcome_unknown`, `internal`, none | 503, 500 | something is wrong |
//!
//! No other code has a cause in what clients of the simulator ask for.

mod definition;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::sim::Bound;
use campanile_model::{Millis, Overlap, RunId, RunState, TaskId, TaskStatus, Timestamp, limits};

use super::index::{Facts, Operation};
use super::report::Report;
use super::tables::{Named, Tables, Window};
use crate::history::Action;
use crate::verdict::Finding;

const NAME: &str = "refusals";
/// A write that conflicts with another is prepared again so often before it is refused.
const TRIES: usize = 5;
/// What the recorder says of a node that did not answer.
const UNREACHABLE: &str = "unreachable";

/// The status of each code that may come.
const STATUS: [(&str, u16); 22] = [
    ("task_not_found", 404),
    ("task_exists", 409),
    ("version_mismatch", 412),
    ("task_finished", 409),
    ("conflict", 409),
    ("catching_up", 503),
    ("run_finished", 409),
    ("run_not_found", 404),
    ("idempotency_mismatch", 422),
    ("quota_exceeded", 429),
    ("invalid_field", 400),
    ("limit_exceeded", 400),
    ("invalid_page_token", 400),
    ("invalid_schedule", 400),
    ("unknown_time_zone", 400),
    ("never_occurs", 400),
    ("overloaded", 503),
    ("no_leader", 503),
    ("clock_skew", 503),
    ("shutting_down", 503),
    ("disk_full", 503),
    (UNREACHABLE, 0),
];
/// Those of a server that does not know, or failed: only where something is wrong.
const FAILED: [(&str, u16); 2] = [("outcome_unknown", 503), ("internal", 500)];

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new(NAME);
    let judge = Judge { facts, tables: Tables::new(facts), keys: keys(facts) };
    for operation in &facts.operations {
        if let Some((t, _)) = operation.acknowledged().filter(|_| definition::must_be_refused(operation.action)) {
            report.violated(t, format!("operation {} was taken: {:?}", operation.id, operation.action));
        }
        let Some((t, status, code)) = operation.refused() else { continue };
        let why = judge.refused(operation, t, status, code);
        report.hold(why.is_ok(), t, || {
            let why = why.as_ref().err().map_or("", String::as_str);
            format!("operation {} ({:?}) was refused as {status} {code}: {why}", operation.id, operation.action)
        });
    }
    report.finish_if_any("refusals")
}

/// When idempotency keys were first used by what may have been taken.
fn keys<'h>(facts: &Facts<'h>) -> BTreeMap<&'h str, u64> {
    let mut found = BTreeMap::new();
    for operation in facts.operations.iter().filter(|operation| operation.may_have_happened()) {
        if let Some(key) = key_of(operation.action) {
            let first = found.entry(key).or_insert(operation.invoked);
            *first = operation.invoked.min(*first);
        }
    }
    found
}

fn key_of(action: &Action) -> Option<&str> {
    match action {
        Action::Put { idempotency_key, .. } | Action::Trigger { idempotency_key, .. } => idempotency_key.as_deref(),
        _ => None,
    }
}

struct Judge<'f, 'h> {
    facts: &'f Facts<'h>,
    tables: Tables<'f, 'h>,
    /// When each idempotency key was first used.
    keys: BTreeMap<&'h str, u64>,
}

type Judged = Result<(), String>;

fn because(holds: bool, why: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(why()) }
}

impl Judge<'_, '_> {
    fn refused(&self, operation: &Operation, t: u64, status: u16, code: &str) -> Judged {
        let known = STATUS.iter().chain(&FAILED).find(|(known, _)| *known == code);
        let Some((_, right)) = known else { return Err("nothing that was asked is refused so".into()) };
        because(*right == status, || format!("its status is {right}"))?;
        let action = operation.action;
        match code {
            "invalid_field" | "limit_exceeded" | "invalid_schedule" | "unknown_time_zone" | "never_occurs" => {
                return definition::refused(action, code, self.clocks(operation, t));
            }
            // By whom the key was used is `dedup`'s question; without a key there is none.
            "idempotency_mismatch" => return because(key_of(action).is_some(), || "it has no key".into()),
            _ => {}
        }
        // What follows is read from the log.
        if !self.facts.has_log() {
            return Ok(());
        }
        let window = self.tables.window(operation.invoked, t);
        match code {
            "task_not_found" | "task_exists" | "version_mismatch" | "task_finished" => {
                self.of_name(action, code, window)
            }
            "conflict" => {
                let writes = matches!(
                    action,
                    Action::Put { .. } | Action::Pause { .. } | Action::Resume { .. } | Action::Delete { .. }
                );
                let name = action.task_name().filter(|name| writes && !name.is_empty());
                let changes = name.map_or(0, |name| self.tables.changes_of(name, window));
                because(changes >= TRIES, || format!("{changes} changes came meanwhile, and it is tried {TRIES} times"))
            }
            // A leader that leads no more, and does not know it yet, says so by a state of long ago.
            "catching_up" if self.is_disturbed(operation, t) => {
                self.catching_up(action, Window { first: 0, ..window }, t)
            }
            "catching_up" => self.catching_up(action, window, t),
            "run_finished" | "run_not_found" => match action {
                Action::CancelRun { run } | Action::GetRun { run } => self.of_run(action, *run, code, window),
                _ => Err("it is not about a run".into()),
            },
            "invalid_page_token" => self.of_page(action, window),
            "quota_exceeded" => self.keys_full(action, t),
            "overloaded" if self.small(Bound::ApiLane) || self.buffer_full(action, window) => Ok(()),
            _ => because(self.is_disturbed(operation, t), || "nothing was wrong, nor had been for a while".into()),
        }
    }

    /// What the clocks of the node that was asked, and of a leader, may have shown meanwhile.
    fn clocks(&self, operation: &Operation, t: u64) -> (Timestamp, Timestamp) {
        let history = self.facts.history;
        let wrong = self.facts.wrong_by(operation.node, operation.invoked, t);
        let error = Millis(wrong + history.header.clock_error_ms.unsigned_abs());
        let at = |t: u64| Timestamp::from_millis(history.wall_ms(t));
        (at(operation.invoked).saturating_sub(error), at(t).saturating_add(error))
    }

    /// Whether something was wrong, or is too small to serve everybody.
    fn is_disturbed(&self, operation: &Operation, t: u64) -> bool {
        !self.facts.is_calm(operation.invoked, t)
    }

    fn small(&self, bound: Bound) -> bool {
        self.facts.history.header.bounds.contains_key(bound.name())
    }

    /// What the name stood for must be a reason.
    fn of_name(&self, action: &Action, code: &str, window: Window) -> Judged {
        // A new task without a name meets nothing.
        let Some(name) = action.task_name().filter(|name| !name.is_empty()) else {
            return Err("it is about no task that was there".into());
        };
        let (creates, takes_free, wanted) = wish(action);
        let explains = |named: Named| match code {
            "task_not_found" => named.may_be_free() && !takes_free,
            "task_exists" => named.task().is_some() && creates,
            "version_mismatch" => named.task().zip(wanted).is_some_and(|(task, wanted)| task.version != wanted),
            _ => {
                let stops = matches!(action, Action::Pause { .. } | Action::Resume { .. });
                stops && named.task().is_some_and(|task| task.status == TaskStatus::Finished)
            }
        };
        let stood_for: Vec<Named> = self.tables.meanings(name, window).collect();
        because(stood_for.iter().any(|named| explains(*named)), || {
            let versions: Vec<_> =
                stood_for.iter().map(|named| named.task().map(|task| (task.version, task.status))).collect();
            format!("meanwhile {name:?} was {versions:?}, which is no reason")
        })
    }

    fn catching_up(&self, action: &Action, window: Window, t: u64) -> Judged {
        let settles =
            matches!(action, Action::Put { .. } | Action::Pause { .. } | Action::Resume { .. } | Action::Delete { .. });
        let Some(name) = action.task_name().filter(|_| settles) else { return Err("it settles nothing".into()) };
        let now = self.facts.latest_clock(t);
        let overdue = |named: Named| named.task().and_then(|task| task.next).is_some_and(|next| next.due_at <= now);
        because(self.tables.meanings(name, window).any(overdue), || format!("nothing of {name:?} was overdue"))?;
        because(self.small(Bound::CatchUpPerEntry) || self.facts.history.end() > HOURS, || {
            format!("no task comes to {} occurrences in so short a time", limits::CATCH_UP_PER_ENTRY)
        })
    }

    fn of_run(&self, action: &Action, id: RunId, code: &str, window: Window) -> Judged {
        let Some(run) = self.facts.runs.get(&id) else {
            return because(code == "run_not_found", || "nobody has seen that run".into());
        };
        let ended = run.rows.iter().any(|row| row.it.state.is_finished() && row.it.index <= window.last);
        if code == "run_finished" {
            let cancels = matches!(action, Action::CancelRun { .. });
            return because(cancels && ended, || "the run had not ended".into());
        }
        because(ended && run.in_the_end.is_none(), || "the run was there".into())
    }

    /// A list that is of another task by now does not go on.
    fn of_page(&self, action: &Action, window: Window) -> Judged {
        let Some((name, follows)) = action.task_name().zip(action.page().and_then(|page| page.follows)) else {
            return Err("it goes on with no list of a task".into());
        };
        let before = self.facts.operations.iter().find(|operation| operation.id == follows);
        let first = before.map_or(0, |before| self.tables.window(before.invoked, before.invoked).first);
        let meanings = self.tables.meanings(name, Window { first, ..window });
        let tasks: BTreeSet<TaskId> = meanings.filter_map(Named::task).map(|row| row.task).collect();
        because(tasks.len() > 1, || format!("{name:?} has been the same task since the page before"))
    }

    fn keys_full(&self, action: &Action, t: u64) -> Judged {
        let most = self.facts.history.header.bound(Bound::IdempotencyKeys, limits::IDEMPOTENCY_KEYS);
        let used = self.keys.values().filter(|first| **first <= t).count() as u64;
        because(key_of(action).is_some(), || "it has no key".into())?;
        because(used >= most, || format!("{used} keys had been used, and {most} are remembered"))
    }

    /// Whether as many runs of the task wait as may, in one of the states.
    fn buffer_full(&self, action: &Action, window: Window) -> bool {
        let Action::Trigger { name, .. } = action else { return false };
        let most = self.facts.history.header.bound(Bound::BufferedRuns, limits::BUFFERED_RUNS as u64);
        let tasks: BTreeSet<(TaskId, u32)> =
            self.tables.meanings(name, window).filter_map(Named::task).map(|row| (row.task, row.version)).collect();
        tasks.into_iter().any(|(task, version)| {
            let spec = self.facts.spec(task, version);
            let buffers = spec.is_none_or(|spec| spec.overlap == Overlap::BufferAll);
            let waiting = |index: u64| {
                let states = self.tables.runs_of(task).filter_map(|(_, run)| {
                    let next = run.rows.partition_point(|row| row.it.index <= index);
                    Some(run.rows.get(next.checked_sub(1)?)?.it.state)
                });
                states.filter(|state| *state == RunState::Pending).count() as u64
            };
            buffers && self.tables.moments_of(task, window).into_iter().any(|index| waiting(index) >= most)
        })
    }
}

/// In less, no task has more occurrences than one entry may decide, unless that bound is small; in microseconds.
const HOURS: u64 = 1000 * 1_000_000;

/// Whether a request only creates, whether it takes a name that is free, and which version it asks for.
fn wish(action: &Action) -> (bool, bool, Option<u32>) {
    match action {
        Action::Put { name, if_version, create_only, idempotency_key, .. } => {
            let is_id = name.parse::<TaskId>().is_ok();
            (*create_only || idempotency_key.is_some(), if_version.is_none() && !is_id, *if_version)
        }
        Action::Pause { if_version, .. } | Action::Resume { if_version, .. } | Action::Delete { if_version, .. } => {
            (false, false, *if_version)
        }
        _ => (false, false, None),
    }
}
