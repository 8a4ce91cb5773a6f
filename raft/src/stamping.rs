//! Whether the leader's wall clock may be stamped into entries.
//!
//! Two guards. The slow one is the comparison with other clocks (see [`crate::beats`]), a few times a second: a follower
//! compares with its leader, so that it is known already when it takes over, and a leader with the other voters. A node
//! that has compared with nobody yet is not trusted. The fast one is here: between two comparisons the wall clock must
//! move as the monotonic clock does. A clock that jumps is distrusted at the very next look, before anything is stamped
//! with it, until it has been compared anew.

use campanile_model::{planted, sometimes};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// The judgement. Clones share it.
#[derive(Clone)]
pub struct Stamping {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    max_skew: Duration,
    /// How long after a jump the comparisons with others are still old ones.
    remeasure: Duration,
    state: Mutex<State>,
}

struct State {
    /// What the comparison with the others said last; `None` before the first, and where it said nothing.
    compared: Option<bool>,
    /// It said so while the clock was distrusted, by what may have been measured before it jumped.
    is_early: bool,
    /// The two clocks, read together when the wall clock was last trusted.
    anchor: (Instant, i64),
    distrusted_until: Option<Instant>,
}

impl Stamping {
    pub fn new(clock: Clock, max_skew: Duration, remeasure: Duration) -> Self {
        let anchor = (clock.instant(), clock.now_us());
        let compared = planted!(NewClockTrusted).then_some(true);
        let state = Mutex::new(State { compared, is_early: false, anchor, distrusted_until: None });
        Self { inner: Arc::new(Inner { clock, max_skew, remeasure, state }) }
    }

    /// Looks at the clock, now.
    pub fn is_allowed(&self) -> bool {
        if planted!(ClockNotCompared) {
            return true;
        }
        let inner = &self.inner;
        let mut state = inner.state();
        let (now, wall_us) = (inner.clock.instant(), inner.clock.now_us());
        let moved = now.saturating_duration_since(state.anchor.0);
        let moved_us = i64::try_from(moved.as_micros()).unwrap_or(i64::MAX);
        let jumped_us = wall_us.saturating_sub(state.anchor.1).saturating_sub(moved_us).unsigned_abs();
        // Clocks that are slewed to the right time move within the bound.
        if u128::from(jumped_us) > inner.max_skew.as_micros() {
            tracing::error!(
                jumped_ms = jumped_us / 1000,
                "the wall clock jumped; it is distrusted until compared anew"
            );
            sometimes!(ClockDistrusted);
            state.anchor = (now, wall_us);
            state.distrusted_until = Some(now + inner.remeasure);
            // What was said of it before the jump says nothing any more.
            state.compared = None;
        }
        let distrusted = state.is_early || state.distrusted_until.is_some_and(|until| now < until);
        state.compared == Some(true) && !distrusted
    }

    /// This clock and another are far apart, and nobody can say yet which is wrong: it has to be compared anew.
    pub fn doubt(&self) {
        self.inner.state().compared = None;
    }

    /// Whether it is known if the clock is right.
    pub fn is_compared(&self) -> bool {
        self.inner.state().compared.is_some() || planted!(ClockNotCompared)
    }

    /// Takes the outcome of a comparison with other clocks. True if it is a change.
    pub fn compared(&self, allowed: bool) -> bool {
        // A jump since the last look must not hide behind the new anchor.
        let distrusted = !self.is_allowed();
        let inner = &self.inner;
        let mut state = inner.state();
        // Should nothing be compared after this, it must not begin to count when the distrust ends.
        state.is_early = state.distrusted_until.is_some_and(|until| inner.clock.instant() < until);
        if !distrusted || !state.is_early {
            state.anchor = (inner.clock.instant(), inner.clock.now_us());
        }
        state.compared.replace(allowed).unwrap_or(true) != allowed
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compared_before_the_distrust_ended_does_not_end_it() {
        let clock = Clock::system();
        let stamping = Stamping::new(clock.clone(), Duration::from_millis(500), Duration::from_secs(3600));
        stamping.compared(true);
        clock.shift(60_000);
        assert!(!stamping.is_allowed());
        stamping.compared(true);
        stamping.inner.state().distrusted_until = Some(clock.instant());
        assert!(stamping.is_compared() && !stamping.is_allowed(), "by measurements of before the jump");
        stamping.compared(true);
        assert!(stamping.is_allowed());
    }

    #[test]
    fn a_jump_is_noticed_at_once_and_forgiven_after_comparing() {
        for jump_ms in [60_000, -60_000] {
            let clock = Clock::system();
            let stamping = Stamping::new(clock.clone(), Duration::from_millis(500), Duration::ZERO);
            assert!(!stamping.is_allowed() && !stamping.is_compared(), "nobody knows this clock");
            stamping.compared(true);
            assert!(stamping.is_allowed() && stamping.is_compared());
            stamping.doubt();
            assert!(!stamping.is_allowed() && !stamping.is_compared());
            stamping.compared(true);
            clock.shift(jump_ms / 1000);
            assert!(stamping.is_allowed(), "inside the bound");

            let strict = Stamping::new(clock.clone(), Duration::from_millis(500), Duration::from_secs(3600));
            strict.compared(true);
            clock.shift(jump_ms);
            assert!(!strict.is_allowed());
            strict.compared(true);
            assert!(!strict.is_allowed(), "a comparison made of old measurements does not count");

            stamping.is_allowed();
            stamping.compared(false);
            assert!(!stamping.is_allowed());
            stamping.compared(true);
            assert!(stamping.is_allowed());
        }
    }
}
