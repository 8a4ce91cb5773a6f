//! Invariant 4. Fencing tokens rise: each is the place of the entry that gave it out and given once; a later attempt of
//! a run has a bigger one; a node's fence never falls. What receivers get carries a token that was given to that
//! attempt. A smaller one may still arrive after a bigger one, since networks delay: what counts is that the outcome
//! recorded is of the biggest.

use std::collections::BTreeSet;

use campanile_model::{AttemptResult, Token};

use super::index::{At, Facts, RunFacts, index_of};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("fence_monotonic");
    let mut given = BTreeSet::new();
    for (id, run) in &facts.runs {
        let (mut attempt, mut token) = (0, Token::default());
        for row in &run.rows {
            let new = row.it.attempt > attempt;
            let fits = if new { row.it.token > token } else { row.it.token == token };
            report.hold(fits, row.t, || {
                format!(
                    "entry {} has run {id} in attempt {} under token {}, after attempt {attempt} under {token}",
                    row.it.index, row.it.attempt, row.it.token
                )
            });
            if new {
                let from_here = index_of(row.it.token) == row.it.index && given.insert(row.it.token);
                report.hold(from_here, row.t, || {
                    format!("entry {} gave out token {} of another place, or again", row.it.index, row.it.token)
                });
            }
            (attempt, token) = (row.it.attempt, row.it.token);
        }
        delivered_in_order(run, &mut report);
        recorded_in_order(run, &mut report);
    }
    for (node, rows) in &facts.fences {
        for pair in rows.windows(2) {
            report.hold(pair[1].fence >= pair[0].fence, pair[1].t, || {
                format!("the fence of node {node} fell from {} to {}", pair[0].fence, pair[1].fence)
            });
            let renewed = pair[1].incarnation != pair[0].incarnation || (pair[0].up && !pair[1].up);
            report.hold(!renewed || index_of(pair[1].fence) == pair[1].index, pair[1].t, || {
                format!("node {node} was lost or restarted in entry {} and not fenced there", pair[1].index)
            });
        }
    }
    report.finish_if_any("tokens")
}

/// The bigger the attempt's number, the bigger its token, in whatever order they arrive.
fn delivered_in_order(run: &RunFacts, report: &mut Report) {
    let mut by_attempt: Vec<_> = run.deliveries.iter().collect();
    by_attempt.sort_by_key(|delivered| delivered.it.attempt);
    for pair in by_attempt.windows(2) {
        let (one, two) = (pair[0].it, pair[1].it);
        let fits = if one.attempt == two.attempt { one.token == two.token } else { one.token < two.token };
        report.hold(fits, pair[1].t, || {
            format!(
                "run {} arrived as attempt {} under token {} and as attempt {} under token {}",
                two.run, one.attempt, one.token, two.attempt, two.token
            )
        });
    }
}

fn recorded_in_order(run: &RunFacts, report: &mut Report) {
    let Some(At { t, it: view }) = run.in_the_end else { return };
    // What came later the reading need not have known.
    for delivered in run.deliveries.iter().filter(|delivered| delivered.t <= t) {
        report.hold(delivered.it.token <= view.fencing_token, delivered.t, || {
            format!("run {} ended under token {}, but {} arrived", view.id, view.fencing_token, delivered.it.token)
        });
    }
    for pair in view.attempts.windows(2) {
        report.hold(pair[0].token < pair[1].token && pair[0].number < pair[1].number, t, || {
            format!("attempts {} and {} of run {} are out of order", pair[0].number, pair[1].number, view.id)
        });
    }
    for record in view.attempts.iter().filter(|record| record.result == AttemptResult::Succeeded) {
        report.hold(record.token == view.fencing_token, t, || {
            format!(
                "run {} succeeded under token {}, which is not its latest, {}",
                view.id, record.token, view.fencing_token
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use campanile_model::{RunState, Token};

    const NAME: &str = "fence_monotonic";

    #[test]
    fn tokens_rise_with_attempts() {
        let run = fired(5, 10);
        let second = attempt(&run, 2, 7);
        accepts(NAME, Script::new().row(&run).row(&second).row(&ended(&second, 8, RunState::Succeeded)));
        refuses(NAME, Script::new().row(&run).row(&changed(&second, |row| row.token = run.token)));
        refuses(NAME, Script::new().row(&run).row(&changed(&second, |row| row.token = Token(6 << 16))));
        let of_the_first = changed(&ended(&second, 8, RunState::Succeeded), |row| row.token = run.token);
        refuses(NAME, Script::new().row(&run).row(&second).row(&of_the_first));
        refuses(NAME, Script::new().row(&run).row(&changed(&fired(5, 20), |row| row.run.0 += 1)));
    }

    #[test]
    fn a_fence_that_falls_or_is_forgotten() {
        accepts(NAME, Script::new().node_row(2, 1, 1, 2, true).node_row(6, 1, 1, 6, false).node_row(7, 1, 1, 6, true));
        refuses(NAME, Script::new().node_row(6, 1, 1, 6, false).node_row(7, 1, 2, 5, true));
        refuses(NAME, Script::new().node_row(6, 1, 1, 6, true).node_row(7, 1, 1, 5, true));
        refuses(NAME, Script::new().node_row(2, 1, 1, 2, true).node_row(6, 1, 1, 2, false));
        refuses(NAME, Script::new().node_row(2, 1, 1, 2, true).node_row(6, 1, 2, 2, true));
    }

    #[test]
    fn as_receivers_and_the_final_state_have_it() {
        let run = fired(5, 10);
        let second = attempt(&run, 2, 7);
        let end = ended(&second, 8, RunState::Succeeded);
        let late = || Script::new().real().deliver(1, &second).deliver(2, &run);
        accepts(NAME, late().final_run(&end));
        refuses(NAME, late().final_run(&ended(&run, 8, RunState::Succeeded)));
        refuses(NAME, late().deliver(3, &attempt(&run, 3, 6)));
        let swapped = |view: &mut campanile_model::api::RunView| {
            let later = attempt(&run, 1, 8);
            view.attempts.insert(0, record(&later, campanile_model::AttemptResult::Failed));
        };
        refuses(NAME, Script::new().real().final_view(&end, swapped));
        let stale = |view: &mut campanile_model::api::RunView| view.attempts[0].token = run.token;
        refuses(NAME, Script::new().real().final_view(&end, stale));
    }
}
