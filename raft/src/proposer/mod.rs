//! Takes commands from anywhere in the cluster into the log.
//!
//! 1. Proposals wait in [`lanes`], each with bounded bytes. On another node than the leader the [`forwarder`] takes them
//!    from there to the leader's.
//! 2. The [`batcher`], one task, puts proposals of a lane together, stamps the time, has them prepared and appends them as
//!    one entry. Order within a lane is kept; several entries are in flight.
//! 3. A proposal that conflicted with another is prepared again. Otherwise its replies are the answer.
//!
//! What may have been appended is never sent again from here: the caller is told that the outcome is unknown. What has
//! waited in its lane for too long is withdrawn, and the caller is told that nothing was appended.

mod batcher;
mod forwarder;
mod lanes;
mod once;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use campanile_model::codec;
use campanile_model::{Code, Command, Rejection, Reply, Timestamp, planted, sometimes};
use campanile_store::View;
use futures::future::join_all;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Limits;
use crate::error::ProposeError;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::network::client::Peers;
use crate::network::wire::{MAX_PROPOSAL_BYTES, ProposeAnswers, ProposeMessage};
use crate::rt;
use crate::stamping::Stamping;
use crate::state_machine::Raft;
use lanes::{Answer, Job, Lanes};
use once::Once;

pub use lanes::Lane;

/// Fills in what a command needs from the leader: see `campanile_model::command`.
pub trait Prepare: Send + Sync + 'static {
    /// Runs on the leader just before commands are appended, at the entry's time. May put commands in front (settling
    /// what is due). `Err` answers the proposal, and nothing is appended for it; of several commands each may be refused
    /// alone.
    fn prepare(&self, view: &View, time: Timestamp, commands: Vec<Command>) -> Result<Prepared, Rejection>;
}

