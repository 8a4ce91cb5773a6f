//! What retention must keep is there in the end: every run that is live, with all that came after it, and every run that
//! is one of its task's last `runs` or younger than `age`: in the ledger, and in the list of runs. That the others go is
//! housekeeping's.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::api::LedgerView;
use campanile_model::sim::Bound;
use campanile_model::{Millis, Origin, Retention, RunId, TaskId, Timestamp, limits};

use super::index::{At, Facts, RunFacts, TaskFacts};
use super::report::Report;
use super::tables::Tables;
use crate::history::Event;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("retention_kept");
    let is_final =
        |event: &Event| matches!(event, Event::FinalTask { .. } | Event::FinalRun { .. } | Event::FinalLedger { .. });
    let first = facts.history.events.iter().find(|timed| is_final(&timed.event)).map(|timed| timed.t);
    let first = facts.final_begun.or(first);
    let mut of_task: BTreeMap<TaskId, Vec<(RunId, &RunFacts)>> = BTreeMap::new();
    for (id, run) in &facts.runs {
        if let Some(fire) = run.rows.first().filter(|_| first.is_some()) {
            of_task.entry(fire.it.occurrence.task).or_default().push((*id, run));
        }
    }
    let tables = Tables::new(facts);
    for (id, mut runs) in of_task {
        let Some(task) = facts.tasks.get(&id) else { continue };
        // What went before it was written anew is not retention's.
        if tables.may_have_begun_to_go(task, u64::MAX) {
            continue;
        }
        let (Some(ledger), Some(least)) = (task.ledger, least_kept(facts, id, task)) else { continue };
        runs.sort_by_key(|(_, run)| place(run));
        judge(facts, ledger, &runs, least, &mut report);
    }
    report.finish_if_any("ledgers in the end, and fires of definitions that clients saw")
}

/// Its place in the ledger.
fn place(run: &RunFacts) -> (Timestamp, u32) {
    let occurrence = run.rows[0].it.occurrence;
    let origin = match occurrence.origin {
        Origin::Schedule => 0,
        Origin::Manual(nth) => nth,
    };
    (occurrence.scheduled_at, origin)
}

/// The least that any of the task's versions keeps: each of them has had its time. None, if nobody saw one of them.
pub(super) fn least_kept(facts: &Facts, id: TaskId, task: &TaskFacts) -> Option<Retention> {
    let versions: BTreeSet<u32> = task.rows.iter().map(|row| row.it.version).collect();
    let mut least = Retention { runs: u32::MAX, age: Millis(u64::MAX) };
    for version in versions {
        let Retention { runs, age } = facts.spec(id, version)?.retention;
        least = Retention { runs: least.runs.min(runs), age: least.age.min(age) };
    }
    Some(least)
}

