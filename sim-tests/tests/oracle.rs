//! The simulator's second opinion on schedules against the product's `campanile-timer`: where the two differ, one is
//! wrong.

use campanile_model::{Dst, HttpTarget, Millis, Schedule, Target, TaskSpec, Timestamp};
use campanile_sim::expect::{self, Anchors};
use campanile_timer::Plan;
use proptest::prelude::*;

const ZONES: [&str; 6] =
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "UTC"];

fn spec(schedules: Vec<Schedule>) -> TaskSpec {
    let target = HttpTarget {
        url: "http://127.0.0.1:9000/".into(),
        method: Default::default(),
        headers: Default::default(),
        signing_secret: None,
    };
    TaskSpec::new(schedules, Target::Http(target))
}

/// What the oracle has, or why it has nothing.
type Told = Result<Vec<String>, String>;

/// Asks both for every occurrence in an interval. `None`: the product refuses the definition.
fn both(spec: &TaskSpec, spread: u64, at: i64, until: i64) -> Option<(Vec<String>, Told)> {
    let at = Timestamp::from_millis(at * 1000);
    let until = Timestamp::from_millis(until * 1000);
    let anchors = campanile_timer::Anchors::new(at, spread);
    let plan = Plan::compile(spec, anchors).ok()?;
    let mut products = Vec::new();
    let mut last = Timestamp::MIN;
    while let Some(next) = plan.next_after(last).filter(|next| *next <= until) {
        products.push(next.to_string());
        last = next;
    }
    let anchors = Anchors { created_at: at, version_at: at, since: at, spread };
    let ours = expect::occurrences(spec, anchors, Timestamp::MIN, until);
    let ours = ours.map(|found| found.iter().map(Timestamp::to_string).collect()).map_err(|error| error.to_string());
    Some((products, ours))
}

fn agree(spec: &TaskSpec, at: i64, until: i64) -> Result<(), TestCaseError> {
    if let Some((products, ours)) = both(spec, 7, at, until) {
        prop_assert!(ours.is_ok(), "{:?}: {:?}", spec.schedules, ours);
        let ours = ours.unwrap_or_default();
        let only_products: Vec<_> = products.iter().filter(|at| ours.binary_search(at).is_err()).take(3).collect();
        let only_ours: Vec<_> = ours.iter().filter(|at| products.binary_search(at).is_err()).take(3).collect();
        prop_assert!(
            only_products.is_empty() && only_ours.is_empty(),
            "{:?}: only the product has {only_products:?}, only we have {only_ours:?}",
            spec.schedules
        );
    }
    Ok(())
}

fn dst() -> impl Strategy<Value = Dst> {
    prop_oneof![Just(Dst::Vixie), Just(Dst::Skip), Just(Dst::Twice)]
}

fn zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ZONES[..])
}

/// A second, mostly near a change of some clock: in 2026, or Samoa's missing day of 2011.
fn moment() -> impl Strategy<Value = i64> {
    let changes = prop::sample::select(vec![
        1_774_746_000i64, // Berlin, spring
        1_792_890_000,    // Berlin, autumn
        1_772_953_200,    // New York, spring
        1_793_512_800,    // New York, autumn
        1_775_314_800,    // Lord Howe, autumn
        1_791_041_400,    // Lord Howe, spring
        1_771_120_800,    // Casablanca, Ramadan begins
        1_774_144_800,    // Casablanca, Ramadan ends
        1_325_239_200,    // Apia, 2011
        1_333_202_400,    // Apia, 2012
    ]);
    prop_oneof![4 => (changes, -200_000i64..100_000).prop_map(|(at, by)| at + by), 1 => 1_600_000_000i64..1_900_000_000]
}

fn number(min: u32, max: u32) -> BoxedStrategy<String> {
    prop_oneof![
        3 => Just("*".to_string()),
        2 => (1..=max - min).prop_map(|step| format!("*/{step}")),
        3 => prop::collection::vec(min..=max, 1..4)
            .prop_map(|values| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        2 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max, 1u32..10).prop_map(|(a, b, s)| format!("{}-{}/{s}", a.min(b), a.max(b))),
        1 => (min..=max, 1u32..10).prop_map(|(a, s)| format!("{a}/{s}")),
        1 => Just("~".to_string()),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}~{}", a.min(b), a.max(b))),
    ]
    .boxed()
}

fn days() -> BoxedStrategy<String> {
    prop_oneof![
        4 => Just("*".to_string()),
        1 => Just("?".to_string()),
        3 => number(1, 31),
        1 => prop::sample::select(vec!["L", "LW", "1W", "15W", "30W", "31W", "L,5", "1,15W"]).prop_map(String::from),
    ]
    .boxed()
}

