//! Cron against a walk through local time, minute by minute and second by second, around changes of the clock.

use campanile_model::{Dst, Millis, Timestamp};
use campanile_timer::{Plan, parse_expression, zone};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::support::{anchors, cron, spec};

/// The five zones of the tables, and others whose changes are odd: two hours, at midnight, a day, a quarter hour's
/// offset, changes that are no daylight saving.
const ZONES: [&str; 14] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "America/Santiago",
    "America/Havana",
    "America/Nuuk",
    "Pacific/Chatham",
    "Pacific/Kwajalein",
    "Asia/Pyongyang",
    "Europe/Dublin",
    "UTC",
];

/// A field: its text, and what it matches.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    values: Vec<i8>,
}

impl Field {
    fn matches(&self, value: i8) -> bool {
        self.values.contains(&value)
    }

    fn is_star(&self) -> bool {
        self.text == "*"
    }
}

/// A field of `min` to `max` whose lists and ranges end at `last`.
fn field(min: i8, max: i8, last: i8) -> BoxedStrategy<Field> {
    prop_oneof![
        3 => star(min, max),
        2 => (1..=max - min).prop_map(move |step| Field {
            text: format!("*/{step}"),
            values: (min..=max).step_by(step as usize).collect(),
        }),
        3 => prop::collection::btree_set(min..=last, 1..4).prop_map(|values| Field {
            text: values.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
            values: values.into_iter().collect(),
        }),
        2 => (min..=last, min..=last).prop_map(|(a, b)| Field {
            text: format!("{}-{}", a.min(b), a.max(b)),
            values: (a.min(b)..=a.max(b)).collect(),
        }),
    ]
    .boxed()
}

fn star(min: i8, max: i8) -> impl Strategy<Value = Field> {
    Just(Field { text: "*".into(), values: (min..=max).collect() })
}

