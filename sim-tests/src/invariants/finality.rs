//! Invariant 6. Once a pause, a delete or an update is acknowledged, nothing fires under the old definition.
//!
//! By the log: an occurrence fires only of a task that was active, and under its version then. By what clients saw:
//! nothing is stamped after such an acknowledgement unless something was asked for that allows it. Manual triggers go
//! before a pause and are left out; finished runs are no concern here.

use std::collections::BTreeMap;

use campanile_model::api::{Change, OriginView, TaskWritten};
use campanile_model::{RunId, TaskId, TaskStatus};

use super::index::{At, Facts, Operation};
use super::report::Report;
use crate::history::{Action, Outcome, RunRow};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("finality");
    for run in facts.runs.values() {
        if let Some(fire) = run.rows.first().filter(|fire| fire.it.is_scheduled()) {
            by_the_log(facts, fire, &mut report);
        }
    }
    let (fires, resumes) = (fires(facts), Resumes::new(facts));
    for (written, operation, acknowledged) in stops(facts) {
        let Some(fires) = fires.get(&written.id) else { continue };
        let after = fires.partition_point(|fire| fire.at <= acknowledged);
        match written.change {
            Change::Paused => {
                let released = resumes.after(written, operation.invoked);
                // A task that finishes while it is paused may be given a new version, which is as good as a new task; that
                // a paused one is not let go by its new version, the log tells.
                let old = fires[after..].iter().find(|fire| fire.version <= written.version);
                if let Some(fire) = old.filter(|fire| fire.at < released) {
                    told(&mut report, fire, written, "paused", acknowledged);
                }
            }
            Change::Deleted => {
                if let Some(fire) = fires.get(after) {
                    told(&mut report, fire, written, "deleted", acknowledged);
                }
            }
            _ => {}
        }
        report.looked();
    }
    by_versions(facts, &fires, &mut report);
    report.finish_if_any("fires, or acknowledged writes")
}

fn by_the_log(facts: &Facts, fire: &At<&RunRow>, report: &mut Report) {
    let (run, index, version) = (fire.it.run, fire.it.index, fire.it.version);
    let task = fire.it.occurrence.task;
    let Some(known) = facts.tasks.get(&task) else { return };
    // Created or updated by the same entry, just before it fired.
    let version_now = known.after(index).map_or(0, |row| row.version);
    let Some(before) = known.before(index) else {
        return report.hold(version <= version_now, fire.t, || {
            format!("run {run} was fired under version {version} of task {task}, which there was not")
        });
    };
    let fits = if version == before.version {
        before.status == TaskStatus::Active
    } else {
        version > before.version && version <= version_now
    };
    report.hold(fits, fire.t, || {
        format!(
            "entry {index} fired run {run} under version {version} of task {task}, which was {:?} at version {}",
            before.status, before.version
        )
    });
}

/// A scheduled fire, as far as its time can be known from outside.
struct Fire {
    /// It was not committed before this.
    at: u64,
    run: RunId,
    version: u32,
}

/// By task, in the order of time.
fn fires(facts: &Facts) -> BTreeMap<TaskId, Vec<Fire>> {
    let mut fires: BTreeMap<TaskId, Vec<Fire>> = BTreeMap::new();
    for (run, known) in &facts.runs {
        let (task, fire) = match (known.rows.first(), known.in_the_end) {
            // Whoever acknowledges a later entry has applied this one before.
            (Some(fire), _) if fire.it.is_scheduled() => {
                (fire.it.occurrence.task, Fire { at: fire.t, run: *run, version: fire.it.version })
            }
            (None, Some(view)) if view.it.origin == OriginView::Schedule => {
                (view.it.task_id, Fire { at: facts.earliest(view.it.fired_at), run: *run, version: view.it.version })
            }
            _ => continue,
        };
        fires.entry(task).or_default().push(fire);
    }
    for fires in fires.values_mut() {
        fires.sort_by_key(|fire| fire.at);
    }
    fires
}

fn stops<'f>(facts: &'f Facts) -> impl Iterator<Item = (&'f TaskWritten, &'f Operation<'f>, u64)> {
    facts.operations.iter().filter_map(|operation| match operation.acknowledged()? {
        (t, Outcome::Written { task }) => Some((task, operation, t)),
        _ => None,
    })
}

/// Resumes by what they name, each with when it was asked for and the latest that any up to it may have had an effect.
struct Resumes<'f>(BTreeMap<&'f str, Vec<(u64, u64)>>);

impl<'f> Resumes<'f> {
    fn new(facts: &'f Facts) -> Self {
        let mut resumes: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for operation in facts.operations.iter().filter(|operation| operation.may_have_happened()) {
            if let Action::Resume { name, .. } = operation.action {
                let of_name = resumes.entry(name).or_default();
                let before = of_name.last().map_or(0, |(_, over_at)| *over_at);
                of_name.push((operation.invoked, operation.over_at().max(before)));
            }
        }
        Self(resumes)
    }

