//! Which local times an expression matches, and the search for the next one.
//!
//! Duties: hand the fields to croner, keep its verdict as bit sets, search them. Nothing here knows of time zones.

use campanile_model::Rejection;
use croner::errors::CronError;
use croner::parser::CronParser;
use croner::{Cron, CronComponent, Weekday};
use jiff::civil::{Date, DateTime, Time};

use super::syntax::{self, HOUR, MINUTE, YEAR};

/// The calendar, weekdays included, repeats after 400 years: what does not match within them never does.
const CYCLE_YEARS: i16 = 400;
/// Stands in for "every year" when croner parses: setting its 5000 bits would be most of the work.
const ANY_YEAR: &str = "2000";

/// A compiled expression. A field is a set of bits, lowest value lowest.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    days: DayTable,
    /// In ascending order; `None` is every year.
    years: Option<Vec<i16>>,
    /// Debian cron's rule: the minute or the hour field starts with `*`, so the schedule follows the clock through a
    /// change of it, and is not a fixed time of day.
    pub follows_clock: bool,
}

impl Pattern {
    /// Compiles an expression without zone prefix. `spread` chooses the values of `~`.
    pub fn parse(expression: &str, spread: u64) -> Result<Self, Rejection> {
        let fields = syntax::fields(expression, spread)?;
        let mut texts = fields.each_ref().map(String::as_str);
        let any_year = texts[YEAR] == "*";
        if any_year {
            texts[YEAR] = ANY_YEAR;
        }
        let cron = parse_fields(expression, texts)?;
        let pattern = &cron.pattern;
        Ok(Self {
            seconds: bits(&pattern.seconds),
            minutes: bits(&pattern.minutes),
            hours: bits(&pattern.hours),
            months: bits(&pattern.months),
            days: DayTable::new(&cron),
            years: (!any_year).then(|| pattern.years.values().into_iter().map(u16::cast_signed).collect()),
            follows_clock: [MINUTE, HOUR].iter().any(|&field| fields[field].starts_with('*')),
        })
    }

    /// The first matching local time at or after `from` (whole seconds), up to the end of `last_year`.
    pub fn next(&self, from: DateTime, last_year: i16) -> Option<DateTime> {
        if self.matches_day(from.date())
            && let Some(time) = self.next_time(from.time())
        {
            return (from.year() <= last_year).then(|| from.date().to_datetime(time));
        }
        let date = self.next_date(from.date().tomorrow().ok()?, last_year)?;
        Some(date.to_datetime(self.next_time(Time::midnight())?))
    }

    /// A search that begins in `year` has found all there is by the end of this one.
    pub fn last_year(&self, year: i16) -> i16 {
        match &self.years {
            None => year.saturating_add(CYCLE_YEARS),
            Some(years) => years.last().copied().unwrap_or(year),
        }
    }

    fn matches_day(&self, date: Date) -> bool {
        self.years.as_ref().is_none_or(|years| years.binary_search(&date.year()).is_ok())
            && self.months >> date.month() & 1 == 1
            && self.days.of_month(date.first_of_month()) >> date.day() & 1 == 1
    }

    fn next_time(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour() as u32, from.minute() as u32, from.second() as u32);
        let first_minute = self.minutes.trailing_zeros();
        let first_second = self.seconds.trailing_zeros();
        let same_hour = self.hours >> hour & 1 == 1;
        if same_hour
            && self.minutes >> minute & 1 == 1
            && let Some(second) = next_bit(self.seconds, second)
        {
            return time(hour, minute, second);
        }
        if same_hour && let Some(minute) = next_bit(self.minutes, minute + 1) {
            return time(hour, minute, first_second);
        }
        time(next_bit(self.hours, hour + 1)?, first_minute, first_second)
    }

    fn next_date(&self, from: Date, last_year: i16) -> Option<Date> {
        let mut year = from.year();
        let mut from = Some(from);
        loop {
            year = self.next_year(year).filter(|&year| year <= last_year)?;
            // Only in the first year and month looked at is there a day to start from.
            let start = from.take().filter(|from| from.year() == year);
            let mut month = start.map_or(1, |start| start.month() as u32);
            while let Some(found) = next_bit(self.months, month) {
                let first = Date::new(year, found as i8, 1).ok()?;
                let day = start.filter(|start| start.month() as u32 == found).map_or(1, |start| start.day() as u32);
                if let Some(day) = next_bit(u64::from(self.days.of_month(first)), day) {
                    return Date::new(year, found as i8, day as i8).ok();
                }
                month = found + 1;
            }
            year = year.checked_add(1)?;
        }
    }

    fn next_year(&self, from: i16) -> Option<i16> {
        match &self.years {
            None => Some(from),
            Some(years) => years.get(years.partition_point(|&year| year < from)).copied(),
        }
    }
}

