//! Invariant 11. What was acknowledged, or shown by a linearizable read, is there: in the log by then, and in the final
//! state unless something later took it away. A write that was refused or whose answer was lost requires nothing.

use std::collections::BTreeMap;

use campanile_model::api::Change;
use campanile_model::sim::Bound;
use campanile_model::{FINISHED_KEPT, RunId, RunState, TaskId, TaskStatus};

use super::index::{Facts, Operation, TaskFacts};
use super::report::Report;
use crate::history::{Action, Outcome};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("durability");
    let deletes = Deletes::new(facts);
    for operation in &facts.operations {
        let Some((t, outcome)) = operation.acknowledged() else { continue };
        match outcome {
            Outcome::Written { task } => {
                let seen = Seen { task: task.id, name: &task.name, version: task.version };
                if task.change == Change::Deleted {
                    deleted(facts, t, task.id, &mut report);
                } else {
                    seen.is_there(facts, t, operation, &deletes, &mut report);
                }
                if task.change != Change::Unchanged {
                    was_written(facts, t, operation, task.id, &mut report);
                }
            }
            Outcome::Read { task } => {
                let seen = Seen { task: task.id, name: &task.name, version: task.version };
                seen.is_there(facts, t, operation, &deletes, &mut report);
            }
            Outcome::Triggered { triggered } => {
                run_is_there(facts, t, triggered.run, triggered.occurrence_id.task, &mut report);
            }
            Outcome::Run { run } => {
                run_is_there(facts, t, run.id, run.task_id, &mut report);
                if run.state.is_finished() {
                    stays(facts, t, run.id, run.state, &mut report);
                }
            }
            // What is stale may show what has been deleted.
            Outcome::Tasks { items, .. } if !operation.is_stale() => {
                for task in items {
                    let seen = Seen { task: task.id, name: &task.name, version: task.version };
                    seen.is_there(facts, t, operation, &deletes, &mut report);
                }
            }
            Outcome::Runs { items, .. } => {
                for run in items {
                    run_is_there(facts, t, run.id, run.task_id, &mut report);
                    if run.state.is_finished() {
                        stays(facts, t, run.id, run.state, &mut report);
                    }
                }
            }
            // The lines of a batch are operations of their own; lines of a ledger are `reads`' to judge.
            Outcome::Batch { .. }
            | Outcome::Tasks { .. }
            | Outcome::Ledger { .. }
            | Outcome::Preview { .. }
            | Outcome::Refused { .. }
            | Outcome::Unknown { .. } => {}
        }
    }
    report.finish_if_any("acknowledged writes")
}

/// A task at a version, as a client was told.
struct Seen<'s> {
    task: TaskId,
    name: &'s str,
    version: u32,
}

impl Seen<'_> {
    fn is_there(&self, facts: &Facts, t: u64, operation: &Operation, deletes: &Deletes, report: &mut Report) {
        let Seen { task: id, version, .. } = *self;
        let task = facts.tasks.get(&id);
        if facts.has_log() {
            // Versions rise along the log, so the first row from this version on is the earliest that has it.
            let row = task.and_then(|task| task.rows.get(task.rows.partition_point(|row| row.it.version < version)));
            report.hold(row.is_some_and(|row| row.t <= t), t, || {
                format!("version {version} of task {id} was acknowledged and is not in the log")
            });
        }
        if !facts.has_final || deletes.may_have_removed(self, operation.invoked) {
            return;
        }
        match task.and_then(|task| task.in_the_end) {
            Some(view) => report.hold(view.version >= version, t, || {
                format!("version {version} of task {id} was acknowledged, in the end it is at version {}", view.version)
            }),
            None => report.hold(may_be_gone(facts, task), t, || {
                format!("version {version} of task {id} was acknowledged, in the end there is no such task")
            }),
        }
    }
}

