//! How a run ends, from what its receiver saw. An attempt succeeds exactly when it was answered 2xx; an answer that may
//! pass, a reset and silence are tried again while attempts and deadline allow, and every other answer ends the run at
//! once; a time-out is one only when the time has passed, and no attempt lasts much longer; 410 pauses the task; what an
//! attempt's record says is what the receiver answered to that token.

use campanile_model::{AttemptRecord, AttemptResult, Delivery, Millis, RunState, TaskSpec, TaskStatus, Token};

use super::index::{At, Facts, RunFacts};
use super::report::Report;
use crate::history::RunRow;
use crate::verdict::Finding;

/// An answer given so long before the time-out is there before it: messages take a few milliseconds.
const ON_ITS_WAY: u64 = 100_000;
/// Where nothing is wrong, an attempt starts, and its end is in the log, within this beside its time-out.
const CALM: u64 = 1_000_000;
/// The shares by which a drifting clock may measure a time-out wrongly, at most: 2 of 100.
const DRIFT: u64 = 50;
/// Between what the conductor decides and its entry's stamp.
const STAMPED: Millis = Millis::from_secs(1);
/// The longest that a receiver may ask to wait.
const ASKED_MAX: Millis = Millis::from_hours(24);

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("run_ends");
    // Histories of earlier builds say nothing of how an attempt ended.
    let has_records = facts.runs.values().any(|run| run.rows.iter().any(|row| row.it.last.is_some()));
    for run in facts.runs.values() {
        if has_records {
            for pair in run.rows.windows(2) {
                let (before, after) = (&pair[0], &pair[1]);
                match before.it.state {
                    RunState::Running => attempt_ended(facts, run, before, after, &mut report),
                    RunState::Retrying => wait_ended(facts, before, after, &mut report),
                    _ => {}
                }
            }
        }
        for (nth, row) in run.rows.iter().enumerate().filter(|(_, row)| row.it.state == RunState::Running) {
            lasts_no_longer(facts, run, row, run.rows.get(nth + 1).map(|next| next.t), &mut report);
        }
        if let Some(view) = run.in_the_end {
            for record in &view.it.attempts {
                answered_so(run, record, facts.history.end(), &mut report);
            }
            let last = view.it.attempts.last().map(|record| record.result);
            report.hold(last.is_none_or(|last| ends_as(last, view.it.state)), view.t, || {
                format!("run {} is {} and its last attempt {last:?}", view.it.id, view.it.state.as_str())
            });
        }
    }
    report.finish_if_any("rows of runs with how attempts ended, or runs in the end")
}

/// Whether a run may stand so after an attempt that ended like that.
fn ends_as(last: AttemptResult, state: RunState) -> bool {
    match last {
        AttemptResult::Succeeded => state == RunState::Succeeded,
        AttemptResult::Cancelled => state == RunState::Cancelled,
        _ => state != RunState::Succeeded,
    }
}

/// The rows before and after the end of an attempt.
fn attempt_ended(facts: &Facts, run: &RunFacts, before: &At<&RunRow>, after: &At<&RunRow>, report: &mut Report) {
    let (held, left) = (before.it, after.it);
    let (t, attempt, id) = (after.t, held.attempt, held.run);
    let stamp = facts.stamp(left.index);
    let own = left.last.as_ref().filter(|record| {
        (record.token, record.number, record.node) == (held.token, held.attempt, held.owner)
            && stamp.is_none_or(|stamp| stamp == record.ended_at)
    });
    report.hold(own.is_some(), t, || {
        format!("entry {} ended attempt {attempt} of run {id} and recorded {:?}", left.index, left.last)
    });
    let Some(record) = own else { return };
    answered_so(run, record, t, report);
    if matches!(record.result, AttemptResult::TimedOut | AttemptResult::Failed) && record.status.is_none() {
        heard_in_time(facts, run, before, after, report);
    }
    let expected = match record.result {
        AttemptResult::Succeeded => Some(RunState::Succeeded),
        AttemptResult::Cancelled => Some(RunState::Cancelled),
        AttemptResult::OutcomeUnknown => {
            report.hold(facts.void_at(held.owner, held.token, left.index), t, || {
                format!(
                    "entry {} gave attempt {attempt} of run {id} up, which node {} still had",
                    left.index, held.owner
                )
            });
            Some(left.state).filter(|state| matches!(state, RunState::Running | RunState::Failed))
        }
        AttemptResult::Failed if record.status.is_some_and(|status| !may_pass(status)) => Some(RunState::Failed),
        AttemptResult::Failed | AttemptResult::TimedOut => {
            let Some(spec) = facts.spec(held.occurrence.task, held.version) else { return };
            again_or_over(spec, record, run, after, facts)
        }
    };
    report.hold(expected == Some(left.state), t, || {
        let (result, status, state) = (record.result, record.status, left.state.as_str());
        format!("run {id} is {state} after attempt {attempt} ended as {result:?} {status:?}; it should be {expected:?}")
    });
    if record.status == Some(410) {
        pauses(facts, after, report);
    }
    if record.result == AttemptResult::TimedOut
        && let Some(spec) = facts.spec(held.occurrence.task, held.version)
    {
        let timeout = spec.timeout.0.saturating_mul(1000);
        let measured = if facts.is_link_sound(before.t, t) { timeout } else { timeout - timeout / DRIFT };
        report.hold(t >= before.t.saturating_add(measured), t, || {
            format!(
                "attempt {attempt} of run {id} timed out after {} ms; its time-out is {}",
                (t - before.t) / 1000,
                spec.timeout
            )
        });
    }
}

