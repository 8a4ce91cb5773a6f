//! Who was allowed to deliver when: the leases that leaders gave, their own among them, in true time.

use std::collections::BTreeMap;

use campanile_model::NodeId;

use super::transit::Transit;
use crate::history::{Event, History, NodeEvent};

/// The last of a lease, in microseconds, in which nothing is begun (docs/ARCHITECTURE.md).
pub const UNUSED: u64 = 100_000;

/// A lease as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub t: u64,
    pub node: NodeId,
    pub incarnation: u64,
    /// The leader that gave it, and its term.
    pub by: NodeId,
    pub term: u64,
    /// In microseconds.
    pub lasts: u64,
}

/// What is known of one node.
#[derive(Default)]
struct Of {
    /// Its leases, in order.
    given: Vec<Lease>,
    /// When its processes began and ended.
    lives: Vec<u64>,
    /// When it gave up its own.
    resigned: Vec<u64>,
    /// When it was seen not to lead, and which term it was in.
    follows: Vec<(u64, u64)>,
}

pub struct Leases {
    nodes: BTreeMap<NodeId, Of>,
    pub transit: Transit,
}

impl Leases {
    pub fn new(history: &History) -> Self {
        let mut leases = Self { nodes: BTreeMap::new(), transit: Transit::new(history) };
        for timed in &history.events {
            let t = timed.t;
            match &timed.event {
                Event::Lease { node, incarnation, by, term, lasts_us } => {
                    let (node, incarnation, by, term) = (*node, *incarnation, *by, *term);
                    let lease = Lease { t, node, incarnation, by, term, lasts: *lasts_us };
                    let of = leases.nodes.entry(node).or_default();
                    if lease.lasts == 0 {
                        of.resigned.push(t);
                    } else {
                        of.given.push(lease);
                    }
                }
                Event::Raft(state) if !state.leads => {
                    let follows = &mut leases.nodes.entry(state.node).or_default().follows;
                    if follows.last().is_none_or(|(_, term)| *term < state.term) {
                        follows.push((t, state.term));
                    }
                }
                Event::Node {
                    node,
                    what: NodeEvent::Started | NodeEvent::Killed | NodeEvent::PowerCut | NodeEvent::Stopped { .. },
                } => leases.nodes.entry(*node).or_default().lives.push(t),
                _ => {}
            }
        }
        leases
    }

    /// Whether the history tells of any.
    pub fn are_known(&self) -> bool {
        self.nodes.values().any(|of| !of.given.is_empty())
    }

    /// Until when a node may have counted on its lease, at most, if it leaves the last of it unused. A lease dies with the
    /// process, and when its holder delivers as the leader of a later term; a leader's own ends when it gives it up, or is
    /// seen to follow in that term or a later one.
    pub fn until(&self, lease: &Lease, unused: u64) -> u64 {
        let lasts = lease.lasts.saturating_sub(unused);
        let end = lease.t + lasts + self.transit.stretch(lasts, lease.t, lease.t + lasts);
        let Some(of) = self.nodes.get(&lease.node) else { return end };
        let death = of.lives.get(of.lives.partition_point(|t| *t <= lease.t)).copied().unwrap_or(u64::MAX);
        if lease.by != lease.node {
            let after = &of.given[of.given.partition_point(|given| given.t <= lease.t)..];
            let leads = after.iter().find(|given| given.by == given.node && given.term > lease.term);
            return end.min(death).min(leads.map_or(u64::MAX, |given| given.t));
        }
        let resigned = of.resigned.get(of.resigned.partition_point(|t| *t <= lease.t)).copied().unwrap_or(u64::MAX);
        let deposed = of.follows.iter().find(|(t, term)| *t > lease.t && *term >= lease.term).map(|(t, _)| *t);
        end.min(death).min(resigned).min(deposed.unwrap_or(u64::MAX))
    }

    /// Those that leaders had by themselves.
    pub fn own(&self) -> impl Iterator<Item = &Lease> {
        self.nodes.values().flat_map(|of| &of.given).filter(|lease| lease.by == lease.node)
    }

    /// A node's leases that were given until `t`, newest first.
    pub fn given_to(&self, node: NodeId, t: u64) -> impl Iterator<Item = &Lease> {
        let given = self.nodes.get(&node).map_or(&[][..], |of| &of.given);
        given[..given.partition_point(|lease| lease.t <= t)].iter().rev()
    }
}
