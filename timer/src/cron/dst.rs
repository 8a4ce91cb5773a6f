//! From local times to instants: what becomes of a cron time that a change of the clock skips or repeats.
//!
//! A *gap* is local time that never is (the clock goes forward), a *fold* local time that is twice (it goes back). They
//! come in all sizes: an hour in Berlin, half an hour on Lord Howe Island, a whole day in Samoa in 2011.
//!
//! Everything is read from offsets at instants and the changes between them. jiff's way from a local time to its
//! instants is not used: it names a fold in America/Nuuk in October 2023 that its own offsets do not have.

use campanile_model::{Dst, planted};
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::pattern::Pattern;

/// No change of a clock is larger, and no two changes of one clock are as close.
const WIDEST_CHANGE: SignedDuration = SignedDuration::from_hours(26);
/// A local time this far ahead is looked up from shortly before it, and not change by change.
const FAR: SignedDuration = SignedDuration::from_hours(5 * 24);
/// "Shortly before": further than any change and any offset reach.
const APPROACH: SignedDuration = SignedDuration::from_hours(4 * 24);

/// What a policy does with an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rules {
    /// A time in a gap runs at the gap's end, instead of not at all.
    after_gap: bool,
    /// A time in a fold runs in both passes, instead of only in the first.
    both_passes: bool,
}

impl Rules {
    fn new(dst: Dst, follows_clock: bool) -> Self {
        match dst {
            Dst::Vixie if planted!(DstTwice) => Self { after_gap: true, both_passes: true },
            Dst::Vixie if follows_clock => Self { after_gap: false, both_passes: true },
            Dst::Vixie => Self { after_gap: true, both_passes: false },
            Dst::Skip => Self { after_gap: false, both_passes: false },
            Dst::Twice => Self { after_gap: false, both_passes: true },
        }
    }
}

/// A change of the clock, with its local times before and after.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Timestamp,
    offset: Offset,
    /// What the clock would have shown.
    stops: DateTime,
    /// What it shows instead.
    resumes: DateTime,
}

impl Change {
    fn new(at: Timestamp, from: Offset, to: Offset) -> Self {
        Self { at, offset: to, stops: from.to_datetime(at), resumes: to.to_datetime(at) }
    }
}

/// The first occurrence after `after`, which is a whole second.
pub(super) fn next_after(pattern: &Pattern, zone: &TimeZone, dst: Dst, after: Timestamp) -> Option<Timestamp> {
    let rules = Rules::new(dst, pattern.follows_clock);
    let second = SignedDuration::from_secs(1);
    let mut offset = zone.to_offset(after);
    let mut from = offset.to_datetime(after).checked_add(second).ok()?;
    let last_year = pattern.last_year(from.year());
    if !rules.both_passes
        && let Some(change) = last_change(zone, after, offset)
    {
        // Inside a second pass nothing runs before its end.
        from = from.max(change.stops);
    }

    // `offset` holds from `since` to the next change, and all that lies ahead of `from` is still to be decided.
    let mut since = after;
    loop {
        let Some(found) = pattern.next(from, last_year) else {
            if planted!(SecondPassLost) {
                return None;
            }
            // Nothing is left but, perhaps, the second pass of the fold that `from` lies in.
            let change = next_change(zone, since, offset).filter(|fold| rules.both_passes && fold.resumes < from)?;
            (from, since, offset) = (change.resumes, change.at, change.offset);
            continue;
        };
        let instant = offset.to_timestamp(found).ok()?;
        if instant.duration_since(since) < WIDEST_CHANGE && zone.to_offset(instant) == offset {
            return Some(instant);
        }
        let Some(change) = next_change(zone, since, offset).filter(|change| change.stops <= found) else {
            return Some(instant);
        };
        if rules.both_passes && change.resumes < from {
            // A fold that `from` lies in: its second pass comes first.
            from = change.resumes;
        } else if found.duration_since(change.stops) > FAR {
            since = instant.checked_sub(APPROACH).ok()?;
            offset = zone.to_offset(since);
            from = found;
            continue;
        } else if found < change.resumes {
            if rules.after_gap {
                return Some(change.at);
            }
            from = change.resumes;
        }
        since = change.at;
        offset = change.offset;
    }
}

/// The next change from `offset`, which holds at `after`. Those that only change the zone's abbreviation are none.
fn next_change(zone: &TimeZone, after: Timestamp, offset: Offset) -> Option<Change> {
    let change = zone.following(after).find(|change| change.offset() != offset)?;
    Some(Change::new(change.timestamp(), offset, change.offset()))
}

/// The change to `offset`, which holds at `at`, if it was so recent that a fold may not be over.
fn last_change(zone: &TimeZone, at: Timestamp, offset: Offset) -> Option<Change> {
    let earlier = at.checked_sub(WIDEST_CHANGE).ok()?;
    let before = zone.to_offset(earlier);
    if before == offset {
        return None;
    }
    next_change(zone, earlier, before).filter(|change| change.offset == offset)
}
