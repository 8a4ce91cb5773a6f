//! A hierarchical timing wheel: timers sorted just enough, just in time.
//!
//! Six levels of 64 slots, each slot of a level as wide as the whole level below:
//!
//! | level | slot | level spans |
//! |---|---|---|
//! | 0 | 1 ms | 64 ms |
//! | 1 | 64 ms | 4.1 s |
//! | 2 | 4.1 s | 4.4 min |
//! | 3 | 4.4 min | 4.7 h |
//! | 4 | 4.7 h | 12.4 days |
//! | 5 | 12.4 days | 2.2 years |
//!
//! A timer waits at the highest level at which its deadline differs from the wheel's time. When the wheel's time enters
//! its slot it *cascades* to a lower level; on level 0 a slot is one millisecond, so timers are exact at any distance.
//! What lies beyond the top level waits in a sorted map from spans of 2.2 years to lists, and cascades the same way.
//! Insert and cancel are O(1); `advance` skips empty slots by bitmap, so its cost follows the timers, not the ticks.
//!
//! A slot can hold millions of timers, and moving them all at once would stall the caller. So each ring has 64 slots
//! more, for the window after the one the wheel is in, and `advance` moves timers there ahead of time, a few for each
//! tick that passes (`AHEAD_PER_TICK`). What is left when the slot begins is moved then. With 5M timers spread over ten
//! hours and a call every 5 ms, no call took 0.8 ms; without the moves ahead of time the worst took 96 ms.
//!
//! The wheel never reads a clock: it is told the time. It does not know what its values mean.
//!
//! After G. Varghese and T. Lauck, "Hashed and Hierarchical Timing Wheels: Data Structures for the Efficient
//! Implementation of a Timer Facility" (1987), and tokio's `runtime/time/wheel`.

mod level;
mod slab;

use std::collections::BTreeMap;

use campanile_model::Timestamp;

use level::{LEVELS, Level, level_for, shift, slot_of};
pub use slab::Key;
use slab::{List, Slab};

/// Timers that one level hands down ahead of time for each tick that passes: enough to empty a slot of 260,000 timers
/// on level 2, or of 17 million on level 3, before it begins.
const AHEAD_PER_TICK: u64 = 64;
/// And at most in one call, so that a call after a long sleep stays short.
const AHEAD_PER_CALL: u64 = 8192;
/// The lowest level that hands down ahead of time. A slot of level 1 is spent within 64 ms of its cascade anyway.
const AHEAD_FROM_LEVEL: usize = 2;

/// [`Slab`]'s place code of a timer in the overflow; any other is `level << 7 | slot`.
const OVERFLOW: u16 = u16::MAX;

/// Values to be handed out at their time. See the module's page.
pub struct Wheel<T> {
    now: u64,
    levels: [Level; LEVELS],
    /// Lists of timers beyond the top level, by the span of 2.2 years (`deadline >> 36`) they lie in.
    overflow: BTreeMap<u64, List>,
    slab: Slab<T>,
    /// Of the timers inserted with a deadline already past, the earliest since they were last handed out. They wait in
    /// the slot of `now`.
    earliest_overdue: Option<u64>,
}

/// A list of timers and the tick at which its slot begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    start: u64,
    /// [`LEVELS`] for the overflow.
    level: usize,
}

impl<T> Wheel<T> {
    pub fn new(now: Timestamp) -> Self {
        Self {
            now: to_tick(now),
            levels: std::array::from_fn(|_| Level::new()),
            overflow: BTreeMap::new(),
            slab: Slab::new(),
            earliest_overdue: None,
        }
    }

    /// The time last advanced to.
    pub fn now(&self) -> Timestamp {
        from_tick(self.now)
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets every timer and starts again at `now`, which may be earlier. No older key names a timer any more.
    pub fn clear(&mut self, now: Timestamp) {
        self.slab.clear();
        self.overflow.clear();
        self.levels.iter_mut().for_each(|level| *level = Level::new());
        self.earliest_overdue = None;
        self.now = to_tick(now);
    }

    /// Hands `value` out at `at`, or at the next [`Wheel::advance`] when that is past.
    pub fn insert(&mut self, at: Timestamp, value: T) -> Key {
        let deadline = to_tick(at);
        let key = self.slab.insert(deadline, value);
        let index = self.slab.find(key).expect("it was just inserted");
        if deadline < self.now {
            let earliest = self.earliest_overdue.unwrap_or(deadline);
            self.earliest_overdue = Some(earliest.min(deadline));
        }
        self.link(level_for(self.now, deadline.max(self.now)), index);
        key
    }

    /// Takes a timer back; `None` when it has fired or was cancelled.
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        let index = self.slab.find(key)?;
        self.unlink(index);
        Some(self.slab.remove(index).1)
    }

    /// Moves to `now` and appends everything due by then to `out`: in order of deadlines, equal ones in order of
    /// insertion. A time before the wheel's own changes nothing.
    pub fn advance(&mut self, now: Timestamp, out: &mut Vec<(Timestamp, T)>) {
        let target = to_tick(now);
        if target < self.now {
            return;
        }
        let passed = target - self.now;
        let first = out.len();
        while let Some(slot) = self.next_slot().filter(|slot| slot.start <= target) {
            self.now = slot.start;
            if slot.level > 0 {
                self.cascade(slot);
                continue;
            }
            self.fire(slot, out);
            if self.earliest_overdue.take().is_some() {
                // The slot's list is in order of insertion, which is not the order of deadlines already past.
                out[first..].sort_by_key(|(deadline, _)| *deadline);
            }
        }
        // Those that were cancelled are no reason to wake up again.
        self.earliest_overdue = None;
        self.now = target;
        self.cascade_ahead(passed.saturating_mul(AHEAD_PER_TICK).min(AHEAD_PER_CALL));
    }

