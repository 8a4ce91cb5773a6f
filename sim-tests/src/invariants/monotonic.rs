//! Raft: within one life of a node its term and its places in the log never go back, and it applies entry after entry.
//! Across lives, power cuts included, it never votes twice in a term.

use std::collections::BTreeMap;

use campanile_model::NodeId;

use super::index::{At, Facts, Shown};
use super::report::Report;
use crate::history::{Event, NodeEvent, RaftState};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("monotonic");
    let leaders = leaders(facts, &mut report);
    for (node, shown) in &facts.replicas {
        one_life_at_a_time(*node, shown, &mut report);
        votes(*node, shown, &leaders, &mut report);
    }
    report.finish_if_any("Raft states")
}

fn one_life_at_a_time(node: NodeId, shown: &[At<Shown>], report: &mut Report) {
    let mut state: Option<&RaftState> = None;
    let mut applied = None;
    for seen in shown {
        match seen.it {
            Shown::Life => (state, applied) = (None, None),
            Shown::Raft(now) => {
                report.looked();
                if let Some(before) = state {
                    for (what, before, now) in [
                        ("term", before.term, now.term),
                        ("committed index", before.committed, now.committed),
                        ("applied index", before.applied, now.applied),
                        ("snapshot", before.snapshot, now.snapshot),
                        ("purged index", before.purged, now.purged),
                    ] {
                        report.hold(now >= before, seen.t, || {
                            format!("the {what} of node {node} went back from {before} to {now}")
                        });
                    }
                }
                state = Some(now);
            }
            Shown::Apply { index, .. } => {
                report.hold(applied.is_none_or(|last| index > last), seen.t, || {
                    format!("node {node} applied entry {index} after entry {}", applied.unwrap_or_default())
                });
                applied = Some(index);
            }
            Shown::Digest { .. } => {}
        }
    }
}

/// A vote, once given, stays; only that it follows the one who was elected may take its place.
fn votes(node: NodeId, shown: &[At<Shown>], leaders: &BTreeMap<u64, NodeId>, report: &mut Report) {
    let mut given: BTreeMap<u64, NodeId> = BTreeMap::new();
    for seen in shown {
        let Shown::Raft(state) = seen.it else { continue };
        let leader = leaders.get(&state.term);
        match (given.get(&state.term).copied(), state.voted_for) {
            (Some(before), Some(now)) => report.hold(before == now || leader == Some(&now), seen.t, || {
                format!("node {node} voted for node {before} and for node {now} in term {}", state.term)
            }),
            (Some(before), None) => report.violated(
                seen.t,
                format!("node {node} forgot in term {} that it had voted for node {before}", state.term),
            ),
            (None, _) => {}
        }
        if let Some(now) = state.voted_for {
            given.insert(state.term, now);
        }
    }
}

/// Who led which term, by what nodes say of themselves and of whom they follow. Not more than one a term.
fn leaders(facts: &Facts, report: &mut Report) -> BTreeMap<u64, NodeId> {
    let mut leaders = BTreeMap::new();
    for timed in &facts.history.events {
        let (term, leader) = match &timed.event {
            Event::Raft(state) if state.leads => (state.term, state.node),
            Event::Raft(RaftState { term, voted_for: Some(leader), elected: true, .. }) => (*term, *leader),
            Event::Node { node, what: NodeEvent::Leads { term } } => (*term, *node),
            _ => continue,
        };
        let known = *leaders.entry(term).or_insert(leader);
        report.hold(known == leader, timed.t, || format!("nodes {known} and {leader} were elected in term {term}"));
    }
    leaders
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::RaftState;
    use campanile_model::NodeId;

    const NAME: &str = "monotonic";

    #[test]
    fn going_back_within_one_life() {
        accepts(NAME, Script::new().raft(1, 3, |_| {}).raft(1, 4, |_| {}));
        refuses(NAME, Script::new().raft(1, 4, |_| {}).raft(1, 3, |_| {}));
        let fields: [fn(&mut RaftState) -> &mut u64; 4] =
            [|s| &mut s.committed, |s| &mut s.applied, |s| &mut s.snapshot, |s| &mut s.purged];
        for field in fields {
            let fell = || Script::new().raft(1, 3, |state| *field(state) = 9);
            refuses(NAME, fell().raft(1, 3, |state| *field(state) = 8));
            accepts(NAME, fell().killed(1).started(1).raft(1, 3, |state| *field(state) = 8));
        }
    }

    #[test]
    fn applying_out_of_order() {
        accepts(NAME, Script::new().apply(1, 5, 0).apply(1, 6, 0).killed(1).started(1).apply(1, 5, 0));
        refuses(NAME, Script::new().apply(1, 6, 0).apply(1, 5, 0));
        refuses(NAME, Script::new().apply(1, 5, 0).apply(1, 5, 0));
    }

    #[test]
    fn voting_twice() {
        let votes = |node| move |state: &mut RaftState| state.voted_for = Some(NodeId(node));
        accepts(NAME, Script::new().raft(1, 3, votes(2)).raft(1, 4, votes(1)));
        refuses(NAME, Script::new().raft(1, 3, votes(2)).killed(1).started(1).raft(1, 3, votes(1)));
        refuses(NAME, Script::new().raft(1, 3, votes(2)).killed(1).started(1).raft(1, 3, |_| {}));
        // It stood for election itself and then followed the one who won.
        let won = |script: Script| script.raft(2, 3, |state| state.leads = true);
        accepts(NAME, won(Script::new().raft(1, 3, votes(1)).raft(1, 3, votes(2))));
        refuses(NAME, won(Script::new().raft(1, 3, votes(2)).raft(1, 3, votes(1))));
        // The one who won was gone before it was seen to lead.
        let follows = |node| move |state: &mut RaftState| (state.voted_for, state.elected) = (Some(NodeId(node)), true);
        accepts(NAME, Script::new().raft(1, 3, votes(1)).raft(1, 3, follows(2)));
        refuses(NAME, Script::new().raft(1, 3, follows(1)).raft(1, 3, follows(2)));
        refuses(NAME, Script::new().raft(1, 3, follows(1)).raft(2, 3, follows(2)));
    }
}
