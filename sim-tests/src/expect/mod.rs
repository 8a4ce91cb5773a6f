//! The second opinion on schedules: every occurrence a definition has in an interval, by walking through it.
//!
//! It shares nothing with the product but the definition's type: no code of `campanile-timer`, no croner, no jiff; time
//! zones are read by another library, though from the same data. It is slow and plain on purpose, and answers only for
//! stretches of time, never "when next". It must not be asked by the product, nor repaired to agree with it where
//! DESIGN says otherwise.

mod cron;
mod repeat;
mod zone;

use campanile_model::{Dst, Millis, Schedule, TaskSpec, Timestamp};

/// What a definition's times are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchors {
    pub created_at: Timestamp,
    pub version_at: Timestamp,
    /// Occurrences come after this: when the version was written, or before, if jitter held some back just then and the
    /// version left the schedules as they were.
    pub since: Timestamp,
    /// Chooses the values of cron's `~`, and how long jitter holds back.
    pub spread: u64,
}

/// How long jitter holds back what a task with this hash does.
pub fn jitter(spec: &TaskSpec, spread: u64) -> Millis {
    Millis(match spec.jitter.0 {
        0 => 0,
        most => xxhash_rust::xxh3::xxh3_64_with_seed(b"jitter", spread) % most,
    })
}

/// When an occurrence is due.
pub fn due_at(spec: &TaskSpec, anchors: Anchors, at: Timestamp) -> Timestamp {
    at.max(anchors.since).saturating_add(jitter(spec, anchors.spread)).max(anchors.version_at)
}

/// A schedule that this implementation does not understand, though the product may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the oracle cannot read {0}")]
pub struct Unreadable(String);

/// The stable hash of a named task of the namespace `default`.
pub fn spread_of(name: &str) -> u64 {
    let mut text = b"default\0".to_vec();
    text.extend_from_slice(name.as_bytes());
    xxhash_rust::xxh3::xxh3_64(&text)
}

/// Every occurrence after `after` and up to `until`, ascending; schedules that meet at an instant make one.
///
/// Only `at` has occurrences at or before [`Anchors::since`].
pub fn occurrences(
    spec: &TaskSpec,
    anchors: Anchors,
    after: Timestamp,
    until: Timestamp,
) -> Result<Vec<Timestamp>, Unreadable> {
    let until = until.min(Timestamp::LAST).as_millis();
    let after = after.as_millis();
    let after_version = after.max(anchors.since.as_millis());
    let mut found = Vec::new();
    for schedule in &spec.schedules {
        match schedule {
            Schedule::At(at) => found.extend(Some(at.as_millis()).filter(|at| *at > after && *at <= until)),
            Schedule::Delay(delay) => {
                let at = anchors.version_at.saturating_add(*delay).as_millis();
                // No delay at all still comes after the version.
                let at = at.max(anchors.version_at.as_millis() + 1);
                found.extend(Some(at).filter(|at| *at > after && *at <= until));
            }
            Schedule::Every(period) => {
                let first = spec.start_at.unwrap_or_else(|| anchors.created_at.saturating_add(*period)).as_millis();
                let period = period.0.max(1).cast_signed();
                let passed = (after_version - first).div_euclid(period).max(-1) + 1;
                let mut at = first + passed * period;
                while at <= until {
                    found.extend(Some(at).filter(|at| *at > after_version));
                    at += period;
                }
            }
            Schedule::Cron { expression, time_zone, dst } => {
                found.extend(in_cron(expression, time_zone, *dst, anchors.spread, after_version, until)?);
            }
            Schedule::Repeat(text) => found.extend(repeat::occurrences(text, after_version, until)?),
        }
    }
    let start = spec.start_at.map_or(i64::MIN, Timestamp::as_millis);
    let end = spec.end_at.map_or(i64::MAX, Timestamp::as_millis);
    found.retain(|at| *at >= start && *at < end);
    found.sort_unstable();
    found.dedup();
    Ok(found.into_iter().map(Timestamp::from_millis).collect())
}

fn in_cron(
    expression: &str,
    time_zone: &str,
    dst: Dst,
    spread: u64,
    after: i64,
    until: i64,
) -> Result<Vec<i64>, Unreadable> {
    let (prefix, rest) = cron::split_zone(expression);
    let zone = zone::Zone::find(prefix.unwrap_or(time_zone))?;
    let cron = cron::Cron::parse(rest, spread)?;
    if until <= after {
        return Ok(Vec::new());
    }
    let seconds = zone::walk(&cron, &zone, dst, after.div_euclid(1000), until.div_euclid(1000));
    Ok(seconds.into_iter().map(|second| second * 1000).collect())
}

