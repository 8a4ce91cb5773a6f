//! Nothing grows in a steady state: what may go is gone within [`WITHIN`] of undisturbed time, and what may not go is
//! there. Deleted and finished tasks, idempotency keys, rows of the time index, ledger lines beyond retention with their
//! runs, definitions that no line is of.
//!
//! By the rows that a leader had now and then, and what the history says should be among them.

use std::collections::BTreeMap;

use campanile_model::sim::Bound;
use campanile_model::{DELETED_KEPT, FINISHED_KEPT, Millis, OnFinish, RunId, TaskId, TaskStatus, Timestamp, limits};

use super::index::{At, Facts, TaskFacts};
use super::report::Report;
use crate::history::{Event, Rows, RunRow, TaskRow, TaskRows};
use crate::verdict::Finding;

/// What may go is gone within so long, if nothing disturbs: a new leader reads its tables first, and removes after all
/// else.
const WITHIN: Millis = Millis::from_secs(8);
/// Between two looks of housekeeping, usually; and ledger lines between two reminders.
const EVERY: Millis = Millis::from_secs(10);
const TRIM_EVERY: u64 = 64;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("housekeeping");
    let owed = Owed::new(facts);
    for timed in &facts.history.events {
        if let Event::Rows(rows) = &timed.event {
            owed.judge(timed.t, rows, &mut report);
        }
    }
    report.finish_if_any("counts of a leader's rows")
}

/// What is owed of a history's tasks.
struct Owed<'f> {
    facts: &'f Facts<'f>,
    runs: BTreeMap<TaskId, Vec<OfRun<'f>>>,
}

