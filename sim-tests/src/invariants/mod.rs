//! What must hold of every history. A checker is a function from a history to what it found; it has no state, no clock
//! and no randomness, so that the same history always gets the same verdict.

pub mod chronos;
mod coverage;
pub mod dedup;
mod operations;

pub mod ledger_balance;
pub mod linearizable;
pub mod no_lost_fire;
mod story;
#[cfg(test)]
mod testing;

use crate::history::History;
use crate::verdict::{Finding, Violation};

/// A checker and the name that reports call it by.
pub type Checker = (&'static str, fn(&History) -> Finding);

pub const ALL: [Checker; 5] = [
    (no_lost_fire::NAME, no_lost_fire::check),
    (linearizable::NAME, linearizable::check),
    (dedup::NAME, dedup::check),
    (ledger_balance::NAME, ledger_balance::check),
    (chronos::NAME, chronos::check),
];

fn violation(invariant: &str, t: u64, what: impl Into<String>) -> Violation {
    Violation { invariant: invariant.into(), t, what: what.into() }
}

fn finding(checked: u64, violations: Vec<Violation>) -> Finding {
    if violations.is_empty() { Finding::Held { checked } } else { Finding::Violated(violations) }
}

#[cfg(test)]
mod tests {
    use super::testing::minutely;
    use super::*;

    #[test]
    fn long_histories_are_judged_quickly_and_hold() {
        let history = minutely(|script| script.minutes = 40_000);
        assert!(history.events.len() > 200_000);
        let begun = std::time::Instant::now();
        for (name, check) in ALL {
            let found = check(&history);
            assert!(!matches!(found, Finding::Violated(_)), "{name}");
        }
        assert!(begun.elapsed().as_secs() < 20, "took {:?}", begun.elapsed());
    }
}
