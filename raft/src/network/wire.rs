//! The messages between nodes.
//!
//! A change that an older node cannot read raises [`PROTOCOL`], and the two refuse each other by name.

use std::borrow::Cow;

use bincode::{Decode, Encode};
use campanile_model::codec::Versioned;
use campanile_model::{Command, NodeId, Rejection, Reply, Timestamp};

use crate::error::MembershipError;
use crate::form::{LogIdForm, VoteForm};

/// Version of everything said on the peer port.
const PROTOCOL: &str = "5";

/// The version that this node speaks.
#[cfg(not(madsim))]
pub fn protocol(_ours: NodeId) -> Cow<'static, str> {
    PROTOCOL.into()
}

/// The version that this node speaks: some are of later builds.
#[cfg(madsim)]
pub fn protocol(ours: NodeId) -> Cow<'static, str> {
    match crate::rt::links::build(ours.0) {
        0 => PROTOCOL.into(),
        later => format!("{PROTOCOL}+{later}").into(),
    }
}

/// Headers of every call.
pub const HEADER_PROTOCOL: &str = "campanile-protocol";
pub const HEADER_CLUSTER: &str = "campanile-cluster";
pub const HEADER_FROM: &str = "campanile-from";
pub const HEADER_TO: &str = "campanile-to";

/// A call: its path, its largest request, and whether a node that is in no cluster may make it and answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub path: &'static str,
    pub max_request_bytes: usize,
    pub max_answer_bytes: usize,
    pub outside_cluster: bool,
}

const fn call(path: &'static str, max_request_bytes: usize, max_answer_bytes: usize) -> Call {
    Call { path, max_request_bytes, max_answer_bytes, outside_cluster: false }
}

const SMALL: usize = 64 << 10;
/// A proposal's commands, encoded, are never more than this.
pub const MAX_PROPOSAL_BYTES: usize = 8 << 20;
const PROPOSAL: usize = MAX_PROPOSAL_BYTES + SMALL;

pub const VOTE: Call = call("/peer/vote", SMALL, SMALL);
pub const PRE_VOTE: Call = call("/peer/pre-vote", SMALL, SMALL);
pub const TRANSFER: Call = call("/peer/transfer", SMALL, SMALL);
/// Streams: their frames are bounded one by one.
pub const APPEND: Call = call("/peer/append", 0, 0);
pub const SNAPSHOT: Call = call("/peer/snapshot", 0, SMALL);
pub const PROPOSE: Call = call("/peer/propose", PROPOSAL, PROPOSAL);
pub const READ_INDEX: Call = call("/peer/read-index", SMALL, SMALL);
pub const BEAT: Call = call("/peer/beat", SMALL, SMALL);
pub const MEMBERS: Call = call("/peer/members", SMALL, SMALL);
pub const HELLO: Call = Call { outside_cluster: true, ..call("/peer/hello", SMALL, SMALL) };
pub const FOUND: Call = Call { outside_cluster: true, ..call("/peer/found", SMALL, SMALL) };

pub const CALLS: [Call; 11] =
    [VOTE, PRE_VOTE, TRANSFER, APPEND, SNAPSHOT, PROPOSE, READ_INDEX, BEAT, MEMBERS, HELLO, FOUND];

/// Gives messages their names.
macro_rules! messages {
    ($($name:ident: $text:literal,)*) => {
        $(impl Versioned for $name {
            const NAME: &'static str = $text;
        })*
    };
}

messages! {
    VoteMessage: "vote request",
    VoteAnswer: "vote answer",
    TransferMessage: "transfer request",
    TransferAnswer: "transfer answer",
    AppendHead: "append request",
    AppendAnswer: "append answer",
    SnapshotHead: "snapshot head",
    SnapshotChunk: "snapshot chunk",
    SnapshotAnswer: "snapshot answer",
    ProposeMessage: "proposal",
    ProposeAnswers: "proposal answers",
    ReadIndexAnswer: "read index answer",
    BeatMessage: "beat",
    BeatAnswer: "beat answer",
    MembersMessage: "membership request",
    MembersAnswer: "membership answer",
    HelloAnswer: "hello answer",
    FoundMessage: "founding request",
    FoundAnswer: "founding answer",
}

#[derive(Debug, Encode, Decode)]
pub struct VoteMessage {
    pub vote: VoteForm,
    pub last: Option<LogIdForm>,
    pub leadership_transfer: bool,
}

#[derive(Debug, Encode, Decode)]
pub struct VoteAnswer {
    pub vote: VoteForm,
    pub granted: bool,
    pub last: Option<LogIdForm>,
}

#[derive(Debug, Encode, Decode)]
pub struct TransferMessage {
    pub from_leader: VoteForm,
    pub to: u64,
    pub last: Option<LogIdForm>,
}

