//! The types openraft is built from. Every one is named: the macro's defaults would bring the real tokio in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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

/// A log entry's content, encoded once: the same bytes go to the disk and to every follower.
#[derive(Clone)]
pub struct Proposal(Arc<Encoded>);

struct Encoded {
    entry: LogEntry,
    bytes: Bytes,
}

impl Proposal {
    pub fn new(entry: LogEntry) -> Self {
        let bytes = codec::encode(&entry).into();
        Self(Arc::new(Encoded { entry, bytes }))
    }

    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let entry = codec::decode(&bytes)?;
        Ok(Self(Arc::new(Encoded { entry, bytes })))
    }

    pub fn entry(&self) -> &LogEntry {
        &self.0.entry
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands at {}", self.entry().commands.len(), self.entry().time)
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
