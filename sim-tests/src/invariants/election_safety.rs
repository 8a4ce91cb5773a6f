//! Raft: a term has at most one leader.

use std::collections::BTreeMap;

use super::index::Facts;
use super::report::Report;
use crate::history::{Event, NodeEvent};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("election_safety");
    let mut leaders = BTreeMap::new();
    for timed in &facts.history.events {
        let (node, term) = match &timed.event {
            Event::Raft(state) if state.leads => (state.node, state.term),
            Event::Node { node, what: NodeEvent::Leads { term } } => (*node, *term),
            _ => continue,
        };
        let first = *leaders.entry(term).or_insert(node);
        report.hold(first == node, timed.t, || format!("nodes {first} and {node} both lead term {term}"));
    }
    report.finish_if_any("leaders")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::NodeEvent;

    const NAME: &str = "election_safety";

    #[test]
    fn two_leaders_of_one_term() {
        accepts(NAME, Script::new().raft(1, 3, |state| state.leads = true).raft(2, 4, |state| state.leads = true));
        refuses(NAME, Script::new().raft(1, 3, |state| state.leads = true).raft(2, 3, |state| state.leads = true));
        let conducts = NodeEvent::Leads { term: 3 };
        refuses(NAME, Script::new().raft(1, 3, |state| state.leads = true).node(2, conducts));
    }
}
