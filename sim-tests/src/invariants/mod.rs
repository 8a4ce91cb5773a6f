//! What must hold in every history, whatever was done to the cluster: one file per invariant, named as in reports.
//!
//! A checker judges; it never calls or copies the product. It reads a history once, through [`Facts`], in time
//! proportional to it (a logarithm aside). Where the source of a history lacks what a checker needs it says so
//! ([`Finding::NotApplicable`]) instead of passing.

mod attempt_exclusive;
mod backoff_exact;
mod bounded_lateness;
mod bounded_retries;
mod bounds;
mod catch_up;
mod chronos;
mod connections;
mod coverage;
mod decided_once;
mod dedup;
mod delivery_complete;
mod delivery_content;
mod durability;
mod election_safety;
mod fence_after_lease;
mod fence_monotonic;
mod finality;
mod housekeeping;
mod index;
mod leader_completeness;
mod leader_lease;
mod leases;
mod ledger_balance;
mod linearizable;
mod liveness;
mod log_matching;
mod majority_serves;
mod minimum_work;
#[cfg(test)]
mod minutes;
mod monotonic;
mod never_early;
mod no_crash;
mod no_deposed_fire;
mod no_lost_fire;
mod no_stale_send;
mod nothing_after_the_end;
mod operations;
mod operators;
mod overlap;
mod raft_order;
mod reads;
mod reasons;
mod refusals;
mod remaining_fires;
mod replica_determinism;
mod report;
mod retention_kept;
mod run_ends;
mod run_states;
mod serves_in_calm;
mod snapshot_equivalence;
mod spans;
mod story;
mod tables;
mod task_ends;
#[cfg(test)]
mod testing;
mod transit;
mod unique_fire;

use crate::history::History;
use crate::verdict::{Finding, Verdict, Violation};
pub use index::Facts;
pub use minimum_work::NAME as MINIMUM_WORK;

/// A checker.
pub type Check = fn(&Facts) -> Finding;

/// A checker with indexes of its own.
pub type Oracle = fn(&History) -> Finding;

/// Every invariant by the name it has in reports, which is that of its file.
pub const ALL: &[(&str, Check)] = &[
    ("unique_fire", unique_fire::check),
    ("decided_once", decided_once::check),
    ("never_early", never_early::check),
    ("bounded_lateness", bounded_lateness::check),
    ("finality", finality::check),
    ("durability", durability::check),
    ("reads", reads::check),
    ("refusals", refusals::check),
    ("remaining_fires", remaining_fires::check),
    ("run_states", run_states::check),
    ("overlap", overlap::check),
    ("delivery_complete", delivery_complete::check),
    ("bounded_retries", bounded_retries::check),
    ("run_ends", run_ends::check),
    ("reasons", reasons::check),
    ("nothing_after_the_end", nothing_after_the_end::check),
    ("backoff_exact", backoff_exact::check),
    ("connections", connections::check),
    ("delivery_content", delivery_content::check),
    ("task_ends", task_ends::check),
    ("retention_kept", retention_kept::check),
    ("fence_monotonic", fence_monotonic::check),
    ("attempt_exclusive", attempt_exclusive::check),
    ("no_stale_send", no_stale_send::check),
    ("fence_after_lease", fence_after_lease::check),
    ("leader_lease", leader_lease::check),
    ("no_deposed_fire", no_deposed_fire::check),
    ("replica_determinism", replica_determinism::check),
    ("snapshot_equivalence", snapshot_equivalence::check),
    ("election_safety", election_safety::check),
    ("leader_completeness", leader_completeness::check),
    ("log_matching", log_matching::check),
    ("monotonic", monotonic::check),
    ("raft_order", raft_order::check),
    ("bounds", bounds::check),
    ("housekeeping", housekeeping::check),
    ("catch_up", catch_up::check),
    ("liveness", liveness::check),
    ("majority_serves", majority_serves::check),
    ("serves_in_calm", serves_in_calm::check),
    ("operators", operators::check),
    ("no_crash", no_crash::check),
];

/// Those that follow each task or client through the whole history, and have indexes of their own.
pub const ORACLES: &[(&str, Oracle)] = &[
    (no_lost_fire::NAME, no_lost_fire::check),
    (linearizable::NAME, linearizable::check),
    (dedup::NAME, dedup::check),
    (ledger_balance::NAME, ledger_balance::check),
    (chronos::NAME, chronos::check),
];

/// Judges a history by all of them.
pub fn check(history: &History) -> Verdict {
    let facts = Facts::new(history);
    let by_facts = ALL.iter().map(|(name, check)| (*name, check(&facts)));
    let by_story = ORACLES.iter().map(|(name, check)| (*name, check(history)));
    let mut findings: Vec<(&'static str, Finding)> = by_facts.chain(by_story).collect();
    let work = minimum_work::check(&facts, &findings);
    findings.push((minimum_work::NAME, work));
    Verdict { findings }
}

fn violation(invariant: &str, t: u64, what: impl Into<String>) -> Violation {
    Violation { invariant: invariant.into(), t, what: what.into() }
}

fn finding(checked: u64, violations: Vec<Violation>) -> Finding {
    if violations.is_empty() { Finding::Held { checked } } else { Finding::Violated(violations) }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    /// The script's tasks have no schedule to speak of, so the oracles are not asked; see [`super::minutes`].
    fn by_facts(history: &History) -> Vec<(&'static str, Finding)> {
        let facts = Facts::new(history);
        ALL.iter().map(|(name, check)| (*name, check(&facts))).collect()
    }

    #[test]
    fn a_good_history_holds_in_every_respect() {
        for (name, finding) in by_facts(&calm()) {
            assert!(matches!(finding, Finding::Held { checked } if checked > 0), "{name}: {finding:?}");
        }
    }

    #[test]
    fn an_empty_history_violates_nothing() {
        assert!(check(&Script::new().done()).holds());
    }

    /// 200,000 events are judged in a few seconds even without optimisation, so nothing is quadratic.
    #[test]
    fn a_long_history_is_judged_quickly() {
        let history = long(22_000);
        assert!(history.events.len() > 190_000, "{}", history.events.len());
        for (name, finding) in by_facts(&history) {
            assert!(!matches!(finding, Finding::Violated(_)), "{name}: {finding:?}");
        }
        let history = minutes::minutely(|script| script.minutes = 40_000);
        assert!(history.events.len() > 200_000);
        for (name, check) in ORACLES {
            assert!(!matches!(check(&history), Finding::Violated(_)), "{name}");
        }
    }
}
