//! Definitions: every field and every variant that there is, and small changes of what was put before.
//!
//! They are written as clients write them, in JSON, field by field; a field that is not drawn has its default.

use campanile_model::{Millis, TaskSpec, Timestamp};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

use crate::scenario::Pace;

/// Where a definition is drawn: under which pace, and when the workload begins.
#[derive(Clone, Copy)]
pub struct Scene {
    pub pace: Pace,
    pub start: Timestamp,
}

impl Scene {
    fn after(self, seconds: u64) -> String {
        self.start.saturating_add(Millis::from_secs(seconds)).to_string()
    }
}

/// The fields of a definition, in the order in which they are drawn.
const FIELDS: [&str; 18] = [
    "schedules",
    "target",
    "payload",
    "labels",
    "priority",
    "timeout",
    "deadline",
    "overlap",
    "catch_up",
    "retry",
    "delivery",
    "jitter",
    "start_at",
    "end_at",
    "remaining",
    "pause_on_failure",
    "retention",
    "on_finish",
];

/// Zones whose clocks change in the nights in which scenarios begin, and some that never do or not by whole hours.
const ZONES: [&str; 7] = [
    "Europe/Berlin",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Chatham",
    "UTC",
];

/// Secrets of tasks.
const SECRETS: [&str; 3] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
    "whsec_c2ltdWxhdGVkIHJlY2VpdmVycyBrbm93IHRoaXM=",
];

/// A definition.
pub fn spec(rng: &mut SmallRng, scene: Scene) -> TaskSpec {
    let mut fields = Map::new();
    for name in FIELDS {
        set(&mut fields, name, rng, scene);
    }
    read(fields)
}

/// What was put before, with a part of it drawn anew. Half of the changes are of something that has nothing to do with
/// when the task is due.
pub fn changed(before: &TaskSpec, rng: &mut SmallRng, scene: Scene) -> TaskSpec {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(before) else { return before.clone() };
    let name = match rng.random_range(0..10) {
        0..3 => "labels",
        3 => "payload",
        4 => "jitter",
        _ => FIELDS[rng.random_range(0..FIELDS.len())],
    };
    set(&mut fields, name, rng, scene);
    read(fields)
}

/// One that has to be refused.
pub fn bad(rng: &mut SmallRng, scene: Scene) -> TaskSpec {
    let mut spec = spec(rng, scene);
    match rng.random_range(0..6) {
        0 => spec.timeout = Millis(0),
        1 => spec.remaining = Some(0),
        2 => spec.priority = 101,
        3 => spec.retry.max_attempts = 0,
        4 => (spec.start_at, spec.end_at) = (Some(scene.start), Some(scene.start)),
        _ => spec.schedules = vec![campanile_model::Schedule::Every(Millis(1))],
    }
    spec
}

fn set(fields: &mut Map<String, Value>, name: &str, rng: &mut SmallRng, scene: Scene) {
    match field(name, rng, scene) {
        Some(value) => fields.insert(name.to_owned(), value),
        None => fields.remove(name),
    };
    // One without the other might be the earlier.
    if let (Some(start), Some(end)) = (instant(fields, "start_at"), instant(fields, "end_at"))
        && end <= start
    {
        fields.remove(if name == "start_at" { "end_at" } else { "start_at" });
    }
}

fn instant(fields: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    fields.get(name)?.as_str()?.parse().ok()
}

pub(super) fn read(fields: Map<String, Value>) -> TaskSpec {
    serde_json::from_value(Value::Object(fields)).expect("drawn definitions are well formed")
}

fn millis(rng: &mut SmallRng, range: std::ops::Range<u64>) -> Value {
    json!(format!("{}ms", rng.random_range(range)))
}

fn one_of(rng: &mut SmallRng, words: &[&str]) -> Value {
    json!(words[rng.random_range(0..words.len())])
}

/// A value for a field; `None` leaves it at its default.
fn field(name: &str, rng: &mut SmallRng, scene: Scene) -> Option<Value> {
    let mut now_and_then = |share: f64| rng.random_bool(share);
    Some(match name {
        "schedules" if now_and_then(0.03) => json!([]),
        "schedules" => {
            let count = if now_and_then(0.8) { 1 } else { 2 };
            (0..count).map(|_| schedule(rng, scene)).collect()
        }
        "target" => json!({"http": http(rng)}),
        "payload" => payload(rng)?,
        "labels" if now_and_then(0.6) => json!({"rev": format!("{}", rng.random_range(0..1000)), "team": "night"}),
        "priority" if now_and_then(0.15) => json!(rng.random_range(-100..=100)),
        "timeout" if now_and_then(0.97) => millis(rng, 800..4000),
        "deadline" if now_and_then(0.12) => millis(rng, 500..12_000),
        "overlap" => one_of(rng, &["allow", "allow", "allow", "skip", "buffer_one", "buffer_all", "cancel_other"]),
        // Shorter than leaders stay away.
        "catch_up" if now_and_then(0.4) => json!({
            "grace": millis(rng, 1000..1500),
            "window": format!("{}s", rng.random_range(2..5)),
            "policy": one_of(rng, &["fire_once", "fire_all"]),
        }),
        "catch_up" if now_and_then(0.9) => json!({
            "grace": millis(rng, 1000..10_000),
            "window": format!("{}s", rng.random_range(3..90)),
            "policy": one_of(rng, &["fire_once", "fire_all", "skip"]),
        }),
        "retry" if now_and_then(0.9) => retry(rng),
        "delivery" if now_and_then(0.1) => json!("at_most_once"),
        "jitter" => match rng.random_range(0..20) {
            0..2 => millis(rng, 1..900),
            // Longer than most periods: several occurrences are held back at a time.
            2..4 => millis(rng, 1000..15_000),
            _ => return None,
        },
        "start_at" if now_and_then(0.1) => json!(scene.after(rng.random_range(0..40))),
        "end_at" if now_and_then(0.1) => json!(scene.after(rng.random_range(10..65))),
        "remaining" if now_and_then(0.15) => json!(rng.random_range(1..8)),
        "pause_on_failure" if now_and_then(0.12) => json!(rng.random_range(1..4)),
        "retention" if now_and_then(0.15) => {
            json!({"runs": rng.random_range(0..8), "age": millis(rng, 0..20_000)})
        }
        "on_finish" if now_and_then(0.15) => json!("delete"),
        _ => return None,
    })
}

