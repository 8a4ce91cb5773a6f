//! Cron expressions, read anew: each field becomes the set of its values, the two day fields their special rules.
//!
//! It reads what the product accepts. It does not judge what the product refuses.

use chrono::{Datelike, NaiveDate};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Unreadable;

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A field's place among the seven, its values, where an open `~` ends, and its names.
struct Rule {
    place: u8,
    min: u32,
    max: u32,
    spread_max: u32,
    names: &'static [&'static str],
}

const RULES: [Rule; 7] = [
    Rule { place: 0, min: 0, max: 59, spread_max: 59, names: &[] },
    Rule { place: 1, min: 0, max: 59, spread_max: 59, names: &[] },
    Rule { place: 2, min: 0, max: 23, spread_max: 23, names: &[] },
    Rule { place: 3, min: 1, max: 31, spread_max: 28, names: &[] },
    Rule { place: 4, min: 1, max: 12, spread_max: 12, names: &MONTHS },
    Rule { place: 5, min: 0, max: 7, spread_max: 6, names: &WEEKDAYS },
    Rule { place: 6, min: 1, max: 5000, spread_max: 5000, names: &[] },
];
const WEEKDAY: u8 = 5;

pub struct Cron {
    seconds: Vec<u32>,
    minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Days,
    months: Vec<bool>,
    weekdays: Weekdays,
    /// `None`: every year.
    years: Option<Vec<bool>>,
    /// The minute or hour field starts with `*`.
    pub follows_clock: bool,
}

/// The day-of-month field.
#[derive(Default)]
struct Days {
    /// `*` or `?`.
    free: bool,
    plain: Vec<bool>,
    last: bool,
    last_workday: bool,
    /// `15W`: the workday nearest to the 15th, in the same month.
    nearest: Vec<u32>,
}

/// The day-of-week field, Sunday being 0.
#[derive(Default)]
struct Weekdays {
    free: bool,
    plain: Vec<bool>,
    /// `5#3`: the third Friday.
    nth: Vec<(u32, u32)>,
    /// `5L`: the last Friday.
    last: Vec<u32>,
}

/// Takes `CRON_TZ=Zone` or `TZ=Zone` off the front.
pub fn split_zone(text: &str) -> (Option<&str>, &str) {
    let text = text.trim();
    let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) else { return (None, text) };
    let (zone, rest) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    (Some(zone), rest.trim_start())
}

impl Cron {
    pub fn parse(expression: &str, spread: u64) -> Result<Self, Unreadable> {
        let unreadable = || Unreadable(format!("the cron expression {expression:?}"));
        let written = match expression.trim().to_ascii_lowercase().as_str() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => expression,
        };
        let mut fields: Vec<String> = written.split_ascii_whitespace().map(str::to_ascii_uppercase).collect();
        if fields.len() == 5 {
            fields.insert(0, "0".into());
        }
        if fields.len() == 6 {
            fields.push("*".into());
        }
        let [second, minute, hour, day, month, weekday, year] =
            <[String; 7]>::try_from(fields).map_err(|_| unreadable())?;
        let set = |place: usize, text: &str| plain_set(&RULES[place], text, spread).ok_or_else(unreadable);
        let seconds = set(0, &second)?;
        Ok(Self {
            seconds: (0..60).filter(|second| seconds[*second as usize]).collect(),
            minutes: set(1, &minute)?,
            hours: set(2, &hour)?,
            days: Days::parse(&day, spread).ok_or_else(unreadable)?,
            months: set(4, &month)?,
            weekdays: Weekdays::parse(&weekday, spread).ok_or_else(unreadable)?,
            years: if year == "*" { None } else { Some(set(6, &year)?) },
            follows_clock: minute.starts_with('*') || hour.starts_with('*'),
        })
    }

    pub fn seconds(&self) -> impl Iterator<Item = u32> + '_ {
        self.seconds.iter().copied()
    }

    pub fn matches_minute(&self, hour: u32, minute: u32) -> bool {
        self.hours[hour as usize] && self.minutes[minute as usize]
    }

    pub fn matches_day(&self, date: NaiveDate) -> bool {
        let year = usize::try_from(date.year()).unwrap_or(0);
        if self.years.as_ref().is_some_and(|years| !years.get(year).copied().unwrap_or(false))
            || !self.months[date.month() as usize]
        {
            return false;
        }
        // Both restricted mean either.
        match (self.days.free, self.weekdays.free) {
            (true, true) => true,
            (true, false) => self.weekdays.matches(date),
            (false, true) => self.days.matches(date),
            (false, false) => self.days.matches(date) || self.weekdays.matches(date),
        }
    }
}

