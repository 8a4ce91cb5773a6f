//! A node is counted as lost only when its lease has ended: no entry fences a node that is still there while a lease
//! that it was given, by whichever leader, or its own as a leader, can last on its clock.

use super::index::Facts;
use super::leases::Leases;
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let leases = Leases::new(facts.history);
    let mut report = Report::new("fence_after_lease");
    if !leases.are_known() {
        return report.finish_if_any("leases");
    }
    for (node, rows) in &facts.fences {
        for pair in rows.windows(2) {
            let (before, row) = (&pair[0], &pair[1]);
            // A row of another incarnation: the process that had the leases is gone.
            if row.fence <= before.fence || row.incarnation != before.incarnation {
                continue;
            }
            let of_it = leases.given_to(*node, row.t).filter(|lease| lease.incarnation == row.incarnation);
            let last = of_it.map(|lease| (leases.until(lease, 0), lease.by)).max();
            let (until, by) = last.unwrap_or((0, *node));
            report.hold(until <= row.t, row.t, || {
                format!(
                    "entry {} fenced node {node}, which has a lease by node {by} for {} us more",
                    row.index,
                    until - row.t
                )
            });
        }
    }
    report.finish()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::plan::{Fault, RoleOf, Who};

    const NAME: &str = "fence_after_lease";

    /// Node 2 of incarnation 7 has been given a lease until second 10, and is fenced then.
    fn fenced_at(ms: u64, script: Script) -> Script {
        script.node_row(4, 2, 7, 4, true).at(8500).lease(2, 7, 1, 1500).at(ms).node_row(9, 2, 7, 9, false)
    }

    #[test]
    fn a_lease_lasts_until_it_ends() {
        accepts(NAME, fenced_at(10_000, Script::new()));
        refuses(NAME, fenced_at(9_999, Script::new()));
        // It was never given one, or it is a later process.
        accepts(NAME, Script::new().lease(3, 7, 1, 1500).node_row(4, 2, 7, 4, true).node_row(5, 2, 7, 5, false));
        permits(NAME, Script::new().lease(2, 7, 1, 1500).node_row(4, 2, 7, 4, true).node_row(5, 2, 8, 5, true));
        not_applicable(NAME, Script::new().node_row(4, 2, 7, 4, true).node_row(9, 2, 7, 9, false));
    }

    #[test]
    fn a_slow_clock_makes_it_longer_and_death_ends_it() {
        let drift = Fault::ClockDrift { node: Who::Role(RoleOf::Any), ppm: -20_000 };
        refuses(NAME, fenced_at(10_000, Script::new().begin(0, drift.clone())));
        accepts(NAME, fenced_at(10_031, Script::new().begin(0, drift)));
        let killed = Script::new().node_row(4, 2, 7, 4, true).at(8500).lease(2, 7, 1, 1500).at(8600).killed(2);
        accepts(NAME, killed.node_row(9, 2, 7, 9, false));
    }

    #[test]
    fn a_lease_of_the_leader_before_ends_when_its_holder_delivers_as_the_leader() {
        let leads = |term| {
            let script = Script::new().node_row(4, 2, 7, 4, true).at(8500).lease(2, 7, 1, 1500);
            script.at(8600).lease_of_term(2, 7, 2, term, 400).at(9500).node_row(9, 2, 7, 9, false)
        };
        accepts(NAME, leads(2));
        refuses(NAME, leads(1));
    }

    #[test]
    fn a_leaders_own_lease_ends_when_it_follows() {
        let own = || Script::new().node_row(4, 2, 7, 4, true).at(8500).lease(2, 7, 2, 400);
        refuses(NAME, own().at(8800).node_row(9, 2, 7, 9, false));
        accepts(NAME, own().at(8700).raft(2, 2, |_| {}).at(8800).node_row(9, 2, 7, 9, false));
    }
}
