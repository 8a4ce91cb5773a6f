//! ISO 8601 repeats.

use campanile_model::{Schedule, Timestamp};
use campanile_timer::Plan;

use super::support::{anchors, instant, next_times, spec};

fn check(text: &str, after: &str, expected: &[&str], has_more: bool) {
    let times = next_times(&Schedule::Repeat(text.into()), after, expected.len() + 1);
    assert_eq!(times.len() > expected.len(), has_more, "{text}: {times:?}");
    assert_eq!(times[..expected.len()], *expected, "{text}");
}

#[test]
fn months_are_those_of_the_calendar_from_the_start() {
    check(
        "R3/2026-01-31T09:00:00+08:00/P1M",
        "2026-01-01T00:00:00Z",
        &["2026-01-31T09:00:00+08:00", "2026-02-28T09:00:00+08:00", "2026-03-31T09:00:00+08:00"],
        false,
    );
    // Not carried on from the clamped day, over a leap year too.
    check(
        "R/2027-10-31T00:00:00Z/P1M",
        "2027-10-31T00:00:00Z",
        &["2027-11-30T00:00:00Z", "2027-12-31T00:00:00Z", "2028-01-31T00:00:00Z", "2028-02-29T00:00:00Z"],
        true,
    );
    check(
        "R/2024-02-29T12:00:00Z/P1Y",
        "2024-02-29T12:00:00Z",
        &["2025-02-28T12:00:00Z", "2026-02-28T12:00:00Z", "2027-02-28T12:00:00Z", "2028-02-29T12:00:00Z"],
        true,
    );
    check(
        "R/2026-01-30T00:00:00Z/P1M1D",
        "2026-01-01T00:00:00Z",
        // The 30th of February is the 28th, and the day comes on top.
        &["2026-01-30T00:00:00Z", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"],
        true,
    );
}

#[test]
fn a_zone_keeps_the_time_of_day_and_an_offset_does_not() {
    check(
        "R/2026-03-28T02:30:00+01:00[Europe/Berlin]/P1D",
        "2026-03-01T00:00:00Z",
        // 02:30 on the 29th is not; it is carried over the gap, as ISO dates in zones are (RFC 5545, Temporal).
        &["2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"],
        true,
    );
    check(
        "R/2026-03-28T02:30:00+01:00/P1D",
        "2026-03-01T00:00:00Z",
        &["2026-03-28T02:30:00+01:00", "2026-03-29T02:30:00+01:00", "2026-03-30T02:30:00+01:00"],
        true,
    );
    // Hours are exact in both.
    check(
        "R/2026-03-28T02:30:00+01:00[Europe/Berlin]/PT24H",
        "2026-03-01T00:00:00Z",
        &["2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00", "2026-03-30T03:30:00+02:00"],
        true,
    );
    check(
        "R3/2026-01-31T09:00:00+08:00[Asia/Shanghai]/P1M",
        "2026-02-01T00:00:00Z",
        &["2026-02-28T09:00:00+08:00", "2026-03-31T09:00:00+08:00"],
        false,
    );
}

#[test]
fn counts_are_firings_and_the_start_is_one() {
    check("R1/2026-06-01T00:00:00Z/P1D", "2026-05-01T00:00:00Z", &["2026-06-01T00:00:00Z"], false);
    check(
        "R2/2026-06-01T00:00:00Z/PT15M",
        "2026-05-01T00:00:00Z",
        &["2026-06-01T00:00:00Z", "2026-06-01T00:15:00Z"],
        false,
    );
    // Asked in the middle, the firings before are not handed out again.
    check("R3/2026-06-01T00:00:00Z/P1W", "2026-06-08T00:00:00Z", &["2026-06-15T00:00:00Z"], false);
}

#[test]
fn the_k_th_is_found_without_walking_there() {
    let repeat = Schedule::Repeat("R/1970-01-01T00:00:00Z/PT0.1S".into());
    let plan = Plan::compile(&spec(vec![repeat]), anchors("2026-01-01T00:00:00Z")).unwrap();
    let after = instant("9000-01-01T00:00:00.05Z");
    assert_eq!(plan.next_after(after), Some(instant("9000-01-01T00:00:00.1Z")));
    assert_eq!(plan.next_after(Timestamp::LAST), None);
    let end = instant("9999-12-30T21:59:59.95Z");
    assert_eq!(plan.next_after(end), Some(Timestamp::LAST));
}
