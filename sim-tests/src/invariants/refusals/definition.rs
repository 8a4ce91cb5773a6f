//! What can be wrong with a definition, by a second opinion: of the faults that clients of the simulator make on purpose,
//! and of those that a drawn definition may come to have with time.

use campanile_model::{Millis, Schedule, TaskSpec, Timestamp, limits};

use super::{Judged, because};
use crate::expect::{self, Anchors};
use crate::history::Action;

/// How far the second opinion looks for an occurrence.
const HORIZON: Millis = Millis::from_days(400);

/// Whether the code names the fault that the definition of a request has, by clocks that show `now` at the latest.
pub fn refused(action: &Action, code: &str, now: Timestamp) -> Judged {
    let (Action::Put { spec, .. } | Action::PutBad { spec, .. } | Action::PreviewSpec { spec, .. }) = action else {
        return Err("it has no definition".into());
    };
    match (fault(spec), action) {
        (Some(fault), _) => because(code == fault, || format!("its fault is {fault}")),
        // Whoever writes a scenario may know of faults that we do not.
        (None, Action::PutBad { .. }) => Ok(()),
        (None, _) if code == "never_occurs" => match first(spec, now) {
            Ok(None) => Ok(()),
            Ok(Some(at)) => Err(format!("it has an occurrence at {at}")),
            Err(unreadable) => Err(unreadable.to_string()),
        },
        (None, _) => Err("there is nothing wrong with its definition".into()),
    }
}

/// The code of the first fault, in the order in which they are looked for.
fn fault(spec: &TaskSpec) -> Option<&'static str> {
    let too_short = |schedule: &Schedule| matches!(schedule, Schedule::Every(every) if *every < limits::EVERY_MIN);
    let ends_early = spec.start_at.zip(spec.end_at).is_some_and(|(start, end)| end <= start);
    let faults = [
        (spec.schedules.iter().any(too_short), "limit_exceeded"),
        (!(-100..=100).contains(&spec.priority), "limit_exceeded"),
        (spec.timeout == Millis(0) || spec.timeout > limits::TIMEOUT_MAX, "limit_exceeded"),
        (!(1..=limits::MAX_ATTEMPTS).contains(&spec.retry.max_attempts), "limit_exceeded"),
        (spec.remaining == Some(0) || spec.pause_on_failure == Some(0) || ends_early, "invalid_field"),
    ];
    faults.into_iter().find(|(is_there, _)| *is_there).map(|(_, code)| code)
}

/// The first occurrence of a task that is created at that time.
fn first(spec: &TaskSpec, now: Timestamp) -> Result<Option<Timestamp>, expect::Unreadable> {
    let anchors = Anchors { created_at: now, version_at: now, since: now, spread: 0 };
    let end = spec.end_at.unwrap_or(Timestamp::LAST).min(now.saturating_add(HORIZON));
    // Where there is none soon there may be one later: twice as far each time.
    let mut ahead = Millis::from_mins(1);
    loop {
        let until = now.saturating_add(ahead).min(end);
        if let Some(at) = expect::occurrences(spec, anchors, Timestamp::MIN, until)?.first() {
            return Ok(Some(*at));
        }
        if until >= end {
            return Ok(None);
        }
        ahead = Millis(ahead.0 * 2);
    }
}
