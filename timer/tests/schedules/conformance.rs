//! Next times that the test suites of other cron implementations expect, and that hold here too. Where one of them
//! differs by its own rules for changes of the clock, the row names the policy of ours that is its.

use campanile_model::Dst::{self, Twice, Vixie};

use super::support::{cron, next_times};

/// Expression, zone, policy, the instant after which, and the next local times (with offset unless in UTC).
type Row = (&'static str, &'static str, Dst, &'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    for (expression, zone, dst, after, expected) in rows {
        let times = next_times(&cron(expression, zone, *dst), after, expected.len());
        assert_eq!(times, *expected, "{expression:?} in {zone} after {after}");
    }
}

/// github.com/robfig/cron, `spec_test.go`: `TestNext`. It skips times in a gap and repeats those in a fold.
#[test]
fn robfig_next() {
    check(&[
        ("0 0/15 * * * *", "UTC", Vixie, "2012-07-09T14:45:00Z", &["2012-07-09T15:00:00Z"]),
        ("0 0/15 * * * *", "UTC", Vixie, "2012-07-09T14:59:00Z", &["2012-07-09T15:00:00Z"]),
        ("0 0/15 * * * *", "UTC", Vixie, "2012-07-09T14:59:59Z", &["2012-07-09T15:00:00Z"]),
        ("0 20-35/15 * * * *", "UTC", Vixie, "2012-07-09T15:45:00Z", &["2012-07-09T16:20:00Z"]),
        ("0 */15 * * * *", "UTC", Vixie, "2012-07-09T23:46:00Z", &["2012-07-10T00:00:00Z"]),
        ("0 20-35/15 * * * *", "UTC", Vixie, "2012-07-09T23:45:00Z", &["2012-07-10T00:20:00Z"]),
        ("15/35 20-35/15 * * * *", "UTC", Vixie, "2012-07-09T23:35:51Z", &["2012-07-10T00:20:15Z"]),
        ("15/35 20-35/15 1/2 * * *", "UTC", Vixie, "2012-07-09T23:35:51Z", &["2012-07-10T01:20:15Z"]),
        ("15/35 20-35/15 10-12 * * *", "UTC", Vixie, "2012-07-09T23:35:51Z", &["2012-07-10T10:20:15Z"]),
        ("15/35 20-35/15 1/2 */2 * *", "UTC", Vixie, "2012-07-09T23:35:51Z", &["2012-07-11T01:20:15Z"]),
        ("15/35 20-35/15 * 9-20 * *", "UTC", Vixie, "2012-07-09T23:35:51Z", &["2012-07-10T00:20:15Z"]),
        ("15/35 20-35/15 * 9-20 Jul *", "UTC", Vixie, "2012-07-09T23:35:51Z", &["2012-07-10T00:20:15Z"]),
        ("0 0 0 9 Apr-Oct ?", "UTC", Vixie, "2012-07-09T23:35:00Z", &["2012-08-09T00:00:00Z"]),
        ("0 0 0 */5 Apr,Aug,Oct Mon", "UTC", Vixie, "2012-07-09T23:35:00Z", &["2012-08-01T00:00:00Z"]),
        ("0 0 0 */5 Oct Mon", "UTC", Vixie, "2012-07-09T23:35:00Z", &["2012-10-01T00:00:00Z"]),
        ("0 0 0 * Feb Mon", "UTC", Vixie, "2012-07-09T23:35:00Z", &["2013-02-04T00:00:00Z"]),
        ("0 0 0 * Feb Mon/2", "UTC", Vixie, "2012-07-09T23:35:00Z", &["2013-02-01T00:00:00Z"]),
        ("0 * * * * *", "UTC", Vixie, "2012-12-31T23:59:45Z", &["2013-01-01T00:00:00Z"]),
        ("0 0 0 29 Feb ?", "UTC", Vixie, "2012-07-09T23:35:00Z", &["2016-02-29T00:00:00Z"]),
        (
            "TZ=America/New_York 0 30 2 11 Mar ?",
            "UTC",
            Twice,
            "2012-03-11T00:00:00-05:00",
            &["2013-03-11T02:30:00-04:00"],
        ),
        (
            "CRON_TZ=America/New_York 0 0 * * * ?",
            "UTC",
            Twice,
            "2012-03-11T00:00:00-05:00",
            &["2012-03-11T01:00:00-05:00", "2012-03-11T03:00:00-04:00", "2012-03-11T04:00:00-04:00"],
        ),
        (
            "0 0 1 * * ?",
            "America/New_York",
            Twice,
            "2012-03-11T00:00:00-05:00",
            &["2012-03-11T01:00:00-05:00", "2012-03-12T01:00:00-04:00"],
        ),
        ("0 0 2 * * ?", "America/New_York", Twice, "2012-03-11T00:00:00-05:00", &["2012-03-12T02:00:00-04:00"]),
        ("0 30 2 04 Nov ?", "America/New_York", Twice, "2012-11-04T00:00:00-04:00", &["2012-11-04T02:30:00-05:00"]),
        ("0 30 1 04 Nov ?", "America/New_York", Twice, "2012-11-04T01:45:00-04:00", &["2012-11-04T01:30:00-05:00"]),
        (
            "0 0 * * * ?",
            "America/New_York",
            Twice,
            "2012-11-04T00:00:00-04:00",
            &["2012-11-04T01:00:00-04:00", "2012-11-04T01:00:00-05:00", "2012-11-04T02:00:00-05:00"],
        ),
        (
            "0 0 1 * * ?",
            "America/New_York",
            Twice,
            "2012-11-04T00:00:00-04:00",
            &["2012-11-04T01:00:00-04:00", "2012-11-04T01:00:00-05:00", "2012-11-05T01:00:00-05:00"],
        ),
        (
            "0 0 3 * * ?",
            "America/New_York",
            Twice,
            "2012-11-04T00:00:00-04:00",
            &["2012-11-04T03:00:00-05:00", "2012-11-05T03:00:00-05:00"],
        ),
        ("0 0 3 3 * ?", "America/New_York", Twice, "2012-11-04T00:00:00-04:00", &["2012-12-03T03:00:00-05:00"]),
        // Brazil changed its clock at midnight.
        ("0 0 9 10 * ?", "America/Sao_Paulo", Twice, "2018-10-17T05:00:00-04:00", &["2018-11-10T09:00:00-02:00"]),
        ("0 0 9 22 * ?", "America/Sao_Paulo", Twice, "2018-02-14T05:00:00-05:00", &["2018-02-22T09:00:00-03:00"]),
        ("14 14 * * ?", "Asia/Kolkata", Twice, "2016-01-03T14:00:00+05:30", &["2016-01-03T14:14:00+05:30"]),
    ]);
}