fn schedule(rng: &mut SmallRng, scene: Scene) -> Value {
    let slow = if scene.pace == Pace::Coarse { 3600 } else { 1 };
    match rng.random_range(0..11) {
        0 => json!({"delay": format!("{}ms", rng.random_range(0..8000) * slow)}),
        1 => json!({"at": scene.after(rng.random_range(0..60))}),
        2..5 => json!({"every": format!("{}ms", rng.random_range(700..6000) * slow)}),
        5 => {
            let (first, period) = (scene.after(rng.random_range(0..50)), rng.random_range(1..5));
            match rng.random_range(0..4) {
                0 => json!({"repeat": format!("R/{first}/PT{period}S")}),
                1 => json!({"repeat": format!("R{}/{first}/P{period}D", rng.random_range(1..3))}),
                _ => json!({"repeat": format!("R{}/{first}/PT{period}S", rng.random_range(1..6))}),
            }
        }
        6..8 => {
            let expression = expression_of_a_night(rng);
            cron(rng, &expression)
        }
        8 => {
            let (first, step) = (rng.random_range(0..9), rng.random_range(1..6));
            cron(rng, &format!("{first}-59/{step} * * * * *"))
        }
        9 if rng.random_bool(0.3) => cron(rng, "*/4 * * * * * 2026-2030"),
        9 if rng.random_bool(0.3) => json!({"cron": "* * * * *"}),
        _ => json!({"cron": format!("*/{} * * * * *", rng.random_range(1..8))}),
    }
}

/// Times in the hours that clocks leave out or go through twice, fixed ones and others.
fn expression_of_a_night(rng: &mut SmallRng) -> String {
    let first = rng.random_range(0..30);
    match rng.random_range(0..3) {
        0 => format!("{first},{} 0 2 * * *", first + 29),
        1 => format!("{first},{} 0,1,30,59 1,2 * * *", first + 29),
        _ => format!("{first},{} * 1-3 * * *", first + 29),
    }
}

fn cron(rng: &mut SmallRng, expression: &str) -> Value {
    let zone = ZONES[rng.random_range(0..ZONES.len())];
    let mut cron = json!({"cron": expression, "time_zone": zone});
    if rng.random_bool(0.6) {
        cron["dst"] = one_of(rng, &["vixie", "skip", "twice"]);
    }
    cron
}

/// Paths, of which some have receivers of their own kind: see [`crate::drive::receiver`].
const PATHS: [&str; 10] = [
    "hook",
    "hook",
    "hook",
    "hook",
    "hook?by=night",
    "moods/flaky",
    "moods/busy",
    "moods/slow",
    "moods/failing",
    "moods/gone",
];

fn http(rng: &mut SmallRng) -> Value {
    let mut http = json!({"url": format!("http://receiver/{}", PATHS[rng.random_range(0..PATHS.len())])});
    if rng.random_bool(0.2) {
        http["method"] = one_of(rng, &["POST", "GET", "PUT", "PATCH", "DELETE"]);
    }
    if rng.random_bool(0.2) {
        http["headers"] = json!({"x-of": "night", "X-Rev": format!("{}", rng.random_range(0..100))});
    }
    if rng.random_bool(0.2) {
        http["signing_secret"] = one_of(rng, &SECRETS);
    }
    http
}

fn payload(rng: &mut SmallRng) -> Option<Value> {
    Some(match rng.random_range(0..20) {
        0..3 => return None,
        3 => json!("a string"),
        4 if rng.random_bool(0.2) => json!({"large": "x".repeat(rng.random_range(1000..20_000))}),
        _ => json!({"n": rng.random_range(0..1000)}),
    })
}

fn retry(rng: &mut SmallRng) -> Value {
    if rng.random_bool(0.6) {
        let attempts = rng.random_range(1..5);
        return json!({"max_attempts": attempts, "initial": "300ms", "factor": 2, "max": "3s", "jitter": 0.2});
    }
    let factor = [1.0, 1.5, 3.0][rng.random_range(0..3)];
    let jitter = [0.0, 0.5, 1.0][rng.random_range(0..3)];
    json!({
        "max_attempts": rng.random_range(1..8),
        "initial": millis(rng, 0..1500),
        "factor": factor,
        "max": millis(rng, 200..5000),
        "jitter": jitter,
    })
}