/// Commands ready to be appended.
pub struct Prepared {
    pub commands: Vec<Command>,
    /// Which of the replies to `commands` answer the proposal, but for what was refused of it.
    pub replies: Range<usize>,
    /// What of the proposal is not among `commands`, by its place in it, and why not.
    pub refused: Vec<(usize, Rejection)>,
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
    /// What waits for the log of this node, while it leads.
    lanes: Arc<Lanes>,
    /// What waits for another node, while that leads.
    outgoing: Arc<Lanes>,
    /// What was forwarded to this node.
    once: Mutex<Once>,
    leadership: watch::Receiver<Leadership>,
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
    /// Starts the batcher and the forwarder. `running` is dropped when the batcher has ended and let go of the store.
    pub fn start(parts: Parts, running: watch::Sender<()>) -> std::io::Result<Self> {
        let lanes = Arc::new(Lanes::new(&parts.limits));
        let outgoing = Arc::new(Lanes::new(&parts.limits));
        let inner = Inner {
            lanes: lanes.clone(),
            outgoing: outgoing.clone(),
            once: Mutex::default(),
            leadership: parts.leadership.clone(),
            clock: parts.clock.clone(),
            metrics: parts.metrics.clone(),
            stopping: parts.stopping.clone(),
        };
        forwarder::start(outgoing, &parts);
        let batcher = async move {
            batcher::run(lanes, parts).await;
            drop(running);
        };
        rt::spawn_dedicated("campanile-propose", batcher)?.detach();
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
                None => Answer::NotLeader,
                Some(_) if now.is_leader => self.propose_here(lane, commands.clone(), bytes).await,
                Some(_) => {
                    let answer = wait_in(&inner.outgoing, lane, commands.clone(), bytes).await;
                    answer.unwrap_or_else(|| overloaded(&inner.outgoing, lane))
                }
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
    fn outcome(&self, answer: Answer) -> Option<Result<Vec<Reply>, ProposeError>> {
        Some(match answer {
            Answer::Replies(replies) => Ok(replies),
            Answer::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
            Answer::OutcomeUnknown => Err(ProposeError::OutcomeUnknown),
            Answer::ClockSkew => Err(ProposeError::ClockSkew),
            Answer::Overloaded { retry_after_ms } => {
                self.inner.metrics.proposals_overloaded.add(1);
                Err(ProposeError::Overloaded { retry_after: Duration::from_millis(retry_after_ms) })
            }
            Answer::NotLeader => return None,
        })
    }

    /// Answers proposals that another node forwarded. They are not forwarded again.
    pub async fn serve(&self, message: ProposeMessage) -> ProposeAnswers {
        let ProposeMessage { term, origin, lane, proposals } = message;
        // All are in their lane, in their order, before the first is answered.
        let answers = proposals.into_iter().map(|proposal| {
            self.serve_one(term, origin, proposal.sequence, Lane::from_number(lane), proposal.commands)
        });
        ProposeAnswers(join_all(answers).await)
    }

    async fn serve_one(
        &self,
        term: u64,
        origin: u64,
        sequence: u64,
        lane: Option<Lane>,
        commands: Vec<Command>,
    ) -> Answer {
        let Some(lane) = lane else {
            return Answer::Rejected(Rejection::new(Code::Internal, "proposal in an unknown lane"));
        };
        let now = *self.inner.leadership.borrow();
        if term < now.term {
            // Too late for its leader, whenever it comes: it will never be taken.
            return Answer::NotLeader;
        }
        let first = {
            let mut once = self.inner.once.lock().unwrap_or_else(PoisonError::into_inner);
            once.takes(term, origin, sequence)
        };
        if !first && !planted!(ProposalTakenTwice) {
            // It has been answered before; nobody waits for this answer.
            sometimes!(ProposalArrivedTwice);
            return Answer::OutcomeUnknown;
        }
        if !now.is_leader || now.term != term {
            return Answer::NotLeader;
        }
        match encoded_bytes(&commands) {
            Ok(bytes) => self.propose_here(lane, commands.into(), bytes).await,
            Err(ProposeError::Rejected(rejection)) => Answer::Rejected(rejection),
            Err(_) => Answer::NotLeader,
        }
    }

    async fn propose_here(&self, lane: Lane, commands: Arc<[Command]>, bytes: usize) -> Answer {
        if !self.inner.leadership.borrow().is_leader {
            return Answer::NotLeader;
        }
        let answer = wait_in(&self.inner.lanes, lane, commands, bytes).await;
        answer.unwrap_or_else(|| {
            // It was not taken: this leader is not ready, or can commit nothing.
            let ready = self.inner.leadership.borrow().ready;
            if ready { overloaded(&self.inner.lanes, lane) } else { Answer::NotLeader }
        })
    }
}

/// Puts a proposal where it waits, for this node's log or for another node, until it is answered. `None` if it was not
/// taken from there in time, and never will be.
async fn wait_in(lanes: &Lanes, lane: Lane, commands: Arc<[Command]>, bytes: usize) -> Option<Answer> {
    let Some(room) = lanes.reserve(lane, bytes) else { return Some(overloaded(lanes, lane)) };
    let (job, mut waiting) = Job::new(lane, commands, bytes, room);
    lanes.push(job);
    let answer = match rt::timeout(lane.patience(), &mut waiting.answer).await {
        // What is withdrawn was never appended.
        None if !planted!(DecisionWaitsForEver) && waiting.withdraw() => return None,
        None => rt::timeout(OUTCOME - lane.patience(), waiting.answer).await,
        answer => answer,
    };
    Some(answer.and_then(Result::ok).unwrap_or(Answer::OutcomeUnknown))
}

fn overloaded(lanes: &Lanes, lane: Lane) -> Answer {
    let waiting = lanes.entries_in_flight(lane) as u64;
    Answer::Overloaded { retry_after_ms: 50 + 10 * waiting }
}

/// How many bytes commands take in the log; an error if that is more than an entry may have.
fn encoded_bytes(commands: &[Command]) -> Result<usize, ProposeError> {
    let bytes = codec::encoded_len(commands);
    if bytes > MAX_PROPOSAL_BYTES {
        let message = format!("{bytes} bytes in one proposal, more than {MAX_PROPOSAL_BYTES}");
        return Err(ProposeError::Rejected(Rejection::new(Code::LimitExceeded, message)));
    }
    Ok(bytes)
}
