//! Which checkers are meant to catch each bug. What else fires is welcome and proves nothing: a bug that only breaks
//! something far away has escaped the checker that was written for it.

/// Bugs, and the checkers of which one at least must fail.
const MEANT: &[(&str, &[&str])] = &[
    ("skip_compare_and_set", &["decided_once", "replica_determinism", "finality", "no_lost_fire", "ledger_balance"]),
    ("early_fire", &["never_early"]),
    ("paused_fires", &["finality"]),
    ("old_version_fires", &["finality", "no_lost_fire", "ledger_balance"]),
    ("remaining_not_counted", &["remaining_fires"]),
    ("ledger_line_missing", &["no_lost_fire", "ledger_balance"]),
    ("fire_not_counted", &["ledger_balance"]),
    ("stale_token_accepted", &["bounded_retries", "attempt_exclusive"]),
    ("forget_the_fence", &["no_deposed_fire"]),
    ("retry_too_early", &["bounded_retries"]),
    ("reuse_run_id", &["unique_fire"]),
    ("attempt_number_skipped", &["bounded_retries"]),
    ("finished_run_stays_live", &["run_states", "delivery_complete", "liveness"]),
    ("shard_owner_without_epoch", &["fence_monotonic"]),
    ("idempotency_forgotten", &["dedup"]),
    ("delete_keeps_firing", &["finality"]),
    ("pause_not_stored", &["finality", "linearizable"]),
    ("ack_before_fsync", &["durability", "log_matching"]),
    ("leader_restored", &["log_matching", "replica_determinism"]),
    (
        "vote_always_granted",
        &["election_safety", "leader_completeness", "log_matching", "monotonic", "replica_determinism"],
    ),
    ("entry_skipped", &["replica_determinism"]),
    ("read_without_quorum", &["linearizable"]),
    ("delivers_without_lease", &["no_stale_send"]),
    ("clock_not_compared", &["never_early"]),
    ("gap_not_told", &["delivery_complete"]),
    ("proposal_taken_twice", &["dedup", "linearizable"]),
    ("unknown_is_retried", &["linearizable", "dedup", "no_lost_fire", "ledger_balance"]),
    ("retry_forgotten", &["delivery_complete"]),
    ("orphans_forgotten", &["delivery_complete"]),
    ("effect_dropped", &["bounded_lateness", "no_lost_fire"]),
    ("window_edge_lost", &["bounded_lateness", "no_lost_fire"]),
    ("window_ignored", &["catch_up"]),
    ("skips_what_is_due", &["no_lost_fire"]),
    ("at_most_once_repeated", &["bounded_retries"]),
    ("attempts_unbounded", &["bounded_retries"]),
    ("backoff_ignored", &["bounded_retries"]),
    ("outcome_dropped", &["delivery_complete"]),
    ("sent_twice", &["unique_fire"]),
    ("occurrence_skipped", &["no_lost_fire", "ledger_balance"]),
    ("dst_twice", &["ledger_balance", "chronos"]),
    ("final_is_retried", &["run_ends"]),
    ("body_must_end", &["run_ends"]),
    ("timeout_tripled", &["run_ends"]),
    ("sent_after_end", &["nothing_after_the_end"]),
    ("jitter_forgotten", &["backoff_exact"]),
    ("retry_without_body", &["delivery_content"]),
    ("trigger_uses_remaining", &["task_ends"]),
    ("held_back_forgotten", &["no_lost_fire", "ledger_balance"]),
    ("trims_the_young", &["retention_kept"]),
    ("range_takes_runs", &["retention_kept"]),
    ("guard_inverted", &["refusals", "minimum_work"]),
    ("match_refused", &["refusals"]),
    ("negative_priority_refused", &["refusals"]),
    ("page_skips_one", &["reads"]),
    ("filter_passes", &["reads"]),
    ("list_is_stale", &["reads"]),
    ("preview_without_jitter", &["reads"]),
    ("removal_not_made", &["operators"]),
    ("change_left_half_made", &["operators"]),
    ("removed_leader_delivers", &["leader_lease", "fence_after_lease", "no_stale_send"]),
    ("pause_on_failure_ignored", &["task_ends"]),
    ("gone_not_pausing", &["task_ends"]),
    ("deadline_ignored", &["run_ends"]),
    ("signature_wrong", &["delivery_content"]),
    ("retry_after_ignored", &["backoff_exact"]),
    ("cancelled_is_refused", &["overlap", "run_states", "linearizable", "durability"]),
    ("resigned_goes_on", &["leader_lease", "no_stale_send"]),
    ("skip_fires_anyway", &["overlap"]),
    ("buffer_reversed", &["overlap"]),
    ("buffer_one_keeps_both", &["overlap"]),
    ("cancel_other_leaves_one", &["overlap"]),
    ("waiting_survives_delete", &["overlap"]),
    ("waiting_not_started", &["overlap", "delivery_complete"]),
    ("margin_added", &["no_stale_send"]),
    ("fenced_under_lease", &["fence_after_lease"]),
    ("lone_leader_unconfirmed", &["liveness", "delivery_complete"]),
    ("unheard_leader_stays", &["majority_serves"]),
    ("votes_for_the_unreachable", &["majority_serves"]),
    ("keys_stay", &["housekeeping"]),
    ("timers_stay", &["housekeeping"]),
    ("deleted_stays", &["housekeeping"]),
    ("timers_late", &["bounded_lateness"]),
    ("calls_not_forwarded", &["serves_in_calm"]),
    ("found_state_not_synced", &["durability", "liveness"]),
    ("dead_peer_without_pause", &["endless"]),
    ("decision_repeated", &["catch_up"]),
    ("decision_waits_for_ever", &["catch_up"]),
    ("new_clock_trusted", &["never_early"]),
    ("unheard_clock_trusted", &["never_early"]),
    ("old_measurement_told", &["never_early"]),
    ("decision_outlives_reign", &["catch_up"]),
    ("leader_before_lost_again", &["fence_after_lease", "no_stale_send", "bounded_retries", "delivery_complete"]),
    ("timer_forgotten_by_clock", &["no_lost_fire", "chronos", "bounded_lateness"]),
    ("decided_by_doubted_clock", &["no_lost_fire"]),
    ("settles_beyond_remaining", &["no_lost_fire", "ledger_balance"]),
    ("lost_node_given_shards", &["delivery_complete"]),
    ("lease_before_fence", &["fence_after_lease", "no_stale_send"]),
    ("drain_not_told", &["chronos", "delivery_complete", "run_ends"]),
    ("reported_made_again", &["unique_fire"]),
    ("late_beat_counts", &["never_early"]),
    ("drain_ignores_failure", &["bounded_lateness"]),
    ("refusal_shared", &["refusals"]),
    ("places_not_counted", &["bounds", "connections"]),
    ("reason_not_told", &["reasons"]),
    ("second_pass_lost", &["no_lost_fire", "ledger_balance", "chronos"]),
];