/// Whether a schedule has occurrences for ever.
pub fn goes_on(schedule: &Schedule) -> bool {
    match schedule {
        Schedule::At(_) | Schedule::Delay(_) => false,
        Schedule::Every(_) => true,
        Schedule::Cron { expression, .. } => cron::split_zone(expression).1.split_ascii_whitespace().count() != 7,
        Schedule::Repeat(text) => text.starts_with("R/"),
    }
}

/// Whether a definition must run out of occurrences: every schedule of it ends, or it ends as a whole.
pub fn may_run_out(spec: &TaskSpec) -> bool {
    let ends = spec.remaining.is_some() || spec.end_at.is_some() || !spec.schedules.iter().any(goes_on);
    !spec.schedules.is_empty() && ends
}

#[cfg(test)]
mod tests {
    use campanile_model::{HttpTarget, Target};

    use super::*;

    fn spec(schedules: serde_json::Value) -> TaskSpec {
        let target = HttpTarget {
            url: "http://r/".into(),
            method: Default::default(),
            headers: Default::default(),
            signing_secret: None,
        };
        TaskSpec::new(serde_json::from_value(schedules).unwrap(), Target::Http(target))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn listed(spec: &TaskSpec, created: &str, after: &str, until: &str) -> Vec<String> {
        let anchors = Anchors { created_at: at(created), version_at: at(created), since: at(created), spread: 0 };
        let found = occurrences(spec, anchors, at(after), at(until)).unwrap();
        found.iter().map(|at| at.to_string().replace(".000Z", "Z")).collect()
    }

    fn cron(expression: &str, dst: &str, after: &str, until: &str) -> Vec<String> {
        let spec = spec(serde_json::json!([{ "cron": expression, "time_zone": "Europe/Berlin", "dst": dst }]));
        listed(&spec, after, after, until)
    }

    #[test]
    fn the_examples_of_the_design() {
        let spring = ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z");
        let autumn = ("2026-10-24T23:45:00Z", "2026-10-25T02:00:00Z");
        assert_eq!(cron("30 2 * * *", "vixie", spring.0, spring.1), ["2026-03-29T01:00:00Z"]);
        assert!(cron("30 2 * * *", "skip", spring.0, spring.1).is_empty());
        assert!(cron("30 2 * * *", "twice", spring.0, spring.1).is_empty());
        assert_eq!(cron("30 2 * * *", "vixie", autumn.0, autumn.1), ["2026-10-25T00:30:00Z"]);
        assert_eq!(cron("30 2 * * *", "skip", autumn.0, autumn.1), ["2026-10-25T00:30:00Z"]);
        let twice = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
        assert_eq!(cron("30 2 * * *", "twice", autumn.0, autumn.1), twice);
        assert_eq!(cron("*/30 * * * *", "vixie", autumn.0, autumn.1).len(), 5);
        assert_eq!(cron("*/30 * * * *", "skip", autumn.0, autumn.1).len(), 3);
    }

    #[test]
    fn schedules_that_meet_make_one() {
        let both = spec(serde_json::json!([{ "every": "15m" }, { "cron": "0,30 * * * *" }, { "delay": "7m" }]));
        let found = listed(&both, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let times: Vec<_> = found.iter().map(|at| &at[11..16]).collect();
        assert_eq!(times, ["00:07", "00:15", "00:30", "00:45", "01:00"]);
    }

    #[test]
    fn bounds_hold_and_anchor() {
        let mut bounded = spec(serde_json::json!([{ "every": "10m" }]));
        bounded.start_at = Some(at("2026-01-01T00:05:00Z"));
        bounded.end_at = Some(at("2026-01-01T00:25:00Z"));
        let found = listed(&bounded, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        assert_eq!(found, ["2026-01-01T00:05:00Z", "2026-01-01T00:15:00Z"]);
        let late = spec(serde_json::json!([{ "at": "2025-01-01T00:00:00Z" }, { "every": "10m" }]));
        let found = listed(&late, "2026-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "2026-01-01T00:10:00Z");
        assert_eq!(found, ["2025-01-01T00:00:00Z", "2026-01-01T00:10:00Z"], "only `at` lies before its version");
    }

    #[test]
    fn an_update_does_not_move_every() {
        let every = spec(serde_json::json!([{ "every": "10m" }]));
        let created_at = at("2026-01-01T00:00:00Z");
        let version_at = created_at.saturating_add(Millis::from_mins(14));
        let anchors = Anchors { created_at, version_at, since: version_at, spread: 0 };
        let found = occurrences(&every, anchors, created_at, at("2026-01-01T00:30:00Z")).unwrap();
        assert_eq!(found, [at("2026-01-01T00:20:00Z"), at("2026-01-01T00:30:00Z")]);
    }

    #[test]
    fn a_year_of_minutes_is_quick() {
        let minutely = spec(serde_json::json!([{ "cron": "* * * * *", "time_zone": "Europe/Berlin" }]));
        let found = listed(&minutely, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!(found.len(), 365 * 1440);
    }
}
