//! What the demo's tasks have to fire, worked out from what was submitted by arithmetic of its own: the cluster is
//! never asked when something is due.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use campanile_model::{Millis, Schedule, Timestamp};
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::check::Duty;

/// `start`, and every `period` after it, before `end`.
pub fn every(start: Timestamp, period: Millis, end: Timestamp) -> impl Iterator<Item = Timestamp> {
    let step = move |at: &Timestamp| Some(at.saturating_add(period));
    std::iter::successors(Some(start), step).take_while(move |at| *at < end)
}

/// While a crontab's task was active: from a moment between two instants to a moment between two others.
#[derive(Clone, Copy, Debug)]
pub struct Active {
    pub sent: Timestamp,
    pub acknowledged: Timestamp,
    pub pause_sent: Timestamp,
    pub pause_acknowledged: Timestamp,
}

impl Active {
    /// Occurrences of a cron schedule in that time. Those while a write was under way are free to fire or not.
    pub fn occurrences(&self, schedule: &Schedule) -> Result<Vec<(Timestamp, Duty)>> {
        let Schedule::Cron { expression, time_zone, .. } = schedule else { bail!("{schedule:?} is no cron schedule") };
        let cron = Cron::parse(expression)?;
        let zone = TimeZone::get(time_zone).with_context(|| format!("the time zone {time_zone}"))?;
        const MINUTE: i64 = 60_000;
        let first = self.sent.as_millis().div_euclid(MINUTE) * MINUTE;
        let mut found = Vec::new();
        for millis in (first..=self.pause_acknowledged.as_millis()).step_by(MINUTE as usize) {
            let at = Timestamp::from_millis(millis);
            let local = at.to_jiff().context("an instant out of range")?.to_zoned(zone.clone());
            if at < self.sent || !cron.matches(&local) {
                continue;
            }
            let surely = self.acknowledged < at && at < self.pause_sent;
            found.push((at, if surely { Duty::Fire } else { Duty::Optional }));
        }
        Ok(found)
    }
}

/// A cron expression of five fields, for a walk over minutes: simple enough to be right by looking at it. It knows no
/// change of clocks, and refuses what it does not know.
#[derive(Debug)]
struct Cron {
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    days: BTreeSet<i8>,
    months: BTreeSet<i8>,
    weekdays: Weekdays,
    /// Both day fields restricted: either may match.
    either_day: bool,
}

#[derive(Debug)]
enum Weekdays {
    /// 0 is Sunday.
    Any(BTreeSet<i8>),
    /// The last such day of the month.
    Last(i8),
}

impl Cron {
    fn parse(expression: &str) -> Result<Self> {
        let expression = match expression {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            bail!("the demo's own arithmetic knows only five fields, not {expression:?}")
        };
        let weekdays = match weekday.to_ascii_lowercase().strip_suffix("#l") {
            Some(name) => Weekdays::Last(number(name, &WEEKDAYS, 0)? % 7),
            None => Weekdays::Any(field(weekday, 0, 7, &WEEKDAYS, 0)?.into_iter().map(|day| day % 7).collect()),
        };
        Ok(Self {
            minutes: field(minute, 0, 59, &[], 0)?,
            hours: field(hour, 0, 23, &[], 0)?,
            days: field(day, 1, 31, &[], 0)?,
            months: field(month, 1, 12, &MONTHS, 1)?,
            weekdays,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    fn matches(&self, local: &jiff::Zoned) -> bool {
        let weekday = match &self.weekdays {
            Weekdays::Any(days) => days.contains(&local.weekday().to_sunday_zero_offset()),
            Weekdays::Last(day) => {
                Weekday::from_sunday_zero_offset(*day).is_ok_and(|day| day == local.weekday())
                    && local.day() > local.days_in_month() - 7
            }
        };
        let day = self.days.contains(&local.day());
        let date = if self.either_day { day || weekday } else { day && weekday };
        date && self.months.contains(&local.month())
            && self.hours.contains(&local.hour())
            && self.minutes.contains(&local.minute())
    }
}

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Lists of values and ranges, each with an optional step.
fn field(text: &str, low: i8, high: i8, names: &[&str], first_name: i8) -> Result<BTreeSet<i8>> {
    let mut values = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().with_context(|| format!("the step {step:?}"))?),
            None => (part, 1),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (low, high),
            (_, Some((from, to))) => (number(from, names, first_name)?, number(to, names, first_name)?),
            (one, None) => {
                let from = number(one, names, first_name)?;
                (from, if part.contains('/') { high } else { from })
            }
        };
        ensure!(low <= from && from <= to && to <= high && step > 0, "{part:?} is not within {low}-{high}");
        values.extend((from..=to).step_by(step));
    }
    Ok(values)
}

