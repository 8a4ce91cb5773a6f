//! Does to the processes what the plan says, and undoes it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use campanile_model::NodeId;
use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep};

use super::machines::Machines;
use super::site::Site;
use super::watch::Watch;
use crate::drive::operators::Operators;
use crate::drive::receiver::{Mood, Receiver};
use crate::drive::recorder::Recorder;
use crate::history::Event;
use crate::plan::{Fault, PlannedFault, RoleOf, Who, both_ways};

/// Between the end of a node by itself and its restart.
const RESTART: Duration = Duration::from_millis(1500);
/// Between two looks at processes, and at whether the nodes agree.
const LOOK: Duration = Duration::from_millis(20);
/// Between two lines about how far it is.
const SAY: u64 = 1_000_000;

/// A step of a fault: what is done now, and what later.
enum Step {
    Begin(usize),
    End(usize),
    /// A repeating fault strikes again.
    Again(usize),
    Restart(NodeId),
    /// Isolation of a flapping or swizzled node ends.
    Rejoin(usize, NodeId),
}

/// A fault that has begun.
#[derive(Default)]
struct Active {
    nodes: Vec<NodeId>,
    links: Vec<(NodeId, NodeId)>,
    /// Nodes that are to be started again at its end.
    down: Vec<NodeId>,
}

pub struct Nemesis<'s> {
    pub machines: Machines,
    site: &'s Site,
    watch: Watch,
    receiver: Receiver,
    recorder: Recorder,
    operators: Operators,
    plan: Vec<PlannedFault>,
    rng: SmallRng,
    active: BTreeMap<usize, Active>,
    /// Links that are cut, and by how many faults.
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// Steps to come, by time in microseconds and order of planning.
    agenda: BTreeMap<(u64, u64), Step>,
    planned: u64,
    /// Nodes that stay down for good.
    lost: Vec<NodeId>,
    /// Planned faults that found nothing to strike.
    missed: Vec<&'static str>,
    said: u64,
}

impl<'s> Nemesis<'s> {
    pub fn new(
        machines: Machines,
        site: &'s Site,
        watch: Watch,
        receiver: Receiver,
        recorder: Recorder,
        plan: Vec<PlannedFault>,
        rng: SmallRng,
    ) -> Self {
        // No node joins or leaves here, so nobody needs to know where its peers would look for it.
        let operators = Operators::new(recorder.clone(), |_| String::new());
        let (active, cuts, agenda, planned, lost, missed, said) = Default::default();
        Self {
            machines,
            site,
            watch,
            receiver,
            recorder,
            operators,
            plan,
            rng,
            active,
            cuts,
            agenda,
            planned,
            lost,
            missed,
            said,
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        self.watch.leader()
    }

    /// Kinds of planned faults that found nothing to strike, one for each time.
    pub fn missed(&self) -> &[&'static str] {
        &self.missed
    }

    fn later(&mut self, after: Duration, step: Step) {
        self.planned += 1;
        self.agenda.insert((self.at(after), self.planned), step);
    }

    fn at(&self, after: Duration) -> u64 {
        self.recorder.now() + u64::try_from(after.as_micros()).unwrap_or(u64::MAX)
    }

    /// Carries the plan out for so long.
    pub async fn run(&mut self, span: Duration, say: &dyn Fn(&str)) -> Result<()> {
        for id in 0..self.plan.len() {
            self.later(self.plan[id].at.to_std(), Step::Begin(id));
        }
        self.until(self.at(span), "under faults", say).await
    }

    /// Goes on without new faults; what ends by itself is started again.
    pub async fn tend(&mut self, span: Duration, say: &dyn Fn(&str)) -> Result<()> {
        self.until(self.at(span), "after the faults", say).await
    }

    /// Waits until these nodes agree and owe nothing. Whether they came to it within the bound.
    pub async fn converge(&mut self, nodes: &[NodeId], bound: Duration, say: &dyn Fn(&str)) -> Result<bool> {
        let (begun, end) = (Instant::now(), self.at(bound));
        while self.recorder.now() < end {
            if self.watch.agree(nodes, begun) {
                self.record_digests(nodes).await;
                return Ok(true);
            }
            self.until(self.at(LOOK), "until all agree", say).await?;
        }
        Ok(false)
    }

    /// Nodes whose state is asked for at one index have the same, or a replica has gone astray.
    pub async fn record_digests(&self, nodes: &[NodeId]) {
        for node in nodes {
            let (node, told) = (*node, self.machines.client(*node).digest().await);
            self.recorder.record(match told {
                Ok(digest) => Event::Digest { node, index: digest.index, digest: digest.digest },
                Err(error) => Event::Untold { node, what: "its digest".into(), error: error.to_string() },
            });
        }
    }

    async fn until(&mut self, end: u64, phase: &str, say: &dyn Fn(&str)) -> Result<()> {
        loop {
            let now = self.recorder.now();
            if now >= end {
                return Ok(());
            }
            if now >= self.said + SAY {
                self.said = now;
                let (nodes, leader) = (self.machines.running().len(), self.leader());
                let leader = leader.map_or_else(|| "no leader".into(), |leader| format!("node {leader} leads"));
                say(&format!("{} s {phase}: {nodes} nodes run, {leader}, {} faults", now / SAY, self.active.len()));
            }
            for node in self.machines.reap()? {
                self.later(RESTART, Step::Restart(node));
            }
            let next = self.agenda.keys().next().map_or(end, |(at, _)| (*at).min(end));
            if next > now {
                sleep(Duration::from_micros(next - now).min(LOOK)).await;
            } else if let Some((_, step)) = self.agenda.pop_first() {
                self.step(step)?;
            }
        }
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Begin(id) => self.begin(id),
            Step::End(id) => self.end(id),
            Step::Again(id) => self.again(id),
            Step::Restart(node) => self.restart(node),
            Step::Rejoin(id, node) => self.rejoin(id, node),
        }
    }

