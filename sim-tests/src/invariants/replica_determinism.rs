//! Invariant 9. Same prefix, same state: whatever nodes wrote for an entry is equal, also when one writes it again
//! after a restart, and whole states at one index are equal.

use std::collections::BTreeMap;

use super::index::{Facts, Shown};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("replica_determinism");
    let (mut hashes, mut digests) = (BTreeMap::new(), BTreeMap::new());
    for (node, shown) in &facts.replicas {
        for seen in shown {
            match seen.it {
                Shown::Apply { index, hash } => {
                    let (other, first) = *hashes.entry(index).or_insert((*node, hash));
                    report.hold(first == hash, seen.t, || {
                        format!(
                            "nodes {other} and {node} wrote different rows for entry {index}: {first:x} and {hash:x}"
                        )
                    });
                }
                Shown::Digest { index, digest } => {
                    let (other, first) = *digests.entry(index).or_insert((*node, digest));
                    report.hold(first == digest, seen.t, || {
                        format!("nodes {other} and {node} have different states at entry {index}: {first} and {digest}")
                    });
                }
                Shown::Life | Shown::Raft(_) => {}
            }
        }
    }
    report.finish_if_any("what nodes wrote")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "replica_determinism";

    #[test]
    fn nodes_that_differ() {
        accepts(NAME, Script::new().apply(1, 5, 7).apply(2, 5, 7).apply(1, 6, 8));
        refuses(NAME, Script::new().apply(1, 5, 7).apply(2, 5, 8));
        refuses(NAME, Script::new().apply(1, 5, 7).killed(1).started(1).apply(1, 5, 8));
        accepts(NAME, Script::new().digest(1, 5, "a").digest(2, 6, "b").digest(2, 5, "a"));
        refuses(NAME, Script::new().digest(1, 5, "a").digest(2, 5, "b"));
    }
}
