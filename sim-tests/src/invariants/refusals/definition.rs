//! What can be wrong with a request itself, by a second opinion: the faults of definitions that clients of the simulator
//! make on purpose, those that a drawn definition may come to have with time, and more items than may be asked for.

use campanile_model::{Millis, Schedule, TaskSpec, Timestamp, limits};

use super::{Judged, because};
use crate::expect::{self, Anchors};
use crate::history::Action;

/// How far the second opinion looks for an occurrence.
const HORIZON: Millis = Millis::from_days(400);

/// Whether a request has to be refused, whatever the state.
pub fn must_be_refused(action: &Action) -> bool {
    matches!(action, Action::PutBad { .. }) || asks_for(action).is_some_and(|items| !may_be_asked_for(items))
}

/// So many items, where it says.
fn asks_for(action: &Action) -> Option<u32> {
    match action {
        Action::Preview { count, .. } | Action::PreviewSpec { count, .. } => Some(*count),
        _ => action.page()?.limit,
    }
}

fn may_be_asked_for(items: u32) -> bool {
    (1..=limits::PAGE_ITEMS.min(limits::PREVIEW_COUNT)).contains(&(items as usize))
}

/// Whether the code names the fault that the definition of a request has, by clocks that show something between two
/// instants.
pub fn refused(action: &Action, code: &str, (from, to): (Timestamp, Timestamp)) -> Judged {
    if asks_for(action).is_some_and(|items| !may_be_asked_for(items)) {
        return because(code == "limit_exceeded", || "it asks for too much, or nothing".into());
    }
    let (Action::Put { spec, .. } | Action::PutBad { spec, .. } | Action::PreviewSpec { spec, .. }) = action else {
        return Err("it has no definition".into());
    };
    match (fault(spec), action) {
        (Some(fault), _) => because(code == fault, || format!("its fault is {fault}")),
        // Whoever writes a scenario may know of faults that we do not.
        (None, Action::PutBad { .. }) => Ok(()),
        (None, _) if code == "never_occurs" => never_occurs(spec, readings(spec, from, to)),
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

/// Whether the definition has no occurrence by one of these readings of a clock.
fn never_occurs(spec: &TaskSpec, readings: Vec<Timestamp>) -> Judged {
    let mut has = None;
    for now in readings {
        match first(spec, now) {
            Ok(Some(at)) => has = Some(at),
            Ok(None) => return Ok(()),
            Err(unreadable) => return Err(unreadable.to_string()),
        }
    }
    Err(format!("it has an occurrence at {has:?}"))
}

/// The readings of a clock between two at which what a definition has may end or begin: the two, and those from which a
/// delay leads right before where the definition begins, or to where it ends.
fn readings(spec: &TaskSpec, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let mut found = vec![from, to];
    for schedule in &spec.schedules {
        if let Schedule::Delay(delay) = schedule {
            let before = spec.start_at.map(|start| start.saturating_sub(*delay).saturating_sub(Millis(1)));
            found.extend(before.into_iter().chain(spec.end_at.map(|end| end.saturating_sub(*delay))));
        }
    }
    found.retain(|at| *at >= from && *at <= to);
    found
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
