//! How a task ends, or stops for a while. `remaining` starts at what the version says, falls by one with each scheduled
//! fire and with nothing else, and at 0 the task is finished; a task is finished when it is used up, or when by the second
//! opinion no occurrence is left, and not before; `pause_on_failure` pauses in the entry that recorded the last of so many
//! failures in a row, 410 in the one that recorded it, and nothing else but a client pauses; a finished task stays, or
//! stays for a day if it goes by itself (that it goes then is housekeeping's).

use std::collections::BTreeMap;

use campanile_model::sim::Bound;
use campanile_model::{FINISHED_KEPT, Millis, OnFinish, RunId, RunState, TaskId, TaskSpec, TaskStatus, Timestamp};

use super::index::Facts;
use super::report::Report;
use crate::expect::{self, Anchors};
use crate::history::{Action, Event, RunRow, TaskRow};
use crate::verdict::Finding;

/// How far ahead the second opinion looks for an occurrence that a finished task still has.
const AHEAD: Millis = Millis::from_hours(1);

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("task_ends");
    let mut walk = Walk { facts, pauses: pauses(facts), tasks: BTreeMap::new(), owed: Vec::new() };
    for timed in &facts.history.events {
        match &timed.event {
            Event::Entry { .. } => walk.entry_ended(&mut report),
            Event::Run(row) => walk.run(timed.t, row),
            Event::Task(row) => walk.task(timed.t, row, &mut report),
            _ => {}
        }
    }
    walk.entry_ended(&mut report);
    in_the_end(facts, &walk, &mut report);
    report.finish_if_any("rows of tasks")
}

/// When a client may have paused a task, by its name.
fn pauses<'h>(facts: &Facts<'h>) -> BTreeMap<&'h str, Vec<(u64, u64)>> {
    let mut found: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for operation in &facts.operations {
        if let Action::Pause { name, .. } = operation.action
            && operation.may_have_happened()
        {
            found.entry(name).or_default().push((operation.invoked, operation.over_at()));
        }
    }
    found
}

/// The log from its beginning, entry by entry.
struct Walk<'f, 'h> {
    facts: &'f Facts<'h>,
    pauses: BTreeMap<&'h str, Vec<(u64, u64)>>,
    tasks: BTreeMap<TaskId, Standing<'h>>,
    /// Tasks that the entry must pause, and why.
    owed: Vec<(u64, TaskId, String)>,
}

/// A task after what has been read.
struct Standing<'h> {
    row: &'h TaskRow,
    t: u64,
    created_at: Timestamp,
    version_at: Timestamp,
    /// What remained when the current version was written; the definition's number where a client saw it.
    begins_with: Option<u32>,
    /// Its scheduled fires.
    fires: u32,
    /// Its runs in a row that failed.
    failures: u32,
    /// The entry in which a run of it was answered 410, or failed as the last that is allowed.
    stopped_by: Option<u64>,
    live: BTreeMap<RunId, ()>,
    last_end: Timestamp,
    finished_at: Option<Timestamp>,
}

