//! Plans as a whole: anchors, several schedules, bounds, jitter, and the promises about `next_after`.

use campanile_model::{Code, Dst, Millis, Next, Schedule, TaskSpec, Timestamp};
use campanile_timer::{Anchors, Plan, following, parse_expression, render, stamp};
use proptest::prelude::*;

use super::support::{anchors, cron, instant, spec};

const CREATED: &str = "2026-06-01T10:00:00Z";
const UPDATED: &str = "2026-06-01T12:34:56.789Z";

fn updated() -> Anchors {
    Anchors { created_at: instant(CREATED), ..anchors(UPDATED) }
}

fn plan(schedules: Vec<Schedule>, anchors: Anchors) -> Plan {
    Plan::compile(&spec(schedules), anchors).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn times(plan: &Plan, after: Timestamp, count: usize) -> Vec<String> {
    let after = plan.next_after(after);
    let nexts = std::iter::successors(after, |at| plan.next_after(*at));
    nexts.take(count).map(|at| at.to_string()).collect()
}

#[test]
fn every_is_anchored_at_the_creation_and_updates_do_not_move_it() {
    let every = Schedule::Every(Millis::from_mins(15));
    let created = plan(vec![every.clone()], anchors(CREATED));
    assert_eq!(times(&created, Timestamp::MIN, 2), ["2026-06-01T10:15:00.000Z", "2026-06-01T10:30:00.000Z"]);
    let updated = plan(vec![every], updated());
    assert_eq!(times(&updated, Timestamp::MIN, 2), ["2026-06-01T12:45:00.000Z", "2026-06-01T13:00:00.000Z"]);
    // No drift, however far.
    let far = instant("2426-06-01T10:00:00Z");
    assert_eq!(updated.next_after(far), Some(instant("2426-06-01T10:15:00Z")));
}

#[test]
fn every_is_anchored_at_start_at_and_fires_there() {
    let mut spec = spec(vec![Schedule::Every(Millis::from_hours(1))]);
    spec.start_at = Some(instant("2026-06-02T00:20:00Z"));
    let plan = Plan::compile(&spec, anchors(CREATED)).unwrap();
    assert_eq!(times(&plan, Timestamp::MIN, 2), ["2026-06-02T00:20:00.000Z", "2026-06-02T01:20:00.000Z"]);
    // An anchor in the past still sets the phase.
    spec.start_at = Some(instant("2026-01-01T00:20:00Z"));
    let plan = Plan::compile(&spec, anchors(CREATED)).unwrap();
    assert_eq!(times(&plan, Timestamp::MIN, 1), ["2026-06-01T10:20:00.000Z"]);
}

#[test]
fn what_jitter_held_back_is_the_new_versions() {
    let held = instant("2026-06-01T12:34:50Z");
    let anchors = Anchors { since: held.saturating_sub(Millis(1)), ..updated() };
    let mut spec = spec(vec![Schedule::Every(Millis::from_secs(10))]);
    let first = |spec: &TaskSpec| Plan::compile(spec, anchors).unwrap().first(Timestamp::MIN).unwrap();
    // With no jitter any more it is due at once, and what follows when it occurs.
    assert_eq!(first(&spec), Next { scheduled_at: held, due_at: instant(UPDATED) });
    spec.jitter = Millis::from_secs(10);
    let plan = Plan::compile(&spec, anchors).unwrap();
    let following = plan.next(held).unwrap();
    let jitter = following.due_at.since(following.scheduled_at);
    let due_at = held.saturating_add(jitter).max(instant(UPDATED));
    assert_eq!(plan.first(Timestamp::MIN), Some(Next { scheduled_at: held, due_at }));
    assert_eq!(following.scheduled_at, instant("2026-06-01T12:35:00Z"));
    // One that is due sooner than its jitter says cannot be told from the one before.
    assert_eq!(plan.period(), None);
}

#[test]
fn delay_counts_from_the_version() {
    let delay = plan(vec![Schedule::Delay(Millis::from_secs(60))], updated());
    assert_eq!(times(&delay, Timestamp::MIN, 9), ["2026-06-01T12:35:56.789Z"]);
    // Even none at all comes after the version.
    let none = plan(vec![Schedule::Delay(Millis(0))], updated());
    assert_eq!(times(&none, Timestamp::MIN, 9), ["2026-06-01T12:34:56.790Z"]);
}

#[test]
fn only_at_occurs_before_the_version_and_is_due_at_once() {
    let past = instant("2026-05-01T00:00:00Z");
    let schedules = vec![
        Schedule::At(past),
        Schedule::Repeat("R/2026-01-01T00:00:00Z/P1D".into()),
        cron("0 0 * * *", "UTC", Dst::Vixie),
        Schedule::Every(Millis::from_hours(6)),
    ];
    let plan = plan(schedules, updated());
    let first = plan.first(Timestamp::MIN).unwrap();
    assert_eq!(first, Next { scheduled_at: past, due_at: instant(UPDATED) });
    // Once decided, it is no more.
    let second = plan.first(past).unwrap();
    assert_eq!(second.scheduled_at, instant("2026-06-01T16:00:00Z"));
    assert_eq!(second.due_at, second.scheduled_at);
}

#[test]
fn schedules_that_meet_make_one_occurrence() {
    let noon = instant("2026-06-02T12:00:00Z");
    let schedules = vec![
        cron("0 12 * * *", "UTC", Dst::Vixie),
        cron("0 14 * * *", "Europe/Berlin", Dst::Vixie),
        Schedule::At(noon),
    ];
    let plan = plan(schedules, updated());
    assert_eq!(times(&plan, Timestamp::MIN, 2), ["2026-06-02T12:00:00.000Z", "2026-06-03T12:00:00.000Z"]);
}

#[test]
fn start_at_and_end_at_bound_a_half_open_range() {
    let mut spec = spec(vec![cron("@hourly", "UTC", Dst::Vixie)]);
    spec.start_at = Some(instant("2026-06-02T00:00:00Z"));
    spec.end_at = Some(instant("2026-06-02T02:00:00Z"));
    let plan = Plan::compile(&spec, anchors(CREATED)).unwrap();
    assert_eq!(times(&plan, Timestamp::MIN, 9), ["2026-06-02T00:00:00.000Z", "2026-06-02T01:00:00.000Z"]);

    spec.end_at = spec.start_at;
    let refusal = Plan::compile(&spec, anchors(CREATED)).unwrap_err();
    assert_eq!((refusal.code, refusal.field.as_deref()), (Code::NeverOccurs, Some("end_at")));
}

#[test]
fn a_new_task_needs_an_occurrence_and_an_updated_one_does_not() {
    let over =
        |schedule: Schedule, end_at: Option<&str>| TaskSpec { end_at: end_at.map(instant), ..spec(vec![schedule]) };
    for spec in [
        over(Schedule::Repeat("R3/2020-01-01T00:00:00Z/P1D".into()), None),
        over(Schedule::Every(Millis::from_hours(1)), Some("2026-06-01T10:30:00Z")),
        over(cron("@daily", "UTC", Dst::Vixie), Some("2026-06-01T20:00:00Z")),
        over(Schedule::At(instant("2026-06-02T00:00:00Z")), Some("2026-06-02T00:00:00Z")),
    ] {
        let refusal = Plan::compile(&spec, anchors(CREATED)).unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::NeverOccurs, Some("schedules")), "{spec:?}");
        assert_eq!(Plan::compile(&spec, updated()).unwrap().first(Timestamp::MIN), None, "{spec:?}");
    }
    // A task without schedules fires only by hand.
    assert_eq!(plan(Vec::new(), anchors(CREATED)).first(Timestamp::MIN), None);
}

