//! Takes commands from anywhere in the cluster into the log.
//!
//! 1. On the leader, proposals wait in the [`lanes`], each with bounded bytes; on another node they are forwarded.
//! 2. The [`batcher`], one task, puts proposals of a lane together, stamps the time, has them prepared and appends them as
//!    one entry. Order within a lane is kept; several entries are in flight.
//! 3. A proposal that conflicted with another is prepared again. Otherwise its replies are the answer.
//!
//! What may have been appended is never sent again from here: the caller is told that the outcome is unknown. What has
//! waited in its lane for too long is withdrawn, and the caller is told that nothing was appended.

mod batcher;
mod lanes;
mod once;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use campanile_model::codec::encode;
use campanile_model::{Code, Command, Entry, NodeId, Rejection, Reply, Timestamp, planted, sometimes};
use campanile_store::View;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Limits;
use crate::error::ProposeError;
use crate::leadership::{Leadership, address_of};
use crate::metrics::Metrics;
use crate::network::client::{Peers, Traffic};
use crate::network::wire::{self, MAX_PROPOSAL_BYTES, ProposeAnswer, ProposeMessage};
use crate::rt;
use crate::stamping::Stamping;
use crate::state_machine::Raft;
use lanes::{Answer, Job, Lanes};
use once::Once;
use rand::RngExt;

pub use lanes::Lane;

/// Fills in what a command needs from the leader: see `campanile_model::command`.
pub trait Prepare: Send + Sync + 'static {
    /// Runs on the leader just before commands are appended, at the entry's time. May put commands in front (settling
    /// what is due). `Err` answers the proposal, and nothing is appended for it.
    fn prepare(&self, view: &View, time: Timestamp, commands: Vec<Command>) -> Result<Prepared, Rejection>;
}

/// Commands ready to be appended.
pub struct Prepared {
    pub commands: Vec<Command>,
    /// Which of the replies to `commands` answer the proposal.
    pub replies: Range<usize>,
}

/// How long a proposal looks for a leader that takes it.
const FIND_LEADER: Duration = Duration::from_secs(5);
/// How long a proposal waits for its outcome, in its lane included.
const OUTCOME: Duration = Duration::from_secs(15);
/// Between two tries while nothing has changed.
const RETRY: Duration = Duration::from_millis(20);

/// Proposes commands. Clones share the lanes.
#[derive(Clone)]
pub struct Proposer {
    inner: Arc<Inner>,
}

struct Inner {
    lanes: Arc<Lanes>,
    /// This life, for those that proposals are forwarded to, and how many have been.
    origin: u64,
    forwarded: AtomicU64,
    /// What was forwarded to this node.
    once: Mutex<Once>,
    peers: Peers,
    leadership: watch::Receiver<Leadership>,
    raft: Raft,
    clock: Clock,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
}

/// What a proposer is made of.
pub struct Parts {
    pub raft: Raft,
    pub store: campanile_store::Store,
    pub prepare: Arc<dyn Prepare>,
    pub peers: Peers,
    pub leadership: watch::Receiver<Leadership>,
    pub stamping: Stamping,
    pub clock: Clock,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    pub stopping: watch::Receiver<bool>,
}

