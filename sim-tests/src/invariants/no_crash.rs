//! No node breaks, whatever is done to it. It ends when it is told to, or when its disk fails it, and says why; it never
//! panics, and never dies of a signal that nobody sent.

use super::index::Facts;
use super::report::Report;
use crate::history::{Event, NodeEvent};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("no_crash");
    for timed in &facts.history.events {
        if let Event::Node { node, what } = &timed.event {
            report.looked();
            if let NodeEvent::Broke { how } = what {
                report.violated(timed.t, format!("node {node} broke: {how}"));
            }
        }
    }
    report.finish_if_any("what became of nodes")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::NodeEvent;

    const NAME: &str = "no_crash";

    #[test]
    fn a_node_that_breaks() {
        let stopped = || Script::new().started(1).node(1, NodeEvent::Stopped { reason: "exit status 1".into() });
        accepts(NAME, stopped().killed(2));
        refuses(NAME, stopped().node(2, NodeEvent::Broke { how: "signal 11".into() }));
        not_applicable(NAME, Script::new());
    }
}