#[test]
fn jitter_is_stable_and_spread() {
    let mut spec = spec(vec![cron("@daily", "UTC", Dst::Vixie)]);
    spec.jitter = Millis::from_mins(10);
    let jitter_of = |spread| {
        let plan = Plan::compile(&spec, Anchors { spread, ..anchors(CREATED) }).unwrap();
        let nexts = std::iter::successors(plan.first(Timestamp::MIN), |next| plan.next(next.scheduled_at));
        let jitters: Vec<u64> = nexts.take(5).map(|next| next.due_at.since(next.scheduled_at).0).collect();
        assert!(jitters.iter().all(|jitter| *jitter == jitters[0] && *jitter < 600_000), "{jitters:?}");
        jitters[0]
    };
    let mut tenths = [0; 10];
    (0..1000).for_each(|spread| tenths[(jitter_of(spread) / 60_000) as usize] += 1);
    assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    assert_eq!(jitter_of(1), jitter_of(1));
}

#[test]
fn tildes_are_spread_by_the_task_s_hash() {
    let minute_of = |expression: &str, spread| {
        let spec = spec(vec![cron(expression, "UTC", Dst::Vixie)]);
        let plan = Plan::compile(&spec, Anchors { spread, ..anchors("2026-06-01T00:00:00Z") }).unwrap();
        let first = plan.next_after(Timestamp::MIN).unwrap().to_jiff().unwrap();
        first.strftime("%M").to_string().parse::<u32>().unwrap()
    };
    let mut seen = std::collections::BTreeSet::new();
    for spread in 0..500 {
        assert!((10..=19).contains(&minute_of("10~19 * * * *", spread)));
        assert!(minute_of("~5 12 * * *", spread) <= 5);
        assert!(minute_of("55~ 12 * * *", spread) >= 55);
        assert!(minute_of("~/20 12 * * *", spread) < 20);
        seen.insert(minute_of("~ 12 * * *", spread));
    }
    assert_eq!(seen.len(), 60);
    // Fields are chosen independently, and every month has the day.
    let spec = spec(vec![cron("~ ~ ~ * *", "UTC", Dst::Vixie)]);
    for spread in 0..100 {
        let plan = Plan::compile(&spec, Anchors { spread, ..anchors("2026-01-01T00:00:00Z") }).unwrap();
        let year: Vec<_> = times(&plan, Timestamp::MIN, 13);
        assert!(year[12].starts_with("2027-01") || year[11].starts_with("2026-12"), "{year:?}");
    }
}