    /// Starts a node again, unless a fault keeps it down. One that has been told to stop is waited for.
    fn restart(&mut self, node: NodeId) -> Result<()> {
        if self.lost.contains(&node) || self.active.values().any(|active| active.down.contains(&node)) {
            return Ok(());
        }
        if self.machines.is_stopping(node) {
            self.later(LOOK, Step::Restart(node));
            return Ok(());
        }
        self.machines.start(node)
    }

    fn find(&mut self, who: Who) -> Option<NodeId> {
        let running = self.machines.running();
        match who {
            Who::Node(node) => running.contains(&node).then_some(node),
            Who::Role(RoleOf::Leader) => self.leader().filter(|leader| running.contains(leader)),
            Who::Role(RoleOf::Follower) => {
                let leader = self.leader();
                running.into_iter().find(|node| Some(*node) != leader)
            }
            Who::Role(RoleOf::Any) if running.is_empty() => None,
            Who::Role(RoleOf::Any) => Some(running[self.rng.random_range(0..running.len())]),
        }
    }

    fn begin(&mut self, id: usize) -> Result<()> {
        let planned = self.plan[id].clone();
        let Some(active) = self.strike(&planned.fault)? else {
            self.missed.push(planned.fault.name());
            return Ok(());
        };
        for (from, to) in active.links.clone() {
            self.cut(from, to)?;
        }
        self.recorder.record(Event::FaultBegins { id, planned: planned.clone(), nodes: active.nodes.clone() });
        // What strikes at once and lasts is done only now, so that the record of it comes after that of the fault.
        self.active.insert(id, active);
        self.do_at_once(id, &planned.fault)?;
        if let Some(lasts) = planned.lasts {
            self.later(lasts.to_std(), Step::End(id));
        }
        if planned.fault.every().is_some() {
            self.again(id)?;
        }
        Ok(())
    }

