//! Definitions.

use campanile_model::{Millis, TaskSpec, Timestamp};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::scenario::Pace;

/// A definition. It is written as clients write it, in JSON.
pub fn spec(rng: &mut SmallRng, pace: Pace, start: Timestamp) -> TaskSpec {
    let after = |seconds: u64| start.saturating_add(Millis::from_secs(seconds)).to_string();
    let schedule = |rng: &mut SmallRng| -> Value {
        let slow = if pace == Pace::Coarse { 3600 } else { 1 };
        match rng.random_range(0..10) {
            0 | 1 => json!({"delay": format!("{}ms", rng.random_range(0..8000) * slow)}),
            2 => json!({"at": after(rng.random_range(1..60))}),
            3..6 => json!({"every": format!("{}ms", rng.random_range(700..6000) * slow)}),
            6 => {
                let (count, first, period) = (rng.random_range(1..6), rng.random_range(1..50), rng.random_range(1..5));
                json!({"repeat": format!("R{count}/{}/PT{period}S", after(first))})
            }
            7 if rng.random_bool(0.5) => {
                // Fixed times in the hour that the clocks of Berlin go through twice, if it is that night.
                let first = rng.random_range(0..30);
                json!({"cron": format!("{first},{} 0 2 * * *", first + 29), "time_zone": "Europe/Berlin"})
            }
            7 => {
                let (first, step) = (rng.random_range(0..9), rng.random_range(1..6));
                json!({"cron": format!("{first}-59/{step} * * * * *"), "time_zone": "Europe/Berlin"})
            }
            _ => json!({"cron": format!("*/{} * * * * *", rng.random_range(1..8))}),
        }
    };
    let count = if rng.random_bool(0.8) { 1 } else { 2 };
    let schedules: Vec<Value> = (0..count).map(|_| schedule(rng)).collect();
    let overlap = ["allow", "allow", "allow", "skip", "buffer_one", "buffer_all", "cancel_other"];
    let catch_up = ["fire_once", "fire_all", "skip"];
    let mut spec = json!({
        "schedules": schedules,
        "target": {"http": {"url": "http://receiver/hook"}},
        "payload": {"n": rng.random_range(0..1000)},
        "overlap": overlap[rng.random_range(0..overlap.len())],
        "timeout": format!("{}ms", rng.random_range(800..4000)),
        "catch_up": {"grace": format!("{}ms", rng.random_range(1000..10_000)), "window": format!("{}s", rng.random_range(3..90)), "policy": catch_up[rng.random_range(0..catch_up.len())]},
        "retry": {"max_attempts": rng.random_range(1..5), "initial": "300ms", "factor": 2, "max": "3s", "jitter": 0.2},
    });
    let fields = spec.as_object_mut().expect("an object was made above");
    if rng.random_bool(0.15) {
        fields.insert("remaining".into(), json!(rng.random_range(1..8)));
    }
    if rng.random_bool(0.1) {
        fields.insert("jitter".into(), json!(format!("{}ms", rng.random_range(1..900))));
    }
    if rng.random_bool(0.1) {
        fields.insert("delivery".into(), json!("at_most_once"));
    }
    serde_json::from_value(spec).expect("drawn definitions are well formed")
}
