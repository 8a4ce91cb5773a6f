//! Linearizable reads: a barrier after which this node's state holds every write acknowledged before the question.
//!
//! The leader confirms with a quorum that it still leads (no lease: leases trust clocks) and names the index to wait for.
//! One confirmation is shared by everybody who asked before it began. A follower asks the leader, then waits until it has
//! applied that far itself.

use std::sync::Arc;
use std::time::Duration;

use campanile_model::{NodeId, bound, planted};
use openraft::{LinearizerOption, ReadPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::error::ReadError;
use crate::form::LogIdForm;
use crate::leadership::{Leadership, address_of};
use crate::metrics::Metrics;
use crate::network::client::{Peers, Traffic};
use crate::network::wire::{self, ReadIndexAnswer};
use crate::rt;
use crate::state_machine::{Position, Raft};

/// How long a read looks for a leader that confirms it.
const FIND_LEADER: Duration = Duration::from_secs(5);
/// How long one confirmation may take.
const ROUND: Duration = Duration::from_secs(2);
/// How long a confirmed read waits for this node to apply.
const APPLY: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);
/// Reads waiting for the next confirmation.
const WAITING: usize = 65_536;

type Round = Result<LogIdForm, ReadError>;

/// The barrier. Clones share its rounds.
#[derive(Clone)]
pub struct Reads {
    inner: Arc<Inner>,
    waiting: mpsc::Sender<oneshot::Sender<Round>>,
}

struct Inner {
    raft: Raft,
    peers: Peers,
    leadership: watch::Receiver<Leadership>,
    position: watch::Receiver<Position>,
    clock: Clock,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
}

impl Reads {
    pub fn start(
        raft: Raft,
        peers: Peers,
        leadership: watch::Receiver<Leadership>,
        position: watch::Receiver<Position>,
        clock: Clock,
        metrics: Arc<Metrics>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let inner = Arc::new(Inner { raft, peers, leadership, position, clock, metrics, stopping });
        let (waiting, queue) = mpsc::channel(bound!(ReadsWaiting, WAITING));
        rt::spawn(rounds(inner.clone(), queue));
        Self { inner, waiting }
    }

    /// Waits until this node's state is current.
    pub async fn barrier(&self) -> Result<(), ReadError> {
        let at = self.round().await?;
        let mut position = self.inner.position.clone();
        let applied = position.wait_for(|position| position.applied.is_some() && position.index() >= at.index);
        match rt::timeout(APPLY, applied).await {
            Some(Ok(_)) => {
                self.inner.metrics.reads.add(1);
                Ok(())
            }
            Some(Err(_)) => Err(ReadError::ShuttingDown),
            None => Err(ReadError::CatchingUp),
        }
    }

    /// Answers a follower. Only a leader confirms; it does not ask another.
    pub async fn serve(&self) -> ReadIndexAnswer {
        if !self.inner.leadership.borrow().is_leader {
            return ReadIndexAnswer::NotLeader;
        }
        match rt::timeout(ROUND, self.round()).await {
            Some(Ok(at)) => ReadIndexAnswer::At(at),
            Some(Err(ReadError::TimedOut)) | None => ReadIndexAnswer::TimedOut,
            Some(Err(_)) => ReadIndexAnswer::NotLeader,
        }
    }

    async fn round(&self) -> Round {
        let (answer, receiver) = oneshot::channel();
        self.waiting.send(answer).await.map_err(|_| ReadError::ShuttingDown)?;
        receiver.await.unwrap_or(Err(ReadError::ShuttingDown))
    }
}

/// Runs one confirmation after another, each for all who wait when it begins.
async fn rounds(inner: Arc<Inner>, mut queue: mpsc::Receiver<oneshot::Sender<Round>>) {
    let mut stopping = inner.stopping.clone();
    loop {
        let first = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            first = queue.recv() => first,
        };
        let Some(first) = first else { return };
        let mut waiting = vec![first];
        while let Ok(next) = queue.try_recv() {
            waiting.push(next);
        }
        inner.metrics.read_rounds.add(1);
        let round = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => Err(ReadError::ShuttingDown),
            round = inner.confirm() => round,
        };
        for answer in waiting {
            // A reader may have gone away.
            drop(answer.send(round.clone()));
        }
    }
}

impl Inner {
    async fn confirm(&self) -> Round {
        let give_up = self.clock.instant() + FIND_LEADER;
        let mut leadership = self.leadership.clone();
        loop {
            let now = *leadership.borrow_and_update();
            let confirmed = match now.leader {
                Some(_) if now.is_leader => self.confirm_here().await,
                Some(leader) => self.ask(leader).await,
                None => None,
            };
            if let Some(at) = confirmed {
                return Ok(at);
            }
            if self.clock.instant() >= give_up {
                return Err(if now.leader.is_some() { ReadError::TimedOut } else { ReadError::NoLeader });
            }
            // Asking again is harmless: a read changes nothing.
            tokio::select! {
                biased;
                changed = leadership.changed() => if changed.is_err() { return Err(ReadError::ShuttingDown) },
                () = self.clock.sleep(RETRY) => {}
            }
        }
    }

    async fn confirm_here(&self) -> Option<LogIdForm> {
        if planted!(ReadWithoutQuorum) {
            return self.position.borrow().applied.map(Into::into);
        }
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(ROUND);
        let linearizer = rt::timeout(ROUND, self.raft.get_read_linearizer(option)).await?.ok()?;
        Some((*linearizer.read_log_id().log_id()).into())
    }

    async fn ask(&self, leader: NodeId) -> Option<LogIdForm> {
        let address = address_of(&self.raft, leader)?;
        let channel = self.peers.channel(leader, &address, Traffic::Control);
        match channel.ask(wire::READ_INDEX, ROUND).await {
            Ok(ReadIndexAnswer::At(at)) => Some(at),
            Ok(ReadIndexAnswer::NotLeader | ReadIndexAnswer::TimedOut) | Err(_) => None,
        }
    }
}
