//! Invariant 12. A run has one live attempt at a time, and one outcome. The log gives an attempt to another node only
//! once the one before it has ended: its outcome was recorded, or its node was fenced, or nobody had it. Only the owner
//! delivers it. A run that has finished stays as it is.

use campanile_model::{AttemptResult, RunState};

use super::index::{Delivered, Facts, RunFacts};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("attempt_exclusive");
    for (id, run) in &facts.runs {
        for pair in run.rows.windows(2) {
            let (before, after) = (pair[0].it, pair[1].it);
            report.hold(!before.state.is_finished(), pair[1].t, || {
                format!("run {id} was {} and entry {} wrote it again", before.state.as_str(), after.index)
            });
            let repeated = before.state == RunState::Running && after.attempt > before.attempt;
            report.hold(!repeated || facts.void_at(before.owner, before.token, after.index), pair[1].t, || {
                format!(
                    "entry {} repeated attempt {} of run {id}, which node {} still had",
                    after.index, before.attempt, before.owner
                )
            });
        }
        for delivered in &run.deliveries {
            let Some(row) = run.handed_out(delivered.it.token) else { continue };
            report.hold(row.it.owner == delivered.it.node, delivered.t, || {
                let (attempt, node, owner) = (delivered.it.attempt, delivered.it.node, row.it.owner);
                format!("attempt {attempt} of run {id} came from node {node} and belongs to node {owner}")
            });
        }
        overlaps(run, &mut report);
        given_up_when_lost(facts, run, &mut report);
        if let Some(end) = run.in_the_end {
            let last = run.rows.last().filter(|row| row.it.state.is_finished());
            report.hold(last.is_none_or(|row| row.it.state == end.it.state), end.t, || {
                format!("run {id} is {} in the end, and had finished otherwise", end.it.state.as_str())
            });
        }
    }
    report.finish_if_any("rows of runs, or deliveries")
}

/// A run fails with outcome unknown only when its node was fenced.
fn given_up_when_lost(facts: &Facts, run: &RunFacts, report: &mut Report) {
    let [.., before, last] = &run.rows[..] else { return };
    let record = run.in_the_end.and_then(|end| end.it.attempts.last());
    if before.it.state != RunState::Running
        || record.is_none_or(|record| record.result != AttemptResult::OutcomeUnknown)
    {
        return;
    }
    report.hold(facts.void_at(before.it.owner, before.it.token, last.it.index), last.t, || {
        format!(
            "entry {} gave up attempt {} of run {}, which node {} still had",
            last.it.index, before.it.attempt, before.it.run, before.it.owner
        )
    });
}

/// Two attempts at the receiver at one time, from different nodes: the earlier must have ended for the log.
fn overlaps(run: &RunFacts, report: &mut Report) {
    let mut by_attempt: Vec<&Delivered> = run.deliveries.iter().collect();
    by_attempt.sort_by_key(|delivered| delivered.it.attempt);
    for pair in by_attempt.windows(2) {
        let (earlier, later) = (pair[0], pair[1]);
        let over = earlier.answer.map_or(u64::MAX, |(t, _)| t);
        let from_another = earlier.it.node != later.it.node && earlier.it.attempt != later.it.attempt;
        // By the log, the rules about its rows are enough. Without it the final state has to say how it ended.
        if !from_another || later.t >= over || !run.rows.is_empty() {
            continue;
        }
        let Some(end) = run.in_the_end else { continue };
        let Some(record) = end.it.attempts.iter().find(|record| record.token == earlier.it.token) else { continue };
        report.hold(!matches!(record.result, AttemptResult::Succeeded | AttemptResult::Cancelled), later.t, || {
            format!(
                "attempts {} and {} of run {} were at the receiver together, and the first is recorded as {:?}",
                earlier.it.attempt, later.it.attempt, later.it.run, record.result
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use campanile_model::{AttemptResult, NodeId, RunState};

    const NAME: &str = "attempt_exclusive";

    #[test]
    fn a_repeat_needs_a_fence() {
        let run = fired(5, 10);
        let second = changed(&attempt(&run, 2, 7), |row| row.owner = NodeId(2));
        refuses(NAME, Script::new().row(&run).row(&second));
        accepts(NAME, Script::new().row(&run).node_row(6, 1, 1, 6, false).row(&second));
        refuses(NAME, Script::new().row(&run).node_row(6, 3, 1, 6, false).row(&second));
        accepts(NAME, Script::new().row(&run).row(&retrying(&run, 6, 20)).row(&second));
        let unowned = changed(&run, |row| row.owner = NodeId(0));
        accepts(NAME, Script::new().row(&unowned).row(&second));
    }

    #[test]
    fn giving_up_needs_a_fence() {
        let run = fired(5, 10);
        let failed = ended(&run, 7, RunState::Failed);
        let given_up = |script: Script| {
            script.row(&failed).final_view(&failed, |view| view.attempts[0].result = AttemptResult::OutcomeUnknown)
        };
        accepts(NAME, given_up(Script::new().row(&run).node_row(6, 1, 1, 6, false)));
        refuses(NAME, given_up(Script::new().row(&run)));
    }

    #[test]
    fn a_finished_run_stays_so() {
        let run = fired(5, 10);
        let end = ended(&run, 6, RunState::Succeeded);
        refuses(NAME, Script::new().row(&run).row(&end).row(&ended(&run, 7, RunState::Failed)));
        refuses(NAME, Script::new().row(&run).row(&end).final_run(&ended(&run, 6, RunState::Failed)));
    }

    #[test]
    fn only_the_owner_delivers() {
        let run = fired(5, 10);
        let by_another = changed(&run, |row| row.owner = NodeId(2));
        accepts(NAME, Script::new().row(&run).deliver(1, &run));
        refuses(NAME, Script::new().row(&run).deliver(1, &by_another));
    }

    #[test]
    fn two_nodes_at_the_receiver_at_one_time() {
        let run = fired(5, 10);
        let second = changed(&attempt(&run, 2, 7), |row| row.owner = NodeId(2));
        let end = ended(&second, 8, RunState::Succeeded);
        let overlapping = || Script::new().real().deliver(1, &run).at(100).deliver(2, &second);
        let first_is = |result| overlapping().final_view(&end, |view| view.attempts.insert(0, record(&run, result)));
        accepts(NAME, first_is(AttemptResult::OutcomeUnknown));
        refuses(NAME, first_is(AttemptResult::Succeeded));
    }
}
