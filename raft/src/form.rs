//! Encoded forms of openraft's types: what stands in the log, in the state's mark and on the wire.
//!
//! openraft's own structs carry no stable encoding, so each has a plain form here. A log record, on disk and on the wire
//! alike, is a CRC-32, then index, term and kind, then the body; the CRC covers everything after it, so that a record is
//! checked wherever it is read.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use bytes::{Buf, BufMut, Bytes};
use campanile_model::codec::{self, CodecError, Versioned};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::vote::RaftLeaderId;

use crate::types::{Entry, LogId, Membership, PeerNode, Proposal, StoredMembership, Vote, log_id, term_of};

/// A log id: term and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct LogIdForm {
    pub term: u64,
    pub index: u64,
}

impl Versioned for LogIdForm {
    const NAME: &'static str = "log id";
}

impl From<LogId> for LogIdForm {
    fn from(id: LogId) -> Self {
        Self { term: term_of(&id), index: id.index }
    }
}

impl From<LogIdForm> for LogId {
    fn from(form: LogIdForm) -> Self {
        log_id(form.term, form.index)
    }
}

/// A vote: the candidate of a term, and whether a quorum has made it the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteForm {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

impl Versioned for VoteForm {
    const NAME: &'static str = "vote";
}

impl From<&Vote> for VoteForm {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id().term(), node: *vote.leader_id().node_id(), committed: vote.is_committed() }
    }
}

impl From<VoteForm> for Vote {
    fn from(form: VoteForm) -> Self {
        if form.committed { Self::new_committed(form.term, form.node) } else { Self::new(form.term, form.node) }
    }
}

/// A membership: one voter set, or two while it changes, and where every member is reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MembershipForm {
    pub voters: Vec<BTreeSet<u64>>,
    pub nodes: BTreeMap<u64, PeerNode>,
}

impl Versioned for MembershipForm {
    const NAME: &'static str = "membership";
}

impl From<&Membership> for MembershipForm {
    fn from(membership: &Membership) -> Self {
        Self { voters: membership.get_joint_config().clone(), nodes: crate::types::members(membership) }
    }
}

impl TryFrom<MembershipForm> for Membership {
    type Error = RecordError;

    fn try_from(form: MembershipForm) -> Result<Self, RecordError> {
        Self::new(form.voters, form.nodes).map_err(|error| RecordError::Membership(error.to_string()))
    }
}

/// What the state stores beside its rows: how far it has applied, and the membership at that point.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    pub applied: Option<LogIdForm>,
    pub membership_at: Option<LogIdForm>,
    pub membership: MembershipForm,
}

impl Versioned for Mark {
    const NAME: &'static str = "applied mark";
}

impl Mark {
    pub fn new(applied: Option<LogId>, membership: &StoredMembership) -> Self {
        Self {
            applied: applied.map(Into::into),
            membership_at: (*membership.log_id()).map(Into::into),
            membership: membership.membership().into(),
        }
    }

    pub fn applied(&self) -> Option<LogId> {
        self.applied.map(Into::into)
    }

    pub fn membership(&self) -> Result<StoredMembership, RecordError> {
        Ok(StoredMembership::new(self.membership_at.map(Into::into), self.membership.clone().try_into()?))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("log record of {0} bytes is shorter than its header")]
    Short(usize),
    #[error("log record does not match its checksum")]
    Checksum,
    #[error("log record of unknown kind {0}")]
    Kind(u8),
    #[error("membership makes no sense: {0}")]
    Membership(String),
    #[error(transparent)]
    Body(#[from] CodecError),
}

const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;
const CRC_BYTES: usize = 4;
const HEADER_BYTES: usize = CRC_BYTES + 8 + 8 + 1;

/// Appends the record of a log entry to `out`.
pub fn encode_record(entry: &Entry, out: &mut Vec<u8>) {
    let start = out.len();
    let id = entry.log_id();
    out.put_u32(0);
    out.put_u64(id.index);
    out.put_u64(term_of(&id));
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(KIND_BLANK),
        EntryPayload::Normal(proposal) => {
            out.put_u8(KIND_NORMAL);
            out.extend_from_slice(proposal.bytes());
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(KIND_MEMBERSHIP);
            codec::encode_into(&MembershipForm::from(membership), out);
        }
    }
    let crc = crc32fast::hash(&out[start + CRC_BYTES..]);
    out[start..start + CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
}

/// How large the record of an entry is, roughly: what bounds a batch or a cache.
pub fn record_bytes(entry: &Entry) -> usize {
    let body = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(proposal) => proposal.bytes().len(),
        EntryPayload::Membership(membership) => 64 * membership.nodes().count(),
    };
    HEADER_BYTES + body
}

