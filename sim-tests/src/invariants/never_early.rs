//! Invariant 3. Nothing fires or arrives before it is due, by true time, give or take the error of clocks that the
//! history declares; and what is due is not before what its schedule says.

use campanile_model::Timestamp;

use super::index::Facts;
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("never_early");
    for (id, run) in &facts.runs {
        let mut due = None;
        if let Some(fire) = run.rows.first() {
            let (row, at) = (fire.it, facts.latest_clock(fire.t));
            due = Some(row.due_at);
            report.hold(row.fired_at >= row.due_at, fire.t, || {
                format!("run {id} was due at {} and is stamped {}", row.due_at, row.fired_at)
            });
            report.hold(row.due_at >= row.occurrence.scheduled_at, fire.t, || {
                format!("run {id} was scheduled for {} and due at {}", row.occurrence.scheduled_at, row.due_at)
            });
            report.hold(at >= row.due_at, fire.t, || {
                format!("run {id} was due at {} and fired when no clock could show more than {at}", row.due_at)
            });
            if let Some(entry) = facts.entry(row.index) {
                report.hold(entry.time == row.fired_at, fire.t, || {
                    format!("run {id} is stamped {}, its entry {} {}", row.fired_at, row.index, entry.time)
                });
            }
        } else if let Some(view) = run.in_the_end.map(|view| view.it) {
            due = Some(view.due_at);
            report.hold(view.fired_at >= view.due_at && view.due_at >= view.scheduled_at, 0, || {
                format!(
                    "run {id} was scheduled for {}, due at {} and is stamped {}",
                    view.scheduled_at, view.due_at, view.fired_at
                )
            });
        }
        for delivered in &run.deliveries {
            let due: Timestamp = due.unwrap_or(delivered.it.scheduled_at).max(delivered.it.scheduled_at);
            let at = facts.latest_clock(delivered.t);
            report.hold(at >= due, delivered.t, || {
                format!("run {id} was due at {due} and arrived when no clock could show more than {at}")
            });
        }
    }
    report.finish_if_any("runs")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "never_early";

    #[test]
    fn a_fire_before_its_time() {
        let on_time = fired(5, 10);
        accepts(NAME, Script::new().at(10_000).entry(5).row(&on_time));
        refuses(NAME, Script::new().at(9_999).row(&on_time));
        accepts(NAME, Script::new().clock_error(1).at(9_999).row(&on_time));
        refuses(NAME, Script::new().at(10_000).row(&changed(&on_time, |row| row.fired_at = second(9))));
        let early_jitter = changed(&on_time, |row| row.due_at = second(9));
        refuses(NAME, Script::new().at(10_000).row(&early_jitter));
        refuses(NAME, Script::new().real().final_run(&early_jitter));
    }

    #[test]
    fn a_stamp_that_is_not_the_entrys() {
        refuses(NAME, Script::new().at(11_000).entry(5).row(&fired(5, 10)));
    }

    #[test]
    fn a_delivery_before_its_time() {
        let run = fired(5, 10);
        refuses(NAME, Script::new().real().at(9_990).deliver(1, &run));
        accepts(NAME, Script::new().real().at(10_000).deliver(1, &run));
        // Jitter is known from the final state.
        let jittered = changed(&run, |row| row.due_at = second(12));
        refuses(NAME, Script::new().real().at(10_000).deliver(1, &jittered).final_run(&jittered));
    }
}
