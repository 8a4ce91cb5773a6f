//! What the callers of a replica are told when something did not work.

use std::time::Duration;

use bincode::{Decode, Encode};
use campanile_model::{NodeId, Rejection};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("disk: {0}")]
    Disk(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] campanile_store::StoreError),
    #[error("configuration: {0}")]
    Config(String),
    #[error("this data directory belongs to node {found}, but the node is configured as {configured}")]
    OtherNode { found: NodeId, configured: NodeId },
    #[error("this data directory belongs to cluster {ours}, but node {peer} is of cluster {theirs}")]
    OtherCluster { ours: String, peer: NodeId, theirs: String },
    #[error("this data directory has a log but no identity file; it is damaged and must not vote")]
    NoIdentity,
    #[error("the identity file does not read: {0}")]
    BadIdentity(String),
    #[error(
        "node id {0} is a member of the cluster already, with data this disk does not have; join under an id never used \
         before, then remove the old one"
    )]
    IdInUse(NodeId),
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a proposal has no replies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was appended: no leader was found in time.
    #[error("no leader is known")]
    NoLeader,
    /// Nothing was appended: the lane is full.
    #[error("too many proposals are in flight; retry after {retry_after:?}")]
    Overloaded { retry_after: Duration },
    /// It may or may not have been committed.
    #[error("the outcome is unknown: the leader was lost after it may have taken the proposal")]
    OutcomeUnknown,
    /// Nothing was appended: the leader's clock is too far from the others'.
    #[error("the leader's clock is further from the other nodes' than allowed")]
    ClockSkew,
    /// Nothing was appended.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Nothing was appended: preparation refused it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// Why a linearizable read could not be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader is known")]
    NoLeader,
    #[error("the leader did not confirm the read in time")]
    TimedOut,
    /// The leader confirmed, but this node is too far behind.
    #[error("this node is catching up")]
    CatchingUp,
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Why a change of members or leadership was not made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum MembershipError {
    #[error("no leader is known")]
    NoLeader,
    #[error("node {0} is not a member")]
    NotMember(NodeId),
    #[error("node {0} is a member already")]
    AlreadyMember(NodeId),
    #[error("node {0} is the last voter")]
    LastVoter(NodeId),
    #[error("{0}")]
    Refused(String),
    #[error("the change was not finished in time; it may still take effect")]
    TimedOut,
}
