//! Every occurrence of a schedule at or before a task's `decided_until` stands in the ledger, so none is ever added
//! there; and `decided_until` never goes back, nor does the task's version.

use campanile_model::Timestamp;

use super::index::Facts;
use super::report::Report;
use crate::history::Event;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("decided_once");
    for (id, task) in &facts.tasks {
        for pair in task.rows.windows(2) {
            let (before, after) = (pair[0].it, pair[1].it);
            report.hold(after.decided_until >= before.decided_until && after.version >= before.version, pair[1].t, || {
                format!(
                    "task {id} went back from version {} decided until {} to version {} decided until {}, in entry {}",
                    before.version, before.decided_until, after.version, after.decided_until, after.index
                )
            });
        }
    }
    let mut undecided = |t, index, task, scheduled_at: Timestamp, what: &str| {
        let Some(before) = facts.tasks.get(&task).and_then(|task| task.before(index)) else { return };
        report.hold(scheduled_at > before.decided_until, t, || {
            let until = before.decided_until;
            format!("entry {index} {what} {scheduled_at} of task {task}, which was decided until {until}")
        });
    };
    for run in facts.runs.values() {
        if let Some(fire) = run.rows.first().filter(|fire| fire.it.is_scheduled()) {
            let occurrence = fire.it.occurrence;
            undecided(fire.t, fire.it.index, occurrence.task, occurrence.scheduled_at, "fired");
        }
    }
    for timed in &facts.history.events {
        if let Event::Lapse { index, task, first, .. } = &timed.event {
            undecided(timed.t, *index, *task, *first, "entered as not fired");
        }
    }
    report.finish_if_any("rows of the log")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use campanile_model::Reason;

    const NAME: &str = "decided_once";

    #[test]
    fn what_was_decided_is_decided_again() {
        let decided = |script: Script| script.entry(3).task(3, 1, 20);
        accepts(NAME, decided(Script::new()).row(&fired(5, 30)).task(5, 1, 30));
        refuses(NAME, decided(Script::new()).row(&fired(5, 20)));
        refuses(NAME, decided(Script::new()).lapse(5, 10, 30, Reason::Coalesced));
        accepts(NAME, decided(Script::new()).lapse(5, 21, 30, Reason::Coalesced));
    }

    #[test]
    fn going_back() {
        refuses(NAME, Script::new().task(3, 1, 20).task(4, 1, 19));
        refuses(NAME, Script::new().task(3, 2, 20).task(4, 1, 20));
        accepts(NAME, Script::new().task(3, 1, 20).task(4, 2, 20));
    }
}