/// github.com/robfig/cron, `spec_test.go`: `TestActivation`. The time matches, or does not.
#[test]
fn robfig_activation() {
    for (at, expression, matches) in [
        ("2012-07-09T15:00:00Z", "0/15 * * * *", true),
        ("2012-07-09T15:45:00Z", "0/15 * * * *", true),
        ("2012-07-09T15:40:00Z", "0/15 * * * *", false),
        ("2012-07-09T15:05:00Z", "5/15 * * * *", true),
        ("2012-07-09T15:20:00Z", "5/15 * * * *", true),
        ("2012-07-09T15:50:00Z", "5/15 * * * *", true),
        ("2012-07-15T15:00:00Z", "0/15 * * Jul *", true),
        ("2012-07-15T15:00:00Z", "0/15 * * Jun *", false),
        ("2012-07-15T08:30:00Z", "30 08 ? Jul Sun", true),
        ("2012-07-15T08:30:00Z", "30 08 15 Jul ?", true),
        ("2012-07-16T08:30:00Z", "30 08 ? Jul Sun", false),
        ("2012-07-16T08:30:00Z", "30 08 15 Jul ?", false),
        ("2012-07-09T15:00:00Z", "@hourly", true),
        ("2012-07-09T15:04:00Z", "@hourly", false),
        ("2012-07-09T15:00:00Z", "@daily", false),
        ("2012-07-09T00:00:00Z", "@daily", true),
        ("2012-07-09T00:00:00Z", "@weekly", false),
        ("2012-07-08T00:00:00Z", "@weekly", true),
        ("2012-07-08T01:00:00Z", "@weekly", false),
        ("2012-07-08T00:00:00Z", "@monthly", false),
        ("2012-07-01T00:00:00Z", "@monthly", true),
        // Either of two restricted fields.
        ("2012-07-15T00:00:00Z", "* * 1,15 * Sun", true),
        ("2012-06-15T00:00:00Z", "* * 1,15 * Sun", true),
        ("2012-08-01T00:00:00Z", "* * 1,15 * Sun", true),
        ("2012-07-15T00:00:00Z", "* * */10 * Sun", true),
        ("2012-07-15T00:00:00Z", "* * * * Mon", false),
        ("2012-07-09T00:00:00Z", "* * 1,15 * *", false),
        ("2012-07-15T00:00:00Z", "* * 1,15 * *", true),
        ("2012-07-15T00:00:00Z", "* * */2 * Sun", true),
    ] {
        let second: jiff::Timestamp = at.parse().unwrap();
        let before = (second - jiff::SignedDuration::from_secs(1)).to_string();
        let next = next_times(&cron(expression, "UTC", Vixie), &before, 1);
        assert_eq!(next == [at], matches, "{expression:?} at {at}");
    }
}

