//! A running replica: starts the parts in their order, and is what the rest of the node talks to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use campanile_model::{Command, NodeId, Reply, planted, sometimes};
use campanile_store::Store;
use campanile_store::engine::{Disk, Statistic};
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, StepDownPolicy};
use rand::RngExt;
use tokio::sync::{Semaphore, watch};

use crate::beats::{self, Beats, Heard};
use crate::clock::Clock;
use crate::config::ReplicaConfig;
use crate::effects::{EffectStream, Publisher};
use crate::error::{MembershipError, ProposeError, ReadError, StartError};
use crate::fatal::Fatal;
use crate::formation::Formation;
use crate::identity::{ClusterId, Identity};
use crate::leadership::{self, Leadership};
use crate::log_store::LogStore;
use crate::membership::{self, Members};
use crate::metrics::Metrics;
use crate::network::client::Peers;
use crate::network::server;
use crate::network::wire::MembersMessage;
use crate::node::Node;
use crate::proposer::{self, Lane, Prepare, Proposer};
use crate::read_index::Reads;
use crate::rt;
use crate::snapshots;
use crate::stamping::Stamping;
use crate::state_machine::{Raft, StateMachine};
use crate::status::Status;

/// A node's share of the cluster. Clones are the same replica.
#[derive(Clone)]
pub struct Replica {
    node: Arc<Node>,
    publisher: Publisher,
    leadership: watch::Receiver<Leadership>,
    peer_addr: SocketAddr,
    stop: watch::Sender<bool>,
    /// Closes when the peer listener has, and the batcher has let go of the store.
    running: watch::Receiver<()>,
}

impl Replica {
    /// Opens what is on the disk, binds the peer listener and starts. An empty node is then brought into a cluster in
    /// the background: until it is, [`Replica::leadership`] names no leader.
    pub async fn start(
        config: ReplicaConfig,
        disk: Arc<dyn Disk>,
        prepare: Arc<dyn Prepare>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        check(&config)?;
        let metrics = Arc::new(Metrics::default());
        let fatal = Fatal::default();
        let listener = rt::Listener::bind(&config.peer_listen).await;
        let listener = listener.map_err(|source| StartError::Listen { address: config.peer_listen.clone(), source })?;
        let peer_addr = listener.local_addr()?;

        let opened = {
            let (disk, metrics, fatal) = (disk.clone(), metrics.clone(), fatal.clone());
            let cache_bytes = config.limits.log_cache_bytes;
            rt::run_blocking(move || open(disk, cache_bytes, metrics, fatal)).await?
        };
        let (log, store) = opened?;
        let has_data = !log.is_empty() || store.mark()?.1.is_some();
        let identity = Identity::open(disk, config.node, has_data)?;

        let publisher = Publisher::new(metrics.clone());
        let machine = StateMachine::start(store.clone(), publisher.clone(), metrics.clone(), fatal.clone())?;
        let position = machine.position();
        let peers = Peers::new(identity.clone(), metrics.clone(), config.timing.keep_alive);
        let raft_config = Arc::new(raft_config(&config)?);
        let raft = Raft::new(config.node.0, raft_config, peers.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;

        let (stop, stopping) = watch::channel(false);
        let (running_sender, running) = watch::channel(());
        let (leadership_sender, leadership) = watch::channel(Leadership::default());
        rt::spawn(leadership::follow(raft.clone(), position.clone(), leadership_sender));
        let remeasure = config.timing.beat * beats::REMEASURE_BEATS;
        let stamping = Stamping::new(clock.clone(), config.max_clock_skew, remeasure);
        let parts = proposer::Parts {
            raft: raft.clone(),
            store: store.clone(),
            prepare,
            peers: peers.clone(),
            leadership: leadership.clone(),
            stamping: stamping.clone(),
            clock: clock.clone(),
            limits: config.limits,
            metrics: metrics.clone(),
            stopping: stopping.clone(),
        };
        let proposer = Proposer::start(parts, running_sender.clone())?;
        let reads = Reads::start(
            raft.clone(),
            peers.clone(),
            leadership.clone(),
            position.clone(),
            clock.clone(),
            metrics.clone(),
            stopping.clone(),
        );
        let beats = Beats::new(beats::Parts {
            node: config.node,
            incarnation: rt::rng().random_range(1..u64::MAX),
            raft: raft.clone(),
            peers: peers.clone(),
            leadership: leadership.clone(),
            position: position.clone(),
            clock: clock.clone(),
            timing: config.timing,
            max_clock_skew: config.max_clock_skew,
            stamping,
        });
        let formation = Formation::new(
            identity.clone(),
            config.clone(),
            raft.clone(),
            log.clone(),
            peers.clone(),
            clock.clone(),
            fatal.clone(),
        );
        let members = Members::new(membership::Parts {
            identity: identity.clone(),
            raft: raft.clone(),
            peers: peers.clone(),
            beats: beats.clone(),
            leadership: leadership.clone(),
            store: store.clone(),
            proposer: proposer.clone(),
        });
        if let Err(error) = formation.check_cluster().await {
            // Nothing has been answered to anybody yet.
            stop.send_replace(true);
            drop(raft.shutdown().await);
            return Err(error);
        }
        rt::spawn(beats.clone().run(stopping.clone()));
        rt::spawn(formation.clone().run(stopping.clone()));
        rt::spawn(members.clone().finish_changes(stopping.clone()));
        let snapshots = snapshots::run(
            raft.clone(),
            log.clone(),
            config.snapshots,
            clock.clone(),
            metrics.clone(),
            stopping.clone(),
        );
        rt::spawn(snapshots);
        rt::spawn(watch_core(raft.clone(), fatal.clone(), stopping.clone()));
        let node = Arc::new(Node {
            identity,
            log,
            store,
            raft,
            proposer,
            reads,
            beats,
            members,
            formation,
            clock,
            keep_alive: config.timing.keep_alive,
            peers,
            reach_within: config.timing.election_min,
            metrics,
            fatal,
            receiving: Semaphore::new(1),
        });
        let server = server::serve(listener, node.clone(), stopping);
        rt::spawn(async move {
            server.await;
            drop(running_sender);
        });
        Ok(Self { node, publisher, leadership, peer_addr, stop, running })
    }

    /// Commits commands in one log entry (shared with others of the lane) and answers one reply for each. Works on any
    /// node. What conflicts with something committed meanwhile is prepared again a few times before that is the answer.
    pub async fn propose(&self, lane: Lane, commands: Vec<Command>) -> Result<Vec<Reply>, ProposeError> {
        self.node.proposer.propose(lane, commands).await
    }

    /// As [`Self::propose`], for what this node decided as the leader: refused at once if it leads no more.
    pub async fn propose_as_leader(&self, lane: Lane, commands: Vec<Command>) -> Result<Vec<Reply>, ProposeError> {
        self.node.proposer.propose_as_leader(lane, commands).await
    }

    /// After it, `store().view()` holds every write acknowledged anywhere before the call.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        self.node.reads.barrier().await
    }

