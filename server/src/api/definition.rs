//! From a request's bytes to a definition that every limit and rule holds for, or to the reason why not: which field,
//! which rule, which limit.

use campanile_model::api::{READ_ONLY_FIELDS, Warning};
use campanile_model::{
    Code, HttpTarget, Millis, Ratio, Rejection, Schedule, Target, TaskId, TaskSpec, Timestamp, limits, planted,
};
use campanile_timer::{Anchors, Plan};
use serde_json::{Map, Value};

use crate::secret;

/// A definition as a client sent it.
#[derive(Debug)]
pub struct Definition {
    pub name: Option<String>,
    pub spec: TaskSpec,
    pub warnings: Vec<Warning>,
}

/// Reads and checks a definition. `now` is only for advice (what lies in the past); the leader decides by its own.
pub fn read(body: &[u8], now: Timestamp) -> Result<Definition, Rejection> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Rejection::new(Code::MalformedJson, format!("body is not JSON: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(Rejection::new(Code::InvalidField, "a task's definition is a JSON object"));
    };
    let name = take_name(&mut fields)?;
    for field in READ_ONLY_FIELDS {
        fields.remove(field);
    }
    let spec: TaskSpec = serde_path_to_error::deserialize(Value::Object(fields)).map_err(malformed)?;
    check(&spec, now)?;
    let warnings = warnings(&spec, now);
    Ok(Definition { name, spec, warnings })
}

fn take_name(fields: &mut Map<String, Value>) -> Result<Option<String>, Rejection> {
    match fields.remove("name") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(_) => Err(invalid("name", "a name is a string")),
    }
}

fn malformed(error: serde_path_to_error::Error<serde_json::Error>) -> Rejection {
    let message = error.inner().to_string();
    let code = if message.starts_with("unknown field") { Code::UnknownField } else { Code::InvalidField };
    let path = error.path().to_string();
    let rejection = Rejection::new(code, message);
    if path == "." { rejection } else { rejection.with_field(path) }
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Rejection {
    Rejection::new(Code::InvalidField, message).with_field(field)
}

fn limit(field: impl Into<String>, message: impl Into<String>) -> Rejection {
    Rejection::new(Code::LimitExceeded, message).with_field(field)
}

/// Refuses `length` above `max`, naming both.
fn at_most(field: &str, what: &str, length: usize, max: usize) -> Result<(), Rejection> {
    if length > max {
        return Err(limit(field, format!("{what} has {length}, the limit is {max}")));
    }
    Ok(())
}

/// A task's name: it fits a path, a header and a log line, and is not an id.
pub fn check_name(name: &str) -> Result<(), Rejection> {
    if name.is_empty() {
        return Err(invalid("name", "a name has at least one character"));
    }
    at_most("name", "the name's length in bytes", name.len(), limits::NAME_BYTES)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    if !name.chars().all(allowed) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(invalid(
            "name",
            format!("{name:?} is not a name: letters, digits and . _ - : / are allowed, the first a letter or digit"),
        ));
    }
    if name.parse::<TaskId>().is_ok() {
        return Err(invalid("name", format!("{name:?} has the form of a task's id")));
    }
    Ok(())
}

/// Whether a definition keeps all limits, and its schedules mean something.
pub fn check(spec: &TaskSpec, now: Timestamp) -> Result<(), Rejection> {
    check_limits(spec)?;
    Plan::compile(spec, Anchors::new(now, 0))?;
    Ok(())
}

fn check_limits(spec: &TaskSpec) -> Result<(), Rejection> {
    check_schedules(&spec.schedules)?;
    let Target::Http(http) = &spec.target;
    check_http(http)?;
    if let Some(payload) = &spec.payload {
        at_most("payload", "the payload's length in bytes", payload.len(), limits::PAYLOAD_BYTES)?;
    }
    at_most("labels", "the number of labels", spec.labels.len(), limits::LABELS)?;
    for (key, value) in &spec.labels {
        let field = format!("labels.{key}");
        at_most(&field, "the label's key in bytes", key.len(), limits::LABEL_BYTES)?;
        at_most(&field, "the label's value in bytes", value.len(), limits::LABEL_BYTES)?;
        if key.is_empty() || key.contains('=') {
            return Err(invalid(field, "a label's key is not empty and has no ="));
        }
    }
    let lowest = if planted!(NegativePriorityRefused) { 0 } else { -100 };
    if !(lowest..=100).contains(&spec.priority) {
        return Err(limit("priority", format!("{} is not between -100 and 100", spec.priority)));
    }
    within("timeout", spec.timeout, Millis(1), limits::TIMEOUT_MAX)?;
    if let Some(deadline) = spec.deadline {
        within("deadline", deadline, Millis(1), Millis::from_days(365))?;
    }
    within("jitter", spec.jitter, Millis(0), Millis::from_days(1))?;
    check_policies(spec)
}

