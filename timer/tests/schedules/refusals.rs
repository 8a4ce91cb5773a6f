//! What is refused, with which code, at which field, and for what reason.

use campanile_model::{Code, Dst, Millis, Rejection, Schedule, Timestamp};
use campanile_timer::{Plan, parse_expression};

use super::support::{anchors, compile, cron, spec};

const NOW: &str = "2026-06-01T00:00:00Z";

fn refusal(schedule: Schedule) -> Rejection {
    match compile(schedule.clone(), NOW) {
        Err(refusal) => refusal,
        Ok(plan) => panic!("{schedule:?} was accepted, next {:?}", plan.next_after(Timestamp::MIN)),
    }
}

#[test]
fn cron_texts() {
    // Some of these are those of other suites: robfig's TestErrors, TestRange, TestParseScheduleErrors and
    // TestSlash0NoHang, croner's test_cron_parse_invalid_expressions, Quartz's testQtz96 and testQuartz574.
    for (expression, reason) in [
        ("", "5 fields"),
        ("xyz", "5 fields"),
        ("* * * *", "has 4"),
        ("0 0 * * * * * *", "has 8"),
        ("60 0 * * *", "minute field \"60\": number out of bounds (values are 0 to 59)"),
        ("0 60 * * *", "hour field \"60\""),
        ("0 24 * * *", "hour field"),
        ("0 0 0 * *", "day-of-month field \"0\""),
        ("0 0 32 * *", "day-of-month field"),
        ("0 0 * 13 *", "month field"),
        ("0 0 * 0 *", "month field"),
        ("0 0 * * 8", "day-of-week field"),
        ("60 0 0 * * *", "second field \"60\""),
        ("0 0 0 1 1 * 0", "year field"),
        ("0 0 0 1 1 * 5001", "year field"),
        ("0 0 * * XYZ", "\"XYZ\" is not known here"),
        ("* 5 j * * *", "hour field \"j\""),
        ("* * * * Foo ?", "month field \"Foo\""),
        ("* * * * Jan-Foo ?", "month field"),
        // croner alone would take these for other months, days or times.
        ("0 0 * SUN *", "month field"),
        ("0 0 * JANFEB *", "month field"),
        ("0 0 * 1JAN *", "month field"),
        ("0 0 * JAN1 *", "month field"),
        ("0 0 * * JAN", "day-of-week field"),
        ("0 MON * * *", "hour field"),
        ("0 0 1? * *", "day-of-month field \"1?\": '?' cannot stand here"),
        ("? 0 * * *", "minute field"),
        ("0,,1 0 * * *", "an element of the list is empty"),
        (",0 0 * * *", "an element of the list is empty"),
        ("0 0 * * L", "L needs a weekday"),
        ("0 0 * * 1,L", "L needs a weekday"),
        ("0 0 L,LW * *", "cannot share"),
        ("0 0 1 * +1", "'+' cannot stand here"),
        // Ranges and steps.
        ("5-3 * * * *", "minute field \"5-3\""),
        ("0 22-2 * * *", "hour field"),
        ("0 0 * * FRI-MON", "day-of-week field \"FRI-MON\""),
        ("0 0 0 * * FRI-MON", "day-of-week field \"FRI-MON\""),
        ("5--5 * * * *", "minute field"),
        ("1- 59 * * * *", "second field"),
        ("*/0 * * * *", "a step of 0 is not from 1 to 60"),
        ("TZ=America/New_York 15/0 * * * *", "a step of 0"),
        ("*/90 * * * *", "a step of 90 is not from 1 to 60"),
        ("0 */25 * * *", "a step of 25 is not from 1 to 24"),
        ("*/-12 * * * *", "minute field"),
        ("*//2 * * * *", "minute field"),
        ("/10 * * * *", "minute field"),
        ("*/ * * * *", "minute field"),
        ("-1 59 * * * *", "second field"),
        ("٣ * * * *", "cannot stand here"),
        // Letters.
        ("0 0 0 5L * *", "day-of-month field"),
        ("0 0 0 5#L * *", "a character in it is not for this field (values are 1 to 31)"),
        ("0 0 L-2 * *", "day-of-month field"),
        ("0/5 * * 32W 1 ?", "day-of-month field"),
        ("0 0 W * *", "day-of-month field"),
        ("0 0 1-5W * *", "day-of-month field"),
        ("0 0 * * 1#6", "day-of-week field"),
        ("0 0 * * 1#0", "day-of-week field"),
        ("0 L * * *", "hour field"),
        // Spread.
        ("30~20 * * * *", "30 comes after 20"),
        ("0~60 * * * *", "\"60\" is not a number from 0 to 59"),
        ("a~b * * * *", "minute field"),
        ("0~5~9 * * * *", "minute field"),
        ("~/0 * * * *", "a step of 0"),
        ("~/x * * * *", "minute field"),
        ("0 0 0 1 1 * ~", "needs both of its ends"),
        // Nicknames.
        ("@reboot", "@reboot has no instant"),
        ("@every 5m", "use an `every` schedule"),
        ("@unrecognized", "is not one of @hourly"),
        ("@daily @daily", "is not one of @hourly"),
        ("@", "is not one of @hourly"),
    ] {
        let refusal = refusal(cron(expression, "UTC", Dst::Vixie));
        assert_eq!(refusal.code, Code::InvalidSchedule, "{expression:?}: {refusal}");
        assert_eq!(refusal.field.as_deref(), Some("schedules[0].cron"), "{expression:?}");
        assert!(refusal.message.contains(reason), "{expression:?}: {refusal}");
    }
}