impl<'h> Walk<'_, 'h> {
    fn spec(&self, task: TaskId, version: u32) -> Option<&'h TaskSpec> {
        self.facts.spec(task, version)
    }

    /// What the entry had to do and has not done.
    fn entry_ended(&mut self, report: &mut Report) {
        for (t, task, why) in std::mem::take(&mut self.owed) {
            report.violated(t, format!("task {task} stays active, and {why}"));
        }
    }

    fn run(&mut self, t: u64, row: &'h RunRow) {
        let id = row.occurrence.task;
        let limit = self.spec(id, row.version).and_then(|spec| spec.pause_on_failure);
        let stamp = self.facts.stamp(row.index);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let is_first = row.index == row.run.place().index();
        let is_new = is_first && !task.live.contains_key(&row.run);
        if is_new && row.is_scheduled() && row.version == task.row.version {
            task.fires += 1;
        }
        if !row.state.is_finished() {
            task.live.insert(row.run, ());
            return;
        }
        if task.live.remove(&row.run).is_none() && !is_new {
            return;
        }
        task.last_end = stamp.unwrap_or(task.last_end).max(task.last_end);
        if row.version != task.row.version {
            return;
        }
        match row.state {
            RunState::Succeeded => task.failures = 0,
            RunState::Failed | RunState::TimedOut => task.failures += 1,
            _ => return,
        }
        let gone = row.state == RunState::Failed && row.last.as_ref().is_some_and(|last| last.status == Some(410));
        let limit_met = limit.is_some_and(|limit| task.failures >= limit);
        if gone || limit_met {
            task.stopped_by = Some(row.index);
            if task.row.status == TaskStatus::Active {
                let failures = task.failures;
                self.owed.push((
                    t,
                    id,
                    format!("entry {} recorded failure {failures} in a row ({limit:?} pause it) or a 410", row.index),
                ));
            }
        }
    }

    fn task(&mut self, t: u64, row: &'h TaskRow, report: &mut Report) {
        let stamp =
            self.facts.stamp(row.index).unwrap_or_else(|| Timestamp::from_millis(self.facts.history.wall_ms(t)));
        let spec = self.spec(row.task, row.version);
        let before = self.tasks.get(&row.task).map(|task| task.row);
        let is_new = before.is_none_or(|before| before.version != row.version);
        let task = self.tasks.entry(row.task).or_insert_with(|| Standing {
            row,
            t,
            created_at: stamp,
            version_at: stamp,
            begins_with: None,
            fires: 0,
            failures: 0,
            stopped_by: None,
            live: BTreeMap::new(),
            last_end: stamp,
            finished_at: None,
        });
        if is_new {
            (task.version_at, task.fires, task.failures, task.stopped_by) = (stamp, 0, 0, None);
            task.begins_with = spec.map_or(row.remaining, |spec| spec.remaining);
        }
        let resumed = !is_new && before.is_some_and(|before| before.status == TaskStatus::Paused);
        if resumed && row.status == TaskStatus::Active {
            task.failures = 0;
        }
        if row.status != TaskStatus::Active {
            self.owed.retain(|(_, owes, _)| *owes != row.task);
        }
        let left = task.begins_with.map(|begins| i64::from(begins) - i64::from(task.fires));
        report.hold(row.remaining.map(i64::from) == left, t, || {
            format!(
                "entry {} leaves task {} with {:?} fires remaining; of {:?} its version {} had {} fires",
                row.index, row.task, row.remaining, task.begins_with, row.version, task.fires
            )
        });
        let ended = matches!(row.status, TaskStatus::Finished | TaskStatus::Deleted);
        report.hold(row.remaining != Some(0) || ended, t, || {
            format!("entry {} left task {} {:?} with no fire remaining", row.index, row.task, row.status)
        });
        let serves = row.status == TaskStatus::Active && row.next.is_none();
        report.hold(!serves || spec.is_none_or(|spec| spec.schedules.is_empty()), t, || {
            format!("entry {} left task {} active, with schedules and no next occurrence", row.index, row.task)
        });
        let was = before.map(|before| before.status);
        if row.status == TaskStatus::Paused && was == Some(TaskStatus::Active) {
            let stopped = task.stopped_by == Some(row.index);
            let name = if row.name.is_empty() { row.task.to_string() } else { row.name.clone() };
            let asked = self.pauses.get(name.as_str()).into_iter().flatten();
            let by_hand = asked.into_iter().any(|(from, to)| *from <= t && t <= *to);
            // A version that nobody has seen may say that a failure pauses it.
            let may_say_so = spec.is_none() && task.failures > 0;
            report.hold(stopped || by_hand || may_say_so, t, || {
                format!(
                    "entry {} paused task {}, of which {} runs in a row had failed, and no client asked for it",
                    row.index, row.task, task.failures
                )
            });
        }
        if row.status == TaskStatus::Finished && (is_new || was != Some(TaskStatus::Finished)) {
            task.finished_at = Some(stamp);
            if row.remaining != Some(0)
                && let Some(spec) = spec
            {
                let anchors = Anchors {
                    created_at: task.created_at,
                    version_at: task.version_at,
                    since: task.version_at,
                    spread: expect::spread_of(&row.name),
                };
                let until = row.decided_until.max(stamp).saturating_add(AHEAD);
                let expected = expect::occurrences(spec, anchors, row.decided_until, until);
                let left = expected.ok().and_then(|expected| expected.first().copied());
                report.hold(left.is_none(), t, || {
                    format!("entry {} finished task {}, which is still due at {left:?}", row.index, row.task)
                });
            }
        }
        if row.status != TaskStatus::Finished {
            task.finished_at = None;
        }
        (task.row, task.t) = (row, t);
    }
}