fn check_schedules(schedules: &[Schedule]) -> Result<(), Rejection> {
    at_most("schedules", "the number of schedules", schedules.len(), limits::SCHEDULES)?;
    for (position, schedule) in schedules.iter().enumerate() {
        let field = |name: &str| format!("schedules[{position}].{name}");
        match schedule {
            Schedule::Cron { expression, time_zone, .. } => {
                at_most(&field("cron"), "the expression's length", expression.len(), limits::SCHEDULE_BYTES)?;
                at_most(&field("time_zone"), "the zone's length", time_zone.len(), limits::SCHEDULE_BYTES)?;
            }
            Schedule::Repeat(text) => {
                at_most(&field("repeat"), "the text's length", text.len(), limits::SCHEDULE_BYTES)?;
            }
            Schedule::Every(every) => within(&field("every"), *every, limits::EVERY_MIN, Millis::from_days(36_500))?,
            Schedule::Delay(delay) => within(&field("delay"), *delay, Millis(0), Millis::from_days(36_500))?,
            Schedule::At(_) => {}
        }
    }
    Ok(())
}

fn within(field: &str, span: Millis, min: Millis, max: Millis) -> Result<(), Rejection> {
    if span < min || span > max {
        return Err(limit(field, format!("{span} is not between {min} and {max}")));
    }
    Ok(())
}

fn check_http(http: &HttpTarget) -> Result<(), Rejection> {
    at_most("target.http.url", "the URL's length in bytes", http.url.len(), limits::URL_BYTES)?;
    let uri: http::Uri = http
        .url
        .parse()
        .map_err(|error| invalid("target.http.url", format!("{:?} is not a URL: {error}", http.url)))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(invalid("target.http.url", format!("{:?} is not an http or https URL with a host", http.url)));
    }
    at_most("target.http.headers", "the number of headers", http.headers.len(), limits::HEADERS)?;
    for (name, value) in &http.headers {
        let field = format!("target.http.headers.{name}");
        at_most(&field, "the header's length in bytes", name.len() + value.len(), limits::HEADER_BYTES)?;
        let parsed: http::HeaderName = name.parse().map_err(|_| invalid(&field, "is not a header name"))?;
        value.parse::<http::HeaderValue>().map_err(|_| invalid(&field, "is not a header value"))?;
        let ours = parsed.as_str().starts_with("campanile-") || parsed.as_str().starts_with("webhook-");
        let framing = matches!(parsed.as_str(), "host" | "content-length" | "transfer-encoding" | "connection");
        if ours || framing {
            return Err(invalid(field, "this header is set by Campanile"));
        }
    }
    if let Some(secret) = http.signing_secret.as_deref().filter(|secret| *secret != secret::REDACTED) {
        secret::key(secret).map_err(|why| invalid("target.http.signing_secret", why))?;
    }
    Ok(())
}

fn check_policies(spec: &TaskSpec) -> Result<(), Rejection> {
    let retry = &spec.retry;
    if !(1..=limits::MAX_ATTEMPTS).contains(&retry.max_attempts) {
        let message = format!("{} is not between 1 and {}", retry.max_attempts, limits::MAX_ATTEMPTS);
        return Err(limit("retry.max_attempts", message));
    }
    within("retry.initial", retry.initial, Millis(0), Millis::from_days(1))?;
    within("retry.max", retry.max, Millis(0), Millis::from_days(7))?;
    if retry.factor < Ratio::ONE || retry.factor > Ratio(100_000) {
        return Err(limit("retry.factor", "the factor is between 1 and 100"));
    }
    if retry.jitter > Ratio::ONE {
        return Err(limit("retry.jitter", "the jitter is between 0 and 1"));
    }
    within("catch_up.grace", spec.catch_up.grace, limits::GRACE_MIN, Millis::from_days(1))?;
    within("catch_up.window", spec.catch_up.window, Millis(0), Millis::from_days(366))?;
    if spec.remaining == Some(0) {
        return Err(invalid("remaining", "a task that may not fire is a paused one; remaining starts at 1"));
    }
    if spec.pause_on_failure == Some(0) {
        return Err(invalid("pause_on_failure", "the number of failures is at least 1"));
    }
    if spec.retention.runs > limits::LEDGER_LINES {
        let message = format!("{} runs, the limit is {}", spec.retention.runs, limits::LEDGER_LINES);
        return Err(limit("retention.runs", message));
    }
    if let (Some(start_at), Some(end_at)) = (spec.start_at, spec.end_at)
        && end_at <= start_at
    {
        return Err(invalid("end_at", "end_at is not after start_at"));
    }
    Ok(())
}

/// What is accepted, but perhaps not what was meant.
fn warnings(spec: &TaskSpec, now: Timestamp) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (position, schedule) in spec.schedules.iter().enumerate() {
        if let Schedule::At(at) = schedule
            && *at < now
        {
            warnings.push(Warning {
                code: "past_at".into(),
                message: format!("{at} is in the past: the task fires at once"),
                field: Some(format!("schedules[{position}].at")),
            });
        }
    }
    warnings
}