    /// Whom a fault strikes; none if there is nobody.
    fn strike(&mut self, fault: &Fault) -> Result<Option<Active>> {
        let all = self.machines.all();
        let others = |node: NodeId| -> Vec<NodeId> { all.iter().copied().filter(|other| *other != node).collect() };
        let mut active = Active::default();
        match fault {
            Fault::Partition { side } => {
                active.nodes = side.clone();
                let rest: Vec<NodeId> = all.iter().copied().filter(|node| !side.contains(node)).collect();
                active.links = both_ways(side, &rest);
            }
            Fault::OneWay { from, to } => {
                active.nodes = from.clone();
                let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
                active.links = pairs.filter(|(from, to)| from != to).collect();
            }
            Fault::Isolate { node } => {
                let Some(node) = self.find(*node) else { return Ok(None) };
                active.nodes = vec![node];
                active.links = both_ways(&[node], &others(node));
            }
            Fault::LeaderInMinority | Fault::LeaderInMajority => {
                let Some(leader) = self.leader() else { return Ok(None) };
                let mut rest = others(leader);
                rest.shuffle(&mut self.rng);
                let quorum = all.len() / 2 + 1;
                let with = if *fault == Fault::LeaderInMinority { all.len() - quorum } else { quorum };
                let mut side = vec![leader];
                side.extend(rest.drain(..with.saturating_sub(1)));
                active.links = both_ways(&side, &rest);
                active.nodes = side;
            }
            Fault::Swizzle { .. } => {
                active.nodes = all.clone();
                active.nodes.shuffle(&mut self.rng);
            }
            Fault::Kill { node } | Fault::PowerCut { node } | Fault::Terminate { node } => {
                let Some(node) = self.find(*node) else { return Ok(None) };
                active.nodes = vec![node];
                active.down = vec![node];
            }
            Fault::PowerCutAll => {
                active.nodes = self.machines.running();
                active.down = active.nodes.clone();
            }
            Fault::RollingRestart { .. } => active.nodes = self.machines.running(),
            Fault::Flap { node, .. }
            | Fault::RestartStorm { node, .. }
            | Fault::Pause { node }
            | Fault::DiskFull { node } => {
                let Some(node) = self.find(*node) else { return Ok(None) };
                active.nodes = vec![node];
            }
            Fault::LoseNode { node } => {
                let node = match node {
                    Who::Node(node) => Some(*node).filter(|node| all.contains(node)),
                    Who::Role(_) => self.find(*node),
                };
                let Some(node) = node else { return Ok(None) };
                active.nodes = vec![node];
            }
            Fault::TransferLeader => {
                let leader = self.leader();
                let to = self.machines.running().into_iter().find(|node| Some(*node) != leader);
                let (Some(_), Some(to)) = (leader, to) else { return Ok(None) };
                active.nodes = vec![to];
            }
            Fault::ReceiverHangs | Fault::ReceiverAnswers { .. } | Fault::ReceiverSlow { .. } => {}
            Fault::ReceiverGone | Fault::ReceiverMoody { .. } => {}
            other => return Err(anyhow!("{} cannot be done to real processes and was not left out", other.name())),
        }
        Ok(Some(active))
    }

    fn do_at_once(&mut self, id: usize, fault: &Fault) -> Result<()> {
        let nodes = self.active.get(&id).map_or_else(Vec::new, |active| active.nodes.clone());
        match fault {
            Fault::Kill { .. } | Fault::PowerCut { .. } | Fault::PowerCutAll => {
                nodes.into_iter().try_for_each(|node| self.machines.kill(node))?;
            }
            Fault::Terminate { .. } => nodes.into_iter().try_for_each(|node| self.machines.terminate(node))?,
            Fault::LoseNode { .. } => {
                self.lost.extend(&nodes);
                nodes.into_iter().try_for_each(|node| self.machines.kill(node))?;
                // It never ends.
                self.active.remove(&id);
            }
            Fault::Pause { .. } => nodes.into_iter().try_for_each(|node| self.machines.pause(node))?,
            Fault::DiskFull { .. } => {
                let disks = self.site.disks().map_err(|why| anyhow!("no disk to fill: {why}"))?;
                nodes.into_iter().try_for_each(|node| disks.fill(node))?;
            }
            Fault::TransferLeader => {
                // Both were there a moment ago, when the fault was found to strike.
                let leader = self.leader().and_then(|leader| self.machines.apis().remove_entry(&leader));
                if let (Some(leader), Some(to)) = (leader, nodes.first().copied()) {
                    let operators = self.operators.clone();
                    tokio::spawn(async move { operators.hand_over(leader, to).await });
                }
            }
            Fault::ReceiverHangs => self.receiver.set_mood(Mood::Hangs),
            Fault::ReceiverAnswers { status } => self.receiver.set_mood(Mood::Answers(*status)),
            Fault::ReceiverSlow { by } => self.receiver.set_mood(Mood::Slow(by.to_std())),
            Fault::ReceiverGone => self.receiver.set_mood(Mood::Gone),
            Fault::ReceiverMoody { per_mille } => self.receiver.set_moody(*per_mille),
            _ => {}
        }
        Ok(())
    }

