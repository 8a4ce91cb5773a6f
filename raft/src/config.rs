//! How a replica is told who it is, who the others are, and how patient to be.

use std::collections::BTreeMap;
use std::time::Duration;

use campanile_model::NodeId;

/// The configuration of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    pub node: NodeId,
    /// Every node of the cluster at its formation, and where its peer listener is reached: the same list on every node.
    /// For a node that joins: some members to ask.
    pub cluster: BTreeMap<NodeId, String>,
    /// Become a member of a cluster that exists, under a new id, instead of taking part in forming one.
    pub join: bool,
    /// `host:port` to bind. Port 0 takes a free one.
    pub peer_listen: String,
    /// `host:port` under which clients and other nodes reach this node's API.
    pub api_advertise: String,
    pub timing: Timing,
    pub snapshots: SnapshotPolicy,
    /// A leader whose clock is further than this from the median of the reachable voters stamps nothing.
    pub max_clock_skew: Duration,
    pub limits: Limits,
}

impl ReplicaConfig {
    /// Defaults for everything that has one.
    pub fn new(node: NodeId, cluster: BTreeMap<NodeId, String>, peer_listen: String, api_advertise: String) -> Self {
        Self {
            node,
            cluster,
            join: false,
            peer_listen,
            api_advertise,
            timing: Timing::default(),
            snapshots: SnapshotPolicy::default(),
            max_clock_skew: Duration::from_millis(500),
            limits: Limits::default(),
        }
    }
}

/// Spans by which nodes notice each other's absence.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// A follower that has heard no leader for `election_max` no longer counts on it, and after another, random span
    /// between the two stands for election.
    pub election_min: Duration,
    pub election_max: Duration,
    /// Between two beats of a node to the leader.
    pub beat: Duration,
    /// How long a beat that the leader answered lets a node go on delivering.
    pub lease: Duration,
    /// Between two looks at what nothing announces.
    pub tick: Duration,
    /// A connection between nodes on which nothing has moved for so long is tried.
    pub keep_alive: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(60),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(400),
            beat: Duration::from_millis(150),
            lease: Duration::from_millis(1500),
            tick: Duration::from_millis(50),
            keep_alive: Duration::from_secs(5),
        }
    }
}

/// When to take a snapshot of the state, after which the log before it can go.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPolicy {
    /// After this many bytes of log.
    pub log_bytes: u64,
    /// After this long, if anything was applied meanwhile.
    pub interval: Duration,
    /// About so many bytes of log are kept that a snapshot covers, for followers that are a little behind.
    pub keep_bytes: u64,
    /// And so many on the leader while a follower needs them: one that is down, or that is being sent the state and goes
    /// on from there. One that needs more is sent the state.
    pub keep_bytes_needed: u64,
}

impl SnapshotPolicy {
    /// A snapshot after so many bytes of log; what is kept of it goes with that.
    pub fn after(log_bytes: u64) -> Self {
        Self {
            log_bytes,
            interval: Duration::from_secs(600),
            keep_bytes: log_bytes / 2,
            keep_bytes_needed: log_bytes.saturating_mul(4),
        }
    }
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self::after(128 << 20)
    }
}

/// What bounds the memory of proposals and of the log.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the log's tail kept in memory for followers that are a little behind; what is not written yet is kept
    /// in any case.
    pub log_cache_bytes: usize,
    /// Bytes of proposals, waiting and in flight, of each lane.
    pub fire_bytes: usize,
    pub outcome_bytes: usize,
    pub api_bytes: usize,
    pub backlog_bytes: usize,
    /// Log entries proposed and not yet applied.
    pub entries_in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_cache_bytes: 8 << 20,
            fire_bytes: 32 << 20,
            outcome_bytes: 16 << 20,
            api_bytes: 32 << 20,
            backlog_bytes: 8 << 20,
            entries_in_flight: 32,
        }
    }
}
