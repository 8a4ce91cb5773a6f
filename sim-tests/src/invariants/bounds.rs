//! Invariant 17. No queue, window or buffer was ever fuller than its declared limit.

use super::index::Facts;
use super::report::Report;
use crate::history::Event;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("bounds");
    for timed in &facts.history.events {
        if let Event::Bound { node, name, most, limit } = &timed.event {
            report.hold(most <= limit, timed.t, || format!("{name} of node {node} held {most}, its limit is {limit}"));
        }
    }
    report.finish_if_any("marks of how full things were")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn a_bound_that_is_broken() {
        accepts("bounds", Script::new().bound("queue", 10, 10));
        refuses("bounds", Script::new().bound("queue", 10, 10).bound("wheel", 11, 10));
    }
}
