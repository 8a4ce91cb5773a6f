//! Invariant 1. An occurrence becomes at most one run, and a run is of one occurrence, whoever tells of it: the log,
//! receivers, answers, the final state. An attempt arrives at most once: a request is never sent twice, not even by a
//! node that reads its tables again, and no network here doubles requests.

use std::collections::BTreeMap;

use super::index::{Facts, fired_as};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("unique_fire");
    let mut run_of = BTreeMap::new();
    let mut occurrence_of = BTreeMap::new();
    for (t, run, occurrence) in fired_as(facts) {
        let first = *run_of.entry(occurrence).or_insert(run);
        report
            .hold(first == run, t, || format!("occurrence {occurrence} fired twice, as run {first} and as run {run}"));
        let was = *occurrence_of.entry(run).or_insert(occurrence);
        report.hold(was == occurrence, t, || format!("run {run} is of occurrence {was} and of {occurrence}"));
    }
    for (id, run) in &facts.runs {
        let mut arrived = BTreeMap::new();
        for delivered in &run.deliveries {
            let attempt = delivered.it.attempt;
            let first = *arrived.entry(attempt).or_insert(delivered.it.delivery);
            report.hold(first == delivered.it.delivery, delivered.t, || {
                format!(
                    "attempt {attempt} of run {id} arrived twice, as deliveries {first} and {}",
                    delivered.it.delivery
                )
            });
        }
    }
    report.finish_if_any("runs")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use campanile_model::RunId;

    const NAME: &str = "unique_fire";

    #[test]
    fn two_runs_of_one_occurrence() {
        let (one, two) = (fired(5, 10), fired(6, 10));
        refuses(NAME, Script::new().entry(5).row(&one).entry(6).row(&two));
        // Receivers see it too, and so does who reads the final state of real processes.
        refuses(NAME, Script::new().real().deliver(1, &one).deliver(2, &two));
        refuses(NAME, Script::new().real().final_run(&one).final_run(&two));
        accepts(NAME, Script::new().real().deliver(1, &one).final_run(&one).final_run(&fired(6, 20)));
    }

    #[test]
    fn a_run_id_used_again() {
        let other = changed(&fired(5, 10), |row| row.occurrence = fired(6, 20).occurrence);
        refuses(NAME, Script::new().row(&fired(5, 10)).row(&other));
        assert_eq!(other.run, RunId(5 << 16));
    }

    #[test]
    fn an_attempt_that_arrives_twice() {
        let run = fired(5, 10);
        refuses(NAME, Script::new().deliver(1, &run).deliver(2, &run));
        accepts(NAME, Script::new().deliver(1, &run).deliver(2, &attempt(&run, 2, 7)));
    }
}