fn weekdays() -> BoxedStrategy<String> {
    let odd = [
        "MON",
        "mon-fri",
        "SAT-SUN",
        "FRI-SUN",
        "SUN",
        "7",
        "5-7",
        "1-7/2",
        "FRI#2",
        "5#5",
        "7#1",
        "5L",
        "SUNL",
        "MON,WED#1",
        "0",
        "FRI,6L",
        "SUN-SAT",
        "*/7",
        "7/2",
        "~",
    ];
    prop_oneof![
        4 => Just("*".to_string()),
        1 => Just("?".to_string()),
        2 => number(0, 6),
        3 => prop::sample::select(odd.to_vec()).prop_map(String::from),
    ]
    .boxed()
}

fn months() -> BoxedStrategy<String> {
    let named = ["JAN", "mar,OCT", "JAN-JUN", "FEB/2", "1~12"];
    prop_oneof![
        5 => Just("*".to_string()),
        1 => number(1, 12),
        1 => prop::sample::select(named.to_vec()).prop_map(String::from)
    ]
    .boxed()
}

fn hours() -> impl Strategy<Value = String> {
    prop_oneof![number(0, 23), number(0, 4)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn cron_of_five_fields(
        fields in (number(0, 59), hours(), days(), months(), weekdays()), zone in zone(), dst in dst(), at in moment(),
    ) {
        let (minute, hour, day, month, weekday) = fields;
        let expression = format!("{minute} {hour} {day} {month} {weekday}");
        let schedule = Schedule::Cron { expression, time_zone: zone.into(), dst };
        agree(&spec(vec![schedule]), at, at + 4 * 86_400)?;
    }

    #[test]
    fn cron_of_days_over_years(
        fields in (days(), months(), weekdays(), prop_oneof![Just(""), Just(" *"), Just(" 2026,2028"), Just(" 2025-2030/3")]),
        zone in zone(), dst in dst(), at in moment(),
    ) {
        let (day, month, weekday, year) = fields;
        let expression = format!("CRON_TZ={zone} 0 30 2 {day} {month} {weekday}{year}");
        let schedule = Schedule::Cron { expression, time_zone: "UTC".into(), dst };
        agree(&spec(vec![schedule]), at, at + 3 * 366 * 86_400)?;
    }

    #[test]
    fn cron_of_seconds(
        fields in (number(0, 59), number(0, 59), hours()), zone in zone(), dst in dst(), at in moment(),
    ) {
        let (second, minute, hour) = fields;
        let expression = format!("{second} {minute} {hour} * * *");
        let schedule = Schedule::Cron { expression, time_zone: zone.into(), dst };
        agree(&spec(vec![schedule]), at, at + 6 * 3600)?;
    }

    #[test]
    fn repeats(
        count in prop_oneof![Just(String::new()), (1u32..50).prop_map(|n| n.to_string())],
        period in prop::sample::select(vec![
            "P1M", "P1Y", "P1W", "P1D", "P2M3D", "P1DT1H", "PT90M", "PT6H", "P13M", "PT0.5S", "P1Y2M3W4DT5H6M7S",
            "P3DT12H", "PT36H",
        ]),
        start in moment(), zone in zone(), at in moment(),
    ) {
        let start = in_zone(start, zone);
        let schedule = Schedule::Repeat(format!("R{count}/{start}/{period}"));
        // As many occurrences as can be compared quickly.
        let span = if period == "PT0.5S" { 3600 } else if period.starts_with("PT") { 2 * 86_400 } else { 900 * 86_400 };
        agree(&spec(vec![schedule]), at, at + span)?;
    }

    #[test]
    fn everything_together(
        period in 1u64..100_000, delay in 0u64..100_000, by in -100_000i64..100_000, zone in zone(), dst in dst(),
        at in moment(), start_by in prop::option::of(-100_000i64..100_000), length in prop::option::of(1i64..200_000),
    ) {
        let schedules = vec![
            Schedule::Every(Millis::from_secs(period)),
            Schedule::Delay(Millis::from_secs(delay)),
            Schedule::At(Timestamp::from_millis((at + by) * 1000)),
            Schedule::Cron { expression: "@hourly".into(), time_zone: zone.into(), dst },
        ];
        let mut spec = spec(schedules);
        spec.start_at = start_by.map(|by| Timestamp::from_millis((at + by) * 1000));
        spec.end_at = length.map(|length| Timestamp::from_millis((at + start_by.unwrap_or(0) + length) * 1000));
        agree(&spec, at, at + 100_000)?;
    }
}

/// RFC 3339 with the zone in brackets.
fn in_zone(second: i64, zone: &str) -> String {
    let schedule = Schedule::Cron { expression: "@daily".into(), time_zone: zone.into(), dst: Dst::Vixie };
    format!("{}[{zone}]", campanile_timer::render(&schedule, Timestamp::from_millis(second * 1000)))
}
