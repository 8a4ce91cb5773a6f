//! Raft: nodes have the same log. An entry has one term and one stamp, whoever applies it; rows are of entries that
//! were seen; and no node applies an entry of a term it has not heard of. (What the entries do is compared by
//! `replica_determinism`.)

use std::collections::BTreeMap;

use super::index::{Facts, Shown};
use super::report::Report;
use crate::history::Event;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("log_matching");
    for entry in &facts.entries {
        let Some(first) = facts.entry(entry.index) else { continue };
        report.hold((first.term, first.time) == (entry.term, entry.time), entry.t, || {
            format!(
                "entry {} is of term {} and {} for one node, of term {} and {} for another",
                entry.index, first.term, first.time, entry.term, entry.time
            )
        });
    }
    if facts.has_log() {
        rows_have_entries(facts, &mut report);
    }
    terms_are_heard_of(facts, &mut report);
    report.finish_if_any("log entries")
}

fn rows_have_entries(facts: &Facts, report: &mut Report) {
    for timed in &facts.history.events {
        let index = match &timed.event {
            Event::Task(row) => row.index,
            Event::Run(row) => row.index,
            Event::Lapse { index, .. } | Event::NodeRow { index, .. } => *index,
            _ => continue,
        };
        report.hold(facts.entry(index).is_some(), timed.t, || {
            format!("a row was written by entry {index}, which is unknown")
        });
    }
}

/// A node's term is at least that of every entry it has applied.
fn terms_are_heard_of(facts: &Facts, report: &mut Report) {
    // The term of an index is that of the last entry up to it.
    let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
    for entry in &facts.entries {
        terms.entry(entry.index).or_insert(entry.term);
    }
    for (node, shown) in &facts.replicas {
        for seen in shown {
            let Shown::Raft(state) = seen.it else { continue };
            let Some((index, term)) = terms.range(..=state.applied).next_back() else { continue };
            report.hold(state.term >= *term, seen.t, || {
                format!("node {node} is in term {} and has applied entry {index} of term {term}", state.term)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    const NAME: &str = "log_matching";

    #[test]
    fn entries_that_differ() {
        accepts(NAME, Script::new().entry_of(5, 1).entry_of(5, 1));
        refuses(NAME, Script::new().entry_of(5, 1).entry_of(5, 2));
        refuses(NAME, Script::new().entry_of(5, 1).at(10).entry_of(5, 1));
    }

    #[test]
    fn rows_of_no_entry() {
        accepts(NAME, Script::new().entry(5).task(5, 1, 0));
        refuses(NAME, Script::new().entry(5).task(6, 1, 0));
    }

    #[test]
    fn an_entry_of_a_term_unheard_of() {
        accepts(NAME, Script::new().entry_of(5, 3).raft(1, 3, |state| state.applied = 5));
        refuses(NAME, Script::new().entry_of(5, 3).raft(1, 2, |state| state.applied = 5));
    }
}