#[test]
fn sparse_expressions_are_found() {
    for (expression, next) in [
        ("0 0 29 2 *", "2028-02-29T00:00:00.000Z"),
        // A leap day on a Monday: `#` keeps weekday and day apart, so by year.
        ("0 0 0 29 2 ? 2400", "2400-02-29T00:00:00.000Z"),
        ("0 0 0 1 1 ? 5000", "5000-01-01T00:00:00.000Z"),
        ("59 59 23 31 12 ? 2026/7", "2026-12-31T23:59:59.000Z"),
        ("0 0 * 2 4#5", "2052-02-29T00:00:00.000Z"),
    ] {
        let plan = plan(vec![cron(expression, "UTC", Dst::Vixie)], anchors("2026-06-01T00:00:00Z"));
        assert_eq!(times(&plan, Timestamp::MIN, 1), [next], "{expression}");
    }
}

#[test]
fn expressions_of_the_command_line() {
    let berlin = |text: &str| parse_expression(text, "Europe/Berlin", Dst::Skip);
    assert_eq!(berlin(" 0 9 * * * "), Ok(cron("0 9 * * *", "Europe/Berlin", Dst::Skip)));
    let repeat = "R3/2026-01-31T09:00:00+08:00/P1M";
    assert_eq!(berlin(repeat), Ok(Schedule::Repeat(repeat.into())));
    assert_eq!(berlin("tomorrow").unwrap_err().code, Code::InvalidSchedule);

    let at = instant("2026-07-01T00:00:00Z");
    assert_eq!(render(&berlin("@daily").unwrap(), at), "2026-07-01T02:00:00+02:00");
    assert_eq!(render(&cron("CRON_TZ=Asia/Tokyo @daily", "UTC", Dst::Vixie), at), "2026-07-01T09:00:00+09:00");
    assert_eq!(render(&berlin(repeat).unwrap(), at), "2026-07-01T08:00:00+08:00");
    assert_eq!(render(&Schedule::Every(Millis::from_hours(1)), at), "2026-07-01T00:00:00Z");
}

#[test]
fn what_recurs_after_always_the_same_time_has_a_period() {
    let repeat = |text: &str| Schedule::Repeat(text.into());
    let every = Schedule::Every(Millis::from_secs(90));
    let period = |spec: &TaskSpec| Plan::compile(spec, anchors(CREATED)).unwrap().period();
    let alone = |schedule| period(&spec(vec![schedule]));
    assert_eq!(alone(every.clone()), Some(Millis::from_secs(90)));
    assert_eq!(alone(repeat("R/2026-07-01T00:00:00+02:00[Europe/Berlin]/PT1H30M")), Some(Millis::from_secs(5400)));
    // A day is as long as the calendar says, and these end.
    assert_eq!(alone(repeat("R/2026-07-01T00:00:00Z/P1DT1H")), None);
    assert_eq!(alone(repeat("R5/2026-07-01T00:00:00Z/PT1H")), None);
    let ended = TaskSpec { end_at: Some(instant("2026-08-01T00:00:00Z")), ..spec(vec![every.clone()]) };
    assert_eq!(period(&ended), None);
    assert_eq!(period(&spec(vec![every.clone(), every.clone()])), None);
    assert_eq!(alone(cron("0 * * * *", "UTC", Dst::Vixie)), None);

    // There is nothing after the last instant that can be scheduled.
    let last = TaskSpec { start_at: Some(Timestamp::LAST.saturating_sub(Millis(1))), ..spec(vec![every]) };
    let plan = Plan::compile(&last, anchors(CREATED)).unwrap();
    let first = plan.first(Timestamp::MIN).unwrap();
    assert_eq!((following(first, Millis::from_secs(90)), plan.next(first.scheduled_at)), (None, None));
}

