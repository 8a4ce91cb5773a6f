//! Sees to it that a forwarded proposal takes effect once, even if the network delivers it twice.
//!
//! Every forwarded proposal names the term of the leader it is meant for, and carries a number from its sender's life.
//! A leader takes each number once in its term. What arrives late finds another term, and a leader that was restarted
//! leads a new one; so nothing has to be remembered beyond a term, and of each sender only the latest numbers.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::{bound, filled};

/// Numbers remembered of each sender. What is older than the oldest of them counts as taken.
const REMEMBERED: usize = 16_384;

/// The numbers taken in a term.
#[derive(Debug, Default)]
pub struct Once {
    term: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Everything up to here counts as taken.
    floor: u64,
    above: BTreeSet<u64>,
}

impl Once {
    /// Whether number `sequence` of the sender whose life is `origin`, meant for the leader of `term`, arrives for the
    /// first time. Ask whatever will be answered: a proposal that is refused must not be taken when it arrives again.
    pub fn takes(&mut self, term: u64, origin: u64, sequence: u64) -> bool {
        if term < self.term {
            return false;
        }
        if term > self.term {
            *self = Self { term, taken: BTreeMap::new() };
        }
        let taken = self.taken.entry(origin).or_default();
        if sequence <= taken.floor || !taken.above.insert(sequence) {
            return false;
        }
        if taken.above.len() > bound!(ForwardedRemembered, REMEMBERED)
            && let Some(oldest) = taken.above.pop_first()
        {
            taken.floor = oldest;
        }
        filled!("forwarded proposals remembered", taken.above.len(), bound!(ForwardedRemembered, REMEMBERED));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_once_in_a_term() {
        let mut once = Once::default();
        assert!(once.takes(3, 7, 1) && once.takes(3, 7, 2) && once.takes(3, 8, 1), "senders count for themselves");
        assert!(!once.takes(3, 7, 1) && !once.takes(3, 8, 1));
        assert!(once.takes(4, 7, 1) && !once.takes(4, 7, 1));
        assert!(!once.takes(3, 7, 9), "what was meant for an earlier term comes too late");
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_refused() {
        let mut once = Once::default();
        let most = REMEMBERED as u64;
        assert!((1..=2 * most).all(|sequence| once.takes(1, 7, sequence)));
        assert_eq!(once.taken[&7].above.len(), REMEMBERED);
        assert!((1..=2 * most).all(|sequence| !once.takes(1, 7, sequence)));
    }
}
