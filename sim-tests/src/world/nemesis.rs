//! Does to the cluster what the plan says, and undoes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use campanile_model::{Millis, NodeId};
use campanile_raft::rt;
use madsim::runtime::{Handle, NodeHandle};
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::sync::mpsc;

use super::cluster::{Cluster, Ended};
use super::network::Network;
use super::{api_address, peer_address};
use crate::drive::operators::{Helper, Operators};
use crate::drive::receiver::{Mood, Receiver};
use crate::drive::recorder::Recorder;
use crate::history::{Event, LeftOut, Wanted};
use crate::plan::{Fault, PlannedFault, RoleOf, Who, both_ways};

const OPERATOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 7, 1));
/// Between the end of a node by itself and its restart.
const RESTART: Duration = Duration::from_millis(1500);
/// Why a fault strikes nobody.
const NOBODY: &str = "there was no node to strike";

/// A step of a fault: what is done now, and what later.
enum Step {
    Begin(usize),
    End(usize),
    /// A repeating fault strikes again.
    Again(usize),
    Restart(NodeId),
    /// The disk of a node that stopped lies: the operator replaces it.
    Replace(NodeId),
    /// Isolation of a flapping or swizzled node ends.
    Rejoin(usize, NodeId),
}

/// A fault that has begun.
struct Active {
    planned: PlannedFault,
    nodes: Vec<NodeId>,
    links: Vec<(NodeId, NodeId)>,
    /// Nodes that are to be started again at its end.
    down: Vec<NodeId>,
}

pub struct Nemesis {
    pub cluster: Cluster,
    network: Network,
    /// The machine operators sit at.
    operator: NodeHandle,
    operators: Operators,
    receiver: Receiver,
    recorder: Recorder,
    endings: mpsc::UnboundedReceiver<Ended>,
    plan: Vec<PlannedFault>,
    active: BTreeMap<usize, Active>,
    /// Steps to come, by time in microseconds and order of planning.
    agenda: BTreeMap<(u64, u64), Step>,
    planned: u64,
    /// Nodes that never come back.
    lost: BTreeSet<NodeId>,
    /// The silent links as they were last recorded.
    silent: Vec<(NodeId, NodeId)>,
    /// Planned faults that struck nobody, by kind and reason.
    missed: BTreeMap<(&'static str, &'static str), u64>,
    over: bool,
}

impl Nemesis {
    pub fn new(
        cluster: Cluster,
        endings: mpsc::UnboundedReceiver<Ended>,
        receiver: Receiver,
        recorder: Recorder,
        plan: Vec<PlannedFault>,
    ) -> Self {
        let network = Network::usual();
        let operator = Handle::current().create_node().name("operator").ip(OPERATOR).build();
        let operators = Operators::new(recorder.clone(), peer_address);
        let (active, agenda, planned, lost, silent, missed, over) = Default::default();
        Self {
            cluster,
            network,
            operator,
            operators,
            receiver,
            recorder,
            endings,
            plan,
            active,
            agenda,
            planned,
            lost,
            silent,
            missed,
            over,
        }
    }

    /// Planned faults that struck nobody.
    pub fn missed(&self) -> Vec<LeftOut> {
        let left_out = |((fault, why), count): (&(&str, &str), &u64)| LeftOut {
            fault: (*fault).to_owned(),
            count: *count,
            why: (*why).to_owned(),
        };
        self.missed.iter().map(left_out).collect()
    }

    /// Records which links are silent, if they have changed.
    fn note_links(&mut self) {
        let silent = self.network.silent(&self.cluster);
        if silent != self.silent {
            self.recorder.record(Event::Links { silent: silent.clone() });
            self.silent = silent;
        }
    }

    fn later(&mut self, after: Duration, step: Step) {
        let at = self.recorder.now() + u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.planned += 1;
        self.agenda.insert((at, self.planned), step);
    }

    /// Carries the plan out for so long.
    pub async fn run(&mut self, span: Duration) {
        for id in 0..self.plan.len() {
            self.later(self.plan[id].at.to_std(), Step::Begin(id));
        }
        let end = self.recorder.now() + u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.until(end).await;
    }

