//! A version with `remaining` fires at most that often. Manual triggers and what did not fire do not count.

use std::collections::BTreeMap;

use campanile_model::{Origin, TaskId};

use super::index::Facts;
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut fires: BTreeMap<(TaskId, u32), Vec<u64>> = BTreeMap::new();
    for run in facts.runs.values() {
        let fired = match (run.rows.first(), run.in_the_end) {
            (Some(row), _) => Some((row.it.occurrence, row.it.version, row.t)),
            (None, view) => view.map(|view| (view.it.occurrence_id, view.it.version, view.t)),
        };
        if let Some((occurrence, version, t)) = fired.filter(|(occurrence, ..)| occurrence.origin == Origin::Schedule) {
            fires.entry((occurrence.task, version)).or_default().push(t);
        }
    }
    let mut report = Report::new("remaining_fires");
    for ((task, version), mut at) in fires {
        let Some(spec) = facts.spec(task, version) else { continue };
        at.sort_unstable();
        let most = spec.remaining.map_or(usize::MAX, |remaining| remaining as usize);
        let beyond = at.get(most);
        report.hold(beyond.is_none(), beyond.copied().unwrap_or_default(), || {
            format!("version {version} of task {task} fired {} times, {most} remained", at.len())
        });
    }
    report.finish_if_any("fires of definitions that clients saw")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "remaining_fires";

    #[test]
    fn a_fire_beyond_the_last() {
        let known = |most| Script::new().task(3, 1, 0).final_task(1, |task| task.spec.remaining = most);
        let fires = |script: Script| script.row(&fired(5, 10)).row(&fired(6, 20));
        accepts(NAME, fires(known(Some(2))));
        refuses(NAME, fires(known(Some(1))));
        let by_hand = changed(&fired(7, 30), |row| row.occurrence.origin = campanile_model::Origin::Manual(1));
        accepts(NAME, fires(known(Some(2))).row(&by_hand));
        accepts(NAME, fires(known(None)));
        not_applicable(NAME, known(Some(1)));
        refuses(NAME, known(Some(1)).real().final_run(&fired(5, 10)).final_run(&fired(6, 20)));
    }
}