/// Statuses after which the same request may succeed later.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// What becomes of a run whose attempt failed in a way that may pass.
fn again_or_over(
    spec: &TaskSpec,
    record: &AttemptRecord,
    run: &RunFacts,
    after: &At<&RunRow>,
    facts: &Facts,
) -> Option<RunState> {
    let over = if record.result == AttemptResult::TimedOut { RunState::TimedOut } else { RunState::Failed };
    if spec.delivery == Delivery::AtMostOnce || record.number >= spec.retry.max_attempts {
        return Some(over);
    }
    // The deadline ends it if the wait could reach beyond it.
    let asked = run.delivery(record.token).is_some_and(|delivered| delivered.retry_after.is_some());
    let longest = spec.retry.max.0.saturating_add(spec.retry.max.0.saturating_mul(spec.retry.jitter.0.into()) / 1000);
    let longest = if asked { ASKED_MAX } else { Millis(longest.saturating_add(1)) };
    let reaches = spec.deadline.is_some_and(|deadline| {
        let slack = Millis(u64::try_from(facts.history.header.clock_error_ms).unwrap_or(0));
        let until =
            facts.stamp(after.it.index).unwrap_or(record.ended_at).saturating_add(longest).saturating_add(slack);
        until > after.it.fired_at.saturating_add(deadline)
    });
    if reaches && after.it.state == over { Some(over) } else { Some(RunState::Retrying) }
}

/// The rows before and after the end of a wait for the next attempt.
fn wait_ended(facts: &Facts, before: &At<&RunRow>, after: &At<&RunRow>, report: &mut Report) {
    let (waits, left) = (before.it, after.it);
    let (Some(spec), Some(stamp)) = (facts.spec(waits.occurrence.task, waits.version), facts.stamp(left.index)) else {
        return;
    };
    let error = Millis(u64::try_from(facts.history.header.clock_error_ms).unwrap_or(0));
    let passed = stamp.since(waits.fired_at);
    match left.state {
        RunState::Running => {
            let slack = STAMPED.0.saturating_add(error.0);
            let allowed = spec.deadline.map(|deadline| Millis(deadline.0.saturating_add(slack)));
            report.hold(allowed.is_none_or(|allowed| passed <= allowed), after.t, || {
                let deadline = spec.deadline.unwrap_or_default();
                format!(
                    "attempt {} of run {} started {passed} after its fire, beyond {deadline}",
                    left.attempt, left.run
                )
            });
        }
        RunState::Failed => {
            let over = spec.deadline.is_some_and(|deadline| Millis(passed.0.saturating_add(error.0)) > deadline);
            report.hold(over && left.last == waits.last, after.t, || {
                format!(
                    "run {} failed {passed} after its fire, while it waited; its deadline is {:?}",
                    left.run, spec.deadline
                )
            });
        }
        state => report.hold(state == RunState::Cancelled, after.t, || {
            format!("run {} became {} while it waited for its next attempt", left.run, state.as_str())
        }),
    }
}

