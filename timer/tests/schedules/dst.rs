//! Days on which a clock changes, under the three policies.

use campanile_model::Dst;

use super::support::{cron, next_times};

const ALL: [Dst; 3] = [Dst::Vixie, Dst::Skip, Dst::Twice];

/// One expression in one zone: the next times after an instant under `vixie`, `skip` and `twice`.
struct Row {
    expression: &'static str,
    zone: &'static str,
    after: &'static str,
    expected: [&'static [&'static str]; 3],
}

fn check(rows: &[Row]) {
    for row in rows {
        for (dst, expected) in ALL.into_iter().zip(row.expected) {
            let times = next_times(&cron(row.expression, row.zone, dst), row.after, expected.len());
            assert_eq!(times, expected, "{:?} in {} under {dst:?}", row.expression, row.zone);
        }
    }
}

#[test]
fn berlin_as_the_design_has_it() {
    check(&[
        // The gap of 2026-03-29, 02:00 to 03:00.
        Row {
            expression: "30 2 * * *",
            zone: "Europe/Berlin",
            after: "2026-03-28T12:00:00Z",
            expected: [
                &["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
                &["2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"],
                &["2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"],
            ],
        },
        // The fold of 2026-10-25, 03:00 back to 02:00.
        Row {
            expression: "30 2 * * *",
            zone: "Europe/Berlin",
            after: "2026-10-24T12:00:00Z",
            expected: [
                &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
                &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
                &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
            ],
        },
        Row {
            expression: "*/30 * * * *",
            zone: "Europe/Berlin",
            after: "2026-10-24T23:30:00Z",
            expected: [
                &[
                    "2026-10-25T02:00:00+02:00",
                    "2026-10-25T02:30:00+02:00",
                    "2026-10-25T02:00:00+01:00",
                    "2026-10-25T02:30:00+01:00",
                    "2026-10-25T03:00:00+01:00",
                ],
                &["2026-10-25T02:00:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T03:00:00+01:00"],
                &[
                    "2026-10-25T02:00:00+02:00",
                    "2026-10-25T02:30:00+02:00",
                    "2026-10-25T02:00:00+01:00",
                    "2026-10-25T02:30:00+01:00",
                    "2026-10-25T03:00:00+01:00",
                ],
            ],
        },
        // With seconds: the command of issue 2.
        Row {
            expression: "0 30 2 * * *",
            zone: "Europe/Berlin",
            after: "2026-03-28T12:00:00Z",
            expected: [
                &["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"],
                &["2026-03-30T02:30:00+02:00"],
                &["2026-03-30T02:30:00+02:00"],
            ],
        },
    ]);
}

/// The second pass of its last time is ahead when no local time is.
#[test]
fn the_last_time_of_all_may_be_a_second_pass() {
    let plan = cron("0 30 2 * OCT SUNL 2028", "Europe/Berlin", Dst::Twice);
    let times = next_times(&plan, "2028-01-01T00:00:00Z", 3);
    assert_eq!(times, ["2028-10-29T02:30:00+02:00", "2028-10-29T02:30:00+01:00"]);
}

#[test]
fn new_york() {
    check(&[
        // 2026-03-08: 02:00 to 03:00.
        Row {
            expression: "0,30 2 * * *",
            zone: "America/New_York",
            after: "2026-03-07T12:00:00Z",
            expected: [
                // Both fall into the gap and meet at its end: one occurrence.
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00", "2026-03-09T02:30:00-04:00"],
                &["2026-03-09T02:00:00-04:00", "2026-03-09T02:30:00-04:00"],
                &["2026-03-09T02:00:00-04:00", "2026-03-09T02:30:00-04:00"],
            ],
        },
        // A fixed time at the gap's end is the same occurrence as those inside it.
        Row {
            expression: "30 2,3 * * *",
            zone: "America/New_York",
            after: "2026-03-07T12:00:00Z",
            expected: [
                &["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"],
                &["2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"],
                &["2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"],
            ],
        },
        Row {
            expression: "0 2,3 * * *",
            zone: "America/New_York",
            after: "2026-03-07T12:00:00Z",
            expected: [
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
                &["2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"],
            ],
        },
        // Wildcards follow the clock through the gap: nothing is run late.
        Row {
            expression: "*/20 2 * * *",
            zone: "America/New_York",
            after: "2026-03-07T12:00:00Z",
            expected: [&["2026-03-09T02:00:00-04:00"], &["2026-03-09T02:00:00-04:00"], &["2026-03-09T02:00:00-04:00"]],
        },
        // `*/2` in the hour field starts with `*`, so it is a wildcard in Debian cron's eyes.
        Row {
            expression: "15 */2 * * *",
            zone: "America/New_York",
            after: "2026-03-08T05:15:00Z",
            expected: [&["2026-03-08T04:15:00-04:00"], &["2026-03-08T04:15:00-04:00"], &["2026-03-08T04:15:00-04:00"]],
        },
        // The same hours as a range are fixed times.
        Row {
            expression: "15 0-23/2 * * *",
            zone: "America/New_York",
            after: "2026-03-08T05:15:00Z",
            expected: [&["2026-03-08T03:00:00-04:00"], &["2026-03-08T04:15:00-04:00"], &["2026-03-08T04:15:00-04:00"]],
        },
        // 2026-11-01: 02:00 back to 01:00.
        Row {
            expression: "30 1 * * *",
            zone: "America/New_York",
            after: "2026-10-31T12:00:00Z",
            expected: [
                &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
                &["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
                &["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00", "2026-11-02T01:30:00-05:00"],
            ],
        },
        // Asked from inside the second pass.
        Row {
            expression: "15,45 1 * * *",
            zone: "America/New_York",
            after: "2026-11-01T06:20:00Z",
            expected: [
                &["2026-11-02T01:15:00-05:00"],
                &["2026-11-02T01:15:00-05:00"],
                &["2026-11-01T01:45:00-05:00", "2026-11-02T01:15:00-05:00"],
            ],
        },
    ]);
}

#[test]
fn lord_howe_island_shifts_by_half_an_hour() {
    check(&[
        // 2026-10-04: 02:00 to 02:30.
        Row {
            expression: "15 2 * * *",
            zone: "Australia/Lord_Howe",
            after: "2026-10-03T00:00:00Z",
            expected: [
                &["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
                &["2026-10-05T02:15:00+11:00"],
                &["2026-10-05T02:15:00+11:00"],
            ],
        },
        Row {
            expression: "*/15 * * * *",
            zone: "Australia/Lord_Howe",
            after: "2026-10-03T15:15:00Z",
            expected: [&["2026-10-04T02:30:00+11:00"], &["2026-10-04T02:30:00+11:00"], &["2026-10-04T02:30:00+11:00"]],
        },
        // 2026-04-05: 02:00 back to 01:30.
        Row {
            expression: "45 1 * * *",
            zone: "Australia/Lord_Howe",
            after: "2026-04-04T00:00:00Z",
            expected: [
                &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
                &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
                &["2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30", "2026-04-06T01:45:00+10:30"],
            ],
        },
        // Half of the hour is repeated, half is not.
        Row {
            expression: "*/15 * * * *",
            zone: "Australia/Lord_Howe",
            after: "2026-04-04T14:00:00Z",
            expected: [
                &[
                    "2026-04-05T01:15:00+11:00",
                    "2026-04-05T01:30:00+11:00",
                    "2026-04-05T01:45:00+11:00",
                    "2026-04-05T01:30:00+10:30",
                    "2026-04-05T01:45:00+10:30",
                    "2026-04-05T02:00:00+10:30",
                ],
                &[
                    "2026-04-05T01:15:00+11:00",
                    "2026-04-05T01:30:00+11:00",
                    "2026-04-05T01:45:00+11:00",
                    "2026-04-05T02:00:00+10:30",
                ],
                &[
                    "2026-04-05T01:15:00+11:00",
                    "2026-04-05T01:30:00+11:00",
                    "2026-04-05T01:45:00+11:00",
                    "2026-04-05T01:30:00+10:30",
                    "2026-04-05T01:45:00+10:30",
                    "2026-04-05T02:00:00+10:30",
                ],
            ],
        },
    ]);
}

#[test]
fn samoa_went_without_the_30th_of_december_2011() {
    check(&[
        Row {
            expression: "0 12 * * *",
            zone: "Pacific/Apia",
            after: "2011-12-29T00:00:00Z",
            expected: [
                // The missing day's time runs when the next day begins.
                &["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"],
                &["2011-12-29T12:00:00-10:00", "2011-12-31T12:00:00+14:00"],
                &["2011-12-29T12:00:00-10:00", "2011-12-31T12:00:00+14:00"],
            ],
        },
        Row {
            expression: "0 */6 * * *",
            zone: "Pacific/Apia",
            after: "2011-12-30T03:00:00Z",
            expected: [
                &["2011-12-29T18:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T06:00:00+14:00"],
                &["2011-12-29T18:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T06:00:00+14:00"],
                &["2011-12-29T18:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T06:00:00+14:00"],
            ],
        },
        // Only ever on the missing day.
        Row {
            expression: "0 0 9 30 12 * 2011,2012",
            zone: "Pacific/Apia",
            after: "2011-12-01T00:00:00Z",
            expected: [
                &["2011-12-31T00:00:00+14:00", "2012-12-30T09:00:00+14:00"],
                &["2012-12-30T09:00:00+14:00"],
                &["2012-12-30T09:00:00+14:00"],
            ],
        },
    ]);
}

#[test]
fn casablanca_puts_its_clock_back_for_ramadan() {
    check(&[
        // Ramadan 2026 begins: on 2026-02-15, 03:00 back to 02:00.
        Row {
            expression: "30 2 * * *",
            zone: "Africa/Casablanca",
            after: "2026-02-14T12:00:00Z",
            expected: [
                &["2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00+00:00"],
                &["2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00+00:00"],
                &["2026-02-15T02:30:00+01:00", "2026-02-15T02:30:00+00:00", "2026-02-16T02:30:00+00:00"],
            ],
        },
        // And ends: on 2026-03-22, 02:00 to 03:00.
        Row {
            expression: "30 2 * * *",
            zone: "Africa/Casablanca",
            after: "2026-03-21T12:00:00Z",
            expected: [
                &["2026-03-22T03:00:00+01:00", "2026-03-23T02:30:00+01:00"],
                &["2026-03-23T02:30:00+01:00"],
                &["2026-03-23T02:30:00+01:00"],
            ],
        },
        Row {
            expression: "@hourly",
            zone: "Africa/Casablanca",
            after: "2026-03-22T01:00:00Z",
            expected: [&["2026-03-22T03:00:00+01:00"], &["2026-03-22T03:00:00+01:00"], &["2026-03-22T03:00:00+01:00"]],
        },
    ]);
}

#[test]
fn a_change_at_midnight_can_take_the_day_s_first_hour() {
    check(&[
        // Chile, 2026-09-06: 00:00 to 01:00.
        Row {
            expression: "@daily",
            zone: "America/Santiago",
            after: "2026-09-05T12:00:00Z",
            expected: [
                &["2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"],
                &["2026-09-07T00:00:00-03:00"],
                &["2026-09-07T00:00:00-03:00"],
            ],
        },
        // Greenland, 2024-03-30: 23:00 to 00:00 of the next day.
        Row {
            expression: "30 23 * * *",
            zone: "America/Nuuk",
            after: "2024-03-30T12:00:00Z",
            expected: [
                &["2024-03-31T00:00:00-01:00", "2024-03-31T23:30:00-01:00"],
                &["2024-03-31T23:30:00-01:00"],
                &["2024-03-31T23:30:00-01:00"],
            ],
        },
    ]);
}
