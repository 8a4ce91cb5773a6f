//! No node meets a state that its code holds impossible: bad input and failing disks have answers, panics are none.

use super::index::Facts;
use super::report::Report;
use crate::history::{Event, NodeEvent};
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("no_panic");
    for timed in &facts.history.events {
        if let Event::Node { node, what } = &timed.event {
            let panicked = match what {
                NodeEvent::Panicked { reason } => Some(reason),
                _ => None,
            };
            report.hold(panicked.is_none(), timed.t, || {
                format!("node {node} panicked: {}", panicked.map_or("", String::as_str))
            });
        }
    }
    report.finish_if_any("the lives of nodes")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::NodeEvent;

    #[test]
    fn a_panic() {
        let panicked = NodeEvent::Panicked { reason: "index out of bounds".into() };
        accepts("no_panic", Script::new().node(1, NodeEvent::Started));
        refuses("no_panic", Script::new().node(1, NodeEvent::Started).node(1, panicked));
    }
}