/// Finished tasks of some kinds go by themselves after a day.
fn may_be_gone(facts: &Facts, task: Option<&TaskFacts>) -> bool {
    // It is written again while it goes in parts: when it finished is told by the first row from which on it was so.
    let finished_rows = task.map(|task| task.rows.iter().rev().take_while(|row| row.it.status == TaskStatus::Finished));
    let finished = if facts.has_log() { finished_rows.and_then(|rows| rows.last()).map(|row| row.t) } else { Some(0) };
    // The clock that made it finished may have been ahead of the one that removed it, or the other way round.
    let kept = facts.history.header.time(Bound::FinishedKept, FINISHED_KEPT).0 * 1000;
    let surely = kept.saturating_sub(2 * facts.clock_error());
    finished.is_some_and(|t| facts.history.end() - t >= surely)
}

/// A change that was acknowledged was made between question and answer; one with a key may be the answer of before.
fn was_written(facts: &Facts, t: u64, operation: &Operation, id: TaskId, report: &mut Report) {
    if !facts.has_log() || matches!(operation.action, Action::Put { idempotency_key: Some(_), .. }) {
        return;
    }
    let written = facts.tasks.get(&id).is_some_and(|task| {
        let asked = task.rows.partition_point(|row| row.t < operation.invoked);
        task.rows.get(asked).is_some_and(|row| row.t <= t)
    });
    report.hold(written, t, || {
        format!("a change of task {id} was acknowledged, but no entry wrote the task since it was asked for")
    });
}

fn deleted(facts: &Facts, t: u64, id: TaskId, report: &mut Report) {
    let task = facts.tasks.get(&id);
    if facts.has_log() {
        let row = task.and_then(|task| task.rows.iter().find(|row| row.it.status == TaskStatus::Deleted));
        report.hold(row.is_some_and(|row| row.t <= t), t, || {
            format!("the delete of task {id} was acknowledged and is not in the log")
        });
    }
    report.hold(task.is_none_or(|task| task.in_the_end.is_none()), t, || {
        format!("the delete of task {id} was acknowledged, in the end it is there")
    });
}

fn run_is_there(facts: &Facts, t: u64, id: RunId, task: TaskId, report: &mut Report) {
    let run = facts.runs.get(&id);
    if facts.has_log() {
        report.hold(run.and_then(|run| run.rows.first()).is_some_and(|row| row.t <= t), t, || {
            format!("run {id} was acknowledged and is not in the log")
        });
    }
    // Runs go with their task, and when retention folds their ledger lines.
    let kept = facts.tasks.get(&task).is_some_and(|task| task.in_the_end.is_some() && !task.has_folded());
    if facts.has_final && kept {
        report.hold(run.is_some_and(|run| run.in_the_end.is_some()), t, || {
            format!("run {id} was acknowledged, in the end there is no such run")
        });
    }
}

/// How a run has finished, as a client was told.
fn stays(facts: &Facts, t: u64, id: RunId, told: RunState, report: &mut Report) {
    let Some(run) = facts.runs.get(&id) else { return };
    let in_the_end = run.in_the_end.map(|end| end.it.state).or(run.rows.last().map(|row| row.it.state));
    report.hold(in_the_end.is_none_or(|state| state == told), t, || {
        let state = in_the_end.unwrap_or(told).as_str();
        format!("run {id} was acknowledged as {}, in the end it is {state}", told.as_str())
    });
}

/// Until when deletes may have taken a task away, by what they name.
struct Deletes<'f>(BTreeMap<&'f str, u64>);

impl<'f> Deletes<'f> {
    fn new(facts: &'f Facts) -> Self {
        let mut deletes = BTreeMap::new();
        for operation in facts.operations.iter().filter(|operation| operation.may_have_happened()) {
            if let Action::Delete { name, .. } = operation.action {
                let until = deletes.entry(name.as_str()).or_insert(0);
                *until = operation.over_at().max(*until);
            }
        }
        Self(deletes)
    }

