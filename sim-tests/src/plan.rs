//! What is done to a cluster, as values: drawn from a seed, written by hand in a scenario, kept in a history.

use std::collections::BTreeMap;

use campanile_model::{Millis, NodeId};
use serde::{Deserialize, Serialize};

use crate::history::Action;

/// All that a seed decided to do to a cluster and to ask of it, so that a part of it can be tried alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrawnPlan {
    /// Those written by hand included.
    pub faults: Vec<PlannedFault>,
    pub operations: Vec<PlannedOperation>,
    /// Bounds of the product that are other than usual, by name.
    pub bounds: Bounds,
}

/// Bounds by name, in milliseconds where they are times: those of [`campanile_model::sim::Bound`].
pub type Bounds = BTreeMap<String, u64>;

/// A request of a client, other than the puts of the scenario's own tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedOperation {
    /// From the start of the workload.
    pub at: Millis,
    pub client: u32,
    /// The node it is sent to; 0 for any.
    #[serde(default)]
    pub node: u32,
    pub action: Action,
}

/// A fault, when it begins, and for how long. Faults that are over at once (a kill that is followed by a restart) have
/// their repair at the end of the span: a killed node stays down for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedFault {
    /// From the start of the workload.
    pub at: Millis,
    /// How long it lasts. Absent: until the faults end.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Millis>,
    #[serde(flatten)]
    pub fault: Fault,
}