/// What has finished stays as long as it says.
fn in_the_end(facts: &Facts, walk: &Walk, report: &mut Report) {
    let reads = facts.history.events.iter().filter(|timed| matches!(timed.event, Event::FinalTask { .. }));
    let reads: Vec<u64> = reads.map(|timed| timed.t).collect();
    let (Some(&first), Some(&last)) = (reads.first(), reads.last()) else { return };
    let first = facts.final_begun.unwrap_or(first);
    let kept = facts.history.header.time(Bound::FinishedKept, FINISHED_KEPT);
    let now = facts.latest_clock(last);
    for (id, task) in &walk.tasks {
        let (Some(finished_at), Some(spec)) = (task.finished_at, walk.spec(*id, task.row.version)) else { continue };
        // What has changed while the final state was read is told by neither.
        if task.t >= first {
            continue;
        }
        // A one-shot is counted from its decision, any other from the end of its last run.
        let since = if spec.is_one_shot() { finished_at } else { finished_at.max(task.last_end) };
        let goes = spec.is_one_shot() || spec.on_finish == OnFinish::Delete;
        let stays = !goes || since.saturating_add(kept) > now || !task.live.is_empty();
        let is_there = facts.tasks.get(id).is_some_and(|facts| facts.in_the_end.is_some());
        report.hold(!stays || is_there, last, || {
            let on_finish = spec.on_finish;
            format!("task {id} finished at {finished_at} and is gone at {now}; on_finish is {on_finish:?}")
        });
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::api::Change;
    use campanile_model::{AttemptRecord, AttemptResult, Origin, Schedule};

    use super::super::testing::*;
    use super::*;
    use crate::history::NextAt;

    const NAME: &str = "task_ends";

    fn known(change: impl FnOnce(&mut TaskSpec)) -> Script {
        Script::new().invoke(1, put_with(change)).wrote(1, Change::Created, 1)
    }

    fn row(index: u64, status: TaskStatus, remaining: Option<u32>) -> TaskRow {
        let due = |at| NextAt { scheduled_at: second(at), due_at: second(at) };
        TaskRow {
            index,
            task: TASK,
            name: "a".into(),
            version: 1,
            status,
            next: (status != TaskStatus::Finished).then(|| due(100)),
            decided_until: second(0),
            remaining,
            tally: Default::default(),
        }
    }

    fn stands(script: Script, index: u64, status: TaskStatus, remaining: Option<u32>) -> Script {
        script.event(Event::Task(row(index, status, remaining)))
    }

    use TaskStatus::{Active, Finished, Paused};

    #[test]
    fn remaining_is_used_up_by_scheduled_fires_alone() {
        let limited = || stands(known(|spec| spec.remaining = Some(2)).entry(3), 3, Active, Some(2));
        let fires = |nth: u64| fired(4 + nth, 10);
        let by_hand = changed(&fires(0), |row| row.occurrence.origin = Origin::Manual(1));
        accepts(NAME, stands(limited().entry(4).row(&fires(0)), 4, Active, Some(1)));
        refuses(NAME, stands(limited().entry(4).row(&fires(0)), 4, Active, Some(2)));
        refuses(NAME, stands(limited().entry(4).row(&fires(0)), 4, Active, Some(0)));
        accepts(NAME, stands(limited().entry(4).row(&by_hand), 4, Active, Some(2)));
        refuses(NAME, stands(limited().entry(4).row(&by_hand), 4, Active, Some(1)));
        let once = || stands(limited().entry(4).row(&fires(0)), 4, Active, Some(1)).entry(5).row(&fires(1));
        accepts(NAME, stands(once(), 5, Finished, Some(0)));
        refuses(NAME, stands(once(), 5, Active, Some(0)));
        refuses(NAME, stands(known(|spec| spec.remaining = Some(2)).entry(3), 3, Active, Some(3)));
        refuses(NAME, stands(known(|spec| spec.remaining = Some(2)).entry(3), 3, Active, None));
    }

    #[test]
    fn a_task_is_finished_when_nothing_is_left() {
        let at = |at_s: i64| move |spec: &mut TaskSpec| spec.schedules = vec![Schedule::At(second(at_s))];
        let ends = |script: Script| {
            let decided = TaskRow { decided_until: second(10), ..row(4, Finished, None) };
            stands(script.entry(3), 3, Active, None).entry(4).row(&fired(4, 10)).event(Event::Task(decided))
        };
        accepts(NAME, ends(known(at(10))));
        refuses(NAME, ends(known(at(20))));
        refuses(NAME, ends(known(|_| {})));
        accepts(NAME, ends(known(|spec| spec.end_at = Some(second(20)))));
        let idle = TaskRow { next: None, ..row(4, Active, None) };
        refuses(NAME, known(|_| {}).entry(4).event(Event::Task(idle.clone())));
        accepts(NAME, known(|spec| spec.schedules.clear()).entry(4).event(Event::Task(idle)));
    }

    /// Fires and fails so many times, each in entries of its own, the task standing so after each.
    fn failing(script: Script, states: &[(RunState, TaskStatus)]) -> Script {
        let mut script = stands(script.entry(3), 3, Active, None);
        for (nth, (state, status)) in states.iter().enumerate() {
            let index = 10 + 2 * nth as u64;
            let run = fired(index, 10);
            let end = ended(&run, index + 1, *state);
            script = stands(script.entry(index).row(&run), index, Active, None).entry(index + 1).row(&end);
            script = stands(script, index + 1, *status, None);
        }
        script.entry(1000)
    }

    #[test]
    fn so_many_failures_in_a_row_pause() {
        use RunState::{Cancelled, Failed, Succeeded, TimedOut};
        let twice = || known(|spec| spec.pause_on_failure = Some(2));
        accepts(NAME, failing(twice(), &[(Failed, Active), (TimedOut, Paused)]));
        accepts(NAME, failing(twice(), &[(Failed, Active), (Succeeded, Active), (Failed, Active)]));
        accepts(NAME, failing(twice(), &[(Failed, Active), (Cancelled, Active), (Failed, Paused)]));
        refuses(NAME, failing(twice(), &[(Failed, Active), (Failed, Active)]));
        refuses(NAME, failing(twice(), &[(Failed, Paused)]));
        refuses(NAME, failing(known(|_| {}), &[(Failed, Paused)]));
        let by_hand = || twice().invoke(2, Action::Pause { name: "a".into(), if_version: None });
        accepts(NAME, failing(by_hand(), &[(Failed, Paused)]));
        refuses(NAME, failing(by_hand().refused(2), &[(Failed, Paused)]));
        // Nobody knows what it says; that a success pauses it says nothing.
        accepts(NAME, failing(Script::new(), &[(Failed, Paused)]));
        refuses(NAME, failing(Script::new(), &[(Succeeded, Paused)]));
    }

    #[test]
    fn gone_pauses() {
        let gone = |status| {
            let run = fired(5, 10);
            let end = changed(&ended(&run, 6, RunState::Failed), |row| {
                row.last = Some(AttemptRecord { status: Some(410), ..record(&run, AttemptResult::Failed) });
            });
            let seen = stands(known(|_| {}).entry(3), 3, Active, None).entry(5).row(&run).entry(6).row(&end);
            stands(seen, 6, status, None).entry(7)
        };
        accepts(NAME, gone(Paused));
        refuses(NAME, gone(Active));
    }

    #[test]
    fn a_finished_task_stays_or_goes() {
        let day_s = 86_400;
        let finished = |one_shot: bool, on_finish| {
            let define = move |spec: &mut TaskSpec| {
                spec.on_finish = on_finish;
                spec.remaining = (!one_shot).then_some(1);
                if one_shot {
                    spec.schedules = vec![Schedule::At(second(1))];
                }
            };
            let left = |left| (!one_shot).then_some(left);
            let script = stands(known(define).entry(3), 3, Active, left(1)).at(1000).entry(4);
            let decided = TaskRow { decided_until: second(1), ..row(4, Finished, left(0)) };
            let script = script.row(&fired(4, 1)).event(Event::Task(decided)).at(2000).entry(5);
            script.row(&ended(&fired(4, 1), 5, RunState::Succeeded)).converged()
        };
        let gone = |script: Script, at_s: u64| script.at(at_s * 1000).final_task(2, |_| {});
        let there = |script: Script, at_s: u64| script.at(at_s * 1000).final_task(1, |_| {});
        for (one_shot, on_finish) in [(true, OnFinish::Keep), (false, OnFinish::Delete)] {
            let finished = || finished(one_shot, on_finish);
            accepts(NAME, there(finished(), 100));
            refuses(NAME, gone(finished(), 100));
            accepts(NAME, gone(finished(), day_s + 2));
        }
        refuses(NAME, gone(finished(false, OnFinish::Keep), 10 * day_s));
        accepts(NAME, there(finished(false, OnFinish::Keep), 10 * day_s));
    }
}
