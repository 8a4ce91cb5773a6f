//! The one place that reads a clock.
//!
//! Wall time decides what is due and is stamped into log entries; monotonic time measures leases and deadlines. The two
//! are never mixed. Under the simulator both are intercepted and virtual, and each machine's may run at a rate of its
//! own: whoever waits or measures asks here, never tokio or std.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use campanile_model::Timestamp;

/// Monotonic time, for what has no node at hand (deadlines, back-off).
pub fn instant() -> Instant {
    let now = Instant::now();
    #[cfg(madsim)]
    let now = rates::seen(now);
    now
}

/// Waits, for what has no node at hand.
pub async fn sleep(span: Duration) {
    timer(span).await;
}

/// A timer of the runtime that ends after `span`, as this machine measures it.
pub fn timer(span: Duration) -> tokio::time::Sleep {
    #[cfg(madsim)]
    let span = rates::truly(span);
    tokio::time::sleep(span)
}

/// A timer of the runtime that ends when this machine's [`instant`] is `deadline`.
pub fn timer_until(deadline: Instant) -> tokio::time::Sleep {
    timer(deadline.saturating_duration_since(instant()))
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
        timer_until(deadline).await;
    }
}

/// How fast the monotonic clocks of machines run, for the simulator: an oscillator that is off makes a lease longer, or
/// an election shorter, on its machine alone.
#[cfg(madsim)]
pub mod rates {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use madsim::task::NodeId;

    const MILLION: u128 = 1_000_000;

    /// A clock that goes on from `seen` as true time goes on from `truly`.
    #[derive(Clone, Copy)]
    struct Rate {
        truly: Instant,
        seen: Instant,
        /// Microseconds it counts in a true second.
        micros: u128,
    }

    impl Rate {
        fn seen(&self, truly: Instant) -> Instant {
            let passed = truly.saturating_duration_since(self.truly).as_nanos();
            self.seen + Duration::from_nanos(u64::try_from(passed * self.micros / MILLION).unwrap_or(u64::MAX))
        }
    }

    thread_local! {
        /// Machines whose clock has ever been off.
        static RATES: RefCell<BTreeMap<NodeId, Rate>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// From now on a machine's monotonic clock is fast (or slow) by so many of a million; with 0 it is right again.
    pub fn set(machine: NodeId, ppm: i32) {
        let truly = Instant::now();
        RATES.with_borrow_mut(|rates| {
            let seen = rates.get(&machine).map_or(truly, |rate| rate.seen(truly));
            let micros = MILLION.saturating_add_signed(i128::from(ppm)).max(1);
            rates.insert(machine, Rate { truly, seen, micros });
        });
    }

    fn current() -> Option<Rate> {
        RATES.with_borrow(|rates| if rates.is_empty() { None } else { rates.get(&madsim::plugin::node()).copied() })
    }

    /// What this machine's clock shows.
    pub fn seen(truly: Instant) -> Instant {
        current().map_or(truly, |rate| rate.seen(truly))
    }

    /// How long it truly takes until this machine's clock has gone on by `span`.
    pub fn truly(span: Duration) -> Duration {
        match current() {
            // A wait of no end stays one.
            Some(rate) if span < Duration::from_secs(1 << 32) => {
                let nanos = span.as_nanos() * MILLION / rate.micros;
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
            _ => span,
        }
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
