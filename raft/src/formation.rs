//! How a cluster begins, and how it never begins twice.
//!
//! Every founder is given the same list. The lowest id founds, and only if every node of the list answers and none has
//! data: it draws the cluster's id, has every founder write it down, and then initialises. An empty node that meets a
//! cluster with data does not take part in anything: its disk was lost, and with it perhaps votes and entries that
//! others count on. It waits to be taken in under a new id (`cluster add`, `--join`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use campanile_model::NodeId;
use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::ReplicaConfig;
use crate::error::StartError;
use crate::fatal::Fatal;
use crate::identity::{ClusterId, Identity};
use crate::log_store::LogStore;
use crate::network::client::{Peers, Traffic};
use crate::network::wire::{self, FoundAnswer, FoundMessage, HelloAnswer};
use crate::state_machine::Raft;
use crate::types::PeerNode;

/// How long a greeting may take.
const HELLO: Duration = Duration::from_millis(1000);
/// Between two rounds of greetings.
const AGAIN: Duration = Duration::from_millis(250);
/// A waiting node says so every so many rounds.
const SAY_EVERY: u32 = 120;

/// Greets, founds and joins. Clones are the same.
#[derive(Clone)]
pub struct Formation {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    config: ReplicaConfig,
    raft: Raft,
    log: LogStore,
    peers: Peers,
    clock: Clock,
    fatal: Fatal,
}

/// What one round of greetings means for an empty node.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    /// All founders are there and empty, and this one is the lowest.
    Found,
    /// Another one founds, or some are not there yet.
    Wait,
    /// There is a cluster with data, and this node is not of it.
    Excluded { by: NodeId },
}

impl Formation {
    pub fn new(
        identity: Identity,
        config: ReplicaConfig,
        raft: Raft,
        log: LogStore,
        peers: Peers,
        clock: Clock,
        fatal: Fatal,
    ) -> Self {
        Self { inner: Arc::new(Inner { identity, config, raft, log, peers, clock, fatal }) }
    }

    /// What this node says of itself.
    pub fn hello(&self) -> HelloAnswer {
        let inner = &self.inner;
        let metrics = inner.raft.server_metrics();
        let voters = metrics.borrow_watched().membership_config.voter_ids().map(NodeId).collect();
        HelloAnswer {
            node: inner.identity.node(),
            api: inner.config.api_advertise.clone(),
            cluster: inner.identity.cluster().map(|cluster| cluster.0),
            empty: inner.log.is_empty(),
            voters,
            wall: inner.clock.now(),
        }
    }

    /// Answers the founder.
    pub fn found(&self, message: FoundMessage) -> FoundAnswer {
        let inner = &self.inner;
        if inner.config.join {
            return FoundAnswer::Refused("it was started to join a cluster, not to found one".into());
        }
        let ours: Vec<(NodeId, String)> = inner.config.cluster.clone().into_iter().collect();
        if message.nodes != ours {
            return FoundAnswer::Refused(format!("it was given another list of nodes: {ours:?}"));
        }
        if !inner.log.is_empty() {
            return FoundAnswer::Refused("it has data".into());
        }
        match inner.identity.join(ClusterId(message.cluster)) {
            Ok(true) => FoundAnswer::Accepted,
            Ok(false) => FoundAnswer::Refused("it is of another cluster".into()),
            Err(error) => {
                inner.fatal.raise(format!("identity file: {error}"));
                FoundAnswer::Refused(format!("its disk failed: {error}"))
            }
        }
    }

    /// Refuses to start with data of another cluster than the nodes that answer.
    pub async fn check_cluster(&self) -> Result<(), StartError> {
        let Some(ours) = self.inner.identity.cluster() else { return Ok(()) };
        for (peer, hello) in self.inner.greet_all().await {
            let theirs = hello.filter(|hello| !hello.empty).and_then(|hello| hello.cluster);
            if theirs.is_some_and(|theirs| theirs != ours.0) {
                let theirs = theirs.map(|id| ClusterId(id).to_string()).unwrap_or_default();
                return Err(StartError::OtherCluster { ours: ours.to_string(), peer, theirs });
            }
        }
        Ok(())
    }