/// A status in a record is the receiver's, and a success is an answer of 2xx.
fn answered_so(run: &RunFacts, record: &AttemptRecord, t: u64, report: &mut Report) {
    let Some(status) = record.status else {
        report.hold(record.result != AttemptResult::Succeeded, t, || {
            format!("attempt {} of a run succeeded without an answer", record.number)
        });
        return;
    };
    let success = (200..300).contains(&status);
    report.hold(success == (record.result == AttemptResult::Succeeded), t, || {
        format!("attempt {} was answered {status} and recorded as {:?}", record.number, record.result)
    });
    let mut answers = answers(run, record.token).filter(|(at, _)| *at <= t);
    report.hold(answers.any(|(_, answered)| answered == status), t, || {
        format!(
            "attempt {} with token {} is recorded with status {status}, which no receiver gave",
            record.number, record.token
        )
    });
}

fn answers<'r>(run: &'r RunFacts, token: Token) -> impl Iterator<Item = (u64, u16)> + 'r {
    run.deliveries.iter().filter(move |delivered| delivered.it.token == token).filter_map(|delivered| delivered.answer)
}

/// What a receiver answered well before the time-out, over links with nothing wrong, has been heard.
fn heard_in_time(facts: &Facts, run: &RunFacts, before: &At<&RunRow>, after: &At<&RunRow>, report: &mut Report) {
    let Some(spec) = facts.spec(before.it.occurrence.task, before.it.version) else { return };
    if !facts.is_link_sound(before.t, after.t) {
        return;
    }
    let until = before.t.saturating_add(spec.timeout.0.saturating_mul(1000)).saturating_sub(ON_ITS_WAY);
    let heard = answers(run, before.it.token).find(|(at, _)| *at < until && *at + ON_ITS_WAY < after.t);
    report.hold(heard.is_none(), after.t, || {
        let (attempt, id) = (before.it.attempt, before.it.run);
        format!("attempt {attempt} of run {id} was answered {heard:?} in time and counts as not answered")
    });
}

/// The receiver wants no more: the entry that says so pauses the task, unless it has another version or was not active.
fn pauses(facts: &Facts, after: &At<&RunRow>, report: &mut Report) {
    let RunRow { index, run, version, occurrence, .. } = after.it;
    let Some(task) = facts.tasks.get(&occurrence.task) else { return };
    let Some(before) = task.before(*index) else { return };
    if (before.version, before.status) != (*version, TaskStatus::Active) {
        return;
    }
    // Commands before it in its entry may have changed the task.
    let mut in_entry = task.rows.iter().filter(|row| row.it.index == *index);
    let paused = in_entry.any(|row| row.it.status != TaskStatus::Active || row.it.version != *version);
    report.hold(paused, after.t, || {
        format!("run {run} was answered 410 and entry {index} left its task {} active", occurrence.task)
    });
}

/// An attempt ends with its time-out; where something is wrong, once that is over.
fn lasts_no_longer(facts: &Facts, run: &RunFacts, began: &At<&RunRow>, ended: Option<u64>, report: &mut Report) {
    let Some(spec) = facts.spec(began.it.occurrence.task, began.it.version) else { return };
    let since = match (facts.turn(), run.delivery(began.it.token)) {
        (0, _) => began.t,
        // With few connections it waits for its turn, and its time-out counts from when it is sent.
        (_, Some(delivered)) => delivered.t,
        (turn, None) => facts.healed.map_or(u64::MAX, |healed| healed.max(began.t).saturating_add(turn)),
    };
    let over = since.saturating_add(spec.timeout.0.saturating_mul(1000));
    let calm_until = over.saturating_add(CALM);
    let until = if facts.is_calm(began.t, calm_until) { calm_until } else { facts.deadline(over) };
    let last_seen = ended.unwrap_or_else(|| facts.history.end());
    report.hold(last_seen <= until, last_seen, || {
        let RunRow { run, attempt, .. } = began.it;
        let (lasted, timeout) = ((last_seen - began.t) / 1000, spec.timeout);
        format!("attempt {attempt} of run {run} lasted {lasted} ms by the log; its time-out is {timeout}")
    });
}

#[cfg(test)]
mod tests {
    use campanile_model::sim::Bound;
    use campanile_model::{AttemptResult, Millis, NodeId, Retry, RunState, TaskSpec, TaskStatus};

