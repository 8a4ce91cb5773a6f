//! No node breaks, whatever is done to it. It ends when it is told to, or when its disk fails it, and says why; it never
//! panics, and never dies of a signal that nobody sent. And while nothing is wrong it tells whoever looks into it what it
//! holds.

use super::index::Facts;
use super::report::Report;
use crate::history::{Event, NodeEvent};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("no_crash");
    for timed in &facts.history.events {
        match &timed.event {
            Event::Node { node, what } => {
                report.looked();
                if let NodeEvent::Broke { how } = what {
                    report.violated(timed.t, format!("node {node} broke: {how}"));
                }
            }
            Event::Untold { node, what, error } => report.hold(!facts.is_healthy(timed.t, timed.t), timed.t, || {
                format!("nothing was wrong, and node {node} did not tell {what}: {error}")
            }),
            _ => {}
        }
    }
    report.finish_if_any("what became of nodes")
}

#[cfg(test)]
mod tests {
    use campanile_model::NodeId;

    use super::super::testing::*;
    use crate::history::{Event, NodeEvent};
    use crate::plan::{Fault, Who};

    const NAME: &str = "no_crash";

    #[test]
    fn a_node_that_breaks() {
        let stopped = || Script::new().started(1).node(1, NodeEvent::Stopped { reason: "exit status 1".into() });
        accepts(NAME, stopped().killed(2));
        refuses(NAME, stopped().node(2, NodeEvent::Broke { how: "signal 11".into() }));
        not_applicable(NAME, Script::new());
    }

    #[test]
    fn a_node_that_does_not_tell() {
        let untold = || Event::Untold { node: NodeId(1), what: "its digest".into(), error: "disk".into() };
        refuses(NAME, Script::new().started(1).at(9_000).event(untold()));
        let fault = Fault::DiskErrors { node: Who::Node(NodeId(1)) };
        accepts(NAME, Script::new().started(1).at(9_000).begin(1, fault).event(untold()));
    }
}