    /// A repeating fault strikes its next node.
    fn again(&mut self, id: usize) -> Result<()> {
        let Some(active) = self.active.get_mut(&id) else { return Ok(()) };
        let fault = &self.plan[id].fault;
        let Some(every) = fault.every().map(|every| every.to_std()) else { return Ok(()) };
        let Some(node) = active.nodes.first().copied() else { return Ok(()) };
        match fault {
            Fault::Flap { .. } | Fault::Swizzle { .. } => {
                active.nodes.rotate_left(1);
                let others: Vec<NodeId> = self.machines.all().into_iter().filter(|other| *other != node).collect();
                let links = both_ways(&[node], &others);
                active.links.extend(links.iter().copied());
                for (from, to) in links {
                    self.cut(from, to)?;
                }
                let back = every / 2 + every.mul_f64(f64::from(self.rng.random_range(0..100_u32)) / 100.0);
                self.later(back, Step::Rejoin(id, node));
            }
            _ => {
                if matches!(fault, Fault::RollingRestart { .. }) {
                    active.nodes.remove(0);
                }
                self.machines.kill(node)?;
                self.later(every / 2, Step::Restart(node));
            }
        }
        self.later(every, Step::Again(id));
        Ok(())
    }

    fn rejoin(&mut self, id: usize, node: NodeId) -> Result<()> {
        let Some(active) = self.active.get_mut(&id) else { return Ok(()) };
        let links = std::mem::take(&mut active.links);
        let (mend, keep): (Vec<_>, Vec<_>) = links.into_iter().partition(|(from, to)| *from == node || *to == node);
        active.links = keep;
        mend.into_iter().try_for_each(|(from, to)| self.mend(from, to))
    }

    fn end(&mut self, id: usize) -> Result<()> {
        let Some(active) = self.active.remove(&id) else { return Ok(()) };
        for (from, to) in active.links {
            self.mend(from, to)?;
        }
        for node in active.nodes {
            match self.plan[id].fault {
                Fault::Pause { .. } => self.machines.resume(node)?,
                Fault::DiskFull { .. } => {
                    self.site.disks().map_err(|why| anyhow!("no disk to free: {why}"))?.free(node)?;
                }
                _ => {}
            }
        }
        for node in active.down {
            self.restart(node)?;
        }
        match self.plan[id].fault {
            Fault::ReceiverHangs | Fault::ReceiverAnswers { .. } | Fault::ReceiverSlow { .. } | Fault::ReceiverGone => {
                self.receiver.set_mood(Mood::Fine);
            }
            Fault::ReceiverMoody { .. } => self.receiver.set_moody(0),
            _ => {}
        }
        self.recorder.record(Event::FaultEnds { id });
        Ok(())
    }

    /// Ends every fault. The nodes that run afterwards: all but the lost.
    pub fn end_all(&mut self) -> Result<Vec<NodeId>> {
        self.agenda.clear();
        for id in self.active.keys().copied().collect::<Vec<_>>() {
            self.end(id)?;
        }
        let mut nodes = self.machines.all();
        nodes.retain(|node| !self.lost.contains(node));
        for node in &nodes {
            self.restart(*node)?;
        }
        Ok(nodes)
    }

    /// Cuts are counted, so that faults may overlap.
    fn cut(&mut self, from: NodeId, to: NodeId) -> Result<()> {
        let network = self.site.network().map_err(|why| anyhow!("no link to cut: {why}"))?;
        let count = self.cuts.entry((from, to)).or_default();
        *count += 1;
        if *count == 1 { network.cut(from, to) } else { Ok(()) }
    }

    fn mend(&mut self, from: NodeId, to: NodeId) -> Result<()> {
        let network = self.site.network().map_err(|why| anyhow!("no link to mend: {why}"))?;
        let Some(count) = self.cuts.get_mut(&(from, to)) else { return Ok(()) };
        *count -= 1;
        if *count == 0 {
            self.cuts.remove(&(from, to));
            return network.mend(from, to);
        }
        Ok(())
    }
}
