//! What is asked of the simulator or of real processes, and what they give back. The same in every build; only `world` can
//! carry out the one, only `real` the other.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::history::{History, Message};
use crate::plan::DrawnPlan;
use crate::scenario::Scenario;

/// One simulation.
#[derive(Clone, Debug)]
pub struct Order {
    pub scenario: Scenario,
    pub seed: u64,
    /// Sabotage to switch on.
    pub planted: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Simulated {
    pub history: History,
    /// Every call between nodes. Pictures show those around a failure.
    pub messages: Vec<Message>,
    /// Over everything that happened, to the byte.
    pub trace_hash: u64,
    /// Simulated time, settling included.
    pub simulated: Duration,
    pub work: Work,
}

/// What a simulation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Entries of the Raft log.
    pub entries: u64,
    /// Calls between nodes.
    pub calls: u64,
    /// Packets between machines, clients and receiver included.
    pub packets: u64,
    /// Of all disks together.
    pub syncs: u64,
    pub batches: u64,
    pub rows_written: u64,
    pub bytes_written: u64,
    pub rows_read: u64,
    /// Of memory.
    pub allocations: u64,
}

impl Work {
    /// By name.
    pub fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("entries", self.entries),
            ("calls", self.calls),
            ("packets", self.packets),
            ("syncs", self.syncs),
            ("batches", self.batches),
            ("rows_written", self.rows_written),
            ("bytes_written", self.bytes_written),
            ("rows_read", self.rows_read),
            ("allocations", self.allocations),
        ]
    }
}

/// One run of real processes.
#[derive(Clone, Debug)]
pub struct RealOrder {
    pub scenario: Scenario,
    /// Decides what is asked of the cluster and done to it, and not what comes of it.
    pub seed: u64,
    /// The program `campanile`.
    pub binary: PathBuf,
    /// Where the nodes' logs are left, if anywhere.
    pub logs: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Driven {
    pub history: History,
    /// What was asked and done, without what had to be left out.
    pub plan: DrawnPlan,
}