/// Reads a record, checking all of it.
pub fn decode_record(mut record: Bytes) -> Result<Entry, RecordError> {
    if record.len() < HEADER_BYTES {
        return Err(RecordError::Short(record.len()));
    }
    let crc = record.get_u32();
    if crc32fast::hash(&record) != crc {
        return Err(RecordError::Checksum);
    }
    let index = record.get_u64();
    let term = record.get_u64();
    let payload = match record.get_u8() {
        KIND_BLANK => EntryPayload::Blank,
        KIND_NORMAL => EntryPayload::Normal(Proposal::from_bytes(record)?),
        KIND_MEMBERSHIP => EntryPayload::Membership(codec::decode::<MembershipForm>(&record)?.try_into()?),
        kind => return Err(RecordError::Kind(kind)),
    };
    Ok(Entry { log_id: log_id(term, index), payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use campanile_model::{Command, Timestamp};

    fn entries() -> Vec<Entry> {
        let proposal = Proposal::new(&campanile_model::Entry {
            time: Timestamp::from_millis(7),
            commands: vec![Command::TrimTimers { before: Timestamp::from_millis(5) }],
        });
        let node = PeerNode { peer: "a:1".into(), api: "a:2".into() };
        let membership =
            Membership::new(vec![BTreeSet::from([1, 2])], BTreeMap::from([(1, node.clone()), (2, node)])).unwrap();
        [EntryPayload::Blank, EntryPayload::Normal(proposal), EntryPayload::Membership(membership)]
            .into_iter()
            .zip(1..)
            .map(|(payload, index)| Entry { log_id: log_id(3, index), payload })
            .collect()
    }

    #[test]
    fn records_read_back() {
        for entry in entries() {
            let mut record = Vec::new();
            encode_record(&entry, &mut record);
            let read = decode_record(record.into()).unwrap();
            assert_eq!(read.log_id, entry.log_id);
            assert_eq!(format!("{:?}", read.payload), format!("{:?}", entry.payload));
        }
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        for entry in entries() {
            let mut record = Vec::new();
            encode_record(&entry, &mut record);
            for at in 0..record.len() {
                let mut damaged = record.clone();
                damaged[at] ^= 0x10;
                assert!(decode_record(damaged.into()).is_err(), "byte {at} of {}", entry.log_id);
            }
            for length in 0..record.len() {
                assert!(decode_record(record[..length].to_vec().into()).is_err(), "cut to {length}");
            }
        }
    }

    /// The commands are decoded only when the entry is applied, which is too late to refuse it.
    #[test]
    fn commands_of_another_version_do_not_get_into_the_log() {
        let version = <campanile_model::Entry as Versioned>::VERSION;
        for other in [0, version + 1, u8::MAX] {
            let mut record = Vec::new();
            encode_record(&entries()[1], &mut record);
            record[HEADER_BYTES] = other;
            let crc = crc32fast::hash(&record[CRC_BYTES..]);
            record[..CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
            let error = decode_record(record.into()).unwrap_err();
            assert!(matches!(error, RecordError::Body(CodecError::Version { found, .. }) if found == other), "{error}");
        }
    }
}