#[test]
fn cron_that_never_occurs() {
    for (expression, zone, dst) in [
        ("30 2 31 2 *", "UTC", Dst::Vixie),
        ("0 0 0 30 Feb ?", "UTC", Dst::Vixie),
        ("0 0 0 31 Apr ?", "UTC", Dst::Vixie),
        ("0 0 31 4,6,9,11 *", "UTC", Dst::Vixie),
        ("0 0 31W 2 *", "UTC", Dst::Vixie),
        ("0 0 12 1 1 * 2025", "UTC", Dst::Vixie),
        ("0 0 0 29 2 * 2025,2027", "UTC", Dst::Vixie),
        ("0 0 0 1 6 * 2026", "UTC", Dst::Vixie),
        // Only ever in the hour that Berlin skips.
        ("30 2 * 3 7L", "Europe/Berlin", Dst::Skip),
        ("30 2 * 3 7L", "Europe/Berlin", Dst::Twice),
    ] {
        // In the past, Berlin had years without this change of the clock: so relative to now.
        let refusal = refusal(cron(expression, zone, dst));
        assert_eq!(
            (refusal.code, refusal.field.as_deref()),
            (Code::NeverOccurs, Some("schedules[0].cron")),
            "{refusal}"
        );
    }
    assert!(compile(cron("0 0 29 2 *", "UTC", Dst::Vixie), NOW).is_ok());
    assert!(compile(cron("30 2 * 3 7L", "Europe/Berlin", Dst::Vixie), NOW).is_ok());
    // The earliest that can be said without a time.
    assert_eq!(parse_expression("30 2 31 2 *", "UTC", Dst::Vixie).unwrap_err().code, Code::NeverOccurs);
    assert!(parse_expression("0 0 12 1 1 * 2025", "UTC", Dst::Vixie).is_ok());
}

#[test]
fn time_zones() {
    let unknown = refusal(cron("@daily", "Mars/Olympus", Dst::Vixie));
    assert_eq!((unknown.code, unknown.field.as_deref()), (Code::UnknownTimeZone, Some("schedules[0].time_zone")));
    for expression in ["CRON_TZ=Mars/Olympus @daily", "TZ= @daily", "CRON_TZ=Europe/Berlin"] {
        let code = refusal(cron(expression, "UTC", Dst::Vixie)).code;
        let expected = if expression.ends_with("Berlin") { Code::InvalidSchedule } else { Code::UnknownTimeZone };
        assert_eq!(code, expected, "{expression}");
    }
    let conflict = refusal(cron("CRON_TZ=Asia/Tokyo @daily", "Europe/Berlin", Dst::Vixie));
    assert_eq!((conflict.code, conflict.field.as_deref()), (Code::InvalidSchedule, Some("schedules[0].cron")));
    assert!(compile(cron("CRON_TZ=Asia/Tokyo @daily", "Asia/Tokyo", Dst::Vixie), NOW).is_ok());
}

