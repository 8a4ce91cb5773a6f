//! A node sends only under a lease that lasts, and nothing that was taken from it: each request that arrives was begun
//! while the node had a lease, by a leader's grant or as a leader, of which the last is left unused; and none of an
//! attempt that the log has fenced. What was begun in time may arrive as much later as the network and a standing process
//! make it, and no more (see [`super::transit`]).

use super::index::Facts;
use super::leases::{Leases, UNUSED};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let leases = Leases::new(facts.history);
    let mut report = Report::new("no_stale_send");
    for (id, run) in &facts.runs {
        for delivered in &run.deliveries {
            let (node, token, attempt) = (delivered.it.node, delivered.it.token, delivered.it.attempt);
            let begun = leases.transit.begun(node, delivered.t);
            if leases.are_known() {
                let mut given = leases.given_to(node, delivered.t);
                let covered = given.any(|lease| leases.until(lease, UNUSED) >= begun);
                report.hold(covered, delivered.t, || {
                    let last = leases.given_to(node, delivered.t).map(|lease| leases.until(lease, 0)).max();
                    let told = last.map_or_else(
                        || "it never had a lease".into(),
                        |until| format!("its last lease ended {} us after that", until as i64 - begun as i64),
                    );
                    format!("attempt {attempt} of run {id} was begun by node {node} at {begun} us at the earliest, and {told}")
                });
            }
            let Some(rows) = facts.fences.get(&node) else { continue };
            // Fences rise, so the first above the token is the one that took the attempt away.
            let Some(row) = rows.get(rows.partition_point(|row| row.fence <= token)) else {
                report.looked();
                continue;
            };
            report.hold(begun <= row.t, delivered.t, || {
                format!(
                    "attempt {attempt} of run {id} came from node {node} {} ms after entry {} had fenced it",
                    (delivered.t - row.t) / 1000,
                    row.index
                )
            });
        }
    }
    report.finish_if_any("deliveries, and rows of nodes")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::NodeEvent;
    use crate::plan::Fault;
    use campanile_model::Millis;

    const NAME: &str = "no_stale_send";

    #[test]
    fn a_send_after_the_fence() {
        let run = fired(5, 10);
        let fenced = || Script::new().row(&run).at(50_000).node_row(6, 1, 1, 6, false);
        accepts(NAME, fenced().at(50_013).deliver(1, &run));
        refuses(NAME, fenced().at(50_014).deliver(1, &run));
        accepts(NAME, fenced().at(51_001).deliver(1, &attempt(&run, 2, 7)));
        not_applicable(NAME, Script::new().real().deliver(1, &run));
    }

    #[test]
    fn faults_excuse_as_much_as_they_add() {
        let run = fired(5, 10);
        let under = |fault, ms| {
            Script::new().at(30_000).begin(0, fault).at(50_000).node_row(6, 1, 1, 6, false).at(ms).deliver(1, &run)
        };
        let delay = || Fault::Delay { min: Millis(1), max: Millis(300) };
        accepts(NAME, under(delay(), 50_913));
        refuses(NAME, under(delay(), 50_914));
        refuses(NAME, under(Fault::ReceiverHangs, 50_014));
        let paused = Script::new().at(49_990).node(1, NodeEvent::Paused).at(50_000).node_row(6, 1, 1, 6, false);
        accepts(NAME, paused.at(55_000).node(1, NodeEvent::Resumed).at(55_004).deliver(1, &run));
    }

    /// The lease lasts until 11,500, and is used until 11,400.
    fn under_a_lease(ms: u64) -> Script {
        Script::new().at(10_000).lease(1, 1, 2, 1500).at(ms).deliver(1, &fired(5, 10))
    }

    #[test]
    fn a_send_after_the_lease() {
        accepts(NAME, under_a_lease(11_413));
        refuses(NAME, under_a_lease(11_414));
        refuses(NAME, Script::new().lease(2, 1, 2, 1500).deliver(1, &fired(5, 10)));
        // Of the process before, which is dead.
        let restarted = |ms| Script::new().lease(1, 1, 2, 1500).at(20).killed(1).at(ms).deliver(1, &fired(5, 10));
        accepts(NAME, restarted(33));
        refuses(NAME, restarted(34));
    }

    #[test]
    fn a_leader_sends_until_it_follows_or_gives_up() {
        let led = || Script::new().at(10_000).lease(1, 1, 1, 400);
        accepts(NAME, led().at(10_300).deliver(1, &fired(5, 10)));
        refuses(NAME, led().at(10_314).deliver(1, &fired(5, 10)));
        let deposed = &|| led().at(10_100).raft(1, 2, |_| {});
        let resigned = &|| led().at(10_100).lease(1, 1, 1, 0);
        let ways: [&dyn Fn() -> Script; 2] = [deposed, resigned];
        for script in ways {
            accepts(NAME, script().at(10_113).deliver(1, &fired(5, 10)));
            refuses(NAME, script().at(10_114).deliver(1, &fired(5, 10)));
        }
    }
}
