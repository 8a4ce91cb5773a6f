//! ISO 8601 repeats, read anew: the k-th occurrence is the start and k periods, counted from the start each time.

use chrono::{DateTime, Days, Months, NaiveDateTime};

use super::Unreadable;
use super::zone::Zone;

struct Period {
    months: u32,
    days: u32,
    millis: i64,
}

/// Every occurrence after `after` and up to `until`, in milliseconds.
pub fn occurrences(text: &str, after: i64, until: i64) -> Result<Vec<i64>, Unreadable> {
    let unreadable = || Unreadable(format!("the repeat {text:?}"));
    let (count, start, period) = parse(text).ok_or_else(unreadable)?;
    // No month is longer than 31 days and no day than 26 hours: up to there it need not be counted out.
    let longest = i64::from(period.months) * 31 * 26 * 3_600_000 + i64::from(period.days) * 26 * 3_600_000;
    let mut k = ((after - start.instant) / (longest + period.millis).max(1) - 2).max(0);
    let mut found = Vec::new();
    while count.is_none_or(|count| k.cast_unsigned() < count) {
        let Some(at) = start.plus(&period, k).filter(|at| *at <= until) else { break };
        found.extend(Some(at).filter(|at| *at > after));
        k += 1;
    }
    Ok(found)
}

struct Start {
    /// In milliseconds.
    instant: i64,
    local: NaiveDateTime,
    zone: Zone,
}

impl Start {
    /// `None` beyond the end of the calendar.
    fn plus(&self, period: &Period, k: i64) -> Option<i64> {
        let times = u32::try_from(k).ok()?;
        let base = if k == 0 || (period.months == 0 && period.days == 0) {
            self.instant
        } else {
            let months = Months::new(period.months.checked_mul(times)?);
            let days = Days::new(u64::from(period.days) * u64::from(times));
            let local = self.local.checked_add_months(months)?.checked_add_days(days)?.and_utc();
            self.zone.instant_of(local.timestamp()) * 1000 + i64::from(local.timestamp_subsec_millis())
        };
        base.checked_add(period.millis.checked_mul(k)?)
    }
}

fn parse(text: &str) -> Option<(Option<u64>, Start, Period)> {
    let (count, rest) = text.split_once('/')?;
    let (start, period) = rest.rsplit_once('/')?;
    let count = match count.strip_prefix('R')? {
        "" => None,
        count => Some(count.parse().ok()?),
    };
    let (instant, name) = match start.split_once('[') {
        None => (start, None),
        Some((instant, name)) => (instant, Some(name.strip_suffix(']')?)),
    };
    let at = DateTime::parse_from_rfc3339(instant)
        .or_else(|_| DateTime::parse_from_str(&instant.replace('Z', "+00:00"), "%Y-%m-%dT%H:%M%:z"))
        .ok()?;
    let zone = match name {
        None => Zone::fixed(at.offset().local_minus_utc())?,
        Some(name) => Zone::find(name).ok()?,
    };
    let instant = at.timestamp_millis();
    let local = at.naive_local();
    Some((count, Start { instant, local, zone }, parse_period(period)?))
}

/// `P1Y2M3W4DT5H6M7.5S`; only the last number may have decimals, and only one of time.
fn parse_period(text: &str) -> Option<Period> {
    let (date, time) = match text.strip_prefix('P')?.split_once('T') {
        None => (text.strip_prefix('P')?, ""),
        Some(both) => both,
    };
    let mut period = Period { months: 0, days: 0, millis: 0 };
    for (number, unit) in numbers(date)? {
        let number: u32 = number.parse().ok()?;
        match unit {
            'Y' => period.months += number.checked_mul(12)?,
            'M' => period.months += number,
            'W' => period.days += number.checked_mul(7)?,
            'D' => period.days += number,
            _ => return None,
        }
    }
    for (number, unit) in numbers(time)? {
        let size = match unit {
            'H' => 3_600_000,
            'M' => 60_000,
            'S' => 1000,
            _ => return None,
        };
        let (whole, part) = number.split_once(['.', ',']).unwrap_or((number, ""));
        period.millis += whole.parse::<i64>().ok()?.checked_mul(size)?;
        if !part.is_empty() {
            let scale = 10i64.checked_pow(part.len() as u32)?;
            period.millis += part.parse::<i64>().ok()?.checked_mul(size)? / scale;
        }
    }
    (period.months > 0 || period.days > 0 || period.millis > 0).then_some(period)
}

/// `1Y2M` as its numbers and letters.
fn numbers(text: &str) -> Option<Vec<(&str, char)>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let unit = rest[end..].chars().next()?;
        found.push((&rest[..end], unit.to_ascii_uppercase()));
        rest = &rest[end + 1..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str, until: &str) -> Vec<String> {
        let until = DateTime::parse_from_rfc3339(until).unwrap().timestamp_millis();
        let found = occurrences(text, i64::MIN / 2, until).unwrap();
        found.iter().filter_map(|at| DateTime::from_timestamp_millis(*at)).map(|at| at.to_rfc3339()).collect()
    }

    #[test]
    fn months_keep_their_day() {
        let found = listed("R4/2026-01-31T09:00:00+08:00/P1M", "2027-01-01T00:00:00Z");
        let days: Vec<_> = found.iter().map(|at| &at[5..10]).collect();
        assert_eq!(days, ["01-31", "02-28", "03-31", "04-30"]);
    }

    #[test]
    fn days_follow_the_zone_and_hours_do_not() {
        let daily = listed("R/2026-03-28T02:30:00+01:00[Europe/Berlin]/P1D", "2026-03-30T12:00:00Z");
        let hours: Vec<_> = daily.iter().map(|at| &at[11..16]).collect();
        assert_eq!(hours, ["01:30", "01:30", "00:30"], "in the gap it is 03:30+02:00");
        let hourly = listed("R3/2026-03-28T02:30:00+01:00[Europe/Berlin]/PT24H", "2026-03-30T12:00:00Z");
        assert!(hourly.iter().all(|at| &at[11..16] == "01:30"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["", "R3", "R/2026-01-01T00:00:00Z/", "R/2026-01-01T00:00:00Z/P", "R/today/P1D", "3/x/P1D"] {
            assert!(occurrences(bad, 0, 1).is_err(), "{bad}");
        }
    }
}
