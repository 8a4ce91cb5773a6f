//! As long as a majority of the nodes is up and each of it hears the others, it serves: somebody leads and is ready, and
//! what clients write moves the log. Not only once everything has healed.
//!
//! Half a node is none: what only sends, or only hears, is in no such majority, and must not keep the others from one. Nor
//! is one elected that none of the others can reach: it would lead and hear nobody.
//! Troubles that are not of links and processes (disks, clocks, lost and late messages, nodes of two builds) excuse
//! everybody while they last. Once the members change the history is not judged any further.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::NodeId;

use super::index::Facts;
use super::report::Report;
use crate::history::{Action, Event, History, NodeEvent, Source};
use crate::plan::Fault;
use crate::verdict::Finding;

const NAME: &str = "majority_serves";
/// So many writes say that the log has to move: a single one may have nothing to write.
const WRITES: usize = 3;

pub fn check(facts: &Facts) -> Finding {
    if facts.history.header.source != Source::Simulated {
        return Finding::NotApplicable { needs: "which links are cut, as the simulator knows it" };
    }
    let mut watch = Watch::new(facts.history);
    for timed in &facts.history.events {
        if !watch.take(timed.t, &timed.event) {
            break;
        }
    }
    watch.disturb("the history ends");
    watch.report.finish_if_any("a majority that was there for long enough")
}

/// A node that nobody has reached for so long, in microseconds, is not elected: voters try it before they vote.
const UNREACHED: u64 = 2_000_000;

/// How long a majority of so many may take to come to serve, in microseconds: a fifth of the bound on lateness, and a
/// fifteenth more for each node.
fn bound(history: &History) -> u64 {
    let lateness = u64::try_from(history.header.lateness_bound_ms).unwrap_or(0).saturating_mul(1000);
    lateness / 15 * (3 + history.header.nodes.len() as u64)
}

/// A majority that could serve.
struct Majority {
    nodes: BTreeSet<NodeId>,
    /// Since when all of it is up and hears each other.
    since: Option<u64>,
    /// Since when, moreover, nobody leads.
    unserved: Option<u64>,
}

struct Watch {
    now: u64,
    bound: u64,
    up: BTreeSet<NodeId>,
    /// They have been asked to end, and serve until they do: nobody counts on them, and they may lead.
    draining: BTreeSet<NodeId>,
    paused: BTreeSet<NodeId>,
    /// Links over which nothing arrives, from and to, and since when.
    silent: BTreeMap<(NodeId, NodeId), u64>,
    members: BTreeSet<NodeId>,
    /// Faults that excuse everybody.
    troubles: BTreeSet<usize>,
    /// Who leads and is ready, by its own word.
    leaders: BTreeMap<NodeId, u64>,
    majorities: Vec<Majority>,
    /// Puts since the last entry: when, and to whom.
    writes: Vec<(u64, NodeId)>,
    report: Report,
}

impl Watch {
    fn new(history: &History) -> Self {
        let members = &history.header.nodes;
        let size = members.len() / 2 + 1;
        let majorities = (0..1_u32 << members.len().min(16))
            .filter(|set| set.count_ones() as usize == size)
            .map(|set| {
                let nodes = members.iter().enumerate().filter(|(i, _)| (set >> i) & 1 == 1).map(|(_, node)| *node);
                Majority { nodes: nodes.collect(), since: None, unserved: None }
            })
            .collect();
        Self {
            now: 0,
            bound: bound(history),
            up: BTreeSet::new(),
            draining: BTreeSet::new(),
            paused: BTreeSet::new(),
            silent: BTreeMap::new(),
            members: members.iter().copied().collect(),
            troubles: BTreeSet::new(),
            leaders: BTreeMap::new(),
            majorities,
            writes: Vec::new(),
            report: Report::new(NAME),
        }
    }

