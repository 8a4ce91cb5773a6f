//! Invariant 10. A snapshot and the rest of the log are as good as the whole log: a node that has taken one in goes on
//! exactly after it, and writes and is what those nodes are that never needed it.
//!
//! A node has taken one in when its Raft state names a snapshot beyond all it has applied itself.

use std::collections::BTreeMap;

use campanile_model::NodeId;

use super::index::{At, Facts, Shown};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("snapshot_equivalence");
    let installs: Vec<Install> =
        facts.replicas.iter().filter_map(|(node, shown)| first_install(*node, shown)).collect();
    // What nodes without a snapshot of another wrote and were, and those with one before they had it.
    let (mut hashes, mut digests) = (BTreeMap::new(), BTreeMap::new());
    for (node, shown) in &facts.replicas {
        let own = installs.iter().find(|install| install.node == *node).map_or(shown.len(), |install| install.place);
        for seen in &shown[..own] {
            match seen.it {
                Shown::Apply { index, hash } => {
                    hashes.entry(index).or_insert(hash);
                }
                Shown::Digest { index, digest } => {
                    digests.entry(index).or_insert(digest);
                }
                Shown::Life | Shown::Raft(_) => {}
            }
        }
    }
    for Install { node, place, snapshot } in installs {
        report.looked();
        let mut same_life = true;
        for seen in &facts.replicas[&node][place..] {
            match seen.it {
                Shown::Life => same_life = false,
                Shown::Apply { index, hash } => {
                    report.hold(!same_life || index > snapshot, seen.t, || {
                        format!("node {node} took in a snapshot of entry {snapshot} and then applied entry {index}")
                    });
                    report.hold(hashes.get(&index).is_none_or(|whole| *whole == hash), seen.t, || {
                        format!(
                            "node {node}, with the snapshot of entry {snapshot}, wrote other rows for entry {index}"
                        )
                    });
                }
                Shown::Digest { index, digest } => {
                    report.hold(digests.get(&index).is_none_or(|whole| *whole == digest), seen.t, || {
                        format!(
                            "node {node}, with the snapshot of entry {snapshot}, has another state at entry {index}"
                        )
                    });
                }
                Shown::Raft(_) => {}
            }
        }
    }
    report.finish_if_any("a node that took in a snapshot")
}

struct Install {
    node: NodeId,
    /// Among what the node showed.
    place: usize,
    snapshot: u64,
}

fn first_install(node: NodeId, shown: &[At<Shown>]) -> Option<Install> {
    let mut applied = 0;
    for (place, seen) in shown.iter().enumerate() {
        match seen.it {
            Shown::Apply { index, .. } => applied = applied.max(index),
            // Blank entries are applied without a trace; a node that has applied nothing yet may just have started.
            Shown::Raft(state) if state.snapshot > applied + BLANK => {
                return Some(Install { node, place, snapshot: state.snapshot });
            }
            _ => {}
        }
    }
    None
}

/// Entries without content that may stand before a snapshot a node made of its own state.
const BLANK: u64 = 4;

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "snapshot_equivalence";

    fn installed() -> Script {
        (5..=30).fold(Script::new().apply(2, 5, 5), |script, index| script.apply(1, index, index)).snapshot(2, 20)
    }

    #[test]
    fn a_node_with_a_snapshot_is_like_the_others() {
        accepts(NAME, installed().apply(2, 21, 21).digest(1, 30, "a").digest(2, 30, "a"));
        refuses(NAME, installed().digest(1, 30, "a").digest(2, 30, "b"));
        refuses(NAME, installed().apply(2, 21, 22));
    }

    #[test]
    fn it_goes_on_after_the_snapshot() {
        refuses(NAME, installed().apply(2, 20, 20));
        // After a restart it may replay from whatever was flushed.
        accepts(NAME, installed().killed(2).started(2).apply(2, 20, 20));
    }

    #[test]
    fn nothing_is_said_without_a_snapshot() {
        not_applicable(NAME, Script::new().apply(1, 5, 5).digest(1, 5, "a"));
    }
}