fn month_length(date: NaiveDate) -> u32 {
    (28..=31).rev().find(|day| date.with_day(*day).is_some()).unwrap_or(28)
}

fn weekday_of(date: NaiveDate) -> u32 {
    date.weekday().num_days_from_sunday()
}

fn is_workday(date: NaiveDate) -> bool {
    (1..=5).contains(&weekday_of(date))
}

/// The workday nearest to a day of the date's month that lies in that month.
fn nearest_workday(date: NaiveDate, day: u32) -> Option<u32> {
    date.with_day(day)?;
    // On Saturday the day before, on Sunday the day after; at the ends of the month two days the other way.
    let tries = [0i32, -1, 1, 2, -2].map(|by| day.checked_add_signed(by).filter(|day| *day >= 1));
    tries.into_iter().flatten().find(|day| date.with_day(*day).is_some_and(is_workday))
}

impl Days {
    fn parse(text: &str, spread: u64) -> Option<Self> {
        let mut days = Self { plain: vec![false; 32], ..Self::default() };
        if text == "*" || text == "?" {
            days.free = true;
            return Some(days);
        }
        for (position, item) in text.split(',').enumerate() {
            match item {
                "L" => days.last = true,
                "LW" => days.last_workday = true,
                _ => match item.strip_suffix('W') {
                    Some(day) => days.nearest.push(day.parse().ok().filter(|day| (1..=31).contains(day))?),
                    None => add_item(&RULES[3], item, position, spread, &mut days.plain)?,
                },
            }
        }
        Some(days)
    }

    fn matches(&self, date: NaiveDate) -> bool {
        let last = month_length(date);
        let last_workday = || (1..=last).rev().find(|day| date.with_day(*day).is_some_and(is_workday));
        self.plain[date.day() as usize]
            || self.last && date.day() == last
            || self.last_workday && Some(date.day()) == last_workday()
            || self.nearest.iter().any(|day| nearest_workday(date, *day) == Some(date.day()))
    }
}

impl Weekdays {
    fn parse(text: &str, spread: u64) -> Option<Self> {
        let mut weekdays = Self { plain: vec![false; 8], ..Self::default() };
        if text == "*" || text == "?" {
            weekdays.free = true;
            return Some(weekdays);
        }
        let rule = &RULES[usize::from(WEEKDAY)];
        for (position, item) in text.split(',').enumerate() {
            if let Some((weekday, n)) = item.split_once('#') {
                let weekday = value(rule, weekday, false)? % 7;
                match n {
                    "L" => weekdays.last.push(weekday),
                    _ => weekdays.nth.push((weekday, n.parse().ok().filter(|n| (1..=5).contains(n))?)),
                }
            } else if let Some(weekday) = item.strip_suffix('L') {
                weekdays.last.push(value(rule, weekday, false)? % 7);
            } else {
                add_item(rule, item, position, spread, &mut weekdays.plain)?;
            }
        }
        weekdays.plain[0] |= weekdays.plain[7];
        Some(weekdays)
    }

    fn matches(&self, date: NaiveDate) -> bool {
        let weekday = weekday_of(date);
        let nth = date.day().div_ceil(7);
        self.plain[weekday as usize]
            || self.nth.contains(&(weekday, nth))
            || self.last.contains(&weekday) && date.day() + 7 > month_length(date)
    }
}

/// A field without special letters, as one truth for each value.
fn plain_set(rule: &Rule, text: &str, spread: u64) -> Option<Vec<bool>> {
    let mut set = vec![false; rule.max as usize + 1];
    for (position, item) in text.split(',').enumerate() {
        add_item(rule, item, position, spread, &mut set)?;
    }
    Some(set)
}

