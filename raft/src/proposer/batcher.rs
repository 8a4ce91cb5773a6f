//! The one task that stamps and appends.
//!
//! It is the only proposer of a node, it appends only while the node leads and has applied its term's first entry, and
//! only under that term: so the time it stamps, never before what it stamped last nor before what is applied, never goes
//! back along the log.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use campanile_model::{Code, Command, Entry, Rejection, Reply, Timestamp, bound, limits};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use openraft::errors::ClientWriteError;
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use openraft::vote::leader_id_std::CommittedLeaderId;

use super::lanes::{Answer, Job, Lane, Lanes};
use super::{Parts, Prepared};
use crate::types::{Proposal, TypeConfig};

/// Proposals put together are at most about this large.
const ENTRY_BYTES: usize = 512 << 10;
/// Ids an entry may give out, below the 65,536 that there are, each with the rows that come with it: what is heavier is
/// split, so that no entry holds up those behind it for seconds while it is applied.
const ENTRY_WEIGHT: usize = 60_000;
/// A proposal that conflicted this often is answered with its conflict.
const MAX_CONFLICTS: u32 = 5;
/// Every so many entries the lanes are looked at from the lowest up, so that none waits for ever.
const LOWEST_FIRST_EVERY: u64 = 8;

/// How often a leader that knows nothing of its clock yet looks again. It takes a few beats after a start of the whole
/// cluster, and no time at all otherwise.
const LOOK_AT_CLOCK: Duration = Duration::from_millis(20);

/// What is waited for before more can be proposed.
#[derive(PartialEq, Eq)]
enum Waits {
    ForWork,
    ForClock,
}

/// An entry in flight, and which of its replies are whose.
struct InFlight {
    lane: Lane,
    jobs: Vec<(Job, Range<usize>)>,
    result: Option<ClientWriteResult<TypeConfig>>,
}

/// An entry being put together.
struct Draft {
    commands: Vec<Command>,
    weight: usize,
    jobs: Vec<(Job, Range<usize>)>,
}

impl Draft {
    fn new() -> Self {
        Self { commands: Vec::new(), weight: 0, jobs: Vec::new() }
    }

    fn add(&mut self, job: Job, prepared: Prepared, weight: usize) {
        let offset = self.commands.len();
        let replies = prepared.replies.start + offset..prepared.replies.end + offset;
        self.commands.extend(prepared.commands);
        self.weight += weight;
        self.jobs.push((job, replies));
    }
}

struct Batcher {
    lanes: Arc<Lanes>,
    parts: Parts,
    in_flight: FuturesUnordered<BoxFuture<'static, InFlight>>,
    stamped: Timestamp,
    entries: u64,
}

/// Runs until the node stops.
pub async fn run(lanes: Arc<Lanes>, parts: Parts) {
    let mut leadership = parts.leadership.clone();
    let mut stopping = parts.stopping.clone();
    let mut batcher = Batcher { lanes, parts, in_flight: FuturesUnordered::new(), stamped: Timestamp::MIN, entries: 0 };
    let mut unsure_of_clock = false;
    loop {
        let lanes = batcher.lanes.clone();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(done) = batcher.in_flight.next() => batcher.finish(done),
            changed = leadership.changed() => if changed.is_err() { break },
            () = lanes.arrived() => {}
            () = batcher.parts.clock.sleep(LOOK_AT_CLOCK), if unsure_of_clock => {}
        }
        unsure_of_clock = batcher.propose_waiting().await == Waits::ForClock;
    }
    for job in batcher.lanes.take_all() {
        job.refuse(Answer::NotLeader);
    }
}

impl Batcher {
    async fn propose_waiting(&mut self) -> Waits {
        loop {
            let leadership = *self.parts.leadership.borrow();
            if !leadership.is_leader {
                self.lanes.take_all().into_iter().for_each(|job| job.refuse(Answer::NotLeader));
                return Waits::ForWork;
            }
            if !leadership.ready {
                // Its term's first entry is on its way; what waits is taken then.
                return Waits::ForWork;
            }
            if !self.parts.stamping.is_compared() {
                return Waits::ForClock;
            }
            if !self.parts.stamping.is_allowed() {
                self.lanes.take_all().into_iter().for_each(|job| job.refuse(Answer::ClockSkew));
                return Waits::ForWork;
            }
            let Some((lane, jobs)) = self.take() else { return Waits::ForWork };
            self.propose(lane, jobs, leadership.term).await;
        }
    }

    /// The next jobs, from the highest lane that has any.
    fn take(&self) -> Option<(Lane, Vec<Job>)> {
        let mut order = Lane::ALL;
        if self.entries % LOWEST_FIRST_EVERY == LOWEST_FIRST_EVERY - 1 {
            order.reverse();
        }
        order.into_iter().find_map(|lane| {
            let jobs = self.lanes.take(lane, bound!(EntryBytes, ENTRY_BYTES), lane.entry_commands());
            (!jobs.is_empty()).then_some((lane, jobs))
        })
    }

