//! The parts of a running replica, as those who answer peers need them.

use std::sync::Arc;
use std::time::Duration;

use campanile_store::Store;
use tokio::sync::Semaphore;

use crate::beats::Beats;
use crate::clock::Clock;
use crate::fatal::Fatal;
use crate::formation::Formation;
use crate::identity::Identity;
use crate::log_store::LogStore;
use crate::membership::Members;
use crate::metrics::Metrics;
use crate::network::client::Peers;
use crate::proposer::Proposer;
use crate::read_index::Reads;
use crate::state_machine::Raft;

pub struct Node {
    pub identity: Identity,
    pub log: LogStore,
    pub store: Store,
    pub raft: Raft,
    pub proposer: Proposer,
    pub reads: Reads,
    pub beats: Beats,
    pub members: Members,
    pub formation: Formation,
    pub clock: Clock,
    /// A connection on which nothing has moved for so long is tried.
    pub keep_alive: Duration,
    pub peers: Peers,
    /// How long a node that wants to lead may take to answer.
    pub reach_within: Duration,
    pub metrics: Arc<Metrics>,
    pub fatal: Fatal,
    /// Held while a snapshot is being received.
    pub receiving: Semaphore,
}
