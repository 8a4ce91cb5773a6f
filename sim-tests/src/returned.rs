//! Bugs for which too much has to meet before a seed of the default scenario shows them: each has a scenario of its own
//! that brings it about. They were ours once, most of them, and are to be found again in seconds whatever the default
//! scenario draws; so what they need is written out, not left to seeds. Without the bug each of them holds.

/// A bug and what shows it.
pub struct Returned {
    pub bug: &'static str,
    /// The scenario's text.
    pub text: &'static str,
    /// Seeds of it, from 1 on, one of which must show the bug.
    pub seeds: u64,
}

macro_rules! returned {
    ($($bug:literal: $seeds:literal,)*) => {
        &[$(Returned {
            bug: $bug,
            text: include_str!(concat!("../scenarios/returned/", $bug, ".toml")),
            seeds: $seeds,
        },)*]
    };
}

/// Each under the name of its bug, which is the name of its file.
pub const ALL: &[Returned] = returned! {
    "cancelled_is_refused": 10,
    "change_left_half_made": 10,
    "clock_not_compared": 10,
    "dead_peer_without_pause": 10,
    "decided_by_doubted_clock": 10,
    "decision_outlives_reign": 10,
    "decision_repeated": 10,
    "decision_waits_for_ever": 10,
    "drain_ignores_failure": 10,
    "drain_not_told": 10,
    "found_state_not_synced": 10,
    "late_beat_counts": 10,
    "leader_before_lost_again": 10,
    "leader_restored": 10,
    "lease_before_fence": 10,
    "lost_node_given_shards": 10,
    "new_clock_trusted": 10,
    "old_measurement_told": 10,
    "range_takes_runs": 10,
    "removed_leader_delivers": 10,
    "reported_made_again": 10,
    "refusal_shared": 10,
    "second_pass_lost": 10,
    "settles_beyond_remaining": 10,
    "timer_forgotten_by_clock": 10,
    "unheard_clock_trusted": 10,
    "unheard_leader_stays": 10,
    "votes_for_the_unreachable": 10,
};

pub fn scenario_of(bug: &str) -> Option<&'static Returned> {
    ALL.iter().find(|returned| returned.bug == bug)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::scenario;

    #[test]
    fn every_scenario_is_listed_once_and_can_be_read() {
        let listed: Vec<&str> = ALL.iter().map(|returned| returned.bug).collect();
        let files: BTreeSet<String> = std::fs::read_dir("scenarios/returned")
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(listed.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), files);
        assert_eq!(listed.len(), files.len());
        for returned in ALL {
            let read = scenario::read_str(returned.text, Path::new(returned.bug));
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", returned.bug));
            assert_eq!(read.name, returned.bug);
            assert!(read.swarm.is_none(), "{}: what it needs is written out", returned.bug);
            #[cfg(madsim)]
            assert!(campanile_model::sim::Bug::by_name(returned.bug).is_some(), "{}", returned.bug);
        }
    }
}
