//! What the tables share: one schedule, asked for its next times in its own zone.

use std::collections::BTreeMap;

use campanile_model::{Dst, HttpMethod, HttpTarget, Rejection, Schedule, Target, TaskSpec, Timestamp};
use campanile_timer::{Anchors, Plan, render};

pub fn instant(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

pub fn cron(expression: &str, time_zone: &str, dst: Dst) -> Schedule {
    Schedule::Cron { expression: expression.into(), time_zone: time_zone.into(), dst }
}

pub fn spec(schedules: Vec<Schedule>) -> TaskSpec {
    let target = HttpTarget {
        url: "http://127.0.0.1:9000/hook".into(),
        method: HttpMethod::Post,
        headers: BTreeMap::new(),
        signing_secret: None,
    };
    TaskSpec::new(schedules, Target::Http(target))
}

/// Anchors of a task created and last written at one instant.
pub fn anchors(at: &str) -> Anchors {
    Anchors::new(instant(at), 7)
}

pub fn compile(schedule: Schedule, at: &str) -> Result<Plan, Rejection> {
    Plan::of(&[schedule], anchors(at))
}

/// The first occurrences after an instant, rendered.
pub fn next_times(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let plan = compile(schedule.clone(), after).unwrap_or_else(|refusal| panic!("{schedule:?}: {refusal}"));
    let mut at = instant(after);
    let mut times = Vec::new();
    while times.len() < count
        && let Some(next) = plan.next_after(at)
    {
        assert!(next > at, "{schedule:?}: {next} is not after {at}");
        times.push(render(schedule, next));
        at = next;
    }
    times
}