    /// Brings an empty node into a cluster: by joining, by founding, or by waiting. Returns when it is in one.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let inner = self.inner.clone();
        let mut rounds = 0;
        while !*stopping.borrow_and_update() {
            let in_cluster = inner.identity.cluster().is_some();
            if in_cluster && (inner.config.join || !inner.log.is_empty()) {
                return;
            }
            let round = async {
                if inner.config.join {
                    inner.join(rounds).await
                } else {
                    inner.found(rounds).await
                }
                inner.clock.sleep(AGAIN).await;
            };
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = round => rounds += 1,
            }
        }
    }
}

impl Inner {
    /// Greets every other node of the list.
    async fn greet_all(&self) -> Vec<(NodeId, Option<HelloAnswer>)> {
        let others = self.config.cluster.iter().filter(|(node, _)| **node != self.config.node);
        join_all(others.map(|(node, address)| async {
            let channel = self.peers.channel(*node, address, Traffic::Control);
            (*node, channel.ask(wire::HELLO, HELLO).await.ok())
        }))
        .await
    }

    async fn join(&self, rounds: u32) {
        for (peer, hello) in self.greet_all().await {
            let Some(hello) = hello.filter(|hello| !hello.empty) else { continue };
            let Some(cluster) = hello.cluster.map(ClusterId) else { continue };
            if hello.voters.contains(&self.config.node) {
                self.fatal.raise(StartError::IdInUse(self.config.node).to_string());
                return;
            }
            match self.identity.join(cluster) {
                Ok(_) => {
                    tracing::info!(%cluster, %peer, "joined; waiting for the leader to add this node (`cluster add`)")
                }
                Err(error) => self.fatal.raise(format!("identity file: {error}")),
            }
            return;
        }
        if rounds % SAY_EVERY == SAY_EVERY - 1 {
            tracing::warn!("no node of the list is in a cluster yet; still trying to join");
        }
    }

    async fn found(&self, rounds: u32) {
        let greetings = self.greet_all().await;
        let missing: Vec<u64> = greetings.iter().filter(|(_, hello)| hello.is_none()).map(|(node, _)| node.0).collect();
        match outlook(&self.config.cluster, self.config.node, self.identity.cluster(), &greetings) {
            Outlook::Found => self.initialise(greetings).await,
            Outlook::Wait if rounds % SAY_EVERY == SAY_EVERY - 1 => {
                tracing::warn!(
                    ?missing,
                    "the cluster is not formed yet; every node of the list must be there and empty"
                );
            }
            Outlook::Excluded { by } if rounds % SAY_EVERY == 1 => {
                tracing::error!(
                    peer = %by,
                    "this disk is empty, but there is a cluster with data already; this node takes no part in it. If \
                     its disk was lost, start it under a new id with --join, run `cluster add` for that id, and remove \
                     the old one"
                );
            }
            Outlook::Wait | Outlook::Excluded { .. } => {}
        }
    }

    async fn initialise(&self, greetings: Vec<(NodeId, Option<HelloAnswer>)>) {
        let cluster = self.identity.cluster().unwrap_or_else(ClusterId::draw);
        if let Err(error) = self.identity.join(cluster) {
            self.fatal.raise(format!("identity file: {error}"));
            return;
        }
        let nodes: Vec<(NodeId, String)> = self.config.cluster.clone().into_iter().collect();
        let mut members = BTreeMap::new();
        for (node, address) in &nodes {
            let hello = greetings.iter().find(|(greeted, _)| greeted == node).and_then(|(_, hello)| hello.as_ref());
            let api = hello.map_or(&self.config.api_advertise, |hello| &hello.api).clone();
            members.insert(node.0, PeerNode { peer: address.clone(), api });
            if *node == self.config.node {
                continue;
            }
            let message = FoundMessage { cluster: cluster.0, nodes: nodes.clone() };
            let channel = self.peers.channel(*node, address, Traffic::Control);
            match channel.call(wire::FOUND, &message, HELLO).await {
                Ok(FoundAnswer::Accepted) => {}
                Ok(FoundAnswer::Refused(reason)) => {
                    tracing::error!(%node, %reason, "a node refuses to found the cluster");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%node, %error, "a node of the list did not answer; founding is tried again");
                    return;
                }
            }
        }
        match self.raft.initialize(members).await {
            Ok(()) => tracing::info!(%cluster, "cluster founded"),
            Err(error) => tracing::warn!(%error, "founding is tried again"),
        }
    }
}