    /// Whether one may have come after a write that was asked for at `invoked`.
    fn may_have_removed(&self, seen: &Seen, invoked: u64) -> bool {
        let by_id = seen.task.to_string();
        [seen.name, &by_id].into_iter().any(|name| self.0.get(name).is_some_and(|until| *until >= invoked))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const NAME: &str = "durability";

    fn delete() -> Action {
        Action::Delete { name: "a".into(), cancel_runs: false, if_version: None }
    }

    fn written() -> Script {
        Script::new().at(100).invoke(1, put()).entry(3).task(3, 1, 0).at(200).wrote(1, Change::Created, 1)
    }

    #[test]
    fn an_acknowledged_write_that_is_not_in_the_log() {
        accepts(NAME, written());
        refuses(NAME, Script::new().entry(3).invoke(1, put()).wrote(1, Change::Created, 1).at(1).task(3, 1, 0));
        refuses(NAME, written().invoke(2, put()).wrote(2, Change::Updated, 2));
        refuses(NAME, written().invoke(2, delete()).wrote(2, Change::Deleted, 1));
        accepts(NAME, written().invoke(2, delete()).task_is(4, 1, TaskStatus::Deleted).wrote(2, Change::Deleted, 1));
        refuses(NAME, written().invoke(2, put()).wrote(2, Change::Unchanged, 2));
        refuses(NAME, written().invoke(2, delete()).task(4, 1, 0).wrote(2, Change::Deleted, 1));
        let pause = || Action::Pause { name: "a".into(), if_version: None };
        refuses(NAME, written().at(300).invoke(2, pause()).wrote(2, Change::Paused, 1));
        accepts(NAME, written().at(300).invoke(2, pause()).wrote(2, Change::Unchanged, 1));
        let paused = || written().at(300).invoke(2, pause()).task_is(4, 1, TaskStatus::Paused);
        accepts(NAME, paused().wrote(2, Change::Paused, 1));
        let lost = Outcome::Unknown { reason: "lost".into() };
        accepts(NAME, written().invoke(2, put()).returned(2, lost));
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_in_the_end() {
        accepts(NAME, written().final_task(1, |_| {}));
        refuses(NAME, written().final_task(2, |_| {}));
        let updated = || written().entry(4).invoke(2, put()).task(4, 2, 0).wrote(2, Change::Updated, 2);
        refuses(NAME, updated().final_task(1, |_| {}));
        accepts(NAME, updated().final_task(1, |task| task.version = 3));
        // A delete whose answer was lost explains it, one before the write does not.
        accepts(NAME, written().invoke(2, delete()).final_task(2, |_| {}));
        let before = Script::new().invoke(2, delete()).at(50).refused(2);
        refuses(NAME, before.real().at(100).invoke(1, put()).wrote(1, Change::Created, 1).final_task(2, |_| {}));
    }

    #[test]
    fn a_deleted_task_that_is_there_in_the_end() {
        let deleted = || Script::new().real().invoke(2, delete()).wrote(2, Change::Deleted, 1);
        refuses(NAME, deleted().final_task(1, |_| {}));
        accepts(NAME, deleted().final_task(2, |_| {}));
    }

    #[test]
    fn a_finished_task_goes_after_a_day() {
        let finished = |after| written().task_is(4, 1, TaskStatus::Finished).at(after).final_task(2, |_| {});
        refuses(NAME, finished(3_600_000));
        accepts(NAME, finished(90_000_000));
    }

    #[test]
    fn an_acknowledged_run_that_is_not_there() {
        let run = triggered(5);
        let told = || Script::new().real().invoke(1, Action::Trigger { name: "a".into(), idempotency_key: None });
        accepts(NAME, told().triggered(1, &run).final_task(1, |_| {}).final_run(&run));
        refuses(NAME, told().triggered(1, &run).final_task(1, |_| {}));
        permits(NAME, told().triggered(1, &run).final_task(1, |_| {}).folded(1));
        refuses(NAME, told().entry(5).triggered(1, &run));
    }

    #[test]
    fn a_cancelled_run_stays_cancelled() {
        let run = fired(5, 10);
        let cancelled = ended(&run, 6, RunState::Cancelled);
        let told = || Script::new().real().invoke(1, Action::CancelRun { run: run.run }).read_run(1, &cancelled);
        accepts(NAME, told().final_run(&cancelled));
        refuses(NAME, told().final_run(&ended(&run, 6, RunState::Succeeded)));
    }
}