/// github.com/Hexagon/croner-rust, `src/lib.rs`, `tests/ocps.rs`, `tests/dst_gap_hour_before.rs` and
/// `tests/dst_overlap.rs`.
#[test]
fn croner() {
    check(&[
        (
            "0 0 0 * * 5,6",
            "UTC",
            Vixie,
            "2022-02-17T00:00:00Z",
            &["2022-02-18T00:00:00Z", "2022-02-19T00:00:00Z", "2022-02-25T00:00:00Z", "2022-02-26T00:00:00Z"],
        ),
        (
            "59 59 23 2 * 6",
            "UTC",
            Vixie,
            "2022-01-31T00:00:00Z",
            &["2022-02-02T23:59:59Z", "2022-02-05T23:59:59Z", "2022-02-12T23:59:59Z", "2022-02-19T23:59:59Z"],
        ),
        (
            "15 9 * * mon",
            "UTC",
            Vixie,
            "2022-02-28T23:59:00Z",
            &["2022-03-07T09:15:00Z", "2022-03-14T09:15:00Z", "2022-03-21T09:15:00Z"],
        ),
        (
            "0 0 13W * WED",
            "UTC",
            Vixie,
            "2024-01-01T00:00:00Z",
            &["2024-01-03T00:00:00Z", "2024-01-10T00:00:00Z", "2024-01-12T00:00:00Z", "2024-01-17T00:00:00Z"],
        ),
        (
            "0 0 */31,1-7 */1 MON",
            "UTC",
            Vixie,
            "2024-01-06T00:00:00Z",
            &["2024-01-07T00:00:00Z", "2024-01-08T00:00:00Z", "2024-01-15T00:00:00Z", "2024-01-22T00:00:00Z"],
        ),
        ("0 0 L * *", "UTC", Vixie, "2023-02-01T00:00:00Z", &["2023-02-28T00:00:00Z", "2023-03-31T00:00:00Z"]),
        ("0 0 L * *", "UTC", Vixie, "2024-02-01T00:00:00Z", &["2024-02-29T00:00:00Z"]),
        (
            "0 0 LW * *",
            "UTC",
            Vixie,
            "2025-01-01T00:00:00Z",
            &[
                "2025-01-31T00:00:00Z",
                "2025-02-28T00:00:00Z",
                "2025-03-31T00:00:00Z",
                "2025-04-30T00:00:00Z",
                "2025-05-30T00:00:00Z",
                "2025-06-30T00:00:00Z",
                "2025-07-31T00:00:00Z",
                "2025-08-29T00:00:00Z",
                "2025-09-30T00:00:00Z",
                "2025-10-31T00:00:00Z",
                "2025-11-28T00:00:00Z",
                "2025-12-31T00:00:00Z",
            ],
        ),
        // 31W only in months that have a 31st, and never out of the month.
        (
            "0 0 31W * *",
            "UTC",
            Vixie,
            "2025-01-01T00:00:00Z",
            &["2025-01-31T00:00:00Z", "2025-03-31T00:00:00Z", "2025-05-30T00:00:00Z"],
        ),
        ("0 0 1W 11 *", "UTC", Vixie, "2025-10-01T00:00:00Z", &["2025-11-03T00:00:00Z"]),
        ("0 0 * * 5L", "UTC", Vixie, "2025-07-01T00:00:00Z", &["2025-07-25T00:00:00Z"]),
        ("0 0 * * FRI#L", "UTC", Vixie, "2023-12-01T00:00:00Z", &["2023-12-29T00:00:00Z"]),
        ("0 0 * * FRIl", "UTC", Vixie, "2023-12-01T00:00:00Z", &["2023-12-29T00:00:00Z"]),
        ("0 0 * * 2#2", "UTC", Vixie, "2025-07-01T00:00:00Z", &["2025-07-08T00:00:00Z"]),
        ("0 0 5,L * 7#2", "UTC", Vixie, "2025-07-01T00:00:00Z", &["2025-07-05T00:00:00Z", "2025-07-13T00:00:00Z"]),
        (
            "7-59/29 2-23/13 * * *",
            "UTC",
            Vixie,
            "2023-01-01T00:00:00Z",
            &["2023-01-01T02:07:00Z", "2023-01-01T02:36:00Z"],
        ),
        ("0 0 12 1 1 * 2025", "UTC", Vixie, "2023-01-01T00:00:00Z", &["2025-01-01T12:00:00Z"]),
        // A job in the hour before a gap runs once; one inside runs after it.
        (
            "0 0 * * *",
            "Europe/London",
            Vixie,
            "2026-03-28T12:00:00Z",
            &["2026-03-29T00:00:00+00:00", "2026-03-30T00:00:00+01:00", "2026-03-31T00:00:00+01:00"],
        ),
        ("0 0 * * *", "Europe/London", Vixie, "2026-03-29T00:45:00Z", &["2026-03-30T00:00:00+01:00"]),
        ("0 30 1 * * *", "Europe/London", Vixie, "2026-03-29T00:45:00Z", &["2026-03-29T02:00:00+01:00"]),
        (
            "0 0 1 * * *",
            "America/Los_Angeles",
            Vixie,
            "2026-03-07T20:00:00Z",
            &["2026-03-08T01:00:00-08:00", "2026-03-09T01:00:00-07:00"],
        ),
        // From the second pass of a fold, the next match lies a year ahead.
        ("*/30 2 26-27 10 *", "Europe/Paris", Vixie, "2024-10-27T01:45:00Z", &["2025-10-26T02:00:00+02:00"]),
    ]);
}

