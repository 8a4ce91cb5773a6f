//! What operators ask of a cluster, and what they are answered.

use std::fmt;

use campanile_model::NodeId;
use serde::{Deserialize, Serialize};

/// A change of members or of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Wanted {
    AddNode { id: NodeId },
    RemoveNode { id: NodeId },
    TransferLeader { to: NodeId },
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddNode { id } => write!(f, "add node {id}"),
            Self::RemoveNode { id } => write!(f, "remove node {id}"),
            Self::TransferLeader { to } => write!(f, "make node {to} the leader"),
        }
    }
}

/// What a call of an operator came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Told {
    Done,
    /// Refused, with no effect: the HTTP status, the problem's code and what it says. Status 0: the node was not reached.
    Refused {
        status: u16,
        code: String,
        detail: String,
    },
    /// It may have happened, may happen yet, or never.
    Unknown {
        reason: String,
    },
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "done"),
            Self::Refused { status, code, detail } => write!(f, "{status} {code}: {detail}"),
            Self::Unknown { reason } => write!(f, "unknown: {reason}"),
        }
    }
}

/// The members as a node knows them: the latest of its log, committed or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub node: NodeId,
    /// Of the entry that made them members.
    pub term: u64,
    pub index: u64,
    /// Of two sets of voters a majority of each is needed, until the next change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joint: bool,
    pub voters: Vec<NodeId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<NodeId>,
}
