//! Cron expressions: a text and a time zone, compiled to "when next?".
//!
//! Five fields, six (seconds first) or seven (years last); names, ranges, steps, lists, `L`, `W`, `#`, `?`, `~`;
//! `@daily` and its kin; `CRON_TZ=Zone` in front. Day-of-month and day-of-week both restricted mean either; `*` and `?`
//! restrict nothing, anything else does (so `*/2` is a restriction, unlike in Debian cron).
//!
//! In the order of the work: [`syntax`] readies the text for croner, [`pattern`] keeps what croner makes of it and
//! searches local times, [`dst`] turns those into instants.

mod dst;
mod pattern;
mod syntax;

use campanile_model::{Code, Dst, Rejection, Timestamp};
use jiff::tz::TimeZone;

use crate::zone;
use pattern::Pattern;

/// A compiled cron schedule.
#[derive(Clone, Debug)]
pub(crate) struct Cron {
    pattern: Pattern,
    zone: TimeZone,
    dst: Dst,
}

impl Cron {
    /// `spread` chooses the values of `~`. The field of a refusal is `cron` or `time_zone`.
    pub fn compile(expression: &str, time_zone: &str, dst: Dst, spread: u64) -> Result<Self, Rejection> {
        let in_cron = |rejection: Rejection| rejection.with_field("cron");
        let (zone, expression) = split_zone(expression, time_zone)?;
        let pattern = Pattern::parse(expression, spread).map_err(in_cron)?;
        let cron = Self { pattern, zone, dst };
        if cron.next_after(NO_YEAR_BEFORE).is_none() {
            return Err(in_cron(Rejection::new(Code::NeverOccurs, format!("{expression:?} never occurs"))));
        }
        Ok(cron)
    }

    /// The first occurrence strictly after an instant.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let second = after.max(NO_YEAR_BEFORE).as_millis().div_euclid(1000);
        let after = jiff::Timestamp::from_second(second).ok()?;
        dst::next_after(&self.pattern, &self.zone, self.dst, after).map(Timestamp::from_jiff)
    }
}

/// The zone a schedule is in: that of its prefix, else `time_zone`; and the expression without the prefix. The two may
/// not contradict each other, but `time_zone` is `UTC` when it was not given.
pub(crate) fn split_zone<'e>(expression: &'e str, time_zone: &str) -> Result<(TimeZone, &'e str), Rejection> {
    let explicit = zone::find(time_zone).map_err(|rejection| rejection.with_field("time_zone"))?;
    let (prefix, expression) = syntax::split_zone(expression);
    let Some(name) = prefix else { return Ok((explicit, expression)) };
    let prefixed = zone::find(name).map_err(|rejection| rejection.with_field("cron"))?;
    if explicit != TimeZone::UTC && explicit != prefixed {
        let both = format!("the expression says {name:?} and time_zone says {time_zone:?}");
        return Err(syntax::invalid(both).with_field("cron"));
    }
    Ok((prefixed, expression))
}

/// Years in cron begin with 1; this instant is in year 1 in every zone.
const NO_YEAR_BEFORE: Timestamp = Timestamp::from_millis(-62_135_000_000_000);
