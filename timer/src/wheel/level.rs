//! One level of the wheel: a ring of slots and a bitmap of those that hold something.
//!
//! Duties: say which level and slot a deadline belongs to, and which occupied slot comes next. It moves no timers.

use super::slab::List;

/// Bits of a deadline that one level tells apart.
const SLOT_BITS: u32 = 6;
/// Levels; a deadline that differs from the wheel's time above their bits overflows.
pub(super) const LEVELS: usize = 6;
/// Slots of a ring: the window of 64 the wheel is in, and the one after it, which is filled ahead of time.
const RING: usize = 2 << SLOT_BITS;

pub(super) struct Level {
    /// Bit `i` is set when slot `i` is not empty.
    occupied: u128,
    slots: [List; RING],
}

impl Level {
    pub fn new() -> Self {
        Self { occupied: 0, slots: [List::EMPTY; RING] }
    }

    pub fn slot(&self, slot: usize) -> List {
        self.slots[slot]
    }

    pub fn put(&mut self, slot: usize, list: List) {
        self.slots[slot] = list;
        if list.is_empty() {
            self.occupied &= !(1 << slot);
        } else {
            self.occupied |= 1 << slot;
        }
    }

    /// The start of the first occupied slot at or after `now`, in ticks. All slots behind `now` are empty, so the ring
    /// read from there is in order.
    pub fn next_start(&self, level: usize, now: u64) -> Option<u64> {
        if self.occupied == 0 {
            return None;
        }
        let current = now >> shift(level);
        let ahead = self.occupied.rotate_right((current % RING as u64) as u32).trailing_zeros();
        Some((current + u64::from(ahead)) << shift(level))
    }
}

/// The level at which `deadline` and `now` first differ, read from the top; [`LEVELS`] when it overflows. All levels
/// above agree, so the timer has nothing to wait for there.
pub(super) fn level_for(now: u64, deadline: u64) -> usize {
    let lowest_level = (1 << SLOT_BITS) - 1;
    let highest_bit = (now ^ deadline | lowest_level).ilog2();
    ((highest_bit / SLOT_BITS) as usize).min(LEVELS)
}

/// The ring slot of `deadline` at `level`.
pub(super) fn slot_of(level: usize, deadline: u64) -> usize {
    ((deadline >> shift(level)) % RING as u64) as usize
}

/// How many bits of a tick count lie below `level`. `shift(LEVELS)` is the width of all levels together.
pub(super) fn shift(level: usize) -> u32 {
    SLOT_BITS * level as u32
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn a_deadline_waits_at_the_level_where_it_differs() {
        for (now, deadline, level) in [
            (0, 0, 0),
            (0, 63, 0),
            (63, 64, 1),
            (64, 127, 0),
            (0, 4095, 1),
            (4095, 4096, 2),
            (0, (1 << 36) - 1, 5),
            ((1 << 36) - 1, 1 << 36, LEVELS),
            (0, u64::MAX, LEVELS),
        ] {
            assert_eq!(level_for(now, deadline), level, "{now} {deadline}");
        }
    }

    #[test]
    fn the_next_slot_may_lie_in_the_next_window() {
        let mut level = Level::new();
        let mut slab = Slab::new();
        slab.insert(130 << 6, ());
        let mut list = List::EMPTY;
        slab.push_back(&mut list, 0, 0);
        level.put(slot_of(1, 130 << 6), list);
        assert_eq!(level.next_start(1, 100 << 6), Some(130 << 6));
        level.put(slot_of(1, 101 << 6), list);
        assert_eq!(level.next_start(1, 100 << 6), Some(101 << 6));
        level.put(slot_of(1, 101 << 6), List::EMPTY);
        level.put(slot_of(1, 130 << 6), List::EMPTY);
        assert_eq!(level.next_start(1, 100 << 6), None);
    }
}