/// A run and its rows.
type OfRun<'f> = (RunId, &'f [At<&'f RunRow>]);

impl<'f> Owed<'f> {
    fn new(facts: &'f Facts<'f>) -> Self {
        let mut runs: BTreeMap<TaskId, Vec<_>> = BTreeMap::new();
        for (id, run) in &facts.runs {
            if let Some(first) = run.rows.first() {
                runs.entry(first.it.occurrence.task).or_default().push((*id, run.rows.as_slice()));
            }
        }
        Self { facts, runs }
    }

    fn judge(&self, t: u64, rows: &Rows, report: &mut Report) {
        let quiet = self.facts.troubles.quiet_since(t);
        // What may go since `due` must be gone.
        let over = |due: u64, beside: Millis| {
            let patience = (WITHIN.0 + beside.0) * 1000 + self.facts.clock_error();
            quiet.is_some_and(|quiet| due.max(quiet).saturating_add(patience) < t)
        };
        let every = self.facts.history.header.time(Bound::HousekeepingEvery, EVERY);
        if let Some(first) = rows.first_key {
            report.hold(!over(self.facts.since_start(first), every), t, || {
                format!("an idempotency key ran out at {first} and is there at entry {}", rows.index)
            });
        }
        if let Some(first) = rows.first_timer {
            report.hold(!over(self.facts.since_start(first), every), t, || {
                format!("the time index begins at {first} at entry {}", rows.index)
            });
        }
        let present: BTreeMap<TaskId, &TaskRows> = rows.tasks.iter().map(|rows| (rows.task, rows)).collect();
        for (id, task) in &self.facts.tasks {
            let Some(last) = latest(task, rows.index) else { continue };
            let there = present.get(id);
            match last.it.status {
                TaskStatus::Active | TaskStatus::Paused => report.hold(there.is_some(), t, || {
                    format!("task {id} is {:?} and has no row at entry {}", last.it.status, rows.index)
                }),
                status => {
                    let gone_since = self.goes_at(*id, last, rows.index);
                    let stays = there.is_some() && gone_since.is_some_and(|due| over(due, Millis(0)));
                    report.hold(!stays, t, || {
                        format!("task {id} is {status:?}, was to go, and has a row at entry {}", rows.index)
                    });
                }
            }
            if let Some(there) = there {
                self.lines(t, *id, last.it, there, rows.index, report);
            }
        }
        let fired: u64 = rows.tasks.iter().map(|task| task.fired).sum();
        let most = fired + rows.tasks.len() as u64;
        report.hold(rows.runs <= most, t, || {
            format!("{} finished runs are there at entry {}, of {most} that a ledger may name", rows.runs, rows.index)
        });
    }

    /// From when on a task that is deleted or finished need not be there; `None` if it stays, or is not known to go.
    fn goes_at(&self, id: TaskId, last: &At<&TaskRow>, index: u64) -> Option<u64> {
        let header = &self.facts.history.header;
        let kept = match last.it.status {
            TaskStatus::Deleted => header.time(Bound::DeletedKept, DELETED_KEPT),
            TaskStatus::Finished => {
                let spec = self.facts.spec(id, last.it.version)?;
                if !spec.is_one_shot() && spec.on_finish != OnFinish::Delete {
                    return None;
                }
                header.time(Bound::FinishedKept, FINISHED_KEPT)
            }
            TaskStatus::Active | TaskStatus::Paused => return None,
        };
        // Its runs hold it. While one is live it is looked at again after as long as it is kept.
        let mut since = last.t;
        for (_, rows) in self.runs.get(&id).into_iter().flatten() {
            let run = rows.iter().rev().find(|row| row.it.index <= index);
            if run.is_some_and(|run| !run.it.state.is_finished()) {
                return None;
            }
            since = run.map_or(since, |run| since.max(run.t));
        }
        Some(since.saturating_add(kept.0 * 1000))
    }

    /// The ledger of a task that goes on, and the definitions that its lines are of.
    fn lines(&self, t: u64, id: TaskId, last: &TaskRow, there: &TaskRows, index: u64, report: &mut Report) {
        // Its own, a one-shot's last one, and those of its lines.
        let most = 2 + there.fired + there.ranges;
        report.hold(there.versions <= most, t, || {
            format!("task {id} has {} definitions at entry {index}, and {most} may be of use", there.versions)
        });
        if let Some(gone) = self.trimmed(t, id, last.version, index) {
            let fires = self.fires(id, index).count() as u64;
            report.hold(there.fired + gone <= fires, t, || {
                format!(
                    "task {id} fired {fires} times by entry {index} and has {} lines of it; {gone} were to go",
                    there.fired
                )
            });
        }
    }

    /// When the task's runs fired and when they were scheduled, in log order.
    fn fires(&self, id: TaskId, index: u64) -> impl Iterator<Item = (u64, Timestamp, &'f [At<&'f RunRow>])> {
        let runs = self.runs.get(&id).into_iter().flatten();
        runs.filter(move |(_, rows)| rows[0].it.index <= index)
            .map(|(_, rows)| (rows[0].t, rows[0].it.occurrence.scheduled_at, *rows))
    }

    /// How many lines have been folded for sure. A task says that it has too many every so many lines, so what was too
    /// old before the latest of them is gone, if all was quiet since.
    fn trimmed(&self, t: u64, id: TaskId, version: u32, index: u64) -> Option<u64> {
        let spec = self.facts.spec(id, version)?;
        let header = &self.facts.history.header;
        // A reminder is lost where effects are missed or too many tasks are remembered; then the next one counts.
        let lossy = [Bound::ConductorEffects, Bound::TrimQueue];
        if spec.is_one_shot() || lossy.iter().any(|bound| header.bounds.contains_key(bound.name())) {
            return None;
        }
        let every = header.bound(Bound::TrimEvery, TRIM_EVERY);
        let limit = header.bound(Bound::LedgerLines, u64::from(limits::LEDGER_LINES));
        let fires: Vec<_> = self.fires(id, index).collect();
        let then = fires.len().checked_sub(4 * every as usize + 8)?;
        let (reminded, _, rows) = fires[then];
        // An update may have changed how much is kept.
        if rows[0].it.version != version {
            return None;
        }
        let latest = fires.last()?.0;
        let quiet = self.facts.troubles.quiet_since(t).is_some_and(|quiet| quiet + WITHIN.0 * 1000 <= reminded);
        if !quiet || latest.saturating_add(WITHIN.0 * 1000) > t {
            return None;
        }
        let mut before: Vec<_> = fires[..then].to_vec();
        before.sort_by_key(|(_, scheduled_at, _)| *scheduled_at);
        // A run that was live then holds its own line and those after it.
        let live = |rows: &[At<&RunRow>]| {
            rows.iter().rev().find(|row| row.t <= reminded).is_some_and(|row| !row.it.state.is_finished())
        };
        let held = before.iter().position(|(_, _, rows)| live(rows)).unwrap_or(before.len());
        let clock = Timestamp::from_millis(self.facts.history.wall_ms(reminded) - header.clock_error_ms);
        let old = clock.saturating_sub(spec.retention.age);
        let kept = limit.min(u64::from(spec.retention.runs));
        let beyond = |place: u64, most: u64| place + most < before.len() as u64;
        let goes = before.iter().zip(0..).take(held).take_while(|((_, scheduled_at, _), place)| {
            beyond(*place, limit) || (beyond(*place, kept) && *scheduled_at < old)
        });
        Some(goes.count() as u64)
    }
}