    /// Takes the next event. Whether it can go on.
    fn take(&mut self, t: u64, event: &Event) -> bool {
        self.now = t;
        match event {
            Event::Node { node, what } => self.take_node(*node, what),
            Event::Links { silent } => {
                let since = |link| self.silent.get(link).copied().unwrap_or(t);
                self.silent = silent.iter().map(|link| (*link, since(link))).collect();
            }
            Event::FaultBegins { id, planned, nodes } => match &planned.fault {
                fault if fault.changes_members() => return false,
                Fault::Terminate { .. } => {
                    self.up.retain(|node| !nodes.contains(node));
                    self.draining.extend(nodes);
                }
                fault if is_told(fault) => return true,
                _ => {
                    self.troubles.insert(*id);
                }
            },
            Event::FaultEnds { id } => {
                self.troubles.remove(id);
            }
            Event::Raft(state) if !state.leads => {
                if self.leaders.remove(&state.node).is_none() {
                    return true;
                }
            }
            Event::Entry { .. } => {
                self.writes_went_in("an entry came at last");
                self.writes.clear();
                return true;
            }
            Event::Invoke { node, action: Action::Put { .. }, .. } => {
                self.writes.push((t, *node));
                return true;
            }
            _ => return true,
        }
        self.look();
        true
    }

    fn take_node(&mut self, node: NodeId, what: &NodeEvent) {
        match what {
            NodeEvent::Started => {
                self.up.insert(node);
            }
            NodeEvent::Killed | NodeEvent::PowerCut | NodeEvent::Stopped { .. } | NodeEvent::Broke { .. } => {
                self.up.remove(&node);
                self.draining.remove(&node);
                self.paused.remove(&node);
                self.leaders.remove(&node);
            }
            NodeEvent::Paused => {
                self.paused.insert(node);
            }
            NodeEvent::Resumed => {
                self.paused.remove(&node);
            }
            NodeEvent::Leads { term } => {
                self.leaders.insert(node, *term);
                let others = self.members.iter().filter(|other| **other != node);
                let since = others.map(|other| self.silent.get(&(*other, node)).copied().unwrap_or(u64::MAX)).max();
                let unreached = since.map_or(0, |since| self.now.saturating_sub(since));
                self.report.hold(unreached < UNREACHED, self.now, || {
                    let ms = unreached / 1000;
                    format!("node {node} was elected in term {term}, and no other could reach it for {ms} ms")
                });
            }
        }
    }

    fn is_whole(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let lives = |node: &NodeId| self.up.contains(node) && !self.paused.contains(node);
        let hear = |(from, to): &(NodeId, NodeId)| nodes.contains(from) && nodes.contains(to);
        self.troubles.is_empty() && nodes.iter().all(lives) && !self.silent.keys().any(hear)
    }

    /// Who of what has changed can serve now, and is served.
    fn look(&mut self) {
        let whole: Vec<bool> = self.majorities.iter().map(|majority| self.is_whole(&majority.nodes)).collect();
        if self.majorities.iter().zip(&whole).any(|(majority, whole)| majority.since.is_some() && !whole) {
            self.writes_went_in("it fell apart");
        }
        let hears = |node: &NodeId, nodes: &BTreeSet<NodeId>| {
            nodes
                .iter()
                .all(|other| !self.silent.contains_key(&(*node, *other)) && !self.silent.contains_key(&(*other, *node)))
        };
        let serves = |node: &NodeId| {
            let is_heard_by = |nodes| self.draining.contains(node) && hears(node, nodes);
            let mut whole = self.majorities.iter().zip(&whole).filter(|(_, whole)| **whole);
            let in_one = whole.any(|(it, _)| it.nodes.contains(node) || is_heard_by(&it.nodes));
            in_one && !self.paused.contains(node)
        };
        let led = self.leaders.keys().any(serves);
        let (now, bound) = (self.now, self.bound);
        for (majority, whole) in self.majorities.iter_mut().zip(whole) {
            if let Some(from) = majority.unserved.filter(|_| led || !whole) {
                majority.unserved = None;
                hold(&mut self.report, majority, from, now, bound);
            }
            majority.since = if whole { majority.since.or(Some(now)) } else { None };
            if whole && !led {
                majority.unserved = majority.unserved.or(Some(now));
            }
        }
    }

