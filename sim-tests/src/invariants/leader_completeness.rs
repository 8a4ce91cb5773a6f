//! Raft: whoever comes to lead has everything that was committed before.

use super::index::Facts;
use super::report::Report;
use crate::history::Event;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("leader_completeness");
    // A node that was paused when it won may say so when others have led since: then it need not have what they did.
    let (mut newest, mut committed) = (0, 0);
    for timed in &facts.history.events {
        match &timed.event {
            Event::Raft(state) => {
                if state.leads && state.term > newest {
                    newest = state.term;
                    report.hold(state.last >= committed, timed.t, || {
                        format!(
                            "node {} leads term {} with a log up to entry {}, but entry {committed} was committed",
                            state.node, state.term, state.last
                        )
                    });
                }
                committed = committed.max(state.committed);
            }
            // What was applied was committed.
            Event::Entry { index, term, .. } => (committed, newest) = (committed.max(*index), newest.max(*term)),
            _ => {}
        }
    }
    report.finish_if_any("Raft states of leaders")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "leader_completeness";

    #[test]
    fn a_leader_without_what_was_committed() {
        let leads = |last| move |state: &mut crate::history::RaftState| (state.leads, state.last) = (true, last);
        let committed = || Script::new().raft(1, 3, |state| (state.committed, state.last) = (9, 9));
        accepts(NAME, committed().raft(2, 4, leads(9)));
        refuses(NAME, committed().raft(2, 4, leads(8)));
        refuses(NAME, Script::new().entry(9).raft(2, 4, leads(8)));
        accepts(NAME, committed().raft(3, 6, leads(9)).raft(2, 5, leads(8)));
    }
}