    pub fn store(&self) -> &Store {
        &self.node.store
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Effects of what is applied from now on; at most `capacity` batches wait.
    pub fn subscribe(&self, name: &'static str, capacity: usize) -> EffectStream {
        self.publisher.subscribe(name, capacity)
    }

    /// Makes a node that was started with `join` a voter, once it has caught up.
    pub async fn add_node(&self, node: NodeId, peer: String) -> Result<(), MembershipError> {
        self.node.members.change(MembersMessage::Add { node, peer }).await
    }

    pub async fn remove_node(&self, node: NodeId) -> Result<(), MembershipError> {
        self.node.members.change(MembersMessage::Remove { node }).await
    }

    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), MembershipError> {
        self.node.members.change(MembersMessage::Transfer { to }).await
    }

    /// Takes a snapshot soon, whatever the policy says; the log before it then goes.
    pub async fn trigger_snapshot(&self) {
        // If openraft has stopped there is nothing to do.
        drop(self.node.raft.trigger().snapshot().await);
    }

    pub fn status(&self) -> Status {
        self.node.status()
    }

    pub fn node_id(&self) -> NodeId {
        self.node.identity.node()
    }

    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.node.identity.cluster()
    }

    /// The address the peer listener is bound to.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Leader: when each other member was last heard, and its incarnation.
    pub fn heard(&self) -> BTreeMap<NodeId, Heard> {
        self.node.beats.heard()
    }

    /// Whether this node may start a delivery now. `known` is the index up to which whoever delivers has followed the
    /// log's effects, or read the tables.
    pub fn may_deliver(&self, known: u64) -> bool {
        self.node.beats.may_deliver(known)
    }

    /// Leader: from now on exactly these incarnations get leases to deliver under; the tables at this index say that
    /// they are up.
    pub fn grant_leases(&self, holders: BTreeMap<NodeId, u64>, holders_at: u64) {
        self.node.beats.grant_to(holders, holders_at);
    }

    /// Tells the leader that this node is about to stop, so that what it would be given goes to others.
    pub fn drain(&self) {
        self.node.beats.drain();
    }

    /// Whether this node is about to stop.
    pub fn drains(&self) -> bool {
        self.node.beats.drains()
    }

    /// A node that the leader has not heard for so long has no lease left.
    pub fn lost_after(&self) -> Duration {
        self.node.beats.lost_after()
    }

    pub fn incarnation(&self) -> u64 {
        self.node.beats.incarnation()
    }

    /// How far this node's wall clock is ahead of its leader's, in milliseconds, as last measured.
    pub fn clock_skew(&self) -> Option<f64> {
        self.node.beats.clock_skew_ms()
    }

    /// False while this node leads with a clock too far from the other voters'.
    pub fn stamping_allowed(&self) -> bool {
        self.node.beats.stamping_allowed()
    }

    pub fn clock(&self) -> &Clock {
        &self.node.clock
    }

    pub fn metrics(&self) -> &Metrics {
        &self.node.metrics
    }

    /// How each of the node's databases does.
    pub fn databases(&self) -> [(&'static str, Vec<Statistic>); 2] {
        [("log", self.node.log.statistics()), ("state", self.store().statistics())]
    }

    /// Waits until the node must stop because its disk failed or lies, and says why.
    pub async fn fatal(&self) -> String {
        self.node.fatal.raised().await
    }

    /// Stops taking part, and returns when another replica may listen on the address. What is acknowledged is on disk
    /// already.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = self.node.raft.shutdown().await {
            tracing::warn!(%error, "raft ended badly");
        }
        self.publisher.close();
        // Nothing is ever sent: this ends with an error, when the sender is gone.
        while self.running.changed().await.is_ok() {}
    }
}

