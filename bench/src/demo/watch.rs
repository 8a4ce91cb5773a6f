//! What the demo's status line is made from: the cluster's status, asked of any node that answers, and the receiver's
//! log, read as it grows.

use std::collections::HashSet;
use std::time::Duration;

use campanile_client::Client;
use campanile_model::{NodeId, OccurrenceId};

use super::work::{self, SharedLedger};
use crate::clock::{self, Micros};
use crate::cluster::ProcessCluster;
use crate::latency::Latencies;
use crate::receiver::Receiver;

/// Longer than a tick would make the display lag behind.
const ASK_TIMEOUT: Duration = Duration::from_millis(80);

pub struct Watch<'a> {
    receiver: &'a Receiver,
    ledger: &'a SharedLedger,
    nodes: Vec<(NodeId, Client)>,
    down: Option<NodeId>,
    leader: Option<NodeId>,
    term: u64,
    live_runs: u64,
    /// Deliveries looked at so far, the occurrences among them, and how many came again.
    seen: usize,
    occurrences: HashSet<OccurrenceId>,
    repeats: usize,
    steady: Latencies,
    in_takeover: Latencies,
    killed_at: Option<Micros>,
    first_fire: Option<Micros>,
    announced: bool,
}

impl<'a> Watch<'a> {
    pub fn new(cluster: &ProcessCluster, receiver: &'a Receiver, ledger: &'a SharedLedger) -> Self {
        let nodes = cluster.ids().into_iter().map(|id| (id, cluster.node(id).client.clone())).collect();
        Self {
            receiver,
            ledger,
            nodes,
            down: None,
            leader: None,
            term: 0,
            live_runs: 0,
            seen: 0,
            occurrences: HashSet::new(),
            repeats: 0,
            steady: Latencies::default(),
            in_takeover: Latencies::default(),
            killed_at: None,
            first_fire: None,
            announced: false,
        }
    }

    pub fn killed(&mut self, node: NodeId, at: Micros) {
        // What came in before belongs to the time before.
        self.read_deliveries();
        (self.down, self.leader, self.killed_at) = (Some(node), None, Some(at));
    }

    pub fn restarted(&mut self, node: NodeId) {
        self.down = self.down.filter(|down| *down != node);
    }

    /// Reads what is new; says so when the next leader has fired.
    pub async fn look(&mut self) -> Option<String> {
        self.read_deliveries();
        for (id, client) in &self.nodes {
            if Some(*id) == self.down {
                continue;
            }
            let Ok(Ok(view)) = tokio::time::timeout(ASK_TIMEOUT, client.cluster()).await else { continue };
            // A follower may still believe in the leader that was killed.
            if view.term >= self.term && view.leader.is_some() && view.leader != self.down {
                (self.leader, self.term, self.live_runs) = (view.leader, view.term, view.live_runs);
                break;
            }
        }
        let (leader, took) = (self.leader?, self.takeover_ms().filter(|_| !self.announced)?);
        self.announced = true;
        Some(format!("node {leader} leads in term {}: next fire on time {took:.0} ms after the kill", self.term))
    }

    fn read_deliveries(&mut self) {
        let new = self.receiver.deliveries_from(self.seen);
        self.seen += new.len();
        for delivery in new {
            if !self.occurrences.insert(delivery.occurrence) {
                self.repeats += 1;
                continue;
            }
            let due = Micros(delivery.scheduled_at.as_millis() * 1000);
            // Only a new leader can have fired what was due after the kill.
            if self.killed_at.is_some_and(|killed| due > killed) && self.first_fire.is_none() {
                self.first_fire = Some(delivery.received_at);
            }
            let overdue_by_the_kill = self.killed_at.is_some_and(|killed| {
                delivery.received_at > killed && self.first_fire.is_none_or(|first| due <= first)
            });
            let latencies = if overdue_by_the_kill { &mut self.in_takeover } else { &mut self.steady };
            latencies.record_us(delivery.lateness_us());
        }
    }

    pub fn line(&self) -> String {
        let now = clock::now();
        let due = work::with(self.ledger, |ledger| {
            ledger.expected.occurrences().filter(|(id, _)| id.scheduled_at <= now).count()
        });
        let leader = self.leader.map_or("none".into(), |leader| format!("node {leader}"));
        format!(
            "leader {leader} term {} | due {due} received {} open {} | late {} | repeats {}",
            self.term,
            self.occurrences.len(),
            self.live_runs,
            self.steady,
            self.repeats,
        )
    }

    pub fn was_killed(&self) -> bool {
        self.killed_at.is_some()
    }

    /// From the kill to the first delivery of something that came due after it.
    pub fn takeover_ms(&self) -> Option<f64> {
        Some(self.first_fire?.seconds_since(self.killed_at?) * 1000.0)
    }

    /// Lateness outside the takeover.
    pub fn steady(&self) -> &Latencies {
        &self.steady
    }

    /// Lateness of what was due while nobody led.
    pub fn in_takeover(&self) -> &Latencies {
        &self.in_takeover
    }
}
