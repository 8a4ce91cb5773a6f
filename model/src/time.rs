//! Instants and spans as milliseconds, one type each, so that no bare integer travels as a time.
//! Nothing here reads a clock.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use jiff::{SpanRelativeTo, Unit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: milliseconds since the Unix epoch, UTC. JSON form: RFC 3339 with offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Before every instant a schedule can name.
    pub const MIN: Self = Self(i64::MIN);
    /// The last instant that can be printed and scheduled: 9999-12-30T22:00:00Z, jiff's own bound.
    pub const LAST: Self = Self(253_402_207_200_000);

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    pub fn saturating_add(self, span: Millis) -> Self {
        Self(self.0.saturating_add_unsigned(span.0))
    }

    pub fn saturating_sub(self, span: Millis) -> Self {
        Self(self.0.saturating_sub_unsigned(span.0))
    }

    /// How long after `earlier` this instant is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// Signed distance `self - other` in milliseconds.
    pub fn millis_from(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }

    /// The same instant for jiff; `None` outside the years jiff knows (-9999 to 9999).
    pub fn to_jiff(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_millisecond(self.0).ok()
    }

    /// Rounds down to the millisecond.
    pub fn from_jiff(instant: jiff::Timestamp) -> Self {
        Self(instant.as_nanosecond().div_euclid(1_000_000) as i64)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_jiff() {
            Some(instant) => write!(f, "{instant:.3}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| {
            ParseTimeError(format!("{text:?} is not an RFC 3339 instant with offset, such as 2026-12-01T09:00:00Z"))
        })?;
        let instant = Self::from_jiff(instant);
        if instant > Self::LAST {
            return Err(ParseTimeError(format!(
                "{text:?} is after {}, the last instant that can be scheduled",
                Self::LAST
            )));
        }
        Ok(instant)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A span of time in milliseconds. JSON form: `"500ms"`, `"60s"`, `"1h30m"`, `"7d"` (a day is 24 hours), or ISO 8601.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Millis(pub u64);

impl Millis {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    pub const fn from_mins(mins: u64) -> Self {
        Self::from_secs(mins * 60)
    }

    pub const fn from_hours(hours: u64) -> Self {
        Self::from_mins(hours * 60)
    }

    pub const fn from_days(days: u64) -> Self {
        Self::from_hours(days * 24)
    }

    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl From<std::time::Duration> for Millis {
    /// Rounds down to the millisecond.
    fn from(span: std::time::Duration) -> Self {
        Self(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Millis {
    /// The largest unit that divides the span: one text for one span, so that equal definitions print equal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match UNITS.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None if self.0 == 0 => write!(f, "0s"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl FromStr for Millis {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        let error = |why: &str| ParseTimeError(format!("{text:?} {why}"));
        let span: jiff::Span = text.parse().map_err(|_| error("is not a span of time such as 60s, 1h30m or PT15M"))?;
        if span.is_negative() {
            return Err(error("is negative"));
        }
        if span.get_months() != 0 || span.get_years() != 0 {
            return Err(error("has months or years, which have no fixed length; use a repeat schedule"));
        }
        let millis =
            span.total((Unit::Millisecond, SpanRelativeTo::days_are_24_hours())).map_err(|_| error("is too long"))?;
        // Spans are bounded far below 2^53 ms by jiff itself, so the float is exact here.
        if millis.fract() != 0.0 {
            return Err(error("is finer than a millisecond"));
        }
        Ok(Self(millis as u64))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseTimeError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_parse_and_print_canonically() {
        for (text, millis, printed) in [
            ("60s", 60_000, "1m"),
            ("90s", 90_000, "90s"),
            ("1h30m", 5_400_000, "90m"),
            ("7d", 604_800_000, "7d"),
            ("PT15M", 900_000, "15m"),
            ("500ms", 500, "500ms"),
            ("0s", 0, "0s"),
        ] {
            let span: Millis = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (millis, printed), "{text}");
            assert_eq!(printed.parse(), Ok(span));
        }
        for bad in ["", "60", "-5s", "1mo", "1y", "10us", "soon"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_keep_their_offset_and_need_one() {
        let instant: Timestamp = "2026-12-01T10:00:00.0005+01:00".parse().unwrap();
        assert_eq!(instant.to_string(), "2026-12-01T09:00:00.000Z");
        for bad in ["2026-12-01T09:00:00", "2026-12-01", "tomorrow", "2026-13-01T00:00:00Z"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
