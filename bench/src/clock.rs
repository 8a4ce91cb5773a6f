//! The wall clock of this machine, which the nodes on it share. Everything in this crate that asks for the time asks
//! here.

use std::time::{SystemTime, UNIX_EPOCH};

use campanile_model::Timestamp;

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub i64);

impl Micros {
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    /// How long after `instant` this is; negative before it.
    pub fn after(self, instant: Timestamp) -> i64 {
        self.0.saturating_sub(instant.as_millis().saturating_mul(1000))
    }

    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }
}

/// The millisecond that has begun.
pub fn now() -> Timestamp {
    Timestamp::from_millis(Micros::now().0.div_euclid(1000))
}