/// What the greetings mean for an empty node. Pure, so that every case can be tested.
fn outlook(
    list: &BTreeMap<NodeId, String>,
    us: NodeId,
    cluster: Option<ClusterId>,
    greetings: &[(NodeId, Option<HelloAnswer>)],
) -> Outlook {
    let answers = || greetings.iter().filter_map(|(node, hello)| Some((*node, hello.as_ref()?)));
    let foreign = |hello: &HelloAnswer| hello.cluster.is_some_and(|theirs| cluster.is_none_or(|ours| ours.0 != theirs));
    if let Some((by, _)) = answers().find(|(_, hello)| !hello.empty && foreign(hello)) {
        return Outlook::Excluded { by };
    }
    let all: BTreeSet<NodeId> = answers().map(|(node, _)| node).chain([us]).collect();
    let everybody = list.keys().all(|node| all.contains(node));
    let all_empty = answers().all(|(_, hello)| hello.empty && !foreign(hello));
    let lowest = list.keys().next() == Some(&us);
    if everybody && all_empty && lowest { Outlook::Found } else { Outlook::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;
    use campanile_model::Timestamp;

    fn hello(node: u64, cluster: Option<u128>, empty: bool) -> (NodeId, Option<HelloAnswer>) {
        let answer = HelloAnswer {
            node: NodeId(node),
            api: String::new(),
            cluster,
            empty,
            voters: Vec::new(),
            wall: Timestamp::from_millis(0),
        };
        (NodeId(node), Some(answer))
    }

    fn look(us: u64, cluster: Option<u128>, greetings: &[(NodeId, Option<HelloAnswer>)]) -> Outlook {
        let list = (1..=3).map(|node| (NodeId(node), format!("h:{node}"))).collect();
        outlook(&list, NodeId(us), cluster.map(ClusterId), greetings)
    }

    #[test]
    fn only_the_lowest_founds_and_only_when_all_are_there_and_empty() {
        let empty = [hello(2, None, true), hello(3, None, true)];
        assert_eq!(look(1, None, &empty), Outlook::Found);
        assert_eq!(look(2, None, &[hello(1, None, true), hello(3, None, true)]), Outlook::Wait);
        assert_eq!(look(1, None, &[hello(2, None, true), (NodeId(3), None)]), Outlook::Wait);
    }

    #[test]
    fn founding_goes_on_where_it_stopped() {
        assert_eq!(look(1, Some(7), &[hello(2, Some(7), true), hello(3, None, true)]), Outlook::Found);
        assert_eq!(look(1, None, &[hello(2, Some(7), true), hello(3, None, true)]), Outlook::Wait);
        assert_eq!(look(1, Some(8), &[hello(2, Some(7), true), hello(3, None, true)]), Outlook::Wait);
    }

    #[test]
    fn wiped_nodes_never_form_a_second_cluster() {
        // Nodes 1 and 2 lost their disks; 3 has the data, and is up, or down.
        let up = [hello(2, None, true), hello(3, Some(7), false)];
        assert_eq!(look(1, None, &up), Outlook::Excluded { by: NodeId(3) });
        let down = [hello(2, None, true), (NodeId(3), None)];
        assert_eq!(look(1, None, &down), Outlook::Wait);
    }
}