/// `*`, `n`, `n-m`, `n~m`, each perhaps with `/step`.
fn add_item(rule: &Rule, item: &str, position: usize, spread: u64, set: &mut [bool]) -> Option<()> {
    let (base, step) = match item.split_once('/') {
        None => (item, None),
        Some((base, step)) => (base, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
    };
    // Sunday's second number is no place to end.
    let last = if rule.place == WEEKDAY { 6 } else { rule.max };
    let (low, high) = if base == "*" {
        (rule.min, last)
    } else if let Some((low, high)) = base.split_once('~') {
        let low = if low.is_empty() { rule.min } else { value(rule, low, false)? };
        let high = if high.is_empty() { rule.spread_max } else { value(rule, high, true)? };
        let values = u64::from(high.checked_sub(low)?) + 1;
        let hash = xxh3_64_with_seed(&[rule.place, position as u8], spread);
        let chosen = |values: u64| low + (hash % values) as u32;
        match step {
            None => (chosen(values), chosen(values)),
            Some(step) => (chosen(values.min(u64::from(step))), high),
        }
    } else if let Some((low, high)) = base.split_once('-') {
        (value(rule, low, false)?, value(rule, high, true)?)
    } else {
        let low = value(rule, base, false)?;
        // `5/15` goes on to the end of the field.
        let high = if step.is_none() { low } else { last.max(low) };
        (low, high)
    };
    if low > high {
        return None;
    }
    for value in (low..=high).step_by(step.unwrap_or(1) as usize) {
        set[value as usize] = true;
    }
    Some(())
}

/// A number or a name. Sunday ends a range as 7.
fn value(rule: &Rule, text: &str, ends_range: bool) -> Option<u32> {
    let named = rule.names.iter().position(|name| *name == text);
    let value = match named {
        Some(0) if rule.place == WEEKDAY && ends_range => 7,
        Some(place) => rule.min + place as u32,
        None => text.parse().ok()?,
    };
    (rule.min..=rule.max).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(expression: &str, year: i32, month: u32) -> Vec<u32> {
        let cron = Cron::parse(expression, 0).unwrap();
        let date = |day| NaiveDate::from_ymd_opt(year, month, day);
        (1..=31).filter(|day| date(*day).is_some_and(|date| cron.matches_day(date))).collect()
    }

    #[test]
    fn days_of_special_letters() {
        // January 2026 begins on a Thursday and ends on a Saturday.
        assert_eq!(days("0 0 L * *", 2026, 1), [31]);
        assert_eq!(days("0 0 LW * *", 2026, 1), [30]);
        assert_eq!(days("0 0 3W * *", 2026, 1), [2]);
        assert_eq!(days("0 0 4W * *", 2026, 1), [5]);
        assert_eq!(days("0 0 31W * *", 2026, 1), [30]);
        assert_eq!(days("0 0 1W * *", 2026, 8), [3], "the 1st is a Saturday");
        assert_eq!(days("0 0 * * FRI#2", 2026, 1), [9]);
        assert_eq!(days("0 0 * * FRIL", 2026, 1), [30]);
        assert_eq!(days("0 0 * * SAT-SUN", 2026, 1), [3, 4, 10, 11, 17, 18, 24, 25, 31]);
    }

    #[test]
    fn two_day_fields_mean_either_unless_one_is_open() {
        assert_eq!(days("0 0 13 * 5", 2026, 1), [2, 9, 13, 16, 23, 30]);
        assert_eq!(days("0 0 13 * ?", 2026, 1), [13]);
        assert_eq!(days("0 0 0 ? JAN 5", 2026, 1), [2, 9, 16, 23, 30]);
        assert!(days("0 0 0 ? FEB 5 2026", 2026, 1).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["", "* * * *", "61 * * * *", "5-3 * * * *", "*/0 * * * *", "a * * * *", "@reboot", "0 0 X * *"] {
            assert!(Cron::parse(bad, 0).is_err(), "{bad}");
        }
    }
}
