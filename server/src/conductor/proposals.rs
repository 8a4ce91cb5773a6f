//! Decisions on their way into the log: gathered into batches, several in flight, tried again until they are answered.
//! Trying again is safe whatever became of the first try, because every line is compared with the state it was made
//! from.

use std::collections::VecDeque;
use std::time::Duration;

use campanile_model::{AttemptLine, Command, FireLine, Reply, Timestamp};
use campanile_raft::{Clock, Lane, ProposeError, Replica};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use super::{From, Proposal};
use crate::metrics::Metrics;

/// Proposals in flight at once: enough to keep the log busy while one is being synced.
const IN_FLIGHT: usize = 4;
/// Pause before a proposal is tried again.
const REPEAT_AFTER: Duration = Duration::from_millis(50);
/// Lines of one command.
const LINES: usize = 2000;
/// Lines that may wait for a place in flight; beyond that the wheel waits.
const WAITING_LINES: usize = 20_000;

#[derive(Default)]
pub(crate) struct Proposals {
    fires: Gathering<FireLine>,
    attempts: Gathering<AttemptLine>,
    queue: VecDeque<Proposal>,
    in_flight: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Earliest timer of each proposal in flight.
    in_flight_due: Vec<Timestamp>,
}

/// Lines that will share a command.
struct Gathering<T> {
    lines: VecDeque<T>,
    first_due: Option<Timestamp>,
}

impl<T> Default for Gathering<T> {
    fn default() -> Self {
        Self { lines: VecDeque::new(), first_due: None }
    }
}

impl<T> Gathering<T> {
    fn add(&mut self, lines: impl IntoIterator<Item = T>, due: Timestamp) {
        self.lines.extend(lines);
        self.first_due = Some(self.first_due.map_or(due, |first| first.min(due)));
    }

    /// Up to one command's lines. The rest keeps the first instant of all: early is safe, late is not.
    fn take(&mut self) -> (Vec<T>, Option<Timestamp>) {
        let count = self.lines.len().min(LINES);
        let lines = self.lines.drain(..count).collect();
        let first_due = self.first_due;
        if self.lines.is_empty() {
            self.first_due = None;
        }
        (lines, first_due)
    }
}

/// A proposal that has been answered, or not.
pub(crate) struct Finished {
    pub from: From,
    proposal: Proposal,
    result: Result<Vec<Reply>, ProposeError>,
}

impl Proposals {
    pub fn fire(&mut self, lines: impl IntoIterator<Item = FireLine>, due: Timestamp) {
        let before = self.fires.lines.len();
        self.fires.lines.extend(lines);
        if self.fires.lines.len() > before {
            self.fires.add([], due);
        }
    }

    pub fn attempt(&mut self, line: Option<AttemptLine>, due: Timestamp) {
        if let Some(line) = line {
            self.attempts.add([line], due);
        }
    }

    pub fn push(&mut self, proposal: Proposal) {
        self.queue.push_back(proposal);
    }

    /// Whether more lines may be gathered.
    pub fn has_room(&self) -> bool {
        self.fires.lines.len() + self.attempts.lines.len() < WAITING_LINES
    }

    /// Whether anything is on its way.
    #[cfg(madsim)]
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The earliest timer that is being decided.
    pub fn first_due(&self) -> Option<Timestamp> {
        let queued = self.queue.iter().filter_map(|proposal| proposal.first_due);
        let gathered = [self.fires.first_due, self.attempts.first_due].into_iter().flatten();
        queued.chain(gathered).chain(self.in_flight_due.iter().copied()).min()
    }

    /// Puts into flight what there is room for: fires first.
    pub fn submit(&mut self, replica: &Replica, clock: &Clock) {
        while self.in_flight.len() < IN_FLIGHT {
            let Some(proposal) = self.next() else { return };
            self.in_flight_due.extend(proposal.first_due);
            let (replica, clock) = (replica.clone(), clock.clone());
            self.in_flight.push(Box::pin(async move {
                let result = replica.propose(proposal.lane, vec![proposal.command.clone()]).await;
                if result.is_err() {
                    // It keeps its place in flight for a moment, so that a refusal is not answered by a storm.
                    clock.sleep(REPEAT_AFTER).await;
                }
                Finished { from: proposal.from, proposal, result }
            }));
        }
    }

    fn next(&mut self) -> Option<Proposal> {
        if !self.fires.lines.is_empty() {
            let (lines, first_due) = self.fires.take();
            let command = Command::Fire { lines };
            return Some(Proposal { lane: Lane::Fire, command, from: From::Wheel, first_due });
        }
        if !self.attempts.lines.is_empty() {
            let (lines, first_due) = self.attempts.take();
            let command = Command::Attempts { lines };
            return Some(Proposal { lane: Lane::Fire, command, from: From::Wheel, first_due });
        }
        self.queue.pop_front()
    }

    /// The next proposal that is answered; pending for ever while none is in flight.
    pub async fn finished(&mut self) -> Option<Finished> {
        match self.in_flight.next().await {
            Some(finished) => Some(finished),
            None => std::future::pending().await,
        }
    }

    /// Counts what was done, and queues again what was not answered.
    pub fn settle(&mut self, finished: Finished, metrics: &Metrics) {
        let Finished { proposal, result, .. } = finished;
        if let Some(due) = proposal.first_due
            && let Some(position) = self.in_flight_due.iter().position(|other| *other == due)
        {
            self.in_flight_due.swap_remove(position);
        }
        match result {
            Ok(replies) => {
                let asked = match &proposal.command {
                    Command::Fire { lines } => lines.len() as u64,
                    _ => 0,
                };
                let done: u64 = replies
                    .iter()
                    .map(|reply| match reply {
                        Reply::Lines { done } => u64::from(*done),
                        _ => 0,
                    })
                    .sum();
                if let Command::ExpireTask { max_lines, .. } = &proposal.command
                    && done >= u64::from(*max_lines)
                {
                    // There is more of the task to remove.
                    self.queue.push_back(proposal);
                } else if asked > 0 {
                    metrics.decisions.inc_by(done);
                    metrics.stale_decisions.inc_by(asked.saturating_sub(done));
                }
            }
            Err(error) => {
                tracing::warn!(%error, lane = ?proposal.lane, "a decision was not committed; trying again");
                metrics.proposals_repeated.inc();
                self.queue.push_back(proposal);
            }
        }
    }
}
