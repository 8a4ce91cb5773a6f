//! Invariant 14. Attempts are numbered from 1 without gaps and are no more than the policy allows, repeats of lost ones
//! counted; a retry waits for as long as its back-off says, give or take jitter, and starts not before.

use campanile_model::sim::Bound;
use campanile_model::{AttemptResult, Delivery, Millis, Ratio, Retry, TaskId, Timestamp, limits};

use super::index::{At, Facts, RunFacts};
use super::report::Report;
use crate::history::RunRow;
use crate::verdict::Finding;

/// The longest that a receiver may ask to wait (`Retry-After`).
const ASKED_MAX: Millis = Millis::from_hours(24);

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("bounded_retries");
    for (id, run) in &facts.runs {
        let mut before = 0;
        for row in &run.rows {
            let attempt = row.it.attempt;
            report.hold(attempt >= before && attempt <= before + 1, row.t, || {
                format!("attempt {attempt} of run {id} follows attempt {before}")
            });
            within_policy(facts, row.t, row.it, &mut report);
            before = attempt;
        }
        for row in &run.rows {
            waits_long_enough(facts, run, row, &mut report);
        }
        for pair in run.rows.windows(2) {
            starts_in_time(facts, pair, &mut report);
        }
        recorded(facts, run, &mut report);
    }
    report.finish_if_any("attempts")
}

fn most(facts: &Facts, task: TaskId, version: u32) -> u32 {
    match facts.spec(task, version) {
        Some(spec) if spec.delivery == Delivery::AtMostOnce => 1,
        Some(spec) => spec.retry.max_attempts,
        None => limits::MAX_ATTEMPTS,
    }
}

fn within_policy(facts: &Facts, t: u64, row: &RunRow, report: &mut Report) {
    let most = most(facts, row.occurrence.task, row.version);
    report.hold(row.attempt <= most, t, || {
        format!("run {} is in attempt {}, its policy allows {most}", row.run, row.attempt)
    });
}

/// The wait that entry `row` decided on.
fn waits_long_enough(facts: &Facts, run: &RunFacts, row: &At<&RunRow>, report: &mut Report) {
    let (Some(retry_at), Some(entry)) = (row.it.retry_at, facts.entry(row.it.index)) else { return };
    let Some(spec) = facts.spec(row.it.occurrence.task, row.it.version) else { return };
    let (shortest, mut longest) = delay(&spec.retry, row.it.attempt);
    // Only these answers may ask for more.
    let answer = run.delivery(row.it.token).and_then(|delivered| delivered.answer);
    if matches!(answer, Some((_, 429 | 503))) {
        longest = longest.max(ASKED_MAX);
    }
    let waits = retry_at.since(entry.time);
    report.hold(waits >= shortest && waits <= longest, row.t, || {
        let RunRow { run, attempt, .. } = row.it;
        format!("run {run} waits {waits} after attempt {attempt}; its policy says {shortest} to {longest}")
    });
}

fn starts_in_time(facts: &Facts, pair: &[At<&RunRow>], report: &mut Report) {
    let (before, after) = (pair[0].it, pair[1].it);
    let (Some(retry_at), true) = (before.retry_at, after.attempt > before.attempt) else { return };
    let stamped = facts.entry(after.index).map_or(retry_at, |entry| entry.time);
    report.hold(stamped >= retry_at && facts.latest_clock(pair[1].t) >= retry_at, pair[1].t, || {
        format!("attempt {} of run {} was due at {retry_at} and started at {stamped}", after.attempt, after.run)
    });
}

/// What the final state says of attempts, and what receivers saw: all there is of real processes.
fn recorded(facts: &Facts, run: &RunFacts, report: &mut Report) {
    let Some(At { t, it: view }) = run.in_the_end else { return };
    let most = most(facts, view.task_id, view.version);
    report.hold(view.attempt <= most, t, || {
        format!("run {} took {} attempts, its policy allows {most}", view.id, view.attempt)
    });
    // What came later the reading need not have known.
    for delivered in run.deliveries.iter().filter(|delivered| delivered.t <= t) {
        report.hold((1..=view.attempt).contains(&delivered.it.attempt), delivered.t, || {
            format!("attempt {} of run {} arrived, which took {}", delivered.it.attempt, view.id, view.attempt)
        });
    }
    // The oldest records are dropped, so they need not begin with 1.
    let most = facts.history.header.bound(Bound::AttemptHistory, limits::ATTEMPT_HISTORY as u64);
    let shortened = view.attempts.len() as u64 >= most;
    let first = view.attempts.first().map_or(1, |first| first.number);
    report.hold(first == 1 || shortened, t, || format!("the records of run {} begin with attempt {first}", view.id));
    let retry = facts.spec(view.task_id, view.version).map(|spec| spec.retry);
    for pair in view.attempts.windows(2) {
        report.hold(pair[1].number == pair[0].number + 1, t, || {
            format!("attempt {} of run {} follows attempt {}", pair[1].number, view.id, pair[0].number)
        });
        let waited = matches!(pair[0].result, AttemptResult::Failed | AttemptResult::TimedOut);
        if let (true, Some(retry)) = (waited, &retry) {
            let earliest: Timestamp = pair[0].ended_at.saturating_add(delay(retry, pair[0].number).0);
            report.hold(pair[1].ended_at >= earliest, t, || {
                let (number, ended) = (pair[1].number, pair[1].ended_at);
                format!("attempt {number} of run {} ended at {ended} and was not to start before {earliest}", view.id)
            });
        }
    }
}

