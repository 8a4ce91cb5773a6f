//! Invariant 8. What is due fires within the bound that the history declares: once the faults have ended for good, and
//! before that wherever nothing was wrong for as long as the bound. Faults of receivers are no excuse: they must not
//! delay fires. What is still due when the history ends must not be overdue by more.

use campanile_model::{Origin, TaskStatus};

use super::index::Facts;
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("bounded_lateness");
    for (id, run) in &facts.runs {
        let (fired, due_at, origin) = match (run.rows.first(), run.in_the_end) {
            (Some(fire), _) => (fire.t, fire.it.due_at, fire.it.occurrence.origin),
            (None, Some(view)) => (facts.since_start(view.it.fired_at), view.it.due_at, view.it.occurrence_id.origin),
            (None, None) => continue,
        };
        // What a client triggers is due when it is written.
        if origin == Origin::Schedule {
            let deadline = facts.deadline(facts.since_start(due_at));
            report.hold(fired <= deadline, fired, || {
                format!(
                    "run {id} was due at {due_at} and fired {} ms after the latest allowed",
                    (fired - deadline) / 1000
                )
            });
        }
    }
    let end = facts.history.end();
    for (id, task) in &facts.tasks {
        let Some(last) = task.rows.last().map(|row| row.it).filter(|row| row.status == TaskStatus::Active) else {
            continue;
        };
        if let Some(next) = last.next {
            report.hold(end <= facts.deadline(facts.since_start(next.due_at)), end, || {
                format!("task {id} had an occurrence due at {} that was never decided", next.due_at)
            });
        }
    }
    report.finish_if_any("runs")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::plan::Fault;
    use campanile_model::Millis;

    const NAME: &str = "bounded_lateness";
    // The bound is 2 s.

    fn cut() -> Fault {
        Fault::LeaderInMinority
    }

    #[test]
    fn a_late_fire_with_nothing_wrong() {
        accepts(NAME, Script::new().at(12_000).row(&fired(5, 10)));
        refuses(NAME, Script::new().at(12_001).row(&fired(5, 10)));
        let late = changed(&fired(5, 10), |row| row.fired_at = second(13));
        refuses(NAME, Script::new().real().at(20_000).final_run(&late));
    }

    #[test]
    fn faults_excuse_until_the_bound_has_passed_after_them() {
        let faulty = || Script::new().at(11_500).begin(0, cut()).at(15_000).end(0);
        accepts(NAME, faulty().at(17_000).row(&fired(5, 10)));
        refuses(NAME, faulty().at(17_001).row(&fired(5, 10)));
        refuses(NAME, Script::new().at(5_000).begin(0, cut()).at(7_000).end(0).at(12_500).row(&fired(5, 10)));
        let receiver = Fault::ReceiverSlow { by: Millis(5) };
        refuses(NAME, Script::new().at(9_000).begin(0, receiver).at(15_000).end(0).row(&fired(5, 10)));
    }

    #[test]
    fn what_stays_broken_is_no_excuse_once_a_quorum_is_healed() {
        let healed = || Script::new().at(9_000).begin(0, cut()).killed(3).at(15_000).healed();
        accepts(NAME, healed().at(17_000).row(&fired(5, 10)));
        refuses(NAME, healed().at(17_001).row(&fired(5, 10)));
    }

    #[test]
    fn an_occurrence_that_is_forgotten() {
        let armed = || Script::new().entry(3).task_due(3, 1, 10);
        refuses(NAME, armed().at(12_001).converged());
        accepts(NAME, armed().at(12_000).converged());
    }
}