/// github.com/quartz-scheduler/quartz, `CronExpressionTest`: `testIsSatisfiedBy`, `testLastDayOffset` (its `W` and `L`
/// without offsets), `testQuartz640`.
#[test]
fn quartz() {
    check(&[
        ("0 15 10 * * ? 2005", "UTC", Vixie, "2005-06-01T00:00:00Z", &["2005-06-01T10:15:00Z", "2005-06-02T10:15:00Z"]),
        ("0 15 10 * * ? 2005", "UTC", Vixie, "2005-12-31T00:00:00Z", &["2005-12-31T10:15:00Z"]),
        (
            "0 15 10 2W,16 * ? 2010",
            "UTC",
            Vixie,
            "2010-09-30T00:00:00Z",
            &["2010-10-01T10:15:00Z", "2010-10-16T10:15:00Z", "2010-11-02T10:15:00Z", "2010-11-16T10:15:00Z"],
        ),
        ("0 43 9 ? * 5L", "UTC", Vixie, "2010-10-01T00:00:00Z", &["2010-10-29T09:43:00Z"]),
        (
            "0 43 9 1,5,29,L * ?",
            "UTC",
            Vixie,
            "2010-10-06T00:00:00Z",
            &["2010-10-29T09:43:00Z", "2010-10-31T09:43:00Z"],
        ),
        ("19 15 10 4 Apr ? ", "UTC", Vixie, "2010-10-06T00:00:00Z", &["2011-04-04T10:15:19Z"]),
    ]);
}

