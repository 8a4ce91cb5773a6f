//! What is overdue fires only as its task's catch-up policy allows: within the grace always, within the window if the
//! policy fires at all, beyond it never.

use super::index::Facts;
use super::report::Report;
use crate::verdict::Finding;

use campanile_model::CatchUpPolicy;

/// Between the decision to fire and the stamp of its entry: a second, after which it is decided anew, and two at most in
/// a lane, after which it is withdrawn.
const DECIDED_BEFORE_MS: i64 = 3_500;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("catch_up");
    for (id, run) in &facts.runs {
        let Some(fire) = run.rows.first().filter(|fire| fire.it.is_scheduled()) else { continue };
        let Some(spec) = facts.spec(fire.it.occurrence.task, fire.it.version) else { continue };
        let late = fire.it.fired_at.millis_from(fire.it.due_at);
        let (grace, window) = (spec.catch_up.grace.0 as i64, spec.catch_up.window.0 as i64);
        let allowed = if spec.catch_up.policy == CatchUpPolicy::Skip { grace } else { grace.max(window) };
        report.hold(late <= allowed + DECIDED_BEFORE_MS + facts.history.header.clock_error_ms, fire.t, || {
            format!("run {id} was fired {late} ms late, its policy allows {allowed} ms")
        });
    }
    report.finish_if_any("fires of definitions that clients saw")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "catch_up";

    #[test]
    fn nothing_fires_beyond_its_window() {
        let late = |ms: i64| changed(&fired(5, 10), |row| row.fired_at = millis(10_000 + ms));
        let known = || Script::new().task(3, 1, 0).final_task(1, |_| {});
        let window = 3_600_000;
        accepts(NAME, known().row(&late(0)));
        accepts(NAME, known().row(&late(window + super::DECIDED_BEFORE_MS)));
        refuses(NAME, known().row(&late(window + super::DECIDED_BEFORE_MS + 1)));
    }
}