/// The shortest and the longest wait after attempt number `attempt`, whichever way fractions of milliseconds go.
fn delay(retry: &Retry, attempt: u32) -> (Millis, Millis) {
    let (mut low, mut high) = (retry.initial.0.min(retry.max.0), retry.initial.0.min(retry.max.0));
    for _ in 1..attempt {
        low = scaled(low, retry.factor).min(retry.max.0);
        high = scaled(high, retry.factor).saturating_add(1).min(retry.max.0);
        if low == retry.max.0 {
            break;
        }
    }
    let jitter = |nominal| scaled(nominal, retry.jitter).saturating_add(1);
    (Millis(low.saturating_sub(jitter(low))), Millis(high.saturating_add(jitter(high))))
}

fn scaled(millis: u64, by: Ratio) -> u64 {
    u64::try_from(u128::from(millis) * u128::from(by.0) / 1000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use campanile_model::RunState;
    use campanile_model::api::Change;

    const NAME: &str = "bounded_retries";

    /// Task 1 by its default policy: 4 attempts, after 1 s, 2 s, 4 s, each ± 20 %.
    fn known() -> Script {
        Script::new().invoke(1, put()).wrote(1, Change::Created, 1)
    }

    #[test]
    fn attempts_have_no_gaps_and_an_end() {
        let run = fired(5, 10);
        let nth = |n: u32| attempt(&run, n, 5 + u64::from(n));
        accepts(NAME, known().row(&run).row(&nth(2)).row(&nth(3)).row(&nth(4)));
        refuses(NAME, known().row(&run).row(&nth(2)).row(&nth(3)).row(&nth(4)).row(&nth(5)));
        refuses(NAME, known().row(&run).row(&nth(3)));
        refuses(NAME, Script::new().row(&nth(2)));
        let no_records = |view: &mut campanile_model::api::RunView| view.attempts.clear();
        accepts(NAME, known().real().final_view(&ended(&nth(4), 20, RunState::Failed), no_records));
        refuses(NAME, known().real().final_view(&ended(&nth(5), 20, RunState::Failed), no_records));
        refuses(NAME, known().real().final_run(&ended(&nth(4), 20, RunState::Failed)));
        refuses(NAME, known().real().deliver(1, &nth(2)).final_run(&ended(&run, 20, RunState::Failed)));
    }

    #[test]
    fn at_most_once_is_one_attempt() {
        let once = put_with(|spec| spec.delivery = Delivery::AtMostOnce);
        let run = fired(5, 10);
        refuses(NAME, Script::new().invoke(1, once).wrote(1, Change::Created, 1).row(&run).row(&attempt(&run, 2, 6)));
    }

    #[test]
    fn back_off_keeps_its_bounds() {
        let run = fired(5, 10);
        let waits = |until_ms| {
            let row = changed(&retrying(&run, 6, 0), |row| row.retry_at = Some(millis(until_ms)));
            known().row(&run).at(11_000).entry(6).row(&row)
        };
        for (until, fits) in [(11_799, true), (12_201, true), (11_790, false), (12_210, false)] {
            if fits { accepts(NAME, waits(until)) } else { refuses(NAME, waits(until)) }
        }
        // A receiver may ask for more.
        let asked = |status| {
            let row = retrying(&run, 6, 60);
            known().at(10_000).row(&run).deliver(1, &run).answer(1, status).at(11_000).entry(6).row(&row)
        };
        accepts(NAME, asked(503));
        refuses(NAME, asked(500));
    }

    #[test]
    fn a_retry_starts_not_before_its_time() {
        let run = fired(5, 10);
        let retry = || known().at(10_000).row(&run).row(&retrying(&run, 6, 20));
        accepts(NAME, retry().at(20_000).entry(7).row(&attempt(&run, 2, 7)));
        refuses(NAME, retry().at(19_999).entry(7).row(&attempt(&run, 2, 7)));
    }

    #[test]
    fn records_tell_of_gaps_and_haste() {
        let run = fired(5, 10);
        let again = attempt(&run, 2, 7);
        let end = ended(&again, 8, RunState::Succeeded);
        let with = |ended_at, number| {
            known().real().final_view(&end, |view| {
                let first = record(&run, AttemptResult::Failed);
                view.attempts.insert(0, campanile_model::AttemptRecord { number, ended_at, ..first });
                view.attempts[1].ended_at = second(20);
            })
        };
        accepts(NAME, with(second(19), 1));
        refuses(NAME, with(millis(19_500), 1));
        refuses(NAME, with(second(19), 0));
        let third = ended(&attempt(&run, 3, 8), 9, RunState::Succeeded);
        let gap = known().real().final_view(&third, |view| {
            view.attempts.insert(0, record(&run, AttemptResult::OutcomeUnknown));
        });
        refuses(NAME, gap);
    }

    #[test]
    fn delays_of_a_policy() {
        let retry = Retry { jitter: Ratio(0), factor: Ratio(1500), ..Retry::default() };
        assert_eq!(delay(&retry, 1), (Millis(999), Millis(1001)));
        let (low, high) = delay(&retry, 3);
        assert!(low.0 >= 2240 && high.0 <= 2260, "{low} {high}");
        assert_eq!(delay(&Retry::default(), 99), (Millis(239_999), Millis(360_001)));
        delay(&Retry { initial: Millis(u64::MAX), max: Millis(u64::MAX), ..retry }, 100);
    }
}