fn open(
    disk: Arc<dyn Disk>,
    cache_bytes: usize,
    metrics: Arc<Metrics>,
    fatal: Fatal,
) -> Result<(LogStore, Store), StartError> {
    let log = LogStore::open(disk.as_ref(), cache_bytes, metrics, fatal)?;
    let store = Store::open(disk)?;
    // openraft is told that the state is durable as it is found, and may purge the log up to there.
    let (applied, mark) = if planted!(FoundStateNotSynced) { store.mark()? } else { store.flush()? };
    // What a quorum had is applied before this node's own disk has it; a power failure may then have kept the state and
    // not the end of the log. openraft closes that hole by purging the log up to the state.
    if mark.is_some() && log.last_index().is_none_or(|last| last < applied) {
        sometimes!(StateAheadOfLog);
        tracing::warn!(applied, last = ?log.last_index(), "the state is ahead of the log, which begins after it");
    }
    Ok((log, store))
}

fn check(config: &ReplicaConfig) -> Result<(), StartError> {
    let refuse = |reason: &str| Err(StartError::Config(reason.to_owned()));
    if config.node.0 == 0 {
        return refuse("node ids begin at 1");
    }
    if !config.join && !config.cluster.contains_key(&config.node) {
        return refuse("the list of nodes does not have this node in it");
    }
    if config.join && config.cluster.keys().all(|node| *node == config.node) {
        return refuse("a node that joins needs the address of a member");
    }
    Ok(())
}

fn raft_config(config: &ReplicaConfig) -> Result<Config, StartError> {
    let timing = &config.timing;
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "campanile".into(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        enable_pre_vote: Some(true),
        // Reads and appends are bounded by bytes in the log store; entries vary too much in size to count.
        max_payload_entries: 256,
        // Snapshots and purges are triggered by `snapshots`, by bytes and time.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Not a deadline for a whole snapshot: the transfer has its own, chunk by chunk.
        install_snapshot_timeout: 3_600_000,
        removed_leader_step_down: StepDownPolicy::After(millis(timing.heartbeat) * 3),
        // Followers get an entry while the leader's own disk still syncs it.
        broadcast_submitted_on_append: Some(true),
        // Hence a leader that lost its power may have sent entries that it no longer has. Were it to lead the same term
        // again, it would write others in their places: two logs with one index and term.
        enable_leader_restore: Some(planted!(LeaderRestored)),
        ..Config::default()
    }
    .validate()
    .map_err(|error| StartError::Config(error.to_string()))
}

/// openraft stops for good on its first storage error; the node must not outlive it.
async fn watch_core(raft: Raft, fatal: Fatal, mut stopping: watch::Receiver<bool>) {
    let mut metrics = raft.metrics();
    loop {
        let state = metrics.borrow_and_update().running_state.clone();
        if *stopping.borrow() {
            return;
        }
        if let Err(error) = state {
            fatal.raise(format!("raft: {error}"));
            return;
        }
        tokio::select! {
            biased;
            _ = stopping.changed() => return,
            changed = metrics.changed() => if changed.is_err() {
                fatal.raise("raft has stopped".into());
                return;
            },
        }
    }
}
