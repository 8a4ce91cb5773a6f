//! What the receiver sees of tasks whose runs must not be beside each other: once the request of a later run has
//! arrived, a node that has applied the end of an earlier one sends no request of that any more. What was under way
//! arrives, and a node that has not heard of the end yet does not know better: a request cannot be recalled.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::{NodeId, RunId, TaskId};

use crate::invariants::index::{Facts, Shown, index_of};
use crate::invariants::report::Report;
use crate::invariants::transit::Transit;

/// What a node has applied, its dispatcher hears of after this time at most: states are written in batches.
const HEARS: u64 = 50_000;

pub fn check(facts: &Facts, exclusive: &BTreeSet<RunId>, report: &mut Report) {
    let transit = Transit::new(facts.history);
    let applied = Applied::new(facts);
    let mut firsts: BTreeMap<TaskId, Firsts> = BTreeMap::new();
    for id in exclusive {
        if let Some(first) = facts.runs.get(id).and_then(|run| run.deliveries.first()) {
            firsts.entry(first.it.task).or_default().0.push((index_of(first.it.token), first.t));
        }
    }
    firsts.values_mut().for_each(Firsts::settle);
    for (id, run) in &facts.runs {
        let Some(end) = run.rows.last().filter(|row| row.it.state.is_finished()).map(|row| row.it.index) else {
            continue;
        };
        for delivered in &run.deliveries {
            let first = firsts.get(&delivered.it.task).and_then(|firsts| firsts.from(end));
            if first.is_none_or(|first| delivered.t <= first) {
                continue;
            }
            let node = delivered.it.node;
            let begun = transit.begun(node, delivered.t);
            let knew = applied.at(node, end);
            report.hold(knew.is_none_or(|knew| begun <= knew + HEARS), delivered.t, || {
                format!(
                    "attempt {} of run {id} came from node {node} beside a later run of its task, {} ms after the node \
                     had applied entry {end}, which ended it",
                    delivered.it.attempt,
                    (delivered.t - knew.unwrap_or_default()) / 1000
                )
            });
        }
    }
}

/// First requests of a task's runs: the entry that had each sent, and when the first of those from there on arrived.
#[derive(Default)]
struct Firsts(Vec<(u64, u64)>);

impl Firsts {
    fn settle(&mut self) {
        self.0.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, t) in self.0.iter_mut().rev() {
            earliest = earliest.min(*t);
            *t = earliest;
        }
    }

    /// When the first request arrived that entry `index` or a later one had sent.
    fn from(&self, index: u64) -> Option<u64> {
        self.0.get(self.0.partition_point(|(of, _)| *of < index)).map(|(_, t)| *t)
    }
}

/// When which node had applied how much.
struct Applied(BTreeMap<NodeId, Vec<(u64, u64)>>);

impl Applied {
    fn new(facts: &Facts) -> Self {
        let mut nodes: BTreeMap<NodeId, Vec<(u64, u64)>> = BTreeMap::new();
        for (node, shown) in &facts.replicas {
            let most = nodes.entry(*node).or_default();
            for at in shown {
                if let Shown::Apply { index, .. } = at.it
                    && most.last().is_none_or(|(most, _)| *most < index)
                {
                    most.push((index, at.t));
                }
            }
        }
        Self(nodes)
    }

    fn at(&self, node: NodeId, index: u64) -> Option<u64> {
        let most = self.0.get(&node)?;
        most.get(most.partition_point(|(most, _)| *most < index)).map(|(_, t)| *t)
    }
}