/// The task's runs in the order of its ledger.
fn judge(facts: &Facts, ledger: At<&LedgerView>, runs: &[(RunId, &RunFacts)], least: Retention, report: &mut Report) {
    let kept: BTreeSet<RunId> = ledger.it.items.iter().filter_map(|line| line.run).collect();
    let now = facts.latest_clock(facts.history.end());
    // Beyond this many lines they go, whatever the definition says.
    let header = &facts.history.header;
    let most = header.bound(Bound::LedgerLines, limits::LEDGER_LINES.into());
    // A bound that is drawn small is reached by lines of other kinds as well.
    let is_full = ledger.it.items.len() as u64 >= most || most < u64::from(limits::LEDGER_LINES);
    let mut behind_a_live_one = false;
    for (nth, (id, run)) in runs.iter().enumerate() {
        behind_a_live_one |= run.rows.last().is_some_and(|row| !row.it.state.is_finished());
        // What has come while the final state was read is told by neither, but may have taken the place of others.
        if run.rows[0].t >= ledger.t {
            continue;
        }
        let (after, scheduled_at) = (runs.len() - nth - 1, place(run).0);
        let is_one_of_the_last = after < least.runs as usize;
        let is_young = scheduled_at.saturating_add(least.age) > now;
        if !behind_a_live_one && (is_full || !(is_one_of_the_last || is_young)) {
            continue;
        }
        let is_there = kept.contains(id);
        report.hold(is_there, ledger.t, || {
            let Retention { runs, age } = least;
            format!(
                "run {id} of {scheduled_at}, after which {after} came, is gone from the ledger of task {}, which keeps \
                 {runs} or {age}",
                ledger.it.task_id
            )
        });
        report.hold(!is_there || run.in_the_end.is_some(), ledger.t, || {
            format!("run {id} stands in the ledger of task {} and is not listed", ledger.it.task_id)
        });
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::api::Change;
    use campanile_model::{OnFinish, RunState, TaskStatus};

    use super::super::testing::*;
    use super::*;
    use crate::history::RunRow;

    const NAME: &str = "retention_kept";

    /// Runs at seconds 1, 2, ..., which have ended, and a ledger read at second 1000 that has those of `kept`.
    fn read(runs: i64, retention: Retention, kept: std::ops::Range<i64>) -> Script {
        read_of(runs, retention, kept, |_| {})
    }

    /// The same, with a change in the last row of the first run.
    fn read_of(runs: i64, retention: Retention, kept: std::ops::Range<i64>, first: impl Fn(&mut RunRow)) -> Script {
        let put = put_with(|spec| spec.retention = retention);
        let mut script = Script::new().invoke(1, put).wrote(1, Change::Created, 1).task(3, 1, 0);
        let run = |nth: i64| fired(2 * nth as u64 + 10, nth + 1);
        let end = |nth: i64| ended(&run(nth), 2 * nth as u64 + 11, RunState::Succeeded);
        for nth in 0..runs {
            let last = changed(&end(nth), |row| {
                if nth == 0 {
                    first(row);
                }
            });
            script = script.at(nth as u64 * 1000 + 1000).row(&run(nth)).row(&last);
        }
        script = script.at(1_000_000);
        for nth in kept.clone() {
            script = script.final_run(&end(nth));
        }
        script.ledger(&kept.map(run).collect::<Vec<_>>())
    }

    fn keeps(runs: u32, age_s: u64) -> Retention {
        Retention { runs, age: Millis::from_secs(age_s) }
    }

    #[test]
    fn the_last_runs_are_kept() {
        accepts(NAME, read(5, keeps(3, 0), 2..5));
        accepts(NAME, read(5, keeps(3, 0), 0..5));
        refuses(NAME, read(5, keeps(3, 0), 3..5));
    }

    #[test]
    fn what_went_with_a_finished_task_is_not_missed() {
        let gone_after = |kept_ms| {
            let put = put_with(|spec| spec.on_finish = OnFinish::Delete);
            let script = Script::new().small(Bound::FinishedKept, kept_ms).at(100).invoke(1, put).entry(3);
            let script = script.task_is(3, 1, TaskStatus::Finished).wrote(1, Change::Created, 1).at(1000).entry(4);
            let run = fired(4, 1);
            script.row(&run).row(&ended(&run, 4, RunState::Succeeded)).at(2000).entry(5).ledger(&[])
        };
        permits(NAME, gone_after(500));
        refuses(NAME, gone_after(5000));
    }

    #[test]
    fn young_runs_are_kept() {
        accepts(NAME, read(5, keeps(1, 995), 4..5));
        refuses(NAME, read(5, keeps(1, 997), 4..5));
        accepts(NAME, read(5, keeps(1, 997), 3..5));
    }

    #[test]
    fn live_runs_and_what_follows_them_are_kept() {
        let live = |kept| read_of(5, keeps(1, 0), kept, |row| row.state = RunState::Running);
        accepts(NAME, live(0..5));
        refuses(NAME, live(1..5));
    }

    #[test]
    fn a_line_without_its_run() {
        let whole = read(2, keeps(3, 0), 0..2).done();
        let mut script = Script::new();
        for timed in whole.events {
            if !matches!(timed.event, Event::FinalRun { .. }) {
                script = script.at(timed.t / 1000).event(timed.event);
            }
        }
        refuses(NAME, script);
        not_applicable(NAME, Script::new().row(&fired(5, 10)));
    }
}