#[derive(Clone)]
struct Expression {
    /// Second, minute, hour, day, month, weekday.
    fields: [Field; 6],
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl Expression {
    fn text(&self) -> String {
        self.fields.each_ref().map(|field| field.text.as_str()).join(" ")
    }

    fn matches(&self, local: jiff::civil::DateTime) -> bool {
        let [second, minute, hour, day, month, weekday] = &self.fields;
        let by_day = day.matches(local.day());
        let by_weekday = weekday.matches(local.weekday().to_sunday_zero_offset());
        let day_matches = if day.is_star() || weekday.is_star() { by_day && by_weekday } else { by_day || by_weekday };
        second.matches(local.second())
            && minute.matches(local.minute())
            && hour.matches(local.hour())
            && month.matches(local.month())
            && day_matches
    }

    fn follows_clock(&self) -> bool {
        self.fields[1].text.starts_with('*') || self.fields[2].text.starts_with('*')
    }
}

fn expression(seconds: BoxedStrategy<Field>) -> impl Strategy<Value = Expression> {
    // Hours are mostly those at which clocks change; days and months are mostly free, or little would ever match.
    let hours = prop_oneof![field(0, 23, 23), field(0, 23, 4)];
    let days = prop_oneof![3 => star(1, 31), 1 => field(1, 31, 31)];
    let months = prop_oneof![5 => star(1, 12), 1 => field(1, 12, 12)];
    let weekdays = prop_oneof![3 => star(0, 6), 1 => field(0, 6, 6)];
    (seconds, field(0, 59, 59), hours, days, months, weekdays).prop_map(
        |(second, minute, hour, day, month, weekday)| Expression {
            fields: [second, minute, hour, day, month, weekday],
        },
    )
}

fn dst() -> impl Strategy<Value = Dst> {
    prop_oneof![Just(Dst::Vixie), Just(Dst::Skip), Just(Dst::Twice)]
}

/// A zone and one of its changes, or just an instant where it has none.
fn change() -> impl Strategy<Value = (&'static str, i64)> {
    (prop::sample::select(&ZONES[..]), 0i64..2_000_000_000).prop_map(|(name, from)| {
        let zone = zone::find(name).unwrap();
        let from = jiff::Timestamp::from_second(from).unwrap();
        let change = zone.following(from).next().map_or(from, |change| change.timestamp());
        (name, change.as_second())
    })
}

/// Every occurrence in `range`, by walking through it in strides of `stride` seconds, which must divide every offset.
fn walk(expression: &Expression, zone: &TimeZone, dst: Dst, range: std::ops::Range<i64>, stride: i64) -> Vec<i64> {
    let both_passes = dst == Dst::Twice || dst == Dst::Vixie && expression.follows_clock();
    let after_gap = dst == Dst::Vixie && !expression.follows_clock();
    let mut found = Vec::new();
    // A second pass is when the clock does not show more than it has shown; no fold is longer than 30 hours.
    let mut shown = jiff::civil::DateTime::MIN;
    let mut second = (range.start - 30 * 3600).div_euclid(stride) * stride;
    while second < range.end {
        let at = jiff::Timestamp::from_second(second).unwrap();
        let local = zone.to_datetime(at);
        let is_second_pass = local <= shown;
        shown = shown.max(local);
        let mut matches = expression.matches(local) && (both_passes || !is_second_pass);
        if after_gap {
            // The local times that were skipped to get here.
            let before = zone.to_datetime(jiff::Timestamp::from_second(second - stride).unwrap());
            let mut skipped = before.checked_add(jiff::SignedDuration::from_secs(stride)).unwrap();
            while skipped < local {
                matches |= expression.matches(skipped);
                skipped = skipped.checked_add(jiff::SignedDuration::from_secs(stride)).unwrap();
            }
        }
        if matches && second >= range.start {
            found.push(second);
        }
        second += stride;
    }
    found
}

fn agree(
    expression: Expression,
    zone_name: &str,
    dst: Dst,
    around: i64,
    reach: i64,
    stride: i64,
) -> Result<(), TestCaseError> {
    let zone = zone::find(zone_name).unwrap();
    let range = around - reach..around + reach;
    let walked = walk(&expression, &zone, dst, range.clone(), stride);
    let schedule = cron(&expression.text(), zone_name, dst);
    // A day that no month has: there is nothing to compare.
    let Ok(plan) = Plan::compile(&spec(vec![schedule]), anchors("1970-01-01T00:00:00Z")) else {
        prop_assert!(walked.is_empty());
        return Ok(());
    };
    let mut at = Timestamp::from_millis((range.start - 1) * 1000);
    let mut found = Vec::new();
    while let Some(next) = plan.next_after(at)
        && next < Timestamp::from_millis(range.end * 1000)
    {
        prop_assert!(next > at);
        prop_assert_eq!(next.as_millis() % 1000, 0);
        // Nothing lies between: every instant before it has the same next one.
        let middle = Timestamp::from_millis(at.as_millis() + next.millis_from(at) / 2);
        prop_assert_eq!(plan.next_after(middle), Some(next));
        prop_assert_eq!(plan.next_after(next.saturating_sub(Millis(1))), Some(next));
        found.push(next.as_millis() / 1000);
        at = next;
    }
    prop_assert_eq!(found, walked, "{} in {} under {:?}", expression.text(), zone_name, dst);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cron_agrees_with_a_walk_by_minutes(
        expression in expression(Just(Field { text: "0".into(), values: vec![0] }).boxed()),
        (zone, around) in change(),
        dst in dst(),
    ) {
        agree(expression, zone, dst, around, 36 * 3600, 60)?;
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,40}", zone in "\\PC{0,12}") {
        let _ = parse_expression(&text, "UTC", Dst::Vixie);
        let _ = parse_expression("@daily", &zone, Dst::Vixie);
        let _ = campanile_timer::crontab::parse(&text, "UTC", Dst::Vixie);
    }

    #[test]
    fn no_text_in_their_own_letters_makes_them_panic(
        text in "(CRON_TZ=UTC |R[0-9]{0,3}/|@)?[0-9*,/~?#LWRPTZ:a-z \\[\\]+-]{0,60}",
        fields in prop::collection::vec("[0-9*,/~?#LWJANFRI-]{1,5}", 5..=7),
        repeat in "R[0-9]{0,21}/20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:00:00(Z|[+-][0-9]{2}:00)(\\[[A-Za-z/]{0,9}\\])?/P[0-9]{0,19}[YMDWTHS]{0,3}[0-9]{0,4}[HMS]?",
    ) {
        for text in [text, fields.join(" "), repeat] {
            if let Ok(schedule) = parse_expression(&text, "Europe/Berlin", Dst::Vixie) {
                // What was accepted can be asked.
                if let Ok(plan) = Plan::compile(&spec(vec![schedule]), anchors("2026-01-01T00:00:00Z")) {
                    let first = plan.next_after(Timestamp::MIN);
                    if let Some(first) = first {
                        prop_assert!(plan.next_after(first).is_none_or(|second| second > first));
                    }
                    plan.next_after(Timestamp::LAST);
                    plan.next_after(Timestamp::from_millis(i64::MAX));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn cron_agrees_with_a_walk_by_seconds(
        expression in expression(field(0, 59, 59)),
        (zone, around) in change(),
        dst in dst(),
    ) {
        agree(expression, zone, dst, around, 5400, 1)?;
    }
}
