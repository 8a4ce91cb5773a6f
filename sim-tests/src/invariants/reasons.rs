//! Whoever looks at a run learns why an attempt failed. The record of one that failed or timed out says so, in no more
//! bytes than the limit: with the status, if there was an answer; with the time-out, if there was none in time; and that
//! it was the connection, or a head without end, where that is what the receiver did. A record of anything else gives no
//! reason.

use campanile_model::{AttemptRecord, AttemptResult, TaskSpec, limits};

use super::index::{Facts, RunFacts};
use super::report::Report;
use crate::verdict::Finding;

/// What the receiver did so long before the time-out has been seen before it.
const ON_ITS_WAY: u64 = 100_000;
/// How a reason begins that is a time-out's.
const NO_ANSWER: &str = "no answer within ";

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("reasons");
    for run in facts.runs.values() {
        let mut before = None;
        for row in &run.rows {
            let last = row.it.last.as_ref().filter(|last| before != Some(last.token));
            if let Some(record) = last {
                before = Some(record.token);
                let spec = facts.spec(row.it.occurrence.task, row.it.version);
                says_why(facts, run, spec, record, row.t, &mut report);
            }
        }
        if let Some(view) = run.in_the_end {
            let spec = facts.spec(view.it.task_id, view.it.version);
            for record in &view.it.attempts {
                says_why(facts, run, spec, record, view.t, &mut report);
            }
        }
    }
    report.finish_if_any("records of attempts")
}

fn says_why(
    facts: &Facts,
    run: &RunFacts,
    spec: Option<&TaskSpec>,
    record: &AttemptRecord,
    t: u64,
    report: &mut Report,
) {
    let AttemptRecord { number, result, status, ref error, .. } = *record;
    let wanted = match result {
        AttemptResult::Succeeded | AttemptResult::Cancelled | AttemptResult::OutcomeUnknown => {
            report
                .hold(error.is_empty(), t, || format!("attempt {number} is {result:?} and gives a reason: {error:?}"));
            return;
        }
        AttemptResult::Failed | AttemptResult::TimedOut => match (status, spec) {
            (Some(status), _) => vec![status.to_string()],
            (None, Some(spec)) if result == AttemptResult::TimedOut || error.starts_with(NO_ANSWER) => {
                vec![spec.timeout.to_string()]
            }
            (None, _) => Vec::new(),
        },
    };
    report.hold(!error.is_empty() && error.len() <= limits::ERROR_BYTES, t, || {
        format!("attempt {number} is {result:?} and its reason has {} bytes: {error:?}", error.len())
    });
    report.hold(wanted.iter().all(|word| error.contains(word)), t, || {
        format!("attempt {number} is {result:?} {status:?} and its reason does not say {wanted:?}: {error:?}")
    });
    if status.is_none() && was_reset(facts, run, spec, record) {
        let error = error.to_ascii_lowercase();
        report.hold(error.contains("connection") || error.contains("head"), t, || {
            format!("the receiver ended the connection of attempt {number}, and the reason is {error:?}")
        });
    }
}

/// Whether the receiver gave no answer but ended the connection, and the node has seen that.
fn was_reset(facts: &Facts, run: &RunFacts, spec: Option<&TaskSpec>, record: &AttemptRecord) -> bool {
    let Some((delivered, spec)) = run.delivery(record.token).zip(spec) else { return false };
    let Some(reset) = delivered.reset else { return false };
    let until = delivered.t.saturating_add(spec.timeout.0.saturating_mul(1000));
    reset.saturating_add(ON_ITS_WAY) < until && facts.is_link_sound(delivered.t, until)
}

#[cfg(test)]
mod tests {
    use campanile_model::api::Change;
    use campanile_model::{AttemptRecord, AttemptResult, Millis, RunState, limits};

    use super::super::testing::*;
    use crate::history::Event;
    use crate::plan::Fault;

    const NAME: &str = "reasons";

    fn known() -> Script {
        let put = put_with(|spec| spec.timeout = Millis::from_secs(5));
        Script::new()
            .invoke(1, put)
            .wrote(1, Change::Created, 1)
            .at(10_000)
            .row(&fired(5, 10))
            .deliver(1, &fired(5, 10))
    }

    fn told(script: Script, result: AttemptResult, status: Option<u16>, error: &str) -> Script {
        let run = fired(5, 10);
        let row = changed(&ended(&run, 6, RunState::Failed), |row| {
            row.last = Some(AttemptRecord { status, error: error.into(), ..record(&run, result) });
        });
        script.row(&row)
    }

    #[test]
    fn a_failure_has_a_reason_and_nothing_else_has() {
        use AttemptResult::{Cancelled, Failed, OutcomeUnknown, Succeeded};
        let short = "x".repeat(limits::ERROR_BYTES);
        accepts(NAME, told(known(), Failed, None, &short));
        refuses(NAME, told(known(), Failed, None, &format!("{short}x")));
        refuses(NAME, told(known(), Failed, None, ""));
        for result in [Succeeded, Cancelled, OutcomeUnknown] {
            accepts(NAME, told(known(), result, None, ""));
            refuses(NAME, told(known(), result, None, "why"));
        }
    }

    #[test]
    fn it_says_the_status_or_the_time_out() {
        use AttemptResult::{Failed, TimedOut};
        accepts(NAME, told(known(), Failed, Some(503), "receiver answered 503 Service Unavailable"));
        refuses(NAME, told(known(), Failed, Some(503), "receiver answered 500"));
        for result in [TimedOut, Failed] {
            accepts(NAME, told(known(), result, None, "no answer within 5s; that was the last"));
            refuses(NAME, told(known(), result, None, "no answer within 3s"));
        }
        refuses(NAME, told(known(), TimedOut, None, "it was too slow"));
    }

    #[test]
    fn it_says_what_the_receiver_did() {
        let reset = || known().event(Event::Reset { delivery: 1, without_end: false });
        let failed = |script, error| told(script, AttemptResult::Failed, None, error);
        accepts(NAME, failed(reset(), "client error: connection closed"));
        accepts(NAME, failed(reset(), "client error: message head is too large"));
        refuses(NAME, failed(reset(), "xyzzy"));
        refuses(NAME, failed(reset(), "no answer within 5s"));
        accepts(NAME, failed(known(), "xyzzy"));
        let slow = Fault::Delay { min: Millis(1), max: Millis(400) };
        accepts(NAME, failed(reset().begin(0, slow), "no answer within 5s"));
    }

    #[test]
    fn the_final_state_says_it_too() {
        let end = ended(&fired(5, 10), 6, RunState::Failed);
        let with = |error: &str| known().final_view(&end, |view| view.attempts[0].error = error.into());
        accepts(NAME, with("it failed"));
        refuses(NAME, with(""));
    }
}
