//! A run goes only the ways there are: it begins pending, running, or cancelled by the very entry that fired it; what
//! it is of never changes; it is retried only from `retrying`; its times fit its state. That a finished run stays as it
//! is belongs to `attempt_exclusive`.

use campanile_model::{AttemptResult, RunState};

use super::index::{At, Facts};
use super::report::Report;
use crate::history::RunRow;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("run_states");
    for (id, run) in &facts.runs {
        if let Some(fire) = run.rows.first() {
            let (state, attempt, index) = (fire.it.state, fire.it.attempt, fire.it.index);
            report.hold(index == id.place().index(), fire.t, || {
                format!("run {id} is named after entry {} and first seen in entry {index}", id.place().index())
            });
            let begins = match state {
                RunState::Pending => attempt == 0,
                RunState::Running => attempt == 1,
                RunState::Cancelled => attempt <= 1,
                _ => false,
            };
            report.hold(begins, fire.t, || format!("run {id} began as {} in attempt {attempt}", state.as_str()));
        }
        for row in &run.rows {
            times_fit(facts, row, &mut report);
        }
        for pair in run.rows.windows(2) {
            let (before, after) = (pair[0].it, pair[1].it);
            report
                .hold(same_run(before, after), pair[1].t, || format!("run {id} was changed by entry {}", after.index));
            report.hold(before.state.is_finished() || follows(before, after), pair[1].t, || {
                format!(
                    "entry {} took run {id} from {} in attempt {} to {} in attempt {}",
                    after.index,
                    before.state.as_str(),
                    before.attempt,
                    after.state.as_str(),
                    after.attempt
                )
            });
        }
        if let Some(At { t, it: view }) = run.in_the_end {
            report.hold(view.finished_at.is_some() == view.state.is_finished(), t, || {
                format!("run {id} is {} and finished at {:?}", view.state.as_str(), view.finished_at)
            });
            if view.state == RunState::Succeeded {
                let last = view.attempts.last();
                let held =
                    last.is_some_and(|last| last.result == AttemptResult::Succeeded && last.number == view.attempt);
                report.hold(held, t, || format!("run {id} has succeeded, but its last attempt has not: {last:?}"));
            }
        }
    }
    report.finish_if_any("rows of runs, or final runs")
}

fn times_fit(facts: &Facts, row: &At<&RunRow>, report: &mut Report) {
    let RunRow { run, index, state, retry_at, finished_at, .. } = row.it;
    let fits = finished_at.is_some() == state.is_finished() && retry_at.is_some() == (*state == RunState::Retrying);
    report.hold(fits, row.t, || {
        format!("run {run} is {} with retry_at {retry_at:?} and finished_at {finished_at:?}", state.as_str())
    });
    if let (Some(finished_at), Some(entry)) = (finished_at, facts.entry(*index)) {
        report.hold(*finished_at == entry.time, row.t, || {
            format!("run {run} finished at {finished_at} in entry {index} of {}", entry.time)
        });
    }
}

fn same_run(a: &RunRow, b: &RunRow) -> bool {
    (a.occurrence, a.version, a.due_at, a.fired_at) == (b.occurrence, b.version, b.due_at, b.fired_at)
}

/// Whether one entry can take an unfinished run there. An attempt may begin and be cancelled in one entry.
fn follows(before: &RunRow, after: &RunRow) -> bool {
    use RunState::*;
    let same = after.attempt == before.attempt;
    let next = after.attempt == before.attempt + 1;
    match (before.state, after.state) {
        (Pending, Pending) | (Retrying, Retrying) => same,
        (Pending | Retrying, Running) => next,
        // A repeat of an attempt whose owner was lost; or the row was written again as it was.
        (Running, Running) => next || (same && after.token == before.token),
        (Running, Retrying | Succeeded | Failed | TimedOut) => same,
        // Its deadline has passed.
        (Retrying, Failed) => same,
        (_, Cancelled) => same || next,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use campanile_model::{RunId, RunState};

    const NAME: &str = "run_states";

    #[test]
    fn the_ways_of_a_run() {
        let run = fired(5, 10);
        let retrying = retrying(&run, 6, 20);
        let second = attempt(&retrying, 2, 7);
        accepts(NAME, Script::new().row(&run).row(&retrying).row(&second).row(&ended(&second, 8, RunState::Succeeded)));
        accepts(NAME, Script::new().row(&run).row(&ended(&attempt(&run, 2, 6), 6, RunState::Cancelled)));
        let waiting = pending(&run);
        accepts(NAME, Script::new().row(&waiting).row(&attempt(&waiting, 1, 6)));
        refuses(NAME, Script::new().row(&waiting).row(&ended(&waiting, 6, RunState::Succeeded)));
        refuses(NAME, Script::new().row(&retrying));
        refuses(NAME, Script::new().row(&ended(&run, 5, RunState::Succeeded)));
        refuses(NAME, Script::new().row(&run).row(&attempt(&run, 3, 6)));
        refuses(NAME, Script::new().row(&run).row(&retrying).row(&ended(&retrying, 8, RunState::Succeeded)));
        refuses(NAME, Script::new().row(&run).row(&retrying).row(&pending(&attempt(&run, 1, 7))));
    }

    #[test]
    fn what_a_run_is_of_never_changes() {
        let run = fired(5, 10);
        let end = ended(&run, 6, RunState::Succeeded);
        refuses(NAME, Script::new().row(&run).row(&changed(&end, |row| row.version = 2)));
        refuses(NAME, Script::new().row(&changed(&run, |row| row.run = RunId(7 << 16))));
    }

    #[test]
    fn times_fit_the_state() {
        let run = fired(5, 10);
        let end = ended(&run, 6, RunState::Succeeded);
        refuses(NAME, Script::new().row(&run).row(&changed(&end, |row| row.finished_at = None)));
        refuses(NAME, Script::new().row(&changed(&run, |row| row.retry_at = Some(second(20)))));
        refuses(NAME, Script::new().row(&run).at(30_000).entry(6).row(&end));
    }

    #[test]
    fn a_success_that_no_attempt_had() {
        let end = ended(&fired(5, 10), 6, RunState::Succeeded);
        accepts(NAME, Script::new().real().final_run(&end));
        refuses(NAME, Script::new().real().final_view(&end, |view| view.attempts.clear()));
        refuses(NAME, Script::new().real().final_view(&end, |view| view.finished_at = None));
    }
}