impl Proposer {
    /// Starts the batcher.
    pub fn start(parts: Parts) -> std::io::Result<Self> {
        let lanes = Arc::new(Lanes::new(&parts.limits));
        let inner = Inner {
            lanes: lanes.clone(),
            origin: rt::rng().random_range(1..u64::MAX),
            forwarded: AtomicU64::new(0),
            once: Mutex::default(),
            peers: parts.peers.clone(),
            leadership: parts.leadership.clone(),
            raft: parts.raft.clone(),
            clock: parts.clock.clone(),
            metrics: parts.metrics.clone(),
            stopping: parts.stopping.clone(),
        };
        rt::spawn_dedicated("campanile-propose", batcher::run(lanes, parts))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Commits commands in one entry and answers one reply for each.
    pub async fn propose(&self, lane: Lane, commands: Vec<Command>) -> Result<Vec<Reply>, ProposeError> {
        let inner = &self.inner;
        inner.metrics.proposals.add(1);
        let bytes = encoded_bytes(&commands)?;
        let commands: Arc<[Command]> = commands.into();
        let mut leadership = inner.leadership.clone();
        let mut stopping = inner.stopping.clone();
        let give_up = inner.clock.instant() + FIND_LEADER;
        loop {
            if *stopping.borrow_and_update() {
                return Err(ProposeError::ShuttingDown);
            }
            let now = *leadership.borrow_and_update();
            let answer = match now.leader {
                None => ProposeAnswer::NotLeader,
                Some(_) if now.is_leader => self.propose_here(lane, commands.clone(), bytes).await,
                Some(leader) => self.forward(leader, now.term, lane, &commands, bytes).await,
            };
            // Nothing was appended if there is no outcome: another leader, or the same a little later, may take it.
            if let Some(outcome) = self.outcome(answer) {
                return outcome;
            }
            if inner.clock.instant() >= give_up {
                return Err(ProposeError::NoLeader);
            }
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                changed = leadership.changed() => if changed.is_err() { return Err(ProposeError::ShuttingDown) },
                () = inner.clock.sleep(RETRY) => {}
            }
        }
    }

    /// As [`Self::propose`], for what this node decided as the leader: it is refused at once if it leads no more. A
    /// decision is not to reach the log seconds later, or by way of another leader, who makes its own.
    pub async fn propose_as_leader(&self, lane: Lane, commands: Vec<Command>) -> Result<Vec<Reply>, ProposeError> {
        self.inner.metrics.proposals.add(1);
        let bytes = encoded_bytes(&commands)?;
        let answer = self.propose_here(lane, commands.into(), bytes).await;
        self.outcome(answer).unwrap_or(Err(ProposeError::NoLeader))
    }

    /// What an answer says of the proposal; nothing if it was not taken.
    fn outcome(&self, answer: ProposeAnswer) -> Option<Result<Vec<Reply>, ProposeError>> {
        Some(match answer {
            ProposeAnswer::Replies(replies) => Ok(replies),
            ProposeAnswer::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
            ProposeAnswer::OutcomeUnknown => Err(ProposeError::OutcomeUnknown),
            ProposeAnswer::ClockSkew => Err(ProposeError::ClockSkew),
            ProposeAnswer::Overloaded { retry_after_ms } => {
                self.inner.metrics.proposals_overloaded.add(1);
                Err(ProposeError::Overloaded { retry_after: Duration::from_millis(retry_after_ms) })
            }
            ProposeAnswer::NotLeader => return None,
        })
    }

    /// Answers a proposal that another node forwarded. It is not forwarded again.
    pub async fn serve(&self, message: ProposeMessage) -> ProposeAnswer {
        let Some(lane) = Lane::from_number(message.lane) else {
            return ProposeAnswer::Rejected(Rejection::new(Code::Internal, "proposal in an unknown lane"));
        };
        let now = *self.inner.leadership.borrow();
        if message.term < now.term {
            // Too late for its leader, whenever it comes: it will never be taken.
            return ProposeAnswer::NotLeader;
        }
        let first = {
            let mut once = self.inner.once.lock().unwrap_or_else(PoisonError::into_inner);
            once.takes(message.term, message.origin, message.sequence)
        };
        if !first && !planted!(ProposalTakenTwice) {
            // It has been answered before; nobody waits for this answer.
            sometimes!(ProposalArrivedTwice);
            return ProposeAnswer::OutcomeUnknown;
        }
        if !now.is_leader || now.term != message.term {
            return ProposeAnswer::NotLeader;
        }
        match encoded_bytes(&message.commands) {
            Ok(bytes) => self.propose_here(lane, message.commands.into(), bytes).await,
            Err(ProposeError::Rejected(rejection)) => ProposeAnswer::Rejected(rejection),
            Err(_) => ProposeAnswer::NotLeader,
        }
    }