#[test]
fn repeats() {
    for (text, code) in [
        ("", Code::InvalidSchedule),
        ("R", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/P1D/P1D", Code::InvalidSchedule),
        ("3/2026-06-01T00:00:00Z/P1D", Code::InvalidSchedule),
        ("r3/2026-06-01T00:00:00Z/P1D", Code::InvalidSchedule),
        ("R-1/2026-06-01T00:00:00Z/P1D", Code::InvalidSchedule),
        ("R+1/2026-06-01T00:00:00Z/P1D", Code::InvalidSchedule),
        ("R99999999999999999999999/2026-06-01T00:00:00Z/P1D", Code::InvalidSchedule),
        // No offset, no start, an end instead of a period.
        ("R3/2026-06-01T00:00:00/P1D", Code::InvalidSchedule),
        ("R3/2026-06-01/P1D", Code::InvalidSchedule),
        ("R3//P1D", Code::InvalidSchedule),
        ("R3/P1D/2026-06-01T00:00:00Z", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/2026-06-02T00:00:00Z", Code::InvalidSchedule),
        ("R3/2026-06-31T00:00:00Z/P1D", Code::InvalidSchedule),
        // Periods that go nowhere, or too fine.
        ("R3/2026-06-01T00:00:00Z/P0D", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/PT0S", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/-P1D", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/P-1D", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/1 month", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/P", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/PT0.0005S", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00Z/PT0.05S", Code::LimitExceeded),
        ("R0/2026-06-01T00:00:00Z/P1D", Code::NeverOccurs),
        // Zones.
        ("R3/2026-06-01T00:00:00+08:00[Mars/Olympus]/P1D", Code::UnknownTimeZone),
        ("R3/2026-06-01T00:00:00+07:00[Asia/Shanghai]/P1D", Code::InvalidSchedule),
        ("R3/2026-06-01T00:00:00+08:00[Asia/P1D", Code::InvalidSchedule),
    ] {
        let refusal = refusal(Schedule::Repeat(text.into()));
        assert_eq!((refusal.code, refusal.field.as_deref()), (code, Some("schedules[0].repeat")), "{text}: {refusal}");
    }
    let minus_one = refusal(Schedule::Repeat("R-1/2026-06-01T00:00:00Z/P1D".into()));
    assert!(minus_one.message.contains("leave it out"), "{minus_one}");
}

#[test]
fn bounds() {
    let long = format!("0{} * * * *", ",0".repeat(200));
    for (schedule, code, field) in [
        (cron(&long, "UTC", Dst::Vixie), Code::LimitExceeded, "schedules[0].cron"),
        (cron("@daily", &"Z".repeat(300), Dst::Vixie), Code::LimitExceeded, "schedules[0].time_zone"),
        (Schedule::Repeat("R".repeat(300)), Code::LimitExceeded, "schedules[0].repeat"),
        (Schedule::Every(Millis(99)), Code::LimitExceeded, "schedules[0].every"),
        (Schedule::Every(Millis(0)), Code::LimitExceeded, "schedules[0].every"),
        (Schedule::Delay(Millis(u64::MAX)), Code::InvalidSchedule, "schedules[0].delay"),
        (Schedule::At(Timestamp::from_millis(i64::MAX)), Code::InvalidSchedule, "schedules[0].at"),
    ] {
        let refusal = refusal(schedule);
        assert_eq!((refusal.code, refusal.field.as_deref()), (code, Some(field)), "{refusal}");
    }
    let many = spec(vec![Schedule::Every(Millis::from_secs(1)); 17]);
    let refusal = Plan::compile(&many, anchors(NOW)).unwrap_err();
    assert_eq!((refusal.code, refusal.field.as_deref()), (Code::LimitExceeded, Some("schedules")));
    // The schedule at fault is named by its place.
    let second = spec(vec![Schedule::Every(Millis::from_secs(1)), cron("61 * * * *", "UTC", Dst::Vixie)]);
    let refusal = Plan::compile(&second, anchors(NOW)).unwrap_err();
    assert_eq!(refusal.field.as_deref(), Some("schedules[1].cron"));
}
