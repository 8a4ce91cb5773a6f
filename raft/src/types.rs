//! The types openraft is built from. Every one is named: the macro's defaults would bring the real tokio in.

use std::collections::BTreeMap;
use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;
use campanile_model::codec::{self, CodecError};
use campanile_model::{Entry as LogEntry, Reply};
use openraft::vote::leader_id_std;

use crate::runtime::Runtime;

/// Campanile's instance of openraft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Applied;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    /// One leader a term, as the Raft paper has it.
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, PeerNode>;
    type Entry = openraft::Entry<leader_id_std::CommittedLeaderId<u64>, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, PeerNode>;
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// Where a member is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PeerNode {
    /// `host:port` of its peer listener.
    pub peer: String,
    /// `host:port` of its API, as it advertises it.
    pub api: String,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.peer)
    }
}

/// A log entry's content, encoded: the same bytes go to the disk and to every follower.
///
/// Only these bytes are kept, because decoded commands take several times their room and the log's tail stays in memory.
/// They are decoded when the entry is applied, and the commands are gone when it has been.
#[derive(Clone)]
pub struct Proposal(Bytes);

impl Proposal {
    pub fn new(entry: &LogEntry) -> Self {
        // A copy: what was written to has room to grow, up to as much again, that would be kept with it.
        Self(Bytes::copy_from_slice(&codec::encode(entry)))
    }

    /// Content read from a disk or a peer. A version that this build cannot apply is refused here, before the entry can
    /// become part of the log.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, CodecError> {
        codec::check_version::<LogEntry>(&bytes)?;
        Ok(Self(bytes))
    }

    pub fn decode(&self) -> Result<LogEntry, CodecError> {
        codec::decode(&self.0)
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commands of {} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answered: one reply per command. Empty for openraft's own entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied(pub Vec<Reply>);

/// The members of a membership, voters and learners.
pub fn members(membership: &Membership) -> BTreeMap<u64, PeerNode> {
    membership.nodes().map(|(id, node)| (*id, node.clone())).collect()
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(leader_id_std::CommittedLeaderId::new(term), index)
}

pub fn term_of(log_id: &LogId) -> u64 {
    log_id.committed_leader_id().term
}
