//! What an occurrence does while earlier runs of its task are live is what the overlap policy of the task's version
//! says, and nothing else: who starts, who waits in which order, who is dropped, who is cancelled and by whom. A small
//! model of each task ([`task::Model`]) replays the log row by row; what the receiver saw is held to it afterwards.
//!
//! The policy is the definition's, as clients wrote it. A version that nobody is known to have written is replayed but
//! not judged.

mod receiver;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::api::Change;
use campanile_model::sim::Bound;
use campanile_model::{Overlap, Reason, RunId, RunState, TaskId, TaskSpec, TaskStatus, limits};

use super::index::Facts;
use super::operations::{Operation, operations};
use super::report::Report;
use super::story::Specs;
use crate::history::{Action, Event, Header, Outcome, RunRow, TaskRow};
use crate::verdict::Finding;
use task::{Model, Place};

pub fn check(facts: &Facts) -> Finding {
    // A task that lists fewer live runs than it has cannot look at the others: where that is drawn small, what is promised
    // of all of them does not hold.
    let usual = limits::TRACKED_RUNS as u64;
    if facts.history.header.bound(Bound::TrackedRuns, usual) < usual {
        return Finding::NotApplicable { needs: "the usual number of live runs that a task lists" };
    }
    let mut replay = Replay::new(facts);
    for timed in &facts.history.events {
        replay.take(timed.t, &timed.event);
    }
    replay.end_entry();
    let Replay { mut report, exclusive, .. } = replay;
    receiver::check(facts, &exclusive, &mut report);
    report.finish_if_any("rows of runs")
}

/// Runs that may wait for their turn under `buffer_all`.
fn most_waiting(header: &Header) -> usize {
    header.bound(Bound::BufferedRuns, limits::BUFFERED_RUNS as u64) as usize
}

/// The log as it is replayed.
struct Replay<'h> {
    specs: Specs<'h>,
    asked: Asked<'h>,
    most_waiting: usize,
    report: Report,
    models: BTreeMap<TaskId, Model>,
    seen: BTreeSet<RunId>,
    /// Runs that were fired under a policy that lets none start beside another.
    exclusive: BTreeSet<RunId>,
    /// The entry whose rows are being read, when it was applied, and the tasks it has touched.
    index: u64,
    t: u64,
    touched: BTreeSet<TaskId>,
}

impl<'h> Replay<'h> {
    fn new(facts: &Facts<'h>) -> Self {
        Self {
            specs: Specs::gather(facts.history),
            asked: Asked::gather(operations(facts.history)),
            most_waiting: most_waiting(&facts.history.header),
            report: Report::new("overlap"),
            models: BTreeMap::new(),
            seen: BTreeSet::new(),
            exclusive: BTreeSet::new(),
            index: 0,
            t: 0,
            touched: BTreeSet::new(),
        }
    }

    fn take(&mut self, t: u64, event: &'h Event) {
        let (index, task) = match event {
            Event::Run(row) => (row.index, row.occurrence.task),
            Event::Task(row) => (row.index, row.task),
            Event::Lapse { index, task, .. } => (*index, *task),
            _ => return,
        };
        if index != self.index {
            self.end_entry();
            self.index = index;
        }
        self.t = t;
        self.touched.insert(task);
        match event {
            Event::Run(row) => self.run(row),
            Event::Task(row) => self.task(row),
            Event::Lapse { version, count, reason, .. } => self.lapse(task, *version, *count, *reason),
            _ => {}
        }
    }

    fn run(&mut self, row: &RunRow) {
        let model = self.models.entry(row.occurrence.task).or_default();
        if self.seen.insert(row.run) {
            if model.policy.is_some_and(|policy| policy != Overlap::Allow) {
                self.exclusive.insert(row.run);
            }
            return self.starts(row);
        }
        let Some(before) = model.live.iter().find(|live| live.run == row.run).map(|live| live.state) else { return };
        match row.state {
            RunState::Cancelled => model.cancel(row.run),
            state if state.is_finished() => model.end(row.run),
            state => {
                let first = model.live.first().map(|live| live.run);
                model.set(row.run, state);
                if before == RunState::Pending && state == RunState::Running {
                    let (run, t, index) = (row.run, self.t, self.index);
                    self.report.hold(first == Some(run), t, || {
                        format!("entry {index} started run {run} although run {} came before it", told(first))
                    });
                }
            }
        }
    }

    /// An occurrence has fired, or was triggered.
    fn starts(&mut self, row: &RunRow) {
        let model = self.models.entry(row.occurrence.task).or_default();
        let (run, index, t) = (row.run, self.index, self.t);
        if let Some(policy) = model.policy.filter(|_| model.version == row.version) {
            let expected = task::place_of(policy, row.is_scheduled(), &model.before, self.most_waiting);
            let found = if row.state == RunState::Pending { Place::Waits } else { Place::Now };
            let waiting = model.before.iter().filter(|live| live.state == RunState::Pending).count();
            let live = model.before.len();
            self.report.hold(found == expected, t, || {
                format!(
                    "entry {index} fired run {run} of {} under {policy:?} with {live} runs live, {waiting} of them \
                     waiting: it {found}, and it should have been that it {expected}",
                    row.occurrence.task
                )
            });
            let gives_way = task::gives_way(policy, &model.before);
            Self::account(&mut self.report, &self.asked, model, &gives_way, (t, index), &|| {
                format!("run {run} fired under {policy:?}")
            });
        } else {
            model.cancelled.clear();
        }
        model.start(run, row.state);
    }

