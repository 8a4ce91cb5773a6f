//! The one place that reads a clock.
//!
//! Wall time decides what is due and is stamped into log entries; monotonic time measures leases and deadlines. The two
//! are never mixed. Under the simulator both are intercepted and virtual.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use campanile_model::Timestamp;

/// Monotonic time, for what has no node at hand (deadlines, back-off).
pub fn instant() -> Instant {
    Instant::now()
}

/// Waits, for what has no node at hand.
pub async fn sleep(span: Duration) {
    tokio::time::sleep(span).await;
}

/// A node's clocks. Clones share the shift of the wall clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds added to the system's wall clock: zero, unless a test or the simulator sets a node's clock wrong.
    shift_ms: Arc<AtomicI64>,
    #[cfg(madsim)]
    skew: Arc<std::sync::Mutex<skew::Skew>>,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::default()
    }

    /// Wall time, rounded down to the millisecond. May jump either way.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_us().div_euclid(1000))
    }

    /// Wall time in microseconds since the epoch, for comparing clocks.
    pub fn now_us(&self) -> i64 {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            // A clock set before 1970 is wrong, but it must not stop the node.
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        #[cfg(madsim)]
        let micros = self.skew().apply(micros);
        micros.saturating_add(self.shift_ms.load(Ordering::Relaxed).saturating_mul(1000))
    }

    /// Monotonic time: never goes back, and means nothing on another node.
    pub fn instant(&self) -> Instant {
        instant()
    }

    /// Sets the wall clock wrong by `millis`, for every clone.
    pub fn shift(&self, millis: i64) {
        self.shift_ms.store(millis, Ordering::Relaxed);
    }

    pub async fn sleep(&self, span: Duration) {
        sleep(span).await;
    }

    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// Clocks that run wrong, for the simulator.
#[cfg(madsim)]
mod skew {
    use std::sync::{MutexGuard, PoisonError};

    use super::Clock;

    /// How a wall clock is off, beside its shift.
    #[derive(Debug, Default)]
    pub struct Skew {
        /// Stands still at this instant.
        frozen_at_us: Option<i64>,
        /// Runs fast by so many of a million since an instant.
        ppm: i32,
        since_us: i64,
    }

    impl Skew {
        pub fn apply(&self, true_us: i64) -> i64 {
            let now = self.frozen_at_us.unwrap_or(true_us);
            now + (now - self.since_us) * i64::from(self.ppm) / 1_000_000
        }
    }

    impl Clock {
        pub(super) fn skew(&self) -> MutexGuard<'_, Skew> {
            self.skew.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// From now on the wall clock runs fast (or slow) by so many of a million; with 0 it is right again.
        pub fn drift(&self, ppm: i32) {
            let now = true_us();
            let mut skew = self.skew();
            (skew.ppm, skew.since_us) = (ppm, now);
        }

        /// The wall clock stands still.
        pub fn freeze(&self) {
            self.skew().frozen_at_us = Some(true_us());
        }

        /// It goes on, at the right time.
        pub fn thaw(&self) {
            self.skew().frozen_at_us = None;
        }
    }

    fn true_us() -> i64 {
        Clock::system().now_us()
    }
}