#[test]
fn stamps_never_go_back() {
    let (earlier, later) = (instant(CREATED), instant(UPDATED));
    assert_eq!((stamp(earlier, later), stamp(later, earlier)), (later, later));
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let offset = -10_000_000_000i64..10_000_000_000;
    let at = offset.prop_map(|by| Timestamp::from_millis(instant(CREATED).as_millis() + by));
    let period = prop_oneof!["PT[1-9][0-9]?[HMS]", "P[1-9][0-9]?[DWM]", "P[1-9]Y[1-9]M[1-9]DT[1-9]H"];
    const CRONS: [&str; 7] = [
        "30 2 25-31 3,10 *",
        "*/7 3-5 * * *",
        "0 0 L * *",
        "@hourly",
        "30 2 * * *",
        "5 0 0 1W,15 1/2 ?",
        "0 9 * * MON-FRI",
    ];
    const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"];
    prop_oneof![
        at.clone().prop_map(Schedule::At),
        (0u64..10_000_000_000).prop_map(|millis| Schedule::Delay(Millis(millis))),
        (100u64..10_000_000_000).prop_map(|millis| Schedule::Every(Millis(millis))),
        (prop::sample::select(&CRONS[..]), prop::sample::select(&ZONES[..]), 0usize..3)
            .prop_map(|(expression, zone, dst)| cron(expression, zone, [Dst::Vixie, Dst::Skip, Dst::Twice][dst])),
        (at, period, prop::option::of(1u32..50)).prop_map(|(at, period, count)| {
            let count = count.map_or(String::new(), |count| count.to_string());
            Schedule::Repeat(format!("R{count}/{at}/{period}"))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// What the rest of the house builds on: strictly increasing, the same wherever it is asked from, inside its
    /// bounds, and the union of the schedules.
    #[test]
    fn next_after_enumerates_the_occurrences_in_order(
        schedules in prop::collection::vec(schedule(), 1..4),
        bounds in (prop::option::of(-1_000_000_000i64..1_000_000_000), prop::option::of(1i64..20_000_000_000)),
        jitter in 0u64..5000,
        is_update in any::<bool>(),
    ) {
        let mut spec = spec(schedules.clone());
        spec.start_at = bounds.0.map(|by| Timestamp::from_millis(instant(CREATED).as_millis() + by));
        let end_from = spec.start_at.unwrap_or(instant(CREATED)).as_millis();
        spec.end_at = bounds.1.map(|by| Timestamp::from_millis(end_from + by));
        spec.jitter = Millis(jitter);
        let anchors = if is_update { updated() } else { anchors(CREATED) };
        let Ok(plan) = Plan::compile(&spec, anchors) else {
            prop_assert!(!is_update);
            return Ok(());
        };
        let alone: Vec<Plan> = schedules
            .iter()
            .filter_map(|one| Plan::compile(&TaskSpec { schedules: vec![one.clone()], ..spec.clone() }, anchors).ok())
            .collect();
        let mut at = Timestamp::MIN;
        for _ in 0..50 {
            let next = plan.next(at);
            prop_assert_eq!(next.map(|next| next.scheduled_at), alone.iter().filter_map(|one| one.next_after(at)).min());
            let Some(Next { scheduled_at, due_at }) = next else { break };
            prop_assert!(scheduled_at > at);
            prop_assert!(spec.start_at.is_none_or(|start| scheduled_at >= start));
            prop_assert!(spec.end_at.is_none_or(|end| scheduled_at < end));
            prop_assert!(scheduled_at > anchors.version_at || schedules.contains(&Schedule::At(scheduled_at)));
            let due_from = scheduled_at.max(anchors.version_at);
            prop_assert!(due_at >= due_from && due_at < due_from.saturating_add(Millis(jitter.max(1))));
            prop_assert_eq!(plan.next_after(scheduled_at.saturating_sub(Millis(1))), Some(scheduled_at));
            if let Some(period) = plan.period() {
                prop_assert_eq!(following(Next { scheduled_at, due_at }, period), plan.next(scheduled_at));
            }
            at = scheduled_at;
        }
    }
}
