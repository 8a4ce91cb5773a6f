//! Invariant 5. Nothing that a deposed leader or a lost node does is accepted. Along the log terms and times never go
//! back; and no outcome is recorded of an attempt whose node had been fenced before.

use campanile_model::{AttemptResult, RunState};

use super::index::{Facts, RunFacts};
use super::report::Report;
use crate::history::RunRow;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("no_deposed_fire");
    let mut entries: Vec<_> = facts.entries.iter().collect();
    entries.sort_by_key(|entry| entry.index);
    if !entries.is_empty() {
        report.looked();
    }
    for pair in entries.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        report.hold(after.term >= before.term, after.t, || {
            format!("entry {} of term {} follows one of term {}", after.index, after.term, before.term)
        });
        report.hold(after.time >= before.time, after.t, || {
            format!("entry {} is stamped {}, the one before it {}", after.index, after.time, before.time)
        });
    }
    for (id, run) in &facts.runs {
        for pair in run.rows.windows(2) {
            let (before, after) = (pair[0].it, pair[1].it);
            if !is_outcome(run, before, after) {
                continue;
            }
            let fence = facts.fence_before(before.owner, after.index);
            report.hold(before.token >= fence && before.owner.0 != 0, pair[1].t, || {
                format!(
                    "entry {} took run {id} to {} by attempt {} of node {} under token {}, fenced at {fence}",
                    after.index,
                    after.state.as_str(),
                    before.attempt,
                    before.owner,
                    before.token
                )
            });
        }
    }
    report.finish_if_any("log entries")
}

/// Whether the node that had the attempt reported this. A run also fails when its node is lost for good; the final
/// state tells the two apart.
fn is_outcome(run: &RunFacts, before: &RunRow, after: &RunRow) -> bool {
    let reported = match after.state {
        RunState::Succeeded | RunState::TimedOut | RunState::Retrying => true,
        RunState::Failed => run.in_the_end.is_some_and(|view| {
            view.it.attempts.last().is_some_and(|last| last.result != AttemptResult::OutcomeUnknown)
        }),
        _ => false,
    };
    reported && before.state == RunState::Running && after.token == before.token
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use campanile_model::{AttemptResult, NodeId, RunState};

    const NAME: &str = "no_deposed_fire";

    #[test]
    fn terms_and_times_of_the_log_never_go_back() {
        accepts(NAME, Script::new().entry_of(5, 1).at(1).entry_of(6, 2));
        refuses(NAME, Script::new().entry_of(5, 2).entry_of(6, 1));
        refuses(NAME, Script::new().at(10).entry_of(6, 1).at(20).entry_of(5, 1));
    }

    #[test]
    fn the_outcome_of_a_fenced_node() {
        let run = fired(5, 10);
        let fenced = |index| Script::new().entry(5).row(&run).node_row(index, 1, 1, index, false);
        for state in [RunState::Succeeded, RunState::TimedOut] {
            refuses(NAME, fenced(6).row(&ended(&run, 7, state)));
            accepts(NAME, fenced(8).row(&ended(&run, 7, state)));
        }
        refuses(NAME, fenced(6).row(&retrying(&run, 7, 20)));
        let unowned = changed(&run, |row| row.owner = NodeId(0));
        refuses(NAME, Script::new().row(&unowned).row(&ended(&unowned, 7, RunState::Succeeded)));
    }

    #[test]
    fn a_run_that_fails_because_its_node_is_lost() {
        let run = fired(5, 10);
        let failed = ended(&run, 7, RunState::Failed);
        let lost = || Script::new().entry(5).row(&run).node_row(6, 1, 1, 6, false).row(&failed);
        accepts(NAME, lost());
        accepts(NAME, lost().final_view(&failed, |view| view.attempts[0].result = AttemptResult::OutcomeUnknown));
        refuses(NAME, lost().final_run(&failed));
    }
}
