//! Identifiers. Every id that `apply` gives out is a place in the Raft log, so ids are ordered by time, never reused,
//! and the same on every replica without anybody drawing a random number.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;

/// A node of the cluster. Never reused: an empty disk comes back under a new id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the Raft log: the entry's index and the position inside that entry, packed as `index << 16 | position`
/// so that it is one integer, ordered as the log is, and exact in a JSON number up to log index 2^37.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LogPlace(pub u64);

impl LogPlace {
    /// Ids one log entry can give out. Whoever builds entries keeps below it.
    pub const POSITIONS_PER_ENTRY: u32 = 1 << 16;

    pub fn new(index: u64, position: u32) -> Self {
        assert!(position < Self::POSITIONS_PER_ENTRY, "log entry {index} gives out more than 65536 ids");
        assert!(index < 1 << 48, "log index {index} does not fit an id");
        Self(index << 16 | u64::from(position))
    }

    pub fn index(self) -> u64 {
        self.0 >> 16
    }

    pub fn position(self) -> u32 {
        (self.0 & 0xffff) as u32
    }
}

/// Defines an id that is a [`LogPlace`] with a one-letter prefix in its text form (`t81923`).
macro_rules! log_place_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub u64);

        impl $name {
            pub fn at(place: LogPlace) -> Self {
                Self(place.0)
            }

            /// The log entry that gave this id out.
            pub fn place(self) -> LogPlace {
                LogPlace(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .filter(|digits| is_canonical_number(digits))
                    .and_then(|digits| digits.parse().ok())
                    .map(Self)
                    .ok_or(ParseIdError { expected: concat!($prefix, "<number>") })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

log_place_id!(
    /// A task, whatever its version. The place of the entry that created it.
    TaskId, "t"
);
log_place_id!(
    /// A run: the place of the fire that made it, and the key of its row.
    RunId, "r"
);

/// Decimal digits, no sign, no leading zero: one text for one id.
fn is_canonical_number(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {expected}")]
pub struct ParseIdError {
    expected: &'static str,
}

/// Fencing token of an attempt: a receiver that has seen a token refuses every smaller one *of the same run*.
/// A plain number in headers and JSON, so that any language can compare it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

impl Token {
    pub fn at(place: LogPlace) -> Self {
        Self(place.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A slot of the task-hash space; its owner delivers the runs of the tasks in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Number of shards of a cluster.
    pub const COUNT: u16 = 256;

    /// The shard of a task: a multiplicative (Fibonacci) hash, because ids are sequential and would otherwise follow
    /// the batch they were created in.
    pub fn of(task: TaskId) -> Self {
        Self((task.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u16)
    }
}

/// What made an occurrence due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Origin {
    /// One of the task's schedules.
    Schedule,
    /// The task's *n*-th manual trigger, counted from 1.
    Manual(u32),
}

/// One time a task is due; the unit of exactly-once and the idempotency key of its run.
/// Text form: `t81923-1763697600000`, or `t81923-1763697600000-m1` for a manual trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct OccurrenceId {
    pub task: TaskId,
    /// Nominal instant, before jitter.
    pub scheduled_at: Timestamp,
    pub origin: Origin,
}

impl fmt::Display for OccurrenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.task, self.scheduled_at.as_millis())?;
        match self.origin {
            Origin::Schedule => Ok(()),
            Origin::Manual(n) => write!(f, "-m{n}"),
        }
    }
}

impl FromStr for OccurrenceId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const ERROR: ParseIdError = ParseIdError { expected: "t<number>-<milliseconds>[-m<number>]" };
        let (task, rest) = text.split_once('-').ok_or(ERROR)?;
        let task = task.parse().map_err(|_| ERROR)?;
        // An instant before 1970 starts with its own minus sign.
        let negative = rest.starts_with('-');
        let rest = if negative { &rest[1..] } else { rest };
        let (millis, origin) = match rest.split_once("-m") {
            None => (rest, Origin::Schedule),
            Some((millis, n)) if is_canonical_number(n) => (millis, Origin::Manual(n.parse().map_err(|_| ERROR)?)),
            Some(_) => return Err(ERROR),
        };
        if !is_canonical_number(millis) || (negative && millis == "0") {
            return Err(ERROR);
        }
        let millis: i64 = millis.parse().map_err(|_| ERROR)?;
        let scheduled_at = Timestamp::from_millis(if negative { -millis } else { millis });
        Ok(Self { task, scheduled_at, origin })
    }
}

impl Serialize for OccurrenceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OccurrenceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occurrence_ids_read_back_what_they_print() {
        for (millis, origin) in [
            (0, Origin::Schedule),
            (1763697600000, Origin::Manual(3)),
            (-1, Origin::Manual(1)),
            (-86400000, Origin::Schedule),
        ] {
            let id = OccurrenceId { task: TaskId(81923), scheduled_at: Timestamp::from_millis(millis), origin };
            assert_eq!(id.to_string().parse::<OccurrenceId>(), Ok(id), "{id}");
        }
    }

    #[test]
    fn one_text_for_one_id() {
        for text in ["", "t", "81923", "t081923", "t-1", "t+1", "r1", "t1 "] {
            assert!(text.parse::<TaskId>().is_err(), "{text:?}");
        }
        for text in ["t1", "t1-", "t1-01", "t1--0", "t1-1-m", "t1-1-m01", "t1-1-x", "t1-1-m1-m1"] {
            assert!(text.parse::<OccurrenceId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn places_are_ordered_as_the_log_is() {
        assert!(LogPlace::new(7, 65_535) < LogPlace::new(8, 0));
        assert_eq!((LogPlace::new(7, 9).index(), LogPlace::new(7, 9).position()), (7, 9));
    }

    #[test]
    fn sequential_tasks_spread_over_all_shards() {
        let used: std::collections::BTreeSet<_> =
            (0..4096).map(|n| ShardId::of(TaskId::at(LogPlace::new(n / 64, (n % 64) as u32)))).collect();
        assert!(used.len() > 240, "only {} of 256 shards used", used.len());
    }
}