fn time(hour: u32, minute: u32, second: u32) -> Option<Time> {
    Time::new(hour as i8, minute as i8, second as i8, 0).ok()
}

/// The lowest bit set at or above `from`.
fn next_bit(set: u64, from: u32) -> Option<u32> {
    let left = set.checked_shr(from)?;
    (left != 0).then(|| from + left.trailing_zeros())
}

fn bits(component: &CronComponent) -> u64 {
    component.values().into_iter().fold(0, |bits, value| bits | 1 << value)
}

fn parse_fields(expression: &str, fields: [&str; 7]) -> Result<Cron, Rejection> {
    let parse = |fields: [&str; 7]| CronParser::new().parse(&fields.join(" "));
    parse(fields).map_err(|error| {
        // croner does not say which field it means: find the one that is wrong by itself.
        let mut alone = ["*"; 7];
        alone[YEAR] = ANY_YEAR;
        for (index, text) in fields.iter().enumerate() {
            let others = std::mem::replace(&mut alone[index], text);
            if let Err(error) = parse(alone) {
                return syntax::unreadable(expression, index, reason(&error));
            }
            alone[index] = others;
        }
        syntax::invalid(reason(&error))
    })
}

/// croner's message as the fragment of a sentence.
fn reason(error: &CronError) -> String {
    let text = match error {
        CronError::IllegalCharacters(_) => return "a character in it is not for this field".into(),
        CronError::ComponentError(text) | CronError::InvalidPattern(text) => text.clone(),
        other => other.to_string(),
    };
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

/// The days that match, for each of the 28 shapes a month can have: its length and the weekday it begins with.
#[derive(Clone, Debug)]
struct DayTable {
    /// By length less 28, then by the weekday of the first, Sunday being 0. Bit `n` is day `n`.
    days: [[u32; 7]; 4],
}

impl DayTable {
    /// Asks croner about every day of a month of each shape. All of its rules (`L`, `W`, `#`, either of two fields) see
    /// no further than the month.
    fn new(cron: &Cron) -> Self {
        // Whatever the year and month, they only tell croner how long the month is.
        const MONTH_OF_LENGTH: [(i32, u32); 4] = [(2023, 2), (2024, 2), (2023, 4), (2023, 1)];
        const WEEKDAYS: [Weekday; 7] = [
            Weekday::Sunday,
            Weekday::Monday,
            Weekday::Tuesday,
            Weekday::Wednesday,
            Weekday::Thursday,
            Weekday::Friday,
            Weekday::Saturday,
        ];
        let mut days = [[0; 7]; 4];
        for (longer, (year, month)) in MONTH_OF_LENGTH.into_iter().enumerate() {
            for (first, days) in days[longer].iter_mut().enumerate() {
                for day in 1..=28 + longer {
                    let weekday = WEEKDAYS[(first + day - 1) % 7];
                    // croner only refuses days that the month does not have.
                    let matches = cron.pattern.day_match(year, month, day as u32, weekday).unwrap_or(false);
                    *days |= u32::from(matches) << day;
                }
            }
        }
        Self { days }
    }

    fn of_month(&self, first: Date) -> u32 {
        let longer = first.days_in_month() as usize - 28;
        self.days[longer][first.weekday().to_sunday_zero_offset() as usize]
    }
}