    use super::super::testing::*;
    use crate::history::RunRow;
    use crate::plan::Fault;
    use campanile_model::api::Change;

    const NAME: &str = "run_ends";

    fn known_with(change: impl FnOnce(&mut TaskSpec)) -> Script {
        let put = put_with(|spec| {
            spec.timeout = Millis::from_secs(5);
            spec.retry = Retry { max_attempts: 2, ..Retry::default() };
            change(spec);
        });
        Script::new().invoke(1, put).wrote(1, Change::Created, 1).at(10_000).entry(5).row(&fired(5, 10))
    }

    fn known() -> Script {
        known_with(|_| {})
    }

    /// The row after entry `index`, at that second, ended the attempt of `row` so.
    fn over(
        row: &RunRow,
        index: u64,
        at_ms: i64,
        state: RunState,
        result: AttemptResult,
        status: Option<u16>,
    ) -> RunRow {
        let ended = if state == RunState::Retrying { retrying(row, index, 100) } else { ended(row, index, state) };
        changed(&ended, |ended| {
            ended.last =
                Some(campanile_model::AttemptRecord { ended_at: millis(at_ms), status, ..record(row, result) });
        })
    }

    fn answered(script: Script, status: u16, row: RunRow) -> Script {
        script.deliver(1, &fired(5, 10)).at(11_000).answer(1, status).entry(6).row(&row)
    }

    fn says(status: u16, state: RunState, result: AttemptResult) -> Script {
        answered(known(), status, over(&fired(5, 10), 6, 11_000, state, result, Some(status)))
    }

    #[test]
    fn only_2xx_succeeds() {
        use AttemptResult::{Failed, Succeeded};
        accepts(NAME, says(200, RunState::Succeeded, Succeeded));
        accepts(NAME, says(204, RunState::Succeeded, Succeeded));
        refuses(NAME, says(302, RunState::Succeeded, Succeeded));
        refuses(NAME, says(200, RunState::Failed, Failed));
        let other = over(&fired(5, 10), 6, 11_000, RunState::Succeeded, Succeeded, Some(200));
        refuses(NAME, answered(known(), 500, other.clone()));
        refuses(NAME, known().at(11_000).entry(6).row(&other));
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        use AttemptResult::Failed;
        for status in [500, 503, 429, 408, 425] {
            accepts(NAME, says(status, RunState::Retrying, Failed));
            refuses(NAME, says(status, RunState::Failed, Failed));
        }
        for status in [400, 302, 410] {
            refuses(NAME, says(status, RunState::Retrying, Failed));
            accepts(NAME, says(status, RunState::Failed, Failed));
        }
        let second = attempt(&fired(5, 10), 2, 5);
        let last = over(&second, 6, 11_000, RunState::Retrying, Failed, Some(500));
        let known = Script::new().invoke(1, put_with(|spec| spec.retry.max_attempts = 2)).wrote(1, Change::Created, 1);
        let seen = known.at(10_000).entry(5).row(&second).deliver(1, &second).at(11_000).answer(1, 500).entry(6);
        refuses(NAME, seen.row(&last));
        let once = known_with(|spec| spec.delivery = campanile_model::Delivery::AtMostOnce);
        refuses(NAME, answered(once, 500, over(&fired(5, 10), 6, 11_000, RunState::Retrying, Failed, Some(500))));
    }

    #[test]
    fn a_record_is_of_the_attempt_that_ended() {
        let good = over(&fired(5, 10), 6, 11_000, RunState::Succeeded, AttemptResult::Succeeded, Some(200));
        let wrong = |change: fn(&mut campanile_model::AttemptRecord)| {
            answered(known(), 200, changed(&good, |row| change(row.last.as_mut().expect("a record"))))
        };
        refuses(NAME, wrong(|record| record.number = 2));
        refuses(NAME, wrong(|record| record.node = NodeId(2)));
        refuses(NAME, wrong(|record| record.ended_at = millis(10_999)));
    }