    async fn propose_here(&self, lane: Lane, commands: Arc<[Command]>, bytes: usize) -> ProposeAnswer {
        if !self.inner.leadership.borrow().is_leader {
            return ProposeAnswer::NotLeader;
        }
        let Some(room) = self.inner.lanes.reserve(lane, bytes) else { return self.overloaded(lane) };
        let (job, mut waiting) = Job::new(lane, commands, bytes, room);
        self.inner.lanes.push(job);
        let answer = match rt::timeout(lane.patience(), &mut waiting.answer).await {
            // It still waits: this leader is not ready, or can commit nothing. What is withdrawn was never appended.
            None if waiting.withdraw() => {
                let ready = self.inner.leadership.borrow().ready;
                return if ready { self.overloaded(lane) } else { ProposeAnswer::NotLeader };
            }
            None => rt::timeout(OUTCOME - lane.patience(), waiting.answer).await,
            answer => answer,
        };
        match answer {
            Some(Ok(Answer::Replies(replies))) => ProposeAnswer::Replies(replies),
            Some(Ok(Answer::Rejected(rejection))) => ProposeAnswer::Rejected(rejection),
            Some(Ok(Answer::NotLeader)) => ProposeAnswer::NotLeader,
            Some(Ok(Answer::ClockSkew)) => ProposeAnswer::ClockSkew,
            Some(Ok(Answer::OutcomeUnknown) | Err(_)) | None => ProposeAnswer::OutcomeUnknown,
        }
    }

    fn overloaded(&self, lane: Lane) -> ProposeAnswer {
        let waiting = self.inner.lanes.entries_in_flight(lane) as u64;
        ProposeAnswer::Overloaded { retry_after_ms: 50 + 10 * waiting }
    }

    async fn forward(
        &self,
        leader: NodeId,
        term: u64,
        lane: Lane,
        commands: &[Command],
        bytes: usize,
    ) -> ProposeAnswer {
        // What waits for another node takes memory here just the same.
        let Some(_room) = self.inner.lanes.reserve(lane, bytes) else { return self.overloaded(lane) };
        let Some(address) = address_of(&self.inner.raft, leader) else { return ProposeAnswer::NotLeader };
        self.inner.metrics.proposals_forwarded.add(1);
        let sequence = self.inner.forwarded.fetch_add(1, Ordering::Relaxed) + 1;
        let message = ProposeMessage {
            term,
            origin: self.inner.origin,
            sequence,
            lane: lane.number(),
            commands: commands.to_vec(),
        };
        let channel = self.inner.peers.channel(leader, &address, Traffic::Control);
        match channel.call(wire::PROPOSE, &message, OUTCOME).await {
            Ok(answer) => answer,
            Err(error) if error.had_no_effect() => ProposeAnswer::NotLeader,
            // What was sent may have been appended: said so, never sent again.
            Err(_) if planted!(UnknownIsRetried) => ProposeAnswer::NotLeader,
            Err(_) => {
                sometimes!(ForwardedOutcomeUnknown);
                ProposeAnswer::OutcomeUnknown
            }
        }
    }
}

/// How many bytes commands take in the log; an error if that is more than an entry may have.
fn encoded_bytes(commands: &[Command]) -> Result<usize, ProposeError> {
    let bytes = encode(&Entry { time: Timestamp::MIN, commands: commands.to_vec() }).len();
    if bytes > MAX_PROPOSAL_BYTES {
        let message = format!("{bytes} bytes in one proposal, more than {MAX_PROPOSAL_BYTES}");
        return Err(ProposeError::Rejected(Rejection::new(Code::LimitExceeded, message)));
    }
    Ok(bytes)
}
