//! Raft: `purged ≤ snapshot ≤ applied ≤ committed ≤ last`, on every node at any time.

use super::index::{Facts, Shown};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("raft_order");
    for (node, shown) in &facts.replicas {
        for seen in shown {
            let Shown::Raft(state) = seen.it else { continue };
            let places = [state.purged, state.snapshot, state.applied, state.committed, state.last];
            report.hold(places.is_sorted(), seen.t, || {
                let [purged, snapshot, applied, committed, last] = places;
                format!(
                    "node {node} has purged {purged}, snapshot {snapshot}, applied {applied}, committed {committed}, \
                     last {last}"
                )
            });
        }
    }
    report.finish_if_any("Raft states")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::RaftState;

    const NAME: &str = "raft_order";

    #[test]
    fn places_out_of_order() {
        let set = |places: [u64; 5]| {
            move |state: &mut RaftState| {
                [state.purged, state.snapshot, state.applied, state.committed, state.last] = places;
            }
        };
        accepts(NAME, Script::new().raft(1, 1, set([1, 2, 3, 4, 5])).raft(1, 1, set([5; 5])));
        for swapped in 0..4 {
            let mut places = [1, 2, 3, 4, 5];
            places.swap(swapped, swapped + 1);
            refuses(NAME, Script::new().raft(1, 1, set(places)));
        }
    }
}
