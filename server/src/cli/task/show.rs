//! Tasks in words.

use campanile_model::api::{TaskView, TaskWritten};
use campanile_model::{Schedule, Tally, Target, TaskSpec};

use super::super::output::{or_dash, sheet, word};

/// One line on a write.
pub fn written(written: &TaskWritten) -> String {
    let next = match written.next {
        Some(next) => format!("next at {}", next.scheduled_at),
        None => "no occurrence to come".into(),
    };
    format!(
        "{} {} ({}), version {}, {}, {next}",
        word(written.change),
        written.name,
        written.id,
        written.version,
        word(written.state)
    )
}

/// All of a task that is not at its default.
pub fn task(task: &TaskView) -> String {
    let spec = &task.spec;
    let defaults = TaskSpec::new(Vec::new(), spec.target.clone());
    let Target::Http(http) = &spec.target;
    let unless_default = |changed: bool, text: String| if changed { text } else { String::new() };
    let optional = |value: Option<String>| value.unwrap_or_default();
    let pairs = |map: &std::collections::BTreeMap<String, String>, between: &str| {
        map.iter().map(|(key, value)| format!("{key}{between}{value}")).collect::<Vec<_>>().join(", ")
    };
    sheet(vec![
        ("name", task.name.clone()),
        ("id", task.id.to_string()),
        ("namespace", task.namespace.clone()),
        ("state", word(task.state)),
        ("version", format!("{}, written {}", task.version, task.updated_at)),
        ("created", task.created_at.to_string()),
        ("schedule", schedules(spec)),
        ("next", or_dash(task.next.map(|next| next.scheduled_at))),
        ("due", optional(task.next.filter(|next| next.due_at != next.scheduled_at).map(|n| n.due_at.to_string()))),
        ("decided until", or_dash(task.decided_until)),
        ("fires left", optional(task.remaining_fires.map(|left| left.to_string()))),
        ("so far", tally(&task.tally)),
        ("target", target(spec)),
        ("headers", pairs(&http.headers, ": ")),
        ("signed", unless_default(http.signing_secret.is_some(), "with the task's own secret".into())),
        ("payload", optional(spec.payload.as_ref().map(|payload| payload.as_str().into()))),
        ("labels", pairs(&spec.labels, "=")),
        ("priority", unless_default(spec.priority != defaults.priority, spec.priority.to_string())),
        ("timeout", spec.timeout.to_string()),
        ("deadline", optional(spec.deadline.map(|span| span.to_string()))),
        ("overlap", word(spec.overlap)),
        ("catch-up", format!("{} within {}", word(spec.catch_up.policy), spec.catch_up.window)),
        ("attempts", format!("up to {}", spec.retry.max_attempts)),
        ("delivery", unless_default(spec.delivery != defaults.delivery, word(spec.delivery))),
        ("jitter", unless_default(spec.jitter != defaults.jitter, spec.jitter.to_string())),
        ("starts", optional(spec.start_at.map(|at| at.to_string()))),
        ("ends", optional(spec.end_at.map(|at| at.to_string()))),
        ("pauses after", optional(spec.pause_on_failure.map(|runs| format!("{runs} failed runs in a row")))),
        ("on finish", unless_default(spec.on_finish != defaults.on_finish, word(spec.on_finish))),
    ])
}

/// All schedules on one line.
pub fn schedules(spec: &TaskSpec) -> String {
    if spec.schedules.is_empty() {
        return "manual".into();
    }
    spec.schedules.iter().map(schedule).collect::<Vec<_>>().join("; ")
}

fn schedule(schedule: &Schedule) -> String {
    match schedule {
        Schedule::At(at) => format!("at {at}"),
        Schedule::Delay(span) => format!("after {span}"),
        Schedule::Every(span) => format!("every {span}"),
        Schedule::Cron { expression, time_zone, .. } => format!("{expression} {time_zone}"),
        Schedule::Repeat(repeat) => repeat.clone(),
    }
}

pub fn target(spec: &TaskSpec) -> String {
    let Target::Http(http) = &spec.target;
    format!("{} {}", http.method.as_str(), http.url)
}

/// Occurrences by what became of them; nothing is said of what did not happen.
pub fn tally(tally: &Tally) -> String {
    let parts = [
        (tally.fired, "fired"),
        (tally.overlap, "skipped by overlap"),
        (tally.buffer_full, "skipped with a full buffer"),
        (tally.beyond_window, "missed beyond the window"),
        (tally.policy_skip, "missed by policy"),
        (tally.coalesced, "missed for a later one"),
        (tally.paused, "paused"),
    ];
    let said: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if said.is_empty() { "no occurrence".into() } else { said.join(", ") }
}