fn number(text: &str, names: &[&str], first_name: i8) -> Result<i8> {
    let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
    match named {
        Some(position) => Ok(i8::try_from(position)? + first_name),
        None => text.parse().with_context(|| format!("the demo's own arithmetic does not know {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(expression: &str, time_zone: &str) -> Schedule {
        Schedule::Cron { expression: expression.into(), time_zone: time_zone.into(), dst: Default::default() }
    }

    fn occurrences(expression: &str, time_zone: &str, from: &str, to: &str) -> Vec<String> {
        let (from, to) = (at(from), at(to));
        let one = Millis(1);
        let active = Active {
            sent: from.saturating_sub(one),
            acknowledged: from.saturating_sub(one),
            pause_sent: to,
            pause_acknowledged: to.saturating_sub(one),
        };
        let found = active.occurrences(&cron(expression, time_zone)).unwrap();
        found.into_iter().map(|(at, _)| at.to_string()).collect()
    }

    #[test]
    fn intervals_start_at_their_start_and_end_before_their_end() {
        let times: Vec<_> = every(at("2026-01-01T00:00:00Z"), Millis(1500), at("2026-01-01T00:00:03Z")).collect();
        assert_eq!(times, [at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:01.500Z")]);
    }

    #[test]
    fn the_lines_of_the_example_crontab_are_understood() {
        let day = ("2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z");
        for (expression, time_zone, count, first) in [
            ("* * * * *", "UTC", 1440, "2026-11-27T00:00:00.000Z"),
            ("*/5 * * * *", "UTC", 288, "2026-11-27T00:00:00.000Z"),
            ("@hourly", "UTC", 24, "2026-11-27T00:00:00.000Z"),
            ("30 2 * * *", "Europe/Berlin", 1, "2026-11-27T01:30:00.000Z"),
            ("0 8 * * mon-fri", "Europe/Berlin", 1, "2026-11-27T07:00:00.000Z"),
            ("0 10 * * fri#L", "Europe/Berlin", 1, "2026-11-27T09:00:00.000Z"),
            ("0 10 1 * fri", "Europe/Berlin", 1, "2026-11-27T09:00:00.000Z"),
        ] {
            let found = occurrences(expression, time_zone, day.0, day.1);
            assert_eq!((found.len(), found.first().map(String::as_str)), (count, Some(first)), "{expression}");
        }
        for (expression, from, to) in [
            ("0 10 * * fri#L", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"),
            ("0 8 * * mon-fri", "2026-11-28T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("15 6 1 * *", day.0, day.1),
        ] {
            assert_eq!(occurrences(expression, "Europe/Berlin", from, to), [""; 0], "{expression}");
        }
    }

    #[test]
    fn what_it_does_not_know_it_refuses() {
        for expression in ["0 0 L * *", "* * * * * *", "61 * * * *", "~ * * * *", "5-1 * * * *", "*/0 * * * *"] {
            assert!(Cron::parse(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn while_a_write_is_under_way_an_occurrence_may_fire_or_not() {
        let active = Active {
            sent: at("2026-01-01T00:00:59.900Z"),
            acknowledged: at("2026-01-01T00:01:00.100Z"),
            pause_sent: at("2026-01-01T00:02:59.900Z"),
            pause_acknowledged: at("2026-01-01T00:03:00.100Z"),
        };
        let found = active.occurrences(&cron("* * * * *", "UTC")).unwrap();
        let duties: Vec<_> = found.into_iter().map(|(_, duty)| duty).collect();
        assert_eq!(duties, [Duty::Optional, Duty::Fire, Duty::Optional]);
    }
}