#[derive(Debug, Encode, Decode)]
pub enum TransferAnswer {
    Accepted,
    VoteChanged { expected: VoteForm, actual: VoteForm },
    LogNotFlushed { expected: Option<LogIdForm>, actual: Option<LogIdForm> },
}

/// What comes before the records of an append request.
#[derive(Debug, Encode, Decode)]
pub struct AppendHead {
    pub vote: VoteForm,
    pub prev: Option<LogIdForm>,
    pub commit: Option<LogIdForm>,
}

#[derive(Debug, Encode, Decode)]
pub enum AppendAnswer {
    /// The follower's log agrees with the leader's up to here.
    Matched(Option<LogIdForm>),
    Conflict(LogIdForm),
    HigherVote(VoteForm),
}

#[derive(Debug, Encode, Decode)]
pub struct SnapshotHead {
    pub vote: VoteForm,
    /// The store's manifest, encoded.
    pub manifest: Vec<u8>,
}

#[derive(Debug, Encode, Decode)]
pub struct SnapshotChunk {
    /// Its place in the manifest, which also has its checksum.
    pub file: u32,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Encode, Decode)]
pub struct SnapshotAnswer {
    pub vote: VoteForm,
}

/// Proposals of one lane, in the order in which they were made.
#[derive(Debug, Encode, Decode)]
pub struct ProposeMessage {
    /// The term of the leader they are meant for.
    pub term: u64,
    /// Drawn by the sender when it starts.
    pub origin: u64,
    pub lane: u8,
    pub proposals: Vec<ForwardedProposal>,
}

#[derive(Debug, Encode, Decode)]
pub struct ForwardedProposal {
    /// Its number in the sender's life.
    pub sequence: u64,
    pub commands: Vec<Command>,
}

/// One for each proposal of a message.
#[derive(Debug, Encode, Decode)]
pub struct ProposeAnswers(pub Vec<ProposeAnswer>);

/// What became of a proposal.
#[derive(Clone, Debug, Encode, Decode)]
pub enum ProposeAnswer {
    Replies(Vec<Reply>),
    Rejected(Rejection),
    /// The node asked does not lead, or not yet; nothing was appended.
    NotLeader,
    Overloaded {
        retry_after_ms: u64,
    },
    OutcomeUnknown,
    ClockSkew,
}

#[derive(Debug, Encode, Decode)]
pub enum ReadIndexAnswer {
    /// Whoever has applied this has seen every write acknowledged before the question.
    At(LogIdForm),
    NotLeader,
    TimedOut,
}

#[derive(Clone, Debug, Encode, Decode)]
pub struct BeatMessage {
    pub node: NodeId,
    pub incarnation: u64,
    /// Counts the beats of this incarnation: one that comes again, or late, is no beat.
    pub number: u64,
    /// What the sender measured of its wall clock last.
    pub measured: Option<Measured>,
    /// The sender is about to stop.
    pub drains: bool,
}

/// A wall clock against a leader's.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub struct Measured {
    /// The leader's, and `answered_us`: as in its answer.
    pub term: u64,
    pub answered_us: u64,
    /// How far the measuring node's is ahead.
    pub ahead_us: i64,
}

#[derive(Debug, Encode, Decode)]
pub enum BeatAnswer {
    Leader {
        term: u64,
        /// When this was answered, on the leader's monotonic clock, from an origin of its own: whoever measures by it
        /// says so, and the leader knows how old that is, however long it was on its way.
        answered_us: u64,
        /// The leader's wall clock, in microseconds since the epoch.
        wall_us: i64,
        /// Index of the tables in which the leader saw who is up: the grant counts for whoever knows them.
        holders_at: u64,
        /// The sender may go on for this long, counted from when it sent the beat.
        grant_ms: u64,
    },
    NotLeader,
}

#[derive(Clone, Debug, Encode, Decode)]
pub enum MembersMessage {
    Add { node: NodeId, peer: String },
    Remove { node: NodeId },
    Transfer { to: NodeId },
}

#[derive(Debug, Encode, Decode)]
pub enum MembersAnswer {
    Done,
    Failed(MembershipError),
}

/// What a node says of itself to anyone.
#[derive(Clone, Debug, Encode, Decode)]
pub struct HelloAnswer {
    pub node: NodeId,
    pub api: String,
    pub cluster: Option<u128>,
    /// It has no log and has never voted.
    pub empty: bool,
    /// The ids it knows to be voters.
    pub voters: Vec<NodeId>,
    /// Its wall clock, for whoever wants to compare.
    pub wall: Timestamp,
}

/// The lowest node asks the others to be founders of this cluster.
#[derive(Debug, Encode, Decode)]
pub struct FoundMessage {
    pub cluster: u128,
    /// The list it was given; it must be the same on every founder.
    pub nodes: Vec<(NodeId, String)>,
}

#[derive(Debug, Encode, Decode)]
pub enum FoundAnswer {
    Accepted,
    Refused(String),
}
