//! ISO 8601 repeats, `R[n]/start/period`: a start, and then every period after it.
//!
//! The k-th occurrence is `start + k × period`, taken from the start each time and never from the one before it: with a
//! period of a month, a start on the 31st falls on the last day of shorter months and back on the 31st of longer ones.
//! Years, months, weeks and days are those of the calendar in the start's zone (`[Asia/Shanghai]` after the offset) or
//! at its fixed offset; hours and less are exact.

use campanile_model::{Code, Millis, Rejection, Timestamp, limits};
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Unit, Zoned};

use crate::zone;

#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    start: Zoned,
    period: Span,
    /// The period's length, about.
    period_millis: i64,
    /// Firings in all; unbounded when absent.
    count: Option<u64>,
}

impl Repeat {
    pub fn compile(text: &str) -> Result<Self, Rejection> {
        // A zone in brackets has slashes of its own.
        let parts = text.split_once('/').and_then(|(count, rest)| Some((count, rest.rsplit_once('/')?)));
        let Some((repetitions, (start, period))) = parts else {
            return Err(invalid(format!("{text:?} is not of the form R[n]/start/period")));
        };
        let count = parse_count(repetitions)?;
        let start = parse_start(start)?;
        let (period, period_millis) = parse_period(period)?;
        Ok(Self { start, period, period_millis, count })
    }

    /// The first occurrence strictly after an instant.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        // From about where it must be, doubling strides to one that is late enough; then halves.
        let ahead = after.millis_from(Timestamp::from_jiff(self.start.timestamp())).max(0);
        let guess = ahead / self.period_millis;
        let is_after = |k: i64| self.nth(k).is_none_or(|at| at > after);
        let mut high = guess;
        let mut stride = 1;
        while !is_after(high) {
            high = guess.saturating_add(stride);
            stride *= 2;
        }
        let mut low = 0;
        while low < high {
            let middle = low + (high - low) / 2;
            if is_after(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if self.count.is_some_and(|count| high.cast_unsigned() >= count) {
            return None;
        }
        self.nth(high)
    }

    /// The time between any two neighbours, if there is no end, and no unit of the calendar whose length varies.
    pub fn period(&self) -> Option<Millis> {
        let exact = self.period.years(0).months(0).weeks(0).days(0);
        let is_exact = self.count.is_none() && exact.fieldwise() == self.period.fieldwise();
        is_exact.then_some(Millis(self.period_millis.cast_unsigned()))
    }

    /// The k-th occurrence, the start being the 0th; `None` beyond the end of the calendar.
    fn nth(&self, k: i64) -> Option<Timestamp> {
        let at = self.start.checked_add(self.period.checked_mul(k).ok()?).ok()?;
        Some(Timestamp::from_jiff(at.timestamp()))
    }

    pub fn zone(&self) -> &TimeZone {
        self.start.time_zone()
    }
}

/// `R`, or `R` and the number of firings.
fn parse_count(text: &str) -> Result<Option<u64>, Rejection> {
    let count = text.strip_prefix('R').ok_or_else(|| invalid(format!("{text:?} is not R or R and a number")))?;
    match count {
        "" => Ok(None),
        _ if !count.bytes().all(|b| b.is_ascii_digit()) => {
            Err(invalid(format!("{count:?} is not a number of firings; leave it out to repeat without end")))
        }
        _ => match count.parse() {
            Ok(0) => Err(Rejection::new(Code::NeverOccurs, "R0 asks for no firings")),
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(invalid(format!("{count} firings are too many"))),
        },
    }
}

/// An instant with offset, and perhaps the name of a zone in brackets.
fn parse_start(text: &str) -> Result<Zoned, Rejection> {
    let unreadable = || {
        invalid(format!(
            "{text:?} is not an RFC 3339 instant with offset, such as 2026-01-31T09:00:00+08:00 or the same with \
             [Asia/Shanghai] after it"
        ))
    };
    let (instant, name) = match text.split_once('[') {
        None => (text, None),
        Some((instant, name)) => (instant, Some(name.strip_suffix(']').ok_or_else(unreadable)?)),
    };
    let pieces = jiff::fmt::temporal::Pieces::parse(instant).map_err(|_| unreadable())?;
    let at: Timestamp = instant.parse().map_err(|_| unreadable())?;
    let at = at.to_jiff().ok_or_else(unreadable)?;
    let offset = pieces.to_numeric_offset().unwrap_or(jiff::tz::Offset::UTC);
    let zone = match name {
        None if offset == jiff::tz::Offset::UTC => TimeZone::UTC,
        None => TimeZone::fixed(offset),
        Some(name) => {
            let zone = zone::find(name)?;
            if zone.to_offset(at) != offset {
                return Err(invalid(format!("{name} has another offset than {offset} at {instant}")));
            }
            zone
        }
    };
    Ok(at.to_zoned(zone))
}

/// An ISO 8601 duration, and about how long it is.
fn parse_period(text: &str) -> Result<(Span, i64), Rejection> {
    let unreadable = || invalid(format!("{text:?} is not an ISO 8601 duration such as P1M, P1W or PT15M"));
    // jiff reads other notations too.
    let period: Span = text.starts_with('P').then(|| text.parse().ok()).flatten().ok_or_else(unreadable)?;
    if period.is_zero() || period.is_negative() {
        return Err(invalid(format!("a period of {text} does not go forward")));
    }
    if period.get_microseconds() % 1000 != 0 || period.get_nanoseconds() % 1_000_000 != 0 {
        return Err(invalid(format!("a period of {text} is finer than a millisecond")));
    }
    let average_year = 365.2425;
    let calendar_days =
        f64::from(i32::from(period.get_years())) * average_year + f64::from(period.get_months()) * average_year / 12.0;
    let fixed = period.years(0).months(0);
    let fixed = fixed
        .total((Unit::Millisecond, SpanRelativeTo::days_are_24_hours()))
        .map_err(|_| invalid(format!("a period of {text} is too long")))?;
    let millis = (calendar_days * 86_400_000.0 + fixed) as i64;
    if millis < limits::EVERY_MIN.0.cast_signed() {
        return Err(Rejection::new(
            Code::LimitExceeded,
            format!("a period of {} is shorter than {}", Millis(millis.cast_unsigned()), limits::EVERY_MIN),
        ));
    }
    Ok((period, millis))
}

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection::new(Code::InvalidSchedule, message)
}