    /// The log must have moved since clients began to write to a majority that had the time to find a leader.
    fn writes_went_in(&mut self, how: &str) {
        let (now, bound) = (self.now, self.bound);
        if self.writes.first().is_none_or(|(first, _)| now - first <= bound) {
            return;
        }
        for majority in &self.majorities {
            let Some(since) = majority.since else { continue };
            let asked = |(t, node): &&(u64, NodeId)| *t > since + bound && majority.nodes.contains(node);
            let mut asked = self.writes.iter().filter(asked);
            if let Some((first, _)) = asked.next()
                && now - first > bound
                && asked.count() + 1 >= WRITES
            {
                let what = format!("{:?} was there, and the log stood still under writes until {how}", majority.nodes);
                self.report.violated(*first, what);
                return;
            }
        }
    }

    /// Nothing is known any further.
    fn disturb(&mut self, how: &str) {
        self.writes_went_in(how);
        let (now, bound) = (self.now, self.bound);
        for majority in &mut self.majorities {
            if let Some(from) = majority.unserved.take() {
                hold(&mut self.report, majority, from, now, bound);
            }
        }
    }
}

/// From `from` until now nobody led this majority.
fn hold(report: &mut Report, majority: &Majority, from: u64, now: u64, bound: u64) {
    report.hold(now - from <= bound, from.saturating_add(bound), || {
        let nodes: Vec<String> = majority.nodes.iter().map(ToString::to_string).collect();
        format!(
            "nodes {} were up and heard each other for {} ms, and nobody that could serve them led",
            nodes.join(", "),
            (now - from) / 1000
        )
    });
}

