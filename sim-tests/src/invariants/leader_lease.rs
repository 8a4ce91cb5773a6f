//! A leader's own lease ends before another one leads: by the time that it counts from, or because it gives it up. Nobody
//! has one by himself in a term in which another leads. What two deliver under leases of their own at one time, two nodes
//! deliver.

use std::collections::BTreeMap;

use campanile_model::NodeId;

use super::index::Facts;
use super::leases::{Leases, UNUSED};
use super::report::Report;
use crate::history::{Event, NodeEvent};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let leases = Leases::new(facts.history);
    let mut report = Report::new("leader_lease");
    let elections = elections(facts);
    for lease in leases.own() {
        let leader = elections.get(&lease.term).map_or(lease.node, |(_, leader)| *leader);
        report.hold(leader == lease.node, lease.t, || {
            format!("node {} has a lease by itself, of term {}, in which node {leader} leads", lease.node, lease.term)
        });
    }
    for (term, (t, leader)) in elections {
        for lease in leases.own().filter(|lease| lease.term < term && lease.node != leader) {
            let until = leases.until(lease, UNUSED);
            report.hold(until <= t + LOOK, t, || {
                format!(
                    "node {leader} leads in term {term}, and node {} has a lease by itself, of term {}, for {} us more",
                    lease.node,
                    lease.term,
                    until - t
                )
            });
        }
    }
    report.finish_if_any("leases of leaders by themselves")
}

/// Nodes are looked at every so many microseconds, and some more: so late it may be seen that one follows.
const LOOK: u64 = 60_000;

/// When somebody was first seen to lead in each term.
fn elections(facts: &Facts) -> BTreeMap<u64, (u64, NodeId)> {
    let mut elections = BTreeMap::new();
    for timed in &facts.history.events {
        let led = match &timed.event {
            Event::Raft(state) if state.leads => Some((state.term, state.node)),
            Event::Node { node, what: NodeEvent::Leads { term } } => Some((*term, *node)),
            _ => None,
        };
        if let Some((term, node)) = led {
            elections.entry(term).or_insert((timed.t, node));
        }
    }
    elections
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "leader_lease";

    /// Node 1 leads, with a lease of 400 ms by itself, and node 2 some time later.
    fn another_leads(after: u64, between: impl FnOnce(Script) -> Script) -> Script {
        let first = Script::new().at(1000).raft(1, 1, |state| state.leads = true).lease(1, 7, 1, 400);
        between(first).at(1000 + after).raft(2, 2, |state| state.leads = true)
    }

    #[test]
    fn it_ends_by_itself() {
        accepts(NAME, another_leads(240, |script| script));
        refuses(NAME, another_leads(239, |script| script));
        // Under its own lease it goes on for as long as it likes.
        let again = |script: Script| script.at(1100).lease(1, 7, 1, 400);
        accepts(NAME, another_leads(340, again));
        refuses(NAME, another_leads(339, again));
        refuses(NAME, another_leads(300, |script| script).at(1500).lease(1, 7, 1, 400));
    }

    #[test]
    fn it_is_given_up_or_dies() {
        accepts(NAME, another_leads(100, |script| script.at(1050).lease(1, 7, 1, 0)));
        accepts(NAME, another_leads(100, |script| script.at(1050).killed(1)));
        accepts(NAME, another_leads(100, |script| script.at(1050).raft(1, 2, |_| {})));
        refuses(NAME, another_leads(100, |script| script.at(1050).killed(3)));
    }

    #[test]
    fn only_the_leader_of_a_term_has_one() {
        let leads = |node| Script::new().at(1000).raft(node, 1, |state| state.leads = true).lease(1, 7, 1, 400);
        accepts(NAME, leads(1));
        refuses(NAME, leads(2));
    }

    #[test]
    fn leases_of_others_are_not_meant() {
        let follower = Script::new().at(1000).lease(3, 7, 1, 1500).at(1100);
        not_applicable(NAME, follower.raft(2, 2, |state| state.leads = true));
        not_applicable(NAME, Script::new().raft(2, 2, |state| state.leads = true));
    }
}
