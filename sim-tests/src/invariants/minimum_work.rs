//! Whether the checkers had something to look at. A checker that looks at nothing holds for ever, and an instrument that
//! is blind looks like a product without faults.
//!
//! Demanded of histories with a closing round, which leaves every checker something whatever the faults did before; the
//! figures are a good part of what the round gives, and nothing of what comes before it. Checkers that are not named
//! here look at what only some faults bring about: those a sweep as a whole must have kept busy.

use campanile_model::sim::Bound;

use super::index::Facts;
use crate::verdict::{Finding, Violation};

pub const NAME: &str = "minimum_work";

/// What each has to have looked at, at least.
const LEAST: &[(&str, u64)] = &[
    ("unique_fire", 600),
    ("decided_once", 140),
    ("never_early", 300),
    ("bounded_lateness", 60),
    ("finality", 130),
    ("durability", 35),
    ("remaining_fires", 6),
    ("run_states", 500),
    ("overlap", 140),
    ("delivery_complete", 250),
    ("bounded_retries", 420),
    ("run_ends", 470),
    ("reasons", 150),
    ("nothing_after_the_end", 120),
    ("backoff_exact", 2),
    ("connections", 120),
    ("delivery_content", 880),
    ("task_ends", 260),
    ("retention_kept", 80),
    ("fence_monotonic", 300),
    ("attempt_exclusive", 250),
    ("no_stale_send", 120),
    ("no_deposed_fire", 350),
    ("replica_determinism", 140),
    ("election_safety", 60),
    ("log_matching", 400),
    ("monotonic", 600),
    ("raft_order", 60),
    ("bounds", 2),
    ("housekeeping", 40),
    ("catch_up", 60),
    ("liveness", 2),
    ("majority_serves", 1),
    ("serves_in_calm", 25),
    ("no_crash", 2),
    ("reads", 18),
    ("refusals", 2),
    ("operators", 1),
    ("no_lost_fire", 75),
    ("linearizable", 15),
    ("dedup", 2),
    ("ledger_balance", 70),
    ("chronos", 120),
];

/// Checkers that cannot tell right from wrong in a world in which a bound is small.
const UNLESS_SMALL: &[(&str, Bound)] = &[("overlap", Bound::TrackedRuns), ("retention_kept", Bound::LedgerLines)];

/// Judges the findings of all the others.
pub fn check(facts: &Facts, findings: &[(&'static str, Finding)]) -> Finding {
    if facts.closing.is_none() {
        return Finding::NotApplicable { needs: "a closing round" };
    }
    let end = facts.history.end();
    let is_small = |bound: &Bound| facts.history.header.bounds.contains_key(bound.name());
    let is_excused = |name: &str| UNLESS_SMALL.iter().any(|(of, bound)| *of == name && is_small(bound));
    let mut violations = Vec::new();
    for (name, least) in LEAST.iter().filter(|(name, _)| !is_excused(name)) {
        let looked = match findings.iter().find(|(of, _)| of == name) {
            // It saw enough to find something.
            Some((_, Finding::Violated(_))) => continue,
            Some((_, Finding::Held { checked })) => *checked,
            Some((_, Finding::NotApplicable { .. })) | None => 0,
        };
        if looked < *least {
            let what = format!("{name} looked at {looked} things where there are {least} at least");
            violations.push(Violation { invariant: NAME.into(), t: end, what });
        }
    }
    if violations.is_empty() { Finding::Held { checked: LEAST.len() as u64 } } else { Finding::Violated(violations) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Event;
    use crate::invariants::{ALL, ORACLES};

    /// Checkers of what a closing round does not bring about.
    const OF_FAULTS: [&str; 4] = ["fence_after_lease", "leader_lease", "snapshot_equivalence", "leader_completeness"];

    fn all_looked_at(things: impl Fn(&str) -> Option<u64>) -> Vec<(&'static str, Finding)> {
        let finding = |checked| match checked {
            Some(checked) => Finding::Held { checked },
            None => Finding::NotApplicable { needs: "eyes" },
        };
        LEAST.iter().map(|(name, _)| (*name, finding(things(name)))).collect()
    }

    #[test]
    fn every_checker_has_work_or_waits_for_a_fault() {
        for name in ALL.iter().map(|(name, _)| name).chain(ORACLES.iter().map(|(name, _)| name)) {
            let is_named = LEAST.iter().any(|(of, _)| of == name);
            assert!(is_named != OF_FAULTS.contains(name), "{name}");
        }
    }

    #[test]
    fn a_checker_that_sees_nothing_is_a_violation() {
        let history = Script::new().event(Event::Closing).done();
        let check = |findings: &[_]| super::check(&Facts::new(&history), findings);
        let blind = |finding: &Finding| matches!(finding, Finding::Violated(of) if of.len() == 1);
        let busy = all_looked_at(|_| Some(1_000_000));
        assert!(matches!(check(&busy), Finding::Held { .. }));
        assert!(blind(&check(&all_looked_at(|name| (name != "dedup").then_some(1_000_000)))));
        assert!(blind(&check(&all_looked_at(|name| Some(if name == "dedup" { 1 } else { 1_000_000 })))));
        assert!(blind(&check(&busy[1..])), "one is not there");
        // What has found something has seen enough.
        let mut found = busy;
        found[0].1 = Finding::Violated(Vec::new());
        assert!(matches!(check(&found), Finding::Held { .. }));
        let open = Script::new().done();
        assert!(matches!(super::check(&Facts::new(&open), &[]), Finding::NotApplicable { .. }));
    }

    #[test]
    fn what_a_small_world_hides_is_not_demanded() {
        let blind = all_looked_at(|name| Some(if name == "overlap" { 0 } else { 1_000_000 }));
        let small = Script::new().small(Bound::TrackedRuns, 2).event(Event::Closing).done();
        assert!(matches!(super::check(&Facts::new(&small), &blind), Finding::Held { .. }));
        let other = Script::new().small(Bound::LedgerLines, 2).event(Event::Closing).done();
        assert!(matches!(super::check(&Facts::new(&other), &blind), Finding::Violated(_)));
    }
}