/// Whom a fault strikes. Roles are looked up when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Who {
    Node(NodeId),
    Role(RoleOf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleOf {
    Leader,
    /// The follower with the lowest id.
    Follower,
    /// Any node, drawn from the seed.
    Any,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The two sides do not hear each other.
    Partition {
        side: Vec<NodeId>,
    },
    /// What `from` sends does not reach `to`; the other way works.
    OneWay {
        from: Vec<NodeId>,
        to: Vec<NodeId>,
    },
    /// One node hears nobody and is heard by nobody; clients and receivers still reach it.
    Isolate {
        node: Who,
    },
    /// What the others send does not reach the node; what it sends arrives.
    InboundCut {
        node: Who,
    },
    /// What the node sends reaches no other; what they send arrives.
    OutboundCut {
        node: Who,
    },
    /// Nobody can connect to the node's peer port; it connects to the others as before.
    PeerPortClosed {
        node: Who,
    },
    /// The node is restarted listening for its peers elsewhere than they look for it; at the end it is put right.
    WrongAddress {
        node: Who,
    },
    /// The leader with fewer than half of the others, against the rest.
    LeaderInMinority,
    /// The leader with a bare majority, against the rest.
    LeaderInMajority,
    /// Isolated and back again, over and over.
    Flap {
        node: Who,
        every: Millis,
    },
    /// Nodes are isolated one after another in a drawn order and come back in another.
    Swizzle {
        every: Millis,
    },
    /// A share of messages is lost, of a thousand.
    Loss {
        per_mille: u32,
    },
    /// Messages take this long.
    Delay {
        min: Millis,
        max: Millis,
    },
    /// A share of peer calls, of a thousand, arrives twice, the second time late.
    Replay {
        per_mille: u32,
    },
    /// A node's messages in both directions are held back and arrive at the end.
    Clog {
        node: Who,
    },

    /// The process dies; its disk keeps what was written. It comes back at the end of the span.
    Kill {
        node: Who,
    },
    /// The power goes: what was not synced is lost, kept or cut at random.
    PowerCut {
        node: Who,
    },
    PowerCutAll,
    /// Every node is killed and restarted, one after another.
    RollingRestart {
        every: Millis,
    },
    /// Every node is killed and restarted as a build that speaks another peer protocol, one after another; at the end
    /// those that are left.
    RollingUpgrade {
        every: Millis,
    },
    /// One node is killed over and over.
    RestartStorm {
        node: Who,
        every: Millis,
    },
    /// The process stands still, then goes on as if nothing had been.
    Pause {
        node: Who,
    },
    /// The node is told to stop, drains and hands over.
    Terminate {
        node: Who,
    },
    /// The process dies, if it still runs, and never comes back: not even when the faults end.
    LoseNode {
        node: Who,
    },

    /// Syncs take this long.
    SlowDisk {
        node: Who,
        sync: Millis,
    },
    /// The next sync fails.
    FailSync {
        node: Who,
    },
    /// Every write fails.
    DiskErrors {
        node: Who,
    },
    DiskFull {
        node: Who,
    },
    /// A bit of what is on the disk changes; found at the latest when the node starts again.
    BitFlip {
        node: Who,
    },
    /// The disk is lost; the node comes back under a new id.
    WipeDisk {
        node: Who,
    },

    /// The wall clock jumps by this much, either way, and jumps back at the end.
    ClockJump {
        node: Who,
        by_ms: i64,
    },
    /// Both clocks run fast (or slow) by so many of a million.
    ClockDrift {
        node: Who,
        ppm: i32,
    },
    /// The wall clock stands still.
    ClockFreeze {
        node: Who,
    },

    AddNode,
    RemoveNode {
        node: Who,
    },
    TransferLeader,

    /// The receiver takes requests and never answers.
    ReceiverHangs,
    /// The receiver answers this status.
    ReceiverAnswers {
        status: u16,
    },
    ReceiverSlow {
        by: Millis,
    },
    /// Nobody listens.
    ReceiverGone,
    /// A share of requests, of a thousand, is answered with an error, late, or never.
    ReceiverMoody {
        per_mille: u32,
    },
}

impl Fault {
    /// Whether the cluster has other members afterwards, or has to be given others.
    pub fn changes_members(&self) -> bool {
        matches!(self, Self::BitFlip { .. } | Self::WipeDisk { .. } | Self::AddNode | Self::RemoveNode { .. })
    }

    /// How often a repeating fault strikes.
    pub fn every(&self) -> Option<Millis> {
        match self {
            Self::Flap { every, .. }
            | Self::Swizzle { every }
            | Self::RollingRestart { every }
            | Self::RollingUpgrade { every }
            | Self::RestartStorm { every, .. } => Some(*every),
            _ => None,
        }
    }

    /// The name by which scenarios, reports and switches call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition { .. } => "partition",
            Self::OneWay { .. } => "one_way",
            Self::Isolate { .. } => "isolate",
            Self::InboundCut { .. } => "inbound_cut",
            Self::OutboundCut { .. } => "outbound_cut",
            Self::PeerPortClosed { .. } => "peer_port_closed",
            Self::WrongAddress { .. } => "wrong_address",
            Self::LeaderInMinority => "leader_in_minority",
            Self::LeaderInMajority => "leader_in_majority",
            Self::Flap { .. } => "flap",
            Self::Swizzle { .. } => "swizzle",
            Self::Loss { .. } => "loss",
            Self::Delay { .. } => "delay",
            Self::Replay { .. } => "replay",
            Self::Clog { .. } => "clog",
            Self::Kill { .. } => "kill",
            Self::PowerCut { .. } => "power_cut",
            Self::PowerCutAll => "power_cut_all",
            Self::RollingRestart { .. } => "rolling_restart",
            Self::RollingUpgrade { .. } => "rolling_upgrade",
            Self::RestartStorm { .. } => "restart_storm",
            Self::Pause { .. } => "pause",
            Self::Terminate { .. } => "terminate",
            Self::LoseNode { .. } => "lose_node",
            Self::SlowDisk { .. } => "slow_disk",
            Self::FailSync { .. } => "fail_sync",
            Self::DiskErrors { .. } => "disk_errors",
            Self::DiskFull { .. } => "disk_full",
            Self::BitFlip { .. } => "bit_flip",
            Self::WipeDisk { .. } => "wipe_disk",
            Self::ClockJump { .. } => "clock_jump",
            Self::ClockDrift { .. } => "clock_drift",
            Self::ClockFreeze { .. } => "clock_freeze",
            Self::AddNode => "add_node",
            Self::RemoveNode { .. } => "remove_node",
            Self::TransferLeader => "transfer_leader",
            Self::ReceiverHangs => "receiver_hangs",
            Self::ReceiverAnswers { .. } => "receiver_answers",
            Self::ReceiverSlow { .. } => "receiver_slow",
            Self::ReceiverGone => "receiver_gone",
            Self::ReceiverMoody { .. } => "receiver_moody",
        }
    }
}

/// The links between two sides, each in both directions.
pub fn both_ways(one: &[NodeId], other: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    one.iter().flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
}