    fn lapse(&mut self, task: TaskId, version: u32, count: u64, reason: Reason) {
        let model = self.models.entry(task).or_default();
        if !matches!(reason, Reason::Overlap | Reason::BufferFull) {
            return;
        }
        let Some(policy) = model.policy.filter(|_| model.version == version) else { return };
        let expected = task::place_of(policy, true, &model.before, self.most_waiting);
        let (index, live) = (self.index, model.before.len());
        self.report.hold(expected == Place::Dropped(reason) && count == 1, self.t, || {
            format!(
                "entry {index} dropped {count} occurrences of {task} as {reason:?} under {policy:?} with {live} runs live: the \
                 occurrence {expected}"
            )
        });
    }

    /// A task's row ends what was done to the task in one step.
    fn task(&mut self, row: &TaskRow) {
        let model = self.models.entry(row.task).or_default();
        let (t, index) = (self.t, self.index);
        let updated = model.version > 0 && row.version > model.version;
        let deleted = row.status == TaskStatus::Deleted && model.status != Some(TaskStatus::Deleted);
        let paused = row.status == TaskStatus::Paused && model.status == Some(TaskStatus::Active);
        let waiting = model.waiting();
        let required = if deleted && self.asked.cancels_runs(row, model, t) {
            model.before.iter().map(|live| live.run).collect()
        } else if deleted || updated || paused {
            waiting
        } else {
            Vec::new()
        };
        Self::account(&mut self.report, &self.asked, model, &required, (t, index), &|| {
            let what = if deleted {
                "deleted"
            } else if updated {
                "updated"
            } else if paused {
                "paused"
            } else {
                "written"
            };
            format!("task {} was {what}", row.task)
        });
        if row.version != model.version {
            model.version = row.version;
            model.policy = policy(&self.specs.of(row.task, row.version, &row.name, t));
        }
        model.status = Some(row.status);
        model.next_step();
    }

    /// Those that had to give way did, and nobody else was cancelled but by a client.
    fn account(
        report: &mut Report,
        asked: &Asked,
        model: &mut Model,
        gives_way: &[RunId],
        (t, index): (u64, u64),
        why: &dyn Fn() -> String,
    ) {
        let cancelled = std::mem::take(&mut model.cancelled);
        for run in gives_way {
            report
                .hold(cancelled.contains(run), t, || format!("{} in entry {index}, and run {run} stayed live", why()));
        }
        for run in cancelled.iter().filter(|run| !gives_way.contains(run)) {
            report.hold(asked.cancels(*run, t), t, || {
                format!("entry {index} cancelled run {run} and no client had asked for it: {}", why())
            });
        }
    }

    fn end_entry(&mut self) {
        let (t, index) = (self.t, self.index);
        for task in std::mem::take(&mut self.touched) {
            let Some(model) = self.models.get_mut(&task) else { continue };
            Self::account(&mut self.report, &self.asked, model, &[], (t, index), &|| format!("task {task} was left"));
            if let Some(first) = model.live.first() {
                let run = first.run;
                self.report.hold(first.state != RunState::Pending, t, || {
                    format!("entry {index} left run {run} of {task} waiting, and no run is live before it")
                });
            }
            model.next_step();
        }
    }
}

fn told(run: Option<RunId>) -> String {
    run.map_or_else(|| "?".into(), |run| run.to_string())
}

/// The policy, if all the definitions that a version may have agree on it.
fn policy(specs: &[&TaskSpec]) -> Option<Overlap> {
    let first = specs.first()?.overlap;
    specs.iter().all(|spec| spec.overlap == first).then_some(first)
}

/// What clients asked for that cancels runs.
struct Asked<'h> {
    /// By run: when it was first asked.
    cancels: BTreeMap<RunId, u64>,
    deletes: Vec<Operation<'h>>,
}

impl<'h> Asked<'h> {
    fn gather(operations: Vec<Operation<'h>>) -> Self {
        let (mut cancels, mut deletes) = (BTreeMap::new(), Vec::new());
        for operation in operations.into_iter().filter(|operation| operation.refused().is_none()) {
            match operation.action {
                Action::CancelRun { run } => {
                    cancels.entry(*run).or_insert(operation.invoked);
                }
                Action::Delete { .. } => deletes.push(operation),
                _ => {}
            }
        }
        Self { cancels, deletes }
    }

    fn cancels(&self, run: RunId, t: u64) -> bool {
        self.cancels.get(&run).is_some_and(|asked| *asked <= t)
    }

    /// Whether the delete that the row is of was one that cancels runs. Where it may have been either, what was done
    /// tells.
    fn cancels_runs(&self, row: &TaskRow, model: &Model, t: u64) -> bool {
        let id = row.task.to_string();
        let about = |operation: &&Operation| {
            let known = operation.returned.is_none_or(|returned| returned >= t);
            operation.invoked <= t && known && operation.name().is_some_and(|name| name == row.name || name == id)
        };
        let acknowledged = |operation: &&Operation| match operation.outcome {
            Some(Outcome::Written { task }) => task.id == row.task && task.change == Change::Deleted,
            _ => false,
        };
        let asks = |operation: &Operation| matches!(operation.action, Action::Delete { cancel_runs: true, .. });
        let candidates: Vec<&Operation> = self.deletes.iter().filter(about).collect();
        let known: Vec<bool> = candidates.iter().copied().filter(acknowledged).map(asks).collect();
        let possible = if known.is_empty() { candidates.iter().map(|it| asks(it)).collect() } else { known };
        let may_keep = possible.is_empty() || possible.contains(&false);
        let may_cancel = possible.is_empty() || possible.contains(&true);
        let all_are = model.before.iter().all(|live| model.cancelled.contains(&live.run));
        may_cancel && (all_are || !may_keep)
    }
}