/// github.com/harrisiirak/cron-parser, `tests/CronExpression.test.ts` and `CronExpressionParser.test.ts`: the rows whose
/// answer does not hang on its own way of moving a time out of a gap (by the gap's length; ours is to its end).
#[test]
fn cron_parser() {
    check(&[
        (
            "0 * * * 7",
            "Europe/Rome",
            Vixie,
            "2025-03-29T00:00:00Z",
            &[
                "2025-03-30T00:00:00+01:00",
                "2025-03-30T01:00:00+01:00",
                "2025-03-30T03:00:00+02:00",
                "2025-03-30T04:00:00+02:00",
            ],
        ),
        ("0 3 * * 7", "Europe/Rome", Vixie, "2025-03-29T00:00:00Z", &["2025-03-30T03:00:00+02:00"]),
        ("0 8 * * 0", "America/Chicago", Vixie, "2026-03-08T05:45:00Z", &["2026-03-08T08:00:00-05:00"]),
        (
            "30 1,2 * * *",
            "Australia/Lord_Howe",
            Vixie,
            "2026-10-03T12:00:00Z",
            // Its second value is documented there as a known error; this is the one it says was asked for.
            &["2026-10-04T01:30:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-05T01:30:00+11:00"],
        ),
        (
            "0 22,23 * * *",
            "America/Nuuk",
            Vixie,
            "2024-03-30T00:00:00Z",
            &[
                "2024-03-29T23:00:00-02:00",
                "2024-03-30T22:00:00-02:00",
                "2024-03-31T00:00:00-01:00",
                "2024-03-31T22:00:00-01:00",
            ],
        ),
        (
            "0 23,0 * * *",
            "America/Santiago",
            Vixie,
            "2026-09-05T02:00:00Z",
            &[
                "2026-09-04T23:00:00-04:00",
                "2026-09-05T00:00:00-04:00",
                "2026-09-05T23:00:00-04:00",
                "2026-09-06T01:00:00-03:00",
            ],
        ),
        ("0 0 0 * * 1L", "UTC", Vixie, "2021-09-01T00:00:00Z", &["2021-09-27T00:00:00Z"]),
        ("0 0 0 * * 4L", "UTC", Vixie, "2021-09-01T00:00:00Z", &["2021-09-30T00:00:00Z"]),
        ("0 0 0 * * 5L", "UTC", Vixie, "2021-09-01T00:00:00Z", &["2021-09-24T00:00:00Z"]),
        ("0 0 0 * * 0L", "UTC", Vixie, "2021-09-01T00:00:00Z", &["2021-09-26T00:00:00Z"]),
        ("0 0 0 * * 7L", "UTC", Vixie, "2021-09-01T00:00:00Z", &["2021-09-26T00:00:00Z"]),
    ]);
}

/// github.com/temporalio/temporal, `service/worker/scheduler/calendar_test.go`: `TestCalendarNextDST` and
/// `TestCalendarDSTStartInRepeatedHourButNotEnd`. It skips times in a gap and repeats those in a fold.
#[test]
fn temporal() {
    check(&[
        (
            "CRON_TZ=US/Pacific 33 33 2 * * * *",
            "UTC",
            Twice,
            "2022-03-11T20:00:00-08:00",
            &["2022-03-12T02:33:33-08:00", "2022-03-14T02:33:33-07:00"],
        ),
        (
            "33 33,44 1 * * * *",
            "US/Pacific",
            Twice,
            "2021-11-07T00:15:15-07:00",
            &[
                "2021-11-07T01:33:33-07:00",
                "2021-11-07T01:44:33-07:00",
                "2021-11-07T01:33:33-08:00",
                "2021-11-07T01:44:33-08:00",
                "2021-11-08T01:33:33-08:00",
            ],
        ),
        ("0 1 0 2 Jan ?", "Europe/London", Twice, "2004-10-31T01:07:03Z", &["2005-01-02T00:01:00+00:00"]),
    ]);
}

/// crontab(5) of Debian's cron: the examples of its page whose answer is a date.
#[test]
fn debian_manual() {
    check(&[
        // "4:30 am on the 1st and 15th of each month, plus every Friday"
        (
            "30 4 1,15 * 5",
            "UTC",
            Vixie,
            "2026-01-01T00:00:00Z",
            &[
                "2026-01-01T04:30:00Z",
                "2026-01-02T04:30:00Z",
                "2026-01-09T04:30:00Z",
                "2026-01-15T04:30:00Z",
                "2026-01-16T04:30:00Z",
            ],
        ),
        // "run at 2:15pm on the first of every month"
        ("15 14 1 * *", "UTC", Vixie, "2026-01-15T00:00:00Z", &["2026-02-01T14:15:00Z"]),
        // "run at 10 pm on weekdays"
        ("0 22 * * 1-5", "UTC", Vixie, "2026-01-02T22:00:00Z", &["2026-01-05T22:00:00Z"]),
        // "run 23 minutes after midnight, 2am, 4am ..., everyday"
        ("23 0-23/2 * * *", "UTC", Vixie, "2026-01-01T00:23:00Z", &["2026-01-01T02:23:00Z"]),
        // "run at 5 after 4 every Sunday"
        ("5 4 * * sun", "UTC", Vixie, "2026-01-01T00:00:00Z", &["2026-01-04T04:05:00Z"]),
        // "0 or 7 is Sunday", at either end of a range of names too.
        (
            "0 0 * * fri-sun",
            "UTC",
            Vixie,
            "2026-01-01T00:00:00Z",
            &["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-09T00:00:00Z"],
        ),
        ("0 0 * * SUN-MON", "UTC", Vixie, "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z", "2026-01-05T00:00:00Z"]),
        ("0 0 * * 6-7", "UTC", Vixie, "2026-01-01T00:00:00Z", &["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]),
    ]);
}
