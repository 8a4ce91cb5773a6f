//! Invariant 8. What is due fires within the bound that the history declares: once the faults have ended for good, and
//! before that wherever nothing was wrong for as long as the bound. Faults of receivers are no excuse: they must not
//! delay fires. What is still due when the history ends must not be overdue by more.
//!
//! That bound has to leave room for elections and catching up. In simulated time a calm cluster needs milliseconds, so
//! what becomes due while nothing is wrong has a bound of its own ([`CALM`]).

use campanile_model::{Origin, TaskStatus};

use super::index::Facts;
use super::report::Report;
use crate::history::Source;
use crate::verdict::Finding;

/// What is due while nothing is wrong fires within this: the wheel's beat, and the way through a log that a quorum syncs.
/// Before the closing round, in which all clocks are right, a leader's clock may be off beside that.
const CALM: u64 = 30_000;

/// By when what is due at `due` has been fired.
fn deadline(facts: &Facts, due: u64) -> u64 {
    let usual = facts.deadline(due);
    let closing = facts.closing.is_some_and(|closing| due >= closing);
    match facts.history.header.source {
        Source::Simulated if closing => usual.min(due + CALM),
        Source::Simulated if facts.is_calm(due, due + CALM) => usual.min(due + CALM + facts.clock_error()),
        _ => usual,
    }
}

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
            let deadline = deadline(facts, facts.since_start(due_at));
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
            report.hold(end <= deadline(facts, facts.since_start(next.due_at)), end, || {
                format!("task {id} had an occurrence due at {} that was never decided", next.due_at)
            });
        }
    }
    report.finish_if_any("runs")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::Event;
    use crate::plan::Fault;
    use campanile_model::Millis;

    const NAME: &str = "bounded_lateness";
    // The bound is 2 s.

    fn cut() -> Fault {
        Fault::LeaderInMinority
    }

    #[test]
    fn a_late_fire_in_calm() {
        accepts(NAME, Script::new().at(10_030).row(&fired(5, 10)));
        refuses(NAME, Script::new().at(10_031).row(&fired(5, 10)));
        // Whatever was wrong before: in the closing round nothing is.
        let closing = || Script::new().at(8_000).begin(0, cut()).at(9_500).end(0).event(Event::Closing);
        accepts(NAME, closing().at(10_030).row(&fired(5, 10)));
        refuses(NAME, closing().at(10_031).row(&fired(5, 10)));
        let before = |at| Script::new().at(7_900).begin(0, cut()).at(7_950).end(0).at(at).row(&fired(5, 10));
        accepts(NAME, before(10_030));
        refuses(NAME, before(10_031));
        // Real machines are not that punctual, and have benchmarks.
        let late = changed(&fired(5, 10), |row| row.fired_at = millis(12_000));
        accepts(NAME, Script::new().real().at(20_000).final_run(&late));
        let late = changed(&fired(5, 10), |row| row.fired_at = second(13));
        refuses(NAME, Script::new().real().at(20_000).final_run(&late));
    }

    #[test]
    fn a_late_fire_shortly_after_faults() {
        let shortly = || Script::new().at(8_500).begin(0, cut()).at(9_000).end(0);
        accepts(NAME, shortly().at(12_000).row(&fired(5, 10)));
        refuses(NAME, shortly().at(12_001).row(&fired(5, 10)));
    }

    #[test]
    fn faults_excuse_until_the_bound_has_passed_after_them() {
        let faulty = || Script::new().at(10_020).begin(0, cut()).at(15_000).end(0);
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
        refuses(NAME, armed().at(10_031).converged());
        accepts(NAME, armed().at(10_030).converged());
    }
}