/// Whether all that the fault does is told by events of nodes and links.
fn is_told(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Partition { .. }
            | Fault::OneWay { .. }
            | Fault::Isolate { .. }
            | Fault::InboundCut { .. }
            | Fault::OutboundCut { .. }
            | Fault::PeerPortClosed { .. }
            | Fault::WrongAddress { .. }
            | Fault::LeaderInMinority
            | Fault::LeaderInMajority
            | Fault::Flap { .. }
            | Fault::Swizzle { .. }
            | Fault::Clog { .. }
            | Fault::Kill { .. }
            | Fault::PowerCut { .. }
            | Fault::PowerCutAll
            | Fault::RollingRestart { .. }
            | Fault::RestartStorm { .. }
            | Fault::Pause { .. }
            | Fault::LoseNode { .. }
            | Fault::TransferLeader
            | Fault::ReceiverHangs
            | Fault::ReceiverAnswers { .. }
            | Fault::ReceiverSlow { .. }
            | Fault::ReceiverGone
            | Fault::ReceiverMoody { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::plan::{RoleOf, Who};

    /// Three nodes, of which one leads from the beginning. The bound is 2 s / 15 * 6 = 800 ms.
    fn three() -> Script {
        leads(Script::new().started(1).started(2).started(3).at(100), 1, 1)
    }

    fn leads(script: Script, node: u64, term: u64) -> Script {
        script.raft(node, term, |state| state.leads = true).node(node, NodeEvent::Leads { term })
    }

    fn follows(script: Script, node: u64, term: u64) -> Script {
        script.raft(node, term, |state| state.leads = false)
    }

    fn silent(script: Script, links: &[(u64, u64)]) -> Script {
        let silent = links.iter().map(|(from, to)| (NodeId(*from), NodeId(*to))).collect();
        script.event(Event::Links { silent })
    }

    const ISOLATED: [(u64, u64); 4] = [(1, 2), (2, 1), (1, 3), (3, 1)];

    #[test]
    fn those_that_hear_each_other_find_a_leader() {
        accepts(NAME, leads(silent(three().at(1_000), &ISOLATED).at(1_700), 2, 2).at(9_000).converged());
        refuses(NAME, leads(silent(three().at(1_000), &ISOLATED).at(1_900), 2, 2));
        // Nobody ever leads.
        refuses(NAME, Script::new().started(1).started(2).at(1_000).killed(2));
        accepts(NAME, Script::new().started(1).started(2).at(700).killed(2));
        // At the end of the history as well.
        refuses(NAME, follows(three().at(1_000), 1, 1).at(2_000).converged());
    }

    #[test]
    fn half_a_node_does_not_lead_the_others() {
        for half in [[(2, 1), (3, 1)], [(1, 2), (1, 3)]] {
            refuses(NAME, silent(silent(three().at(1_000), &half).at(2_000), &[]));
            accepts(NAME, leads(silent(three().at(1_000), &half).at(1_500), 3, 2).at(4_000).converged());
        }
        // Of these each hears one other both ways.
        accepts(NAME, silent(silent(three().at(1_000), &[(1, 3)]).at(5_000), &[]));
    }

    #[test]
    fn nobody_is_elected_whom_nobody_can_reach() {
        let deaf = [(1, 2), (3, 2)];
        let elected = |after: u64| leads(silent(three().at(1_000).killed(1), &deaf).at(1_000 + after), 2, 2);
        refuses(NAME, elected(2_000));
        accepts(NAME, elected(1_999));
        // One other is enough to be elected by.
        accepts(NAME, leads(silent(three(), &deaf[..1]).at(2_900).killed(1).at(3_000), 2, 2));
    }

    #[test]
    fn a_majority_is_asked_of_and_nothing_less() {
        let alone = || silent(three().at(1_000).killed(2), &[(1, 3)]);
        accepts(NAME, follows(alone(), 1, 1).at(9_000).converged());
        accepts(NAME, three().at(1_000).node(1, NodeEvent::Paused).killed(2).at(9_000).converged());
        refuses(NAME, three().at(1_000).node(1, NodeEvent::Paused).at(9_000).converged());
    }

    #[test]
    fn one_that_drains_may_lead_and_is_not_counted_on() {
        let terminate = Fault::Terminate { node: Who::Role(RoleOf::Any) };
        let drains = |node: u64| three().at(1_000).begin_at(node, 7, terminate.clone());
        accepts(NAME, leads(drains(1), 1, 2).at(9_000).converged());
        refuses(NAME, leads(silent(drains(1), &ISOLATED), 1, 2).at(9_000).converged());
        refuses(NAME, leads(drains(1), 1, 2).killed(1).at(9_000).converged());
        // Without it there is one node.
        accepts(NAME, follows(drains(2).killed(3), 1, 1).at(9_000).converged());
    }

    #[test]
    fn other_troubles_excuse_while_they_last() {
        let node = Who::Role(RoleOf::Any);
        let slow = || follows(three().at(1_000).begin(7, Fault::DiskErrors { node }), 1, 1).at(5_000);
        accepts(NAME, leads(slow().end(7).at(5_500), 2, 2));
        refuses(NAME, leads(slow().end(7).at(6_000), 2, 2));
        let cut = three().at(1_000).begin(7, Fault::Isolate { node });
        refuses(NAME, follows(cut, 1, 1).at(5_000).end(7));
        // Who is a member after that is not known here.
        accepts(NAME, follows(three().at(1_000).begin(7, Fault::AddNode), 1, 1).at(9_000).converged());
    }

    #[test]
    fn the_log_moves_under_writes() {
        let writes = |mut script: Script| {
            for op in 1..=3 {
                script = script.at(1_000 + op * 100).invoke(op, put());
            }
            script
        };
        accepts(NAME, writes(three()).at(1_890).entry(2));
        refuses(NAME, writes(three()).at(2_000).entry(2));
        refuses(NAME, writes(three()).at(9_000).converged());
        accepts(NAME, three().at(1_100).invoke(1, put()).at(9_000).entry(2));
    }

    #[test]
    fn real_processes_do_not_tell_of_their_links() {
        not_applicable(NAME, three().real());
    }
}