    /// The earliest that a resume may have let a paused task go on: before the pause if one was under way then.
    fn after(&self, written: &TaskWritten, paused: u64) -> u64 {
        let earliest = |name: &str| {
            let of_name = self.0.get(name)?;
            let over = of_name.partition_point(|(_, over_at)| *over_at < paused);
            of_name.get(over).map(|(invoked, _)| *invoked)
        };
        let by_id = written.id.to_string();
        [earliest(&written.name), earliest(&by_id)].into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

/// Versions never go back, so every fire is of the latest acknowledged version or of a later one.
fn by_versions(facts: &Facts, fires: &BTreeMap<TaskId, Vec<Fire>>, report: &mut Report) {
    let mut acknowledged: BTreeMap<TaskId, Vec<(u64, u32)>> = BTreeMap::new();
    for (written, _, t) in stops(facts) {
        acknowledged.entry(written.id).or_default().push((t, written.version));
    }
    for (task, mut versions) in acknowledged {
        versions.sort_unstable();
        let mut versions = versions.into_iter().peekable();
        let mut latest = 0;
        for fire in fires.get(&task).map_or(&[][..], Vec::as_slice) {
            while let Some((_, version)) = versions.next_if(|(t, _)| *t < fire.at) {
                latest = latest.max(version);
            }
            report.hold(fire.version >= latest, fire.at, || {
                let Fire { run, version, .. } = fire;
                format!(
                    "run {run} fired under version {version} of task {task} after version {latest} was acknowledged"
                )
            });
        }
    }
}

fn told(report: &mut Report, fire: &Fire, written: &TaskWritten, state: &str, acknowledged: u64) {
    let ms = (fire.at - acknowledged) / 1000;
    let (run, task) = (fire.run, written.id);
    report.violated(fire.at, format!("run {run} fired {ms} ms after task {task} was acknowledged as {state}"));
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Action, Outcome};
    use campanile_model::TaskStatus;
    use campanile_model::api::Change;

    const NAME: &str = "finality";

    fn active() -> Script {
        Script::new().task(3, 1, 0)
    }

    fn pause() -> Action {
        Action::Pause { name: "a".into(), if_version: None }
    }

    fn resume() -> Action {
        Action::Resume { name: "a".into(), if_version: None }
    }

    #[test]
    fn by_the_log_only_active_tasks_fire_under_their_version() {
        accepts(NAME, active().row(&fired(5, 10)).task(5, 1, 10));
        accepts(NAME, active().row(&fired(5, 10)).task_is(5, 1, TaskStatus::Paused));
        for status in [TaskStatus::Paused, TaskStatus::Deleted, TaskStatus::Finished] {
            refuses(NAME, active().task_is(4, 1, status).row(&fired(5, 10)));
            permits(NAME, active().task_is(4, 1, status).row(&triggered(5)));
        }
        refuses(NAME, active().task(4, 2, 0).row(&fired(5, 10)));
        let second = changed(&fired(5, 10), |row| row.version = 2);
        accepts(NAME, active().task(5, 2, 0).row(&second));
        refuses(NAME, active().task(6, 2, 0).row(&second));
        accepts(NAME, Script::new().task(5, 1, 10).row(&fired(5, 10)));
        refuses(NAME, Script::new().task(6, 1, 10).row(&fired(5, 10)));
    }

    #[test]
    fn nothing_fires_after_an_acknowledged_pause() {
        let paused = || Script::new().at(9_000).invoke(1, pause()).at(9_500).wrote(1, Change::Paused, 1);
        refuses(NAME, paused().at(10_000).row(&fired(5, 10)));
        refuses(NAME, paused().real().final_run(&fired(5, 10)));
        permits(NAME, paused().at(10_000).row(&triggered(5)));
        accepts(NAME, Script::new().at(10_000).row(&fired(5, 10)).invoke(1, pause()).wrote(1, Change::Paused, 1));
        accepts(NAME, paused().at(9_900).invoke(2, resume()).at(10_000).row(&fired(5, 10)));
        // The resume was over before the pause began, or may have come after it.
        let resumed_first = || Script::new().at(8_000).invoke(2, resume()).at(8_500).wrote(2, Change::Resumed, 1);
        let then_paused = |script: Script| script.at(9_000).invoke(1, pause()).at(9_500).wrote(1, Change::Paused, 1);
        refuses(NAME, then_paused(resumed_first()).at(10_000).row(&fired(5, 10)));
        let lost = Script::new().at(8_000).invoke(2, resume()).returned(2, Outcome::Unknown { reason: "lost".into() });
        accepts(NAME, then_paused(lost).at(10_000).row(&fired(5, 10)));
    }

    #[test]
    fn nothing_fires_after_an_acknowledged_delete() {
        let delete = Action::Delete { name: "a".into(), cancel_runs: false, if_version: None };
        let deleted = || Script::new().invoke(1, delete.clone()).at(9_500).wrote(1, Change::Deleted, 1);
        refuses(NAME, deleted().invoke(2, resume()).at(10_000).row(&fired(5, 10)));
        accepts(
            NAME,
            Script::new().at(10_000).row(&fired(5, 10)).invoke(1, delete.clone()).wrote(1, Change::Deleted, 1),
        );
    }

    #[test]
    fn nothing_fires_under_a_version_that_was_replaced() {
        let updated = || Script::new().invoke(1, put()).at(9_500).wrote(1, Change::Updated, 2);
        refuses(NAME, updated().at(10_000).row(&fired(5, 10)));
        accepts(NAME, updated().at(10_000).row(&changed(&fired(5, 10), |row| row.version = 2)));
        accepts(NAME, Script::new().at(10_000).row(&fired(5, 10)).invoke(1, put()).wrote(1, Change::Updated, 2));
    }
}