    async fn propose(&mut self, lane: Lane, jobs: Vec<Job>, term: u64) {
        let view = self.parts.store.view();
        let time = self.stamped.max(view.time()).max(self.parts.clock.now());
        self.stamped = time;
        let mut draft = Draft::new();
        for mut job in jobs {
            let mut prepared = match self.parts.prepare.prepare(&view, time, job.pending()) {
                Ok(prepared) => prepared,
                Err(rejection) => {
                    job.refuse(Answer::Rejected(rejection));
                    continue;
                }
            };
            job.leave_out(std::mem::take(&mut prepared.refused));
            let wanted = job.pending_len();
            if wanted == 0 {
                job.answer_replies();
                continue;
            }
            if prepared.replies.len() != wanted || prepared.replies.end > prepared.commands.len() {
                let message = format!("preparation names {} replies for {wanted} commands", prepared.replies.len());
                job.refuse(Answer::Rejected(Rejection::new(Code::Internal, message)));
                continue;
            }
            let weight = prepared.commands.iter().map(weight_of).sum();
            if weight > ENTRY_WEIGHT {
                let message = format!("{weight} ids and runs in one proposal, more than {ENTRY_WEIGHT}");
                job.refuse(Answer::Rejected(Rejection::new(Code::LimitExceeded, message)));
                continue;
            }
            if draft.weight + weight > ENTRY_WEIGHT {
                let full = std::mem::replace(&mut draft, Draft::new());
                self.append(lane, full, time, term).await;
            }
            draft.add(job, prepared, weight);
        }
        self.append(lane, draft, time, term).await;
    }

    async fn append(&mut self, lane: Lane, draft: Draft, time: Timestamp, term: u64) {
        if draft.jobs.is_empty() {
            return;
        }
        let jobs = draft.jobs;
        let proposal = Proposal::new(&Entry { time, commands: draft.commands });
        let (responder, result) = OneshotResponder::new_pair();
        let write = self.parts.raft.write(proposal).with_leader(CommittedLeaderId::new(term)).responder(responder);
        if write.await.is_err() {
            // openraft has stopped, before it took this.
            jobs.into_iter().for_each(|(job, _)| job.refuse(Answer::NotLeader));
            return;
        }
        self.entries += 1;
        self.parts.metrics.entries_proposed.add(1);
        self.lanes.entry_started(lane);
        self.in_flight.push(Box::pin(async move { InFlight { lane, jobs, result: result.await.ok() } }));
    }

    fn finish(&mut self, done: InFlight) {
        self.lanes.entry_finished(done.lane);
        let mut replies = match done.result {
            Some(Ok(response)) => response.data.0,
            Some(Err(ClientWriteError::ForwardToLeader(_))) => {
                // Refused before it was appended.
                done.jobs.into_iter().for_each(|(job, _)| job.refuse(Answer::NotLeader));
                return;
            }
            Some(Err(_)) | None => {
                done.jobs.into_iter().for_each(|(job, _)| job.answer(Answer::OutcomeUnknown));
                return;
            }
        };
        let mut again = Vec::new();
        for (mut job, range) in done.jobs {
            let mine = replies[range].iter_mut().map(|reply| std::mem::replace(reply, Reply::Done)).collect();
            let may_repeat = job.conflicts < MAX_CONFLICTS;
            if job.settle(mine, |reply| may_repeat && is_conflict(reply)) {
                job.answer_replies();
            } else {
                job.conflicts += 1;
                self.parts.metrics.proposals_conflicted.add(1);
                again.push(job);
            }
        }
        self.lanes.push_front(again);
    }
}

fn is_conflict(reply: &Reply) -> bool {
    matches!(reply, Reply::Rejected(rejection) if rejection.code == Code::Conflict)
}

/// Ids that applying a command may give out, at most: each line one, and one more for a run that it promotes. A delete
/// gives out none, but may cancel as many runs as a task tracks, and now and then more.
fn weight_of(command: &Command) -> usize {
    match command {
        Command::Fire { lines } => 2 * lines.len(),
        Command::Outcomes { lines } => 2 * lines.len(),
        Command::Attempts { lines } => 2 * lines.len(),
        Command::DeleteTask(delete) if delete.cancel_runs => limits::TRACKED_RUNS,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::{DeleteTask, TaskName};

    use super::*;

    #[test]
    fn an_entry_is_not_full_of_deletes_that_cancel_runs() {
        let delete = |cancel_runs| {
            let task = TaskName { namespace: "default".into(), name: "a".into() };
            Command::DeleteTask(DeleteTask { task, if_version: None, cancel_runs })
        };
        let entry = |cancel_runs| Lane::Api.entry_commands() * weight_of(&delete(cancel_runs));
        assert!(entry(false) <= ENTRY_WEIGHT);
        assert!(entry(true) > ENTRY_WEIGHT, "one entry could end as many times ten thousand runs");
    }
}