    /// No timer is due before this instant: exact within the next 64 ms, else the start of the first occupied slot.
    /// Before the wheel's own time when a timer was inserted with a deadline already past, even if it was cancelled.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let start = self.next_slot()?.start;
        Some(from_tick(self.earliest_overdue.unwrap_or(start).min(start)))
    }

    /// The occupied slot that begins first, and of those that begin together the widest, so that its timers join those
    /// below before they move on.
    fn next_slot(&self) -> Option<Slot> {
        let overflow = self.overflow.keys().next().map(|span| Slot { start: span << shift(LEVELS), level: LEVELS });
        let levels = self.levels.iter().enumerate().rev();
        levels.fold(overflow, |first, (level, ring)| match (first, ring.next_start(level, self.now)) {
            (Some(first), Some(start)) if first.start <= start => Some(first),
            (first, None) => first,
            (_, Some(start)) => Some(Slot { start, level }),
        })
    }

    /// Hands out a whole slot of level 0.
    fn fire(&mut self, slot: Slot, out: &mut Vec<(Timestamp, T)>) {
        while let Some(index) = self.list(slot.level, slot.start).first() {
            self.unlink(index);
            let (deadline, value) = self.slab.remove(index);
            out.push((from_tick(deadline), value));
        }
    }

    /// Moves the timers of a slot that has just begun one level down, where the first of them find those that were
    /// moved ahead of time, and go behind them.
    fn cascade(&mut self, slot: Slot) {
        while let Some(index) = self.list(slot.level, slot.start).first() {
            self.unlink(index);
            self.link(slot.level - 1, index);
        }
    }

    /// Moves up to `budget` timers of each wide level's next slot one level down, into the window after the current
    /// one. Lists stay in order of insertion: whatever is inserted for that window before it begins goes behind what is
    /// still above.
    fn cascade_ahead(&mut self, budget: u64) {
        for level in AHEAD_FROM_LEVEL..=LEVELS {
            let Some(next) = (self.now >> shift(level)).checked_add(1) else { continue };
            let start = next << shift(level);
            for _ in 0..budget {
                let Some(index) = self.list(level, start).first() else { break };
                self.unlink(index);
                self.link(level - 1, index);
            }
        }
    }

    /// The list of the slot of `level` that `tick` lies in.
    fn list(&self, level: usize, tick: u64) -> List {
        match self.levels.get(level) {
            Some(ring) => ring.slot(slot_of(level, tick)),
            None => self.overflow.get(&(tick >> shift(LEVELS))).copied().unwrap_or(List::EMPTY),
        }
    }

    fn link(&mut self, level: usize, index: u32) {
        // A deadline already past waits where the wheel looks next.
        let deadline = self.slab.deadline(index).max(self.now);
        let mut list = self.list(level, deadline);
        let place = if level == LEVELS { OVERFLOW } else { (level << 7 | slot_of(level, deadline)) as u16 };
        self.slab.push_back(&mut list, index, place);
        self.put(place, deadline, list);
    }

    fn unlink(&mut self, index: u32) {
        let place = self.slab.place(index);
        let deadline = self.slab.deadline(index);
        let mut list = match place {
            OVERFLOW => self.list(LEVELS, deadline),
            place => self.levels[usize::from(place >> 7)].slot(usize::from(place & 127)),
        };
        self.slab.unlink(&mut list, index);
        self.put(place, deadline, list);
    }

    fn put(&mut self, place: u16, deadline: u64, list: List) {
        if place != OVERFLOW {
            self.levels[usize::from(place >> 7)].put(usize::from(place & 127), list);
        } else if list.is_empty() {
            self.overflow.remove(&(deadline >> shift(LEVELS)));
        } else {
            self.overflow.insert(deadline >> shift(LEVELS), list);
        }
    }
}

/// Ticks are milliseconds counted from the earliest instant, so that they have no sign and keep their order.
fn to_tick(instant: Timestamp) -> u64 {
    instant.as_millis().cast_unsigned() ^ 1 << 63
}

fn from_tick(tick: u64) -> Timestamp {
    Timestamp::from_millis((tick ^ 1 << 63).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_empty_by_the_time_it_begins() {
        // The second slot of level 3: half of its timers share a slot of level 2, which must be emptied in turn.
        let slot_begins = 1 << shift(3);
        let mut wheel = Wheel::new(from_tick(0));
        for n in 0..100_000 {
            let deadline = slot_begins + if n % 2 == 0 { n } else { 5000 };
            wheel.insert(from_tick(deadline), n);
        }
        let mut out = Vec::new();
        for tick in (0..slot_begins).step_by(10) {
            wheel.advance(from_tick(tick), &mut out);
        }
        assert!(wheel.list(3, slot_begins).is_empty());
        assert!(wheel.list(2, slot_begins).is_empty());
        assert!(!wheel.list(2, slot_begins + 5000).is_empty());
        assert!(out.is_empty());
        wheel.advance(from_tick(slot_begins + 100_000), &mut out);
        assert_eq!((out.len(), wheel.is_empty()), (100_000, true));
    }

    #[test]
    fn ticks_keep_the_order_of_instants() {
        let instants = [i64::MIN, -1, 0, 1, i64::MAX].map(Timestamp::from_millis);
        assert!(instants.map(to_tick).is_sorted());
        assert_eq!(instants.map(to_tick).map(from_tick), instants);
    }
}