/// The row as the entries up to `index` left it.
fn latest<'t, 'h>(task: &'t TaskFacts<'h>, index: u64) -> Option<&'t At<&'h TaskRow>> {
    let later = task.rows.partition_point(|row| row.it.index <= index);
    task.rows.get(later.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use campanile_model::RunState;

    use super::super::testing::*;
    use super::*;
    use crate::plan::Fault;

    const NAME: &str = "housekeeping";

    fn small(script: Script) -> Script {
        let script = script.small(Bound::HousekeepingEvery, 1000).small(Bound::DeletedKept, 2000);
        script.small(Bound::FinishedKept, 2000)
    }

    fn counted(at: u64, change: impl FnOnce(&mut Rows)) -> Script {
        small(Script::new()).entry(3).task(3, 1, 0).at(at).rows(3, change)
    }

    #[test]
    fn a_key_that_has_run_out_goes() {
        accepts(NAME, counted(14_000, |rows| rows.first_key = Some(second(5))));
        refuses(NAME, counted(14_001, |rows| rows.first_key = Some(second(5))));
        let troubled = small(Script::new()).begin(0, Fault::AddNode).at(6_000).end(0).at(15_000);
        accepts(NAME, troubled.rows(3, |rows| rows.first_key = Some(second(1))));
    }

    #[test]
    fn the_time_index_follows_the_time() {
        accepts(NAME, counted(14_000, |rows| rows.first_timer = Some(second(5))));
        refuses(NAME, counted(14_001, |rows| rows.first_timer = Some(second(5))));
    }

    #[test]
    fn what_is_left_of_a_deleted_task_goes() {
        let deleted = || small(Script::new()).entry(3).task_is(3, 1, TaskStatus::Deleted);
        accepts(NAME, deleted().at(10_000).rows(3, |_| {}));
        refuses(NAME, deleted().at(10_001).rows(3, |_| {}));
        accepts(NAME, deleted().at(10_001).rows(3, |rows| rows.tasks.clear()));
        // Not while a run is live.
        let run = fired(4, 1);
        accepts(NAME, deleted().row(&run).at(60_000).rows(4, |rows| rows.tasks[0].fired = 1));
        let ended = ended(&run, 5, RunState::Succeeded);
        let over = || deleted().row(&run).at(50_000).row(&ended);
        accepts(NAME, over().at(60_000).rows(5, |_| {}));
        refuses(NAME, over().at(60_001).rows(5, |_| {}));
    }

    #[test]
    fn a_finished_task_goes_if_it_says_so() {
        let known = |on_finish| {
            let put = put_with(|spec| spec.on_finish = on_finish);
            let script = small(Script::new()).invoke(1, put).entry(3).task_is(3, 1, TaskStatus::Finished);
            script.wrote(1, campanile_model::api::Change::Created, 1).at(10_001).rows(3, |_| {})
        };
        refuses(NAME, known(OnFinish::Delete));
        accepts(NAME, known(OnFinish::Keep));
    }

    #[test]
    fn a_task_that_goes_on_is_there() {
        refuses(NAME, counted(100, |rows| rows.tasks.clear()));
        accepts(NAME, counted(100, |_| {}));
    }

    #[test]
    fn definitions_and_runs_go_with_the_lines() {
        accepts(NAME, counted(100, |rows| (rows.tasks[0].versions, rows.tasks[0].fired) = (5, 3)));
        refuses(NAME, counted(100, |rows| (rows.tasks[0].versions, rows.tasks[0].fired) = (6, 3)));
        accepts(NAME, counted(100, |rows| (rows.runs, rows.tasks[0].fired) = (4, 3)));
        refuses(NAME, counted(100, |rows| (rows.runs, rows.tasks[0].fired) = (5, 3)));
    }

    #[test]
    fn ledger_lines_beyond_retention_go() {
        let kept = |lines: u64, live: bool| {
            let retention = campanile_model::Retention { runs: 2, age: Millis::from_secs(1) };
            let put = put_with(|spec| spec.retention = retention);
            let mut script = small(Script::new()).small(Bound::TrimEvery, 2).invoke(1, put).entry(3).task(3, 1, 0);
            script = script.wrote(1, campanile_model::api::Change::Created, 1);
            for nth in 0..30 {
                let run = fired(10 + 2 * nth, 10 + nth as i64);
                script = script.at(10_000 + nth * 1000).entry(10 + 2 * nth).row(&run);
                if nth > 0 || !live {
                    script = script.row(&ended(&run, 11 + 2 * nth, RunState::Succeeded));
                }
            }
            script.at(48_000).rows(100, |rows| rows.tasks[0].fired = lines)
        };
        // Sixteen fires are too near to the end to be sure; of the fourteen before them two are kept.
        accepts(NAME, kept(18, false));
        refuses(NAME, kept(19, false));
        accepts(NAME, kept(30, true));
    }
}
