//! Takes the proposals of a node that does not lead to the one that does.
//!
//! Those of a lane that wait together go in one call, and few calls are under way at a time, so that more come together
//! the more there is to do. What was sent may have been appended: it is answered by what the leader says, or as of
//! unknown outcome, and never sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use campanile_model::{NodeId, bound, planted, sometimes};
use rand::RngExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::lanes::{Answer, Job, Lane, Lanes};
use super::{OUTCOME, Parts};
use crate::leadership::{Leadership, address_of};
use crate::metrics::Metrics;
use crate::network::client::{Peers, Traffic};
use crate::network::wire::{self, ForwardedProposal, ProposeAnswers, ProposeMessage};
use crate::rt;
use crate::state_machine::Raft;

/// Calls under way at one time, of each lane.
const CALLS: usize = 4;
/// Proposals in one call, together at most about so large. What a call holds waits at the leader beside what came there
/// directly: with less in a call the clients of other nodes would wait longer than the leader's own.
const CALL_BYTES: usize = 1 << 20;
const CALL_COMMANDS: usize = 4096;

struct Forwarder {
    waiting: Arc<Lanes>,
    raft: Raft,
    peers: Peers,
    metrics: Arc<Metrics>,
    /// This life, for the leader, and how many proposals it has been sent.
    origin: u64,
    sent: AtomicU64,
}

/// Forwards what waits, until the node stops.
pub fn start(waiting: Arc<Lanes>, parts: &Parts) {
    // Calls outlive the node by a little, and must not hold its store open.
    let (raft, peers, metrics) = (parts.raft.clone(), parts.peers.clone(), parts.metrics.clone());
    let origin = rt::rng().random_range(1..u64::MAX);
    let forwarder = Arc::new(Forwarder { waiting, raft, peers, metrics, origin, sent: AtomicU64::new(0) });
    rt::spawn(forwarder.run(parts.leadership.clone(), parts.stopping.clone()));
}

fn free_calls() -> [Arc<Semaphore>; Lane::ALL.len()] {
    std::array::from_fn(|_| Arc::new(Semaphore::new(CALLS)))
}

impl Forwarder {
    async fn run(self: Arc<Self>, mut leadership: watch::Receiver<Leadership>, mut stopping: watch::Receiver<bool>) {
        let mut before = Leadership::default();
        let mut calls = free_calls();
        loop {
            let now = *leadership.borrow_and_update();
            if (now.leader, now.term) != (before.leader, before.term) {
                // Calls to a leader that has gone may hang: they are not to hold up what goes to the next.
                calls = free_calls();
                before = now;
            }
            match now.leader {
                Some(leader) if !now.is_leader => self.send_waiting(leader, now.term, &calls),
                _ => self.refuse_waiting(),
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                changed = leadership.changed() => if changed.is_err() { break },
                () = self.waiting.arrived() => {}
            }
        }
        self.refuse_waiting();
    }

    fn refuse_waiting(&self) {
        self.waiting.take_all().into_iter().for_each(|job| job.refuse(Answer::NotLeader));
    }

    /// Sends what waits, as far as there are calls for it.
    fn send_waiting(self: &Arc<Self>, leader: NodeId, term: u64, calls: &[Arc<Semaphore>; Lane::ALL.len()]) {
        for (lane, calls) in Lane::ALL.into_iter().zip(calls) {
            while let Ok(call) = calls.clone().try_acquire_owned() {
                let jobs = self.waiting.take(lane, CALL_BYTES, bound!(ForwardedCommands, CALL_COMMANDS));
                if jobs.is_empty() {
                    break;
                }
                rt::spawn(self.clone().send(leader, term, lane, jobs, call));
            }
        }
    }

    async fn send(self: Arc<Self>, leader: NodeId, term: u64, lane: Lane, jobs: Vec<Job>, call: OwnedSemaphorePermit) {
        let answers = self.ask(leader, term, lane, &jobs).await;
        // Before the answers: whoever has one may propose again.
        drop(call);
        self.waiting.look_again();
        match answers {
            Ok(answers) => jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer)),
            Err(refused) => jobs.into_iter().for_each(|job| job.answer(refused.clone())),
        }
    }

    /// One answer for each job, or one for all.
    async fn ask(&self, leader: NodeId, term: u64, lane: Lane, jobs: &[Job]) -> Result<Vec<Answer>, Answer> {
        if planted!(CallsNotForwarded) && lane == Lane::Api {
            return Err(Answer::NotLeader);
        }
        let address = address_of(&self.raft, leader).ok_or(Answer::NotLeader)?;
        let count = jobs.len() as u64;
        self.metrics.proposals_forwarded.add(count);
        let first = self.sent.fetch_add(count, Ordering::Relaxed) + 1;
        let proposals =
            (first..).zip(jobs).map(|(sequence, job)| ForwardedProposal { sequence, commands: job.pending() });
        let message = ProposeMessage { term, origin: self.origin, lane: lane.number(), proposals: proposals.collect() };
        let channel = self.peers.channel(leader, &address, Traffic::Control);
        match channel.call(wire::PROPOSE, &message, OUTCOME).await {
            Ok(ProposeAnswers(answers)) if answers.len() == jobs.len() => Ok(answers),
            Err(error) if error.had_no_effect() => Err(Answer::NotLeader),
            // What was sent may have been appended: said so, never sent again.
            _ if planted!(UnknownIsRetried) => Err(Answer::NotLeader),
            _ => {
                sometimes!(ForwardedOutcomeUnknown);
                Err(Answer::OutcomeUnknown)
            }
        }
    }
}
