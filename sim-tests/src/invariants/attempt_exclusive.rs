//! Invariant 12. A run has one live attempt at a time, and one outcome. The log gives an attempt to another node only
//! once the one before it has ended: its outcome was recorded, or its node was fenced, or nobody had it. Only the owner
//! delivers it. A run that has finished stays as it is.

use campanile_model::{AttemptResult, RunState};

use super::index::{Delivered, Facts, RunFacts, index_of};
use super::report::Report;
use super::transit::Transit;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("attempt_exclusive");
    let transit = Transit::new(facts.history);
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
        overlaps(facts, &transit, run, &mut report);
        given_up_when_lost(facts, run, &mut report);
        if let Some(end) = run.in_the_end {
            // What the reading may have come too early for says nothing.
            let last = run.rows.iter().rfind(|row| row.t <= end.t && row.it.state.is_finished());
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

/// Two attempts at the receiver at one time: the earlier must have ended for the log, as the log says it did, or its node
/// was lost.
fn overlaps(facts: &Facts, transit: &Transit, run: &RunFacts, report: &mut Report) {
    let mut by_attempt: Vec<&Delivered> = run.deliveries.iter().collect();
    by_attempt.sort_by_key(|delivered| delivered.it.attempt);
    for pair in by_attempt.windows(2) {
        let (earlier, later) = (pair[0], pair[1]);
        let over = earlier.answer.map_or(u64::MAX, |(t, _)| t);
        if earlier.it.attempt == later.it.attempt || later.t >= over {
            continue;
        }
        if !run.rows.is_empty() {
            ended_before(facts, transit, run, (earlier, later), report);
            continue;
        }
        // Without the log the final state has to say how it ended.
        if earlier.it.node == later.it.node {
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

/// The earlier of two attempts is not answered when the later one arrives. Its sender had waited for the whole time-out,
/// or lost the connection, if it was not lost itself.
fn ended_before(
    facts: &Facts,
    transit: &Transit,
    run: &RunFacts,
    (earlier, later): (&Delivered, &Delivered),
    report: &mut Report,
) {
    let (node, token) = (earlier.it.node, earlier.it.token);
    if facts.void_at(node, token, index_of(later.it.token)) {
        return report.looked();
    }
    let mut records = run.rows.iter().filter_map(|row| row.it.last.as_ref().map(|record| (row.it.version, record)));
    let Some((version, record)) = records.find(|(_, record)| record.token == token) else { return };
    let held = match (record.result, record.status) {
        (AttemptResult::TimedOut, _) => {
            let Some(spec) = facts.spec(earlier.it.task, version) else { return };
            let (begun, timeout) = (transit.begun(node, earlier.t), spec.timeout.0 * 1000);
            later.t + transit.stretch(timeout, begun, later.t) >= begun + timeout
        }
        (_, status) => status.is_none(),
    };
    report.hold(held, later.t, || {
        format!(
            "attempts {} and {} of run {} were at the receiver together: the first had arrived {} ms before, was not \
             answered, and is recorded as {:?}",
            earlier.it.attempt,
            later.it.attempt,
            later.it.run,
            (later.t as i64 - earlier.t as i64) / 1000,
            record.result
        )
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::RunRow;
    use campanile_model::api::Change;
    use campanile_model::{AttemptRecord, AttemptResult, Millis, NodeId, RunState};

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

    #[test]
    fn by_the_log_the_first_had_timed_out() {
        let (run, put) = (fired(5, 10), || put_with(|spec| spec.timeout = Millis(2000)));
        let ended_as = |result, status| {
            changed(&retrying(&run, 6, 20), |row| row.last = Some(AttemptRecord { status, ..record(&run, result) }))
        };
        let together = |first: &RunRow, ms: u64| {
            let put = Script::new().invoke(1, put()).wrote(1, Change::Created, 1);
            let second = attempt(first, 2, 7);
            put.at(100).row(&run).row(first).row(&second).deliver(1, &run).at(100 + ms).deliver(2, &second)
        };
        let timed_out = ended_as(AttemptResult::TimedOut, None);
        accepts(NAME, together(&timed_out, 1987));
        refuses(NAME, together(&timed_out, 1986));
        accepts(NAME, together(&ended_as(AttemptResult::Failed, None), 10));
        refuses(NAME, together(&ended_as(AttemptResult::Failed, Some(500)), 10));
        let answered = together(&ended_as(AttemptResult::Failed, Some(500)), 10);
        accepts(NAME, answered.answer(1, 500));
    }
}
