//! No node has more requests open at one time than it may (`--http-connections`), nor more of them to one host
//! (`--http-connections-per-host`); what is beyond that waits. Receivers tell: a request is open from when it arrives
//! until it is answered. One that is not answered is open for sure until shortly before its time-out, unless its run goes
//! on, or its node is fenced or ends: each of these may have made the node give it up.

use std::collections::BTreeMap;

use campanile_model::sim::Bound;
use campanile_model::{NodeId, Target, TaskSpec};

use super::index::{Delivered, Facts, RunFacts, Shown};
use super::report::Report;
use crate::history::{CONNECTIONS, CONNECTIONS_PER_HOST, Source};
use crate::verdict::Finding;

/// A time-out begins so much before the request has arrived, at most.
const ON_ITS_WAY: u64 = 100_000;

/// When a request began to be open, or was so no longer.
type Changes = Vec<(u64, bool)>;

pub fn check(facts: &Facts) -> Finding {
    let header = &facts.history.header;
    if header.source != Source::Simulated {
        return Finding::NotApplicable { needs: "nodes whose bounds on connections are known" };
    }
    let to_all = header.bound(Bound::Connections, CONNECTIONS);
    let to_one = header.bound(Bound::ConnectionsPerHost, CONNECTIONS_PER_HOST);
    let mut report = Report::new("connections");
    let lives = Lives::new(facts);
    // By node, and by host or for all of them.
    let mut changes: BTreeMap<(NodeId, Option<&str>), Changes> = BTreeMap::new();
    for run in facts.runs.values() {
        for delivered in &run.deliveries {
            report.looked();
            let Some((spec, until)) = open_until(facts, run, delivered, &lives) else { continue };
            for host in [None, Some(host(spec))] {
                let of_node = changes.entry((delivered.it.node, host)).or_default();
                of_node.extend([(delivered.t, true), (until, false)]);
            }
        }
    }
    for ((node, host), mut changes) in changes {
        let most = if host.is_some() { to_one } else { to_all };
        // What ends at an instant has ended when another begins at it.
        changes.sort_unstable();
        let (mut open, mut worst) = (0u64, (0, 0));
        for (t, begins) in changes {
            open = if begins { open + 1 } else { open - 1 };
            if open > worst.0 {
                worst = (open, t);
            }
        }
        report.hold(worst.0 <= most, worst.1, || {
            let host = host.map_or_else(String::new, |host| format!(" to {host}"));
            format!("node {node} had {} requests open{host}; {most} are allowed", worst.0)
        });
    }
    report.finish_if_any("deliveries")
}

/// The host by which connections are bounded.
fn host(spec: &TaskSpec) -> &str {
    let Target::Http(http) = &spec.target;
    http.url.split('/').nth(2).unwrap_or_default()
}

/// Until when a request is surely open, if it is at all, and the definition that it is of.
fn open_until<'h>(
    facts: &Facts<'h>,
    run: &RunFacts,
    delivered: &Delivered,
    lives: &Lives,
) -> Option<(&'h TaskSpec, u64)> {
    let place = run.rows.iter().position(|row| row.it.token == delivered.it.token)?;
    let began = &run.rows[place];
    let spec = facts.spec(began.it.occurrence.task, began.it.version)?;
    let (node, from) = (delivered.it.node, delivered.t);
    let timed_out = from.saturating_add(spec.timeout.0.saturating_mul(1000)).saturating_sub(ON_ITS_WAY);
    let fenced = facts.fences.get(&node).and_then(|rows| rows.iter().find(|row| row.index > began.it.index));
    let ends = [
        Some(timed_out),
        delivered.answer.map(|(t, _)| t),
        delivered.reset,
        run.rows.get(place + 1).map(|next| next.t),
        fenced.map(|row| row.t),
        lives.change_after(node, began.t),
    ];
    let until = ends.into_iter().flatten().min()?;
    (from < until && facts.is_link_sound(from, until)).then_some((spec, until))
}

/// When processes began and ended.
struct Lives(BTreeMap<NodeId, Vec<u64>>);

impl Lives {
    fn new(facts: &Facts) -> Self {
        let lives = facts.replicas.iter().map(|(node, shown)| {
            (*node, shown.iter().filter(|at| matches!(at.it, Shown::Life)).map(|at| at.t).collect())
        });
        Self(lives.collect())
    }

    fn change_after(&self, node: NodeId, t: u64) -> Option<u64> {
        let lives = self.0.get(&node)?;
        lives.get(lives.partition_point(|change| *change <= t)).copied()
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::api::Change;
    use campanile_model::sim::Bound;
    use campanile_model::{Millis, NodeId, RunState};

    use super::super::testing::*;
    use crate::history::{Event, RunRow};
    use crate::plan::Fault;

    const NAME: &str = "connections";

    /// Two places to a host; attempts may last five seconds.
    fn narrow() -> Script {
        let put = put_with(|spec| spec.timeout = Millis::from_secs(5));
        Script::new().small(Bound::ConnectionsPerHost, 2).invoke(1, put).wrote(1, Change::Created, 1)
    }

    fn arrives(script: Script, nth: u64) -> Script {
        let run = fired(4 + nth, 10);
        script.row(&run).deliver(nth, &run)
    }

    fn two() -> Script {
        arrives(arrives(narrow().at(10_000), 1), 2)
    }

    #[test]
    fn as_many_as_may_be_open() {
        accepts(NAME, two());
        refuses(NAME, arrives(two(), 3));
        refuses(NAME, arrives(two().at(14_899), 3));
        let of_another = changed(&fired(7, 10), |row| row.owner = NodeId(2));
        accepts(NAME, two().row(&of_another).deliver(3, &of_another));
        accepts(NAME, arrives(two(), 3).small(Bound::ConnectionsPerHost, 3));
        refuses(NAME, arrives(two(), 3).small(Bound::ConnectionsPerHost, 3).small(Bound::Connections, 2));
        not_applicable(NAME, arrives(two(), 3).real());
    }

    #[test]
    fn what_has_ended_is_open_no_longer() {
        let first: RunRow = fired(5, 10);
        accepts(NAME, arrives(two().answer(1, 200), 3));
        accepts(NAME, arrives(two().event(Event::Reset { delivery: 1, without_end: true }), 3));
        accepts(NAME, arrives(two().at(14_900), 3));
        accepts(NAME, arrives(two().at(11_000).row(&ended(&first, 9, RunState::Cancelled)), 3));
        accepts(NAME, arrives(two().at(11_000).node_row(9, 1, 1, 9, false), 3));
        accepts(NAME, arrives(two().at(11_000).killed(1).at(11_001).started(1), 3));
    }

    #[test]
    fn a_slow_link_tells_nothing() {
        accepts(NAME, arrives(two().begin(0, Fault::Delay { min: Millis(1), max: Millis(400) }), 3));
        refuses(NAME, arrives(two().begin(0, Fault::LeaderInMinority), 3));
    }
}