/// Whether what was broken includes a checker that is meant for the bug. Of a bug that only another build knows, any.
pub fn catches(bug: &str, broken: &[String]) -> bool {
    match MEANT.iter().find(|(name, _)| *name == bug) {
        Some((_, meant)) => broken.iter().any(|name| meant.contains(&name.as_str())),
        None => !broken.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::invariants::{ALL, MINIMUM_WORK, ORACLES};

    /// How a process ends that has not judged anything, for bugs that show in that alone.
    const ENDS: &[&str] = &["crash", "endless"];

    /// Checkers that no bug is meant for, and why.
    const NOBODYS: &[(&str, &str)] = &[
        ("no_crash", "a panic or a signal is not a line of ours that could be taken out"),
        ("raft_order", "the order of a node's indexes is openraft's, which has no sabotages"),
        ("snapshot_equivalence", "no sabotage leaves anything out of a snapshot"),
    ];

    fn checkers() -> BTreeSet<&'static str> {
        let names = ALL.iter().map(|(name, _)| *name).chain(ORACLES.iter().map(|(name, _)| *name));
        names.chain([MINIMUM_WORK]).collect()
    }

    #[test]
    fn every_bug_is_meant_for_a_checker_there_is() {
        let bugs: BTreeSet<&str> = MEANT.iter().map(|(bug, _)| *bug).collect();
        assert_eq!(bugs.len(), MEANT.len(), "a bug is listed twice");
        #[cfg(madsim)]
        assert_eq!(bugs, campanile_model::sim::Bug::ALL.iter().map(|bug| bug.name()).collect());
        let checkers = checkers();
        for (bug, meant) in MEANT {
            assert!(!meant.is_empty(), "{bug}");
            for name in *meant {
                assert!(checkers.contains(name) || ENDS.contains(name), "{bug}: there is no checker {name}");
            }
        }
    }

    #[test]
    fn every_checker_has_a_bug_that_it_is_meant_to_catch() {
        let meant: BTreeSet<&str> = MEANT.iter().flat_map(|(_, meant)| meant.iter().copied()).collect();
        let excepted: BTreeSet<&str> = NOBODYS.iter().map(|(name, _)| *name).collect();
        for name in checkers() {
            assert!(
                meant.contains(name) != excepted.contains(name),
                "{name}: no bug shows that it can fail, or an idle exception"
            );
        }
    }

    #[test]
    fn only_what_is_meant_catches() {
        let broken = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(catches("early_fire", &broken(&["chronos", "never_early"])));
        assert!(!catches("early_fire", &broken(&["chronos"])) && !catches("early_fire", &[]));
        assert!(catches("of another build", &broken(&["chronos"])) && !catches("of another build", &[]));
    }
}