    #[test]
    fn a_time_out_takes_its_time_and_no_longer() {
        let silent = |at_ms: u64, state| {
            let row = over(&fired(5, 10), 6, at_ms as i64, state, AttemptResult::TimedOut, None);
            known().deliver(1, &fired(5, 10)).at(at_ms).entry(6).row(&row)
        };
        accepts(NAME, silent(15_000, RunState::Retrying));
        refuses(NAME, silent(14_999, RunState::Retrying));
        refuses(NAME, silent(15_000, RunState::TimedOut));
        accepts(NAME, silent(16_000, RunState::Retrying));
        refuses(NAME, silent(16_001, RunState::Retrying));
        refuses(NAME, known().at(16_001).healed());
        accepts(NAME, known().begin(0, Fault::LeaderInMinority).at(16_001).converged());
    }

    #[test]
    fn with_few_connections_it_counts_from_when_it_is_sent() {
        let narrow = || known().small(Bound::ConnectionsPerHost, 2).at(20_000);
        let ended = |script: Script, at_ms: u64| {
            let row = over(&fired(5, 10), 6, at_ms as i64, RunState::Retrying, AttemptResult::TimedOut, None);
            script.at(at_ms).entry(6).row(&row)
        };
        accepts(NAME, ended(narrow().deliver(1, &fired(5, 10)), 26_000));
        refuses(NAME, ended(narrow().deliver(1, &fired(5, 10)), 26_001));
        accepts(NAME, ended(narrow(), 60_000));
        // When all is well its turn comes once the others have timed out, of which it is itself one here.
        accepts(NAME, ended(narrow().healed(), 31_000));
        refuses(NAME, ended(narrow().healed(), 31_001));
    }

    #[test]
    fn an_answer_in_time_is_heard() {
        let deaf = |answered_ms: u64| {
            let row = over(&fired(5, 10), 6, 15_000, RunState::Retrying, AttemptResult::TimedOut, None);
            known().deliver(1, &fired(5, 10)).at(answered_ms).answer(1, 200).at(15_000).entry(6).row(&row)
        };
        accepts(NAME, deaf(14_950));
        refuses(NAME, deaf(14_000));
    }

    #[test]
    fn gone_pauses_the_task() {
        let gone = |status| {
            let row = over(&fired(5, 10), 6, 11_000, RunState::Failed, AttemptResult::Failed, Some(410));
            answered(known().task(5, 1, 10), 410, row).task_is(6, 1, status)
        };
        accepts(NAME, gone(TaskStatus::Paused));
        refuses(NAME, gone(TaskStatus::Active));
    }

    #[test]
    fn a_deadline_leaves_no_retry() {
        let until = |deadline_s| known_with(|spec| spec.deadline = Some(Millis::from_secs(deadline_s)));
        let waits = over(&fired(5, 10), 6, 11_000, RunState::Retrying, AttemptResult::Failed, Some(500));
        let again = |row: &RunRow| changed(&attempt(row, 2, 7), |again| again.last = row.last.clone());
        let then = |script: Script, at, row: &RunRow| answered(script, 500, waits.clone()).at(at).entry(7).row(row);
        accepts(NAME, then(until(20), 31_000, &again(&waits)));
        refuses(NAME, then(until(20), 31_001, &again(&waits)));
        let expired = changed(&waits, |row| (row.index, row.state, row.retry_at) = (7, RunState::Failed, None));
        accepts(NAME, then(until(20), 30_001, &expired));
        refuses(NAME, then(until(20), 30_000, &expired));
        refuses(NAME, then(known(), 30_001, &expired));
        let over = over(&fired(5, 10), 6, 11_000, RunState::Failed, AttemptResult::Failed, Some(500));
        accepts(NAME, answered(until(3), 500, over.clone()));
        refuses(NAME, answered(until(3600), 500, over));
    }

    #[test]
    fn what_is_unknown_was_lost() {
        let lost = |script: Script| {
            let row = over(&fired(5, 10), 7, 11_000, RunState::Failed, AttemptResult::OutcomeUnknown, None);
            script.at(11_000).entry(7).row(&row)
        };
        accepts(NAME, lost(known().node_row(6, 1, 2, 6, true)));
        refuses(NAME, lost(known()));
    }

    #[test]
    fn the_final_state_of_real_processes() {
        let end = ended(&fired(5, 10), 6, RunState::Succeeded);
        let told = |status| {
            let seen = Script::new().real().at(10_000).deliver(1, &fired(5, 10)).answer(1, 200);
            seen.final_view(&end, |view| view.attempts[0].status = status)
        };
        accepts(NAME, told(Some(200)));
        refuses(NAME, told(Some(201)));
        refuses(NAME, told(None));
    }
}
