//! After a run's end nothing of it is sent. A node that has applied the entry that ended a run, cancelled it above all,
//! begins no send of it any more, and gives up what has not left it; so nothing arrives from it later than what was on
//! its way by then. What an attempt's own outcome ended cannot come again at all: neither can an attempt that the log
//! has given up for a later one.

use std::collections::BTreeMap;

use campanile_model::NodeId;

use super::index::{At, Facts, Shown};
use super::report::Report;
use super::transit::Transit;
use crate::verdict::Finding;

/// From when a node has applied an entry until its dispatcher has heard of it.
const HEARD: u64 = 1_000;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("nothing_after_the_end");
    let transit = Transit::new(facts.history);
    let known = facts.replicas.iter().map(|(node, shown)| (*node, Reached::of(shown)));
    let known: BTreeMap<NodeId, Reached> = known.collect();
    for (id, run) in &facts.runs {
        for delivered in &run.deliveries {
            let (node, token) = (delivered.it.node, delivered.it.token);
            // The attempt is over with the first row after the one that handed it out.
            let Some(place) = run.rows.iter().position(|row| row.it.token == token) else { continue };
            report.looked();
            let Some(over) = run.rows[place + 1..].first() else { continue };
            let Some(knew) = known.get(&node).and_then(|reached| reached.when(over.it.index)) else { continue };
            report.hold(transit.begun(node, delivered.t) <= knew + HEARD, delivered.t, || {
                format!(
                    "attempt {} of run {id} came from node {node} {} ms after that node knew that it was over ({})",
                    delivered.it.attempt,
                    (delivered.t - knew) / 1000,
                    over.it.state.as_str()
                )
            });
        }
    }
    report.finish_if_any("deliveries, and rows of runs")
}

/// How far in the log a node had come, and when it first had.
struct Reached(Vec<(u64, u64)>);

impl Reached {
    fn of(shown: &[At<Shown>]) -> Self {
        let mut reached: Vec<(u64, u64)> = Vec::new();
        for At { t, it } in shown {
            let index = match it {
                Shown::Apply { index, .. } => *index,
                // A snapshot brings it further at once.
                Shown::Raft(state) => state.applied,
                Shown::Life | Shown::Digest { .. } => continue,
            };
            if reached.last().is_none_or(|(last, _)| index > *last) {
                reached.push((index, *t));
            }
        }
        Self(reached)
    }

    /// When the node first was at that entry, whatever became of it afterwards.
    fn when(&self, index: u64) -> Option<u64> {
        self.0.get(self.0.partition_point(|(reached, _)| *reached < index)).map(|(_, t)| *t)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::plan::Fault;
    use campanile_model::{Millis, RunState};

    const NAME: &str = "nothing_after_the_end";

    fn cancelled() -> Script {
        let run = fired(5, 10);
        let end = ended(&run, 6, RunState::Cancelled);
        Script::new().at(10_000).row(&run).apply(1, 5, 0).at(11_000).row(&end).at(11_100).apply(1, 6, 0)
    }

    #[test]
    fn a_send_after_its_node_knew() {
        accepts(NAME, cancelled().at(11_114).deliver(1, &fired(5, 10)));
        refuses(NAME, cancelled().at(11_115).deliver(1, &fired(5, 10)));
        not_applicable(NAME, Script::new().real().deliver(1, &fired(5, 10)));
    }

    #[test]
    fn what_a_slow_link_held_up_is_excused() {
        let slow = |fault| cancelled().begin(0, fault).at(12_000).deliver(1, &fired(5, 10));
        accepts(NAME, slow(Fault::Delay { min: Millis(1), max: Millis(400) }));
        refuses(NAME, slow(Fault::LeaderInMinority));
    }

    #[test]
    fn a_node_that_does_not_know_is_excused() {
        let run = fired(5, 10);
        let unknowing = Script::new().row(&run).apply(1, 5, 0).row(&ended(&run, 6, RunState::Cancelled)).apply(2, 6, 0);
        accepts(NAME, unknowing.at(12_000).deliver(1, &run));
    }

    #[test]
    fn a_restart_does_not_unknow() {
        refuses(NAME, cancelled().killed(1).started(1).apply(1, 5, 0).at(12_000).deliver(1, &fired(5, 10)));
    }

    #[test]
    fn an_attempt_that_was_followed_by_another() {
        let run = fired(5, 10);
        let again = attempt(&retrying(&run, 6, 12), 2, 7);
        let seen = Script::new().row(&run).apply(1, 5, 0).at(11_000).row(&retrying(&run, 6, 12)).apply(1, 6, 0);
        let seen = seen.at(12_000).row(&again).apply(1, 7, 0).deliver(1, &again);
        refuses(NAME, seen.at(12_001).deliver(2, &run));
    }
}
