//! While nothing is wrong, every request is served: it is answered at once, by whatever member is asked, and the answer is
//! not that it could not be served. What a client got wrong is refused all the same.
//!
//! Judged in the closing round only: before it, clients may be talking to nodes that are just coming back. What asks a
//! node that is gone for good is not judged.

use super::index::Facts;
use super::report::Report;
use crate::history::{Event, Outcome};
use crate::verdict::Finding;

const NAME: &str = "serves_in_calm";
/// By when it is answered: a request that is forwarded, proposed, synced by a quorum and read back takes a few round trips.
const ANSWERED: u64 = 150_000;
/// Refusals for want of room, which a world with small bounds may lack in calm too.
const NO_ROOM: [&str; 2] = ["quota_exceeded", "overloaded"];

pub fn check(facts: &Facts) -> Finding {
    let Some(closing) = facts.closing else { return Finding::NotApplicable { needs: "a closing round" } };
    let mut report = Report::new(NAME);
    let end = facts.history.end();
    let there = facts.history.events.iter().find_map(|timed| match &timed.event {
        Event::Healed { nodes } => Some(nodes),
        _ => None,
    });
    let is_there = |node| there.is_none_or(|nodes| nodes.contains(&node));
    for operation in facts.operations.iter().filter(|asked| asked.invoked >= closing && is_there(asked.node)) {
        let by = operation.invoked + ANSWERED;
        let what = || operation.action.task_name().unwrap_or("a run or a batch").to_owned();
        let answered = operation.returned.map(|(t, _)| t);
        report.hold(answered.unwrap_or(end) <= by, by, || {
            format!("a request about {} was not answered within {} ms", what(), ANSWERED / 1000)
        });
        match operation.returned {
            Some((t, Outcome::Unknown { reason })) => {
                report.violated(t, format!("a request about {} was not served: {reason}", what()));
            }
            Some((t, Outcome::Refused { status, code }))
                if !(400..500).contains(status) && !NO_ROOM.contains(&code.as_str()) =>
            {
                report.violated(t, format!("a request about {} was not served: {status} {code}", what()));
            }
            _ => {}
        }
    }
    report.finish_if_any("requests in the closing round")
}

#[cfg(test)]
mod tests {
    use campanile_model::NodeId;

    use super::super::testing::*;
    use super::*;

    fn calm() -> Script {
        Script::new().at(1_000).event(Event::Closing)
    }

    fn answered(outcome: Outcome) -> Script {
        calm().at(2_000).invoke(1, put()).at(2_100).returned(1, outcome)
    }

    fn refused(status: u16, code: &str) -> Outcome {
        Outcome::Refused { status, code: code.into() }
    }

    #[test]
    fn requests_are_served_in_calm() {
        accepts(NAME, answered(refused(409, "version_conflict")));
        accepts(NAME, answered(refused(503, NO_ROOM[1])));
        refuses(NAME, answered(refused(503, "no_leader")));
        refuses(NAME, answered(refused(0, "unreachable")));
        refuses(NAME, answered(Outcome::Unknown { reason: "time".into() }));
    }

    #[test]
    fn nothing_is_asked_of_those_that_are_gone() {
        let healed = |nodes: &[u64]| {
            let nodes = nodes.iter().copied().map(NodeId).collect();
            let script = Script::new().event(Event::Healed { nodes }).at(1_000).event(Event::Closing);
            script.at(2_000).invoke(1, put()).at(2_100).returned(1, refused(0, "unreachable"))
        };
        refuses(NAME, healed(&[1, 2, 3]));
        not_applicable(NAME, healed(&[2, 3]));
    }

    #[test]
    fn requests_are_answered_at_once() {
        let late = |at| calm().at(2_000).invoke(1, put()).at(at).returned(1, refused(404, "not_found"));
        accepts(NAME, late(2_150));
        refuses(NAME, late(2_151));
        refuses(NAME, calm().at(2_000).invoke(1, put()).at(9_000).converged());
        accepts(NAME, calm().at(2_000).invoke(1, put()).at(2_140).converged());
    }

    #[test]
    fn nobody_promises_so_before_it_is_calm() {
        not_applicable(NAME, Script::new().invoke(1, put()).at(9_000).converged());
        let before =
            Script::new().invoke(1, put()).at(9_000).event(Event::Closing).returned(1, refused(503, "no_leader"));
        not_applicable(NAME, before);
    }
}