    /// Goes on without new faults; what ends by itself is started again.
    pub async fn tend(&mut self, span: Duration) {
        let end = self.recorder.now() + u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.until(end).await;
    }

    async fn until(&mut self, end: u64) {
        loop {
            let now = self.recorder.now();
            if now >= end {
                return;
            }
            let next = self.agenda.keys().next().map_or(end, |(at, _)| (*at).min(end));
            if next > now {
                let wait = tokio::time::sleep(Duration::from_micros(next - now));
                tokio::select! {
                    biased;
                    Some(ended) = self.endings.recv() => self.ended(&ended),
                    () = wait => {}
                }
                continue;
            }
            if let Some((_, step)) = self.agenda.pop_first() {
                self.step(step).await;
            }
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.cluster.note_ended(ended.node);
        if !ended.asked {
            // Whatever made it end, what it had not synced may be gone.
            self.cluster.lose_unsynced(ended.node);
        }
        if self.lost.contains(&ended.node) {
            return;
        }
        if self.cluster.hosts.get(&ended.node).is_some_and(|host| host.disk.is_damaged()) {
            return self.later(RESTART, Step::Replace(ended.node));
        }
        let held = self.active.values().any(|active| active.down.contains(&ended.node));
        if !held {
            self.later(RESTART, Step::Restart(ended.node));
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Begin(_) if self.over => {}
            Step::Begin(id) => self.begin(id),
            Step::End(id) => self.end(id),
            Step::Again(id) => self.again(id),
            Step::Restart(node) => self.start(node),
            Step::Replace(node) => self.replace(node, true),
            Step::Rejoin(id, node) => self.rejoin(id, node),
        }
        self.note_links();
    }

    /// Starts a node again, unless it is lost.
    fn start(&mut self, node: NodeId) {
        if !self.lost.contains(&node) {
            self.cluster.start(node);
        }
    }

    fn find(&self, who: Who) -> Option<NodeId> {
        let running = self.cluster.running();
        match who {
            Who::Node(node) => running.contains(&node).then_some(node),
            Who::Role(RoleOf::Leader) => self.cluster.leader(),
            Who::Role(RoleOf::Follower) => {
                let leader = self.cluster.leader();
                running.into_iter().find(|node| Some(*node) != leader)
            }
            Who::Role(RoleOf::Any) => {
                if running.is_empty() {
                    None
                } else {
                    Some(running[rt::rng().random_range(0..running.len())])
                }
            }
        }
    }

    /// Does a fault. Whom it struck; or why it struck nobody.
    fn strike(&mut self, planned: &PlannedFault) -> Result<Active, &'static str> {
        let all: Vec<NodeId> = self.cluster.hosts.keys().copied().collect();
        let others = |node: NodeId| -> Vec<NodeId> { all.iter().copied().filter(|other| *other != node).collect() };
        let mut active = Active { planned: planned.clone(), nodes: Vec::new(), links: Vec::new(), down: Vec::new() };
        let mut single = |nemesis: &Self, who: Who| -> Result<NodeId, &'static str> {
            let node = nemesis.find(who).ok_or(NOBODY)?;
            active.nodes.push(node);
            Ok(node)
        };
        match &planned.fault {
            Fault::Partition { side } => {
                active.nodes = side.clone();
                let rest = all.iter().filter(|node| !side.contains(node));
                active.links = both_ways(side, &rest.copied().collect::<Vec<_>>());
            }
            Fault::OneWay { from, to } => {
                active.nodes = from.clone();
                active.links = from
                    .iter()
                    .flat_map(|from| to.iter().map(move |to| (*from, *to)))
                    .filter(|(a, b)| a != b)
                    .collect();
            }
            Fault::Isolate { node } | Fault::Clog { node } => {
                let node = single(self, *node)?;
                active.links = both_ways(&[node], &others(node));
            }
            Fault::InboundCut { node } => {
                let node = single(self, *node)?;
                active.links = others(node).into_iter().map(|other| (other, node)).collect();
            }
            Fault::OutboundCut { node } => {
                let node = single(self, *node)?;
                active.links = others(node).into_iter().map(|other| (node, other)).collect();
            }
            Fault::PeerPortClosed { node } => {
                let node = single(self, *node)?;
                self.network.close(node);
            }
            Fault::WrongAddress { node } => {
                let node = single(self, *node)?;
                self.network.close(node);
                self.cluster.move_peer_port(node, true);
            }
            Fault::LeaderInMinority | Fault::LeaderInMajority => {
                let leader = self.cluster.leader().ok_or(NOBODY)?;
                let mut rest = others(leader);
                rest.shuffle(&mut rt::rng());
                let quorum = all.len() / 2 + 1;
                let with = if planned.fault == Fault::LeaderInMinority { all.len() - quorum } else { quorum };
                let mut side = vec![leader];
                side.extend(rest.drain(..with.saturating_sub(1)));
                active.links = both_ways(&side, &rest);
                active.nodes = side;
            }
            Fault::Flap { node, .. } => {
                single(self, *node)?;
            }
            Fault::Swizzle { .. } => {
                active.nodes = all.clone();
                active.nodes.shuffle(&mut rt::rng());
            }
            Fault::Loss { per_mille } => self.network.lose(*per_mille),
            Fault::Delay { min, max } => self.network.delay(*min, *max),
            Fault::Replay { per_mille } => rt::links::set_replay(*per_mille),
            Fault::Kill { node } => {
                let node = single(self, *node)?;
                self.cluster.kill(node);
                active.down.push(node);
            }
            Fault::PowerCut { node } => {
                let node = single(self, *node)?;
                self.cluster.power_cut(node);
                active.down.push(node);
            }
            Fault::PowerCutAll => {
                for node in self.cluster.running() {
                    self.cluster.power_cut(node);
                    active.nodes.push(node);
                    active.down.push(node);
                }
            }
            Fault::RollingRestart { .. } => active.nodes = self.cluster.running(),
            Fault::RollingUpgrade { .. } => active.nodes = self.cluster.release(),
            Fault::RestartStorm { node, .. } => {
                single(self, *node)?;
            }
            Fault::Pause { node } => {
                let node = single(self, *node)?;
                self.cluster.pause(node);
            }
            Fault::Terminate { node } => {
                let node = single(self, *node)?;
                self.cluster.terminate(node);
                active.down.push(node);
            }
            Fault::LoseNode { node } => {
                let named = match node {
                    Who::Node(node) => self.cluster.hosts.contains_key(node).then_some(*node),
                    Who::Role(_) => self.find(*node),
                };
                let node = named.ok_or(NOBODY)?;
                self.cluster.kill(node);
                self.lost.insert(node);
                active.nodes.push(node);
            }
            Fault::SlowDisk { node, sync } => {
                let node = single(self, *node)?;
                let span = sync.to_std();
                self.cluster.hosts[&node].disk.set_sync_delay(move || Box::pin(tokio::time::sleep(span)));
            }
            Fault::FailSync { node } => {
                let node = single(self, *node)?;
                self.cluster.hosts[&node].disk.fail_next_sync();
            }
            Fault::DiskErrors { node } => {
                let node = single(self, *node)?;
                self.cluster.hosts[&node].disk.set_failing(true);
            }
            Fault::DiskFull { node } => {
                let node = single(self, *node)?;
                self.cluster.hosts[&node].disk.set_full(true);
            }
            Fault::BitFlip { node } => {
                let node = single(self, *node)?;
                let draw = rt::rng().random_range(0..u64::MAX);
                self.cluster.power_cut(node);
                self.cluster.hosts[&node].disk.flip_bit(draw);
                active.down.push(node);
            }
            Fault::WipeDisk { node } | Fault::RemoveNode { node } => {
                let node = single(self, *node)?;
                self.replace(node, planned.fault.name() == "wipe_disk");
            }
            Fault::AddNode => {
                let id = self.cluster.next_id();
                active.nodes.push(id);
                self.cluster.add(id);
                let helpers = self.helpers(Some(id));
                self.operate(helpers, vec![Wanted::AddNode { id }]);
            }
            Fault::TransferLeader => {
                let leader = self.cluster.leader();
                let to = self.cluster.running().into_iter().find(|node| Some(*node) != leader);
                let (Some(leader), Some(to)) = (leader, to) else { return Err(NOBODY) };
                active.nodes.push(to);
                let (operators, helper) = (self.operators.clone(), (leader, api_address(leader)));
                self.operator.spawn(async move { operators.hand_over(helper, to).await });
            }
            Fault::ClockJump { node, by_ms } => {
                let node = single(self, *node)?;
                self.cluster.shift_clock(node, *by_ms);
            }
            Fault::ClockDrift { node, ppm } => {
                let node = single(self, *node)?;
                self.cluster.drift_clocks(node, *ppm);
            }
            Fault::ClockFreeze { node } => {
                let node = single(self, *node)?;
                self.cluster.hosts[&node].clock.freeze();
            }
            Fault::ReceiverHangs => self.receiver.set_mood(Mood::Hangs),
            Fault::ReceiverAnswers { status } => self.receiver.set_mood(Mood::Answers(*status)),
            Fault::ReceiverSlow { by } => self.receiver.set_mood(Mood::Slow(by.to_std())),
            Fault::ReceiverGone => self.receiver.set_mood(Mood::Gone),
            Fault::ReceiverMoody { per_mille } => self.receiver.set_moody(*per_mille),
        }
        // A cut that cuts nothing must not be told: it would excuse what it did not do.
        if cuts(&planned.fault) && active.links.is_empty() {
            return Err("there was no link to cut");
        }
        let of_many = planned.fault.every().is_some() || planned.fault == Fault::PowerCutAll;
        if of_many && active.nodes.is_empty() {
            return Err(NOBODY);
        }
        Ok(active)
    }

    fn begin(&mut self, id: usize) {
        let planned = self.plan[id].clone();
        let active = match self.strike(&planned) {
            Ok(active) => active,
            Err(why) => {
                *self.missed.entry((planned.fault.name(), why)).or_default() += 1;
                return;
            }
        };
        for (from, to) in active.links.clone() {
            self.network.cut(&self.cluster, from, to);
        }
        self.recorder.record(Event::FaultBegins { id, planned: planned.clone(), nodes: active.nodes.clone() });
        if matches!(planned.fault, Fault::LoseNode { .. }) {
            // It never ends.
            return;
        }
        self.active.insert(id, active);
        if let Some(lasts) = planned.lasts {
            self.later(lasts.to_std(), Step::End(id));
        }
        if planned.fault.every().is_some() {
            self.again(id);
        }
    }

    /// A repeating fault strikes its next node.
    fn again(&mut self, id: usize) {
        let Some(active) = self.active.get_mut(&id) else { return };
        let Some(every) = active.planned.fault.every().map(Millis::to_std) else { return };
        let Some(node) = active.nodes.first().copied() else { return };
        match active.planned.fault {
            Fault::Flap { .. } | Fault::Swizzle { .. } => {
                active.nodes.rotate_left(1);
                let others: Vec<NodeId> = self.cluster.hosts.keys().copied().filter(|other| *other != node).collect();
                let links = both_ways(&[node], &others);
                active.links.extend(links.iter().copied());
                for (from, to) in links {
                    self.network.cut(&self.cluster, from, to);
                }
                let back = every / 2 + every.mul_f64(f64::from(rt::rng().random_range(0..100_u32)) / 100.0);
                self.later(back, Step::Rejoin(id, node));
            }
            Fault::RollingRestart { .. } => {
                active.nodes.remove(0);
                self.cluster.kill(node);
                self.later(every / 2, Step::Restart(node));
            }
            Fault::RollingUpgrade { .. } => {
                active.nodes.remove(0);
                if self.cluster.upgrade(node) {
                    self.later(every / 2, Step::Restart(node));
                }
            }
            _ => {
                self.cluster.kill(node);
                self.later(every / 2, Step::Restart(node));
            }
        }
        self.later(every, Step::Again(id));
    }

    fn rejoin(&mut self, id: usize, node: NodeId) {
        let Some(active) = self.active.get_mut(&id) else { return };
        let (mend, keep) =
            std::mem::take(&mut active.links).into_iter().partition(|(from, to)| *from == node || *to == node);
        let mend: Vec<(NodeId, NodeId)> = mend;
        active.links = keep;
        for (from, to) in mend {
            self.network.mend(&self.cluster, from, to);
        }
    }

    fn end(&mut self, id: usize) {
        let Some(active) = self.active.remove(&id) else { return };
        for (from, to) in &active.links {
            self.network.mend(&self.cluster, *from, *to);
        }
        for node in &active.down {
            self.start(*node);
        }
        for node in &active.nodes {
            match active.planned.fault {
                Fault::PeerPortClosed { .. } => self.network.open(*node),
                Fault::WrongAddress { .. } => {
                    self.network.open(*node);
                    self.cluster.move_peer_port(*node, false);
                }
                _ => {}
            }
            let Some(host) = self.cluster.hosts.get(node) else { continue };
            match active.planned.fault {
                Fault::Pause { .. } => self.cluster.resume(*node),
                Fault::SlowDisk { .. } => super::cluster::usual_disk(&host.disk),
                Fault::DiskErrors { .. } => host.disk.set_failing(false),
                Fault::DiskFull { .. } => host.disk.set_full(false),
                Fault::ClockJump { .. } => self.cluster.shift_clock(*node, 0),
                Fault::ClockDrift { .. } => self.cluster.drift_clocks(*node, 0),
                Fault::ClockFreeze { .. } => host.clock.thaw(),
                _ => {}
            }
        }
        match active.planned.fault {
            Fault::Loss { .. } => self.network.lose(0),
            Fault::Delay { .. } => self.network.no_delay(),
            Fault::Replay { .. } => rt::links::set_replay(0),
            Fault::RollingUpgrade { .. } => self.cluster.upgrade_all(),
            Fault::ReceiverHangs | Fault::ReceiverAnswers { .. } | Fault::ReceiverSlow { .. } | Fault::ReceiverGone => {
                self.receiver.set_mood(Mood::Fine);
            }
            Fault::ReceiverMoody { .. } => self.receiver.set_moody(0),
            _ => {}
        }
        self.recorder.record(Event::FaultEnds { id });
    }

    /// Ends every fault. The nodes that run afterwards: all but the lost.
    pub fn end_all(&mut self) -> Vec<NodeId> {
        self.over = true;
        self.agenda.clear();
        for id in self.active.keys().copied().collect::<Vec<_>>() {
            self.end(id);
        }
        self.note_links();
        self.receiver.heal();
        let nodes = self.cluster.hosts.keys().copied().filter(|node| !self.lost.contains(node)).collect::<Vec<_>>();
        for node in &nodes {
            self.cluster.start(*node);
        }
        nodes
    }

    /// Waits for those that were asked to end and are still about it: until they are back, not all is healed.
    pub async fn see_out(&mut self, within: Duration) {
        let end = self.recorder.now() + u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        while self.cluster.is_any_stopping() && self.recorder.now() < end {
            self.tend(RESTART).await;
        }
    }

    /// Takes a node out of the cluster; if its disk was lost, a new one takes its place.
    fn replace(&mut self, node: NodeId, wiped: bool) {
        let newcomer = wiped.then(|| self.cluster.next_id());
        if wiped {
            self.cluster.discard(node);
        }
        if let Some(newcomer) = newcomer {
            self.cluster.add(newcomer);
        }
        let added = newcomer.map(|id| Wanted::AddNode { id });
        let wanted = added.into_iter().chain([Wanted::RemoveNode { id: node }]).collect();
        self.operate(self.helpers(None), wanted);
    }

    /// Who can be asked: all that run, but one.
    fn helpers(&self, but: Option<NodeId>) -> Vec<Helper> {
        let running = self.cluster.running().into_iter().filter(|node| Some(*node) != but);
        running.map(|node| (node, api_address(node))).collect()
    }

    fn operate(&self, helpers: Vec<Helper>, wanted: Vec<Wanted>) {
        let operators = self.operators.clone();
        self.operator.spawn(async move { operators.change_members(helpers, wanted).await });
    }
}

/// Whether all that the fault does is to cut links, at once.
fn cuts(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Partition { .. }
            | Fault::OneWay { .. }
            | Fault::Isolate { .. }
            | Fault::InboundCut { .. }
            | Fault::OutboundCut { .. }
            | Fault::LeaderInMinority
            | Fault::LeaderInMajority
            | Fault::Clog { .. }
    )
}
