//! The queues in front of the log: one for each kind of work, each with bounded bytes, so that none starves another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use campanile_model::{Command, Rejection, Reply};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::Limits;

/// What a proposal is for. Lower lanes wait for higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Fires and leases: what must happen on time.
    Fire,
    /// Outcomes of attempts.
    Outcome,
    /// Writes of clients.
    Api,
    /// What is overdue, retention, housekeeping.
    Backlog,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Fire, Self::Outcome, Self::Api, Self::Backlog];

    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// What became of a proposal on this node.
#[derive(Debug)]
pub enum Answer {
    Replies(Vec<Reply>),
    Rejected(Rejection),
    /// Nothing was appended.
    NotLeader,
    ClockSkew,
    OutcomeUnknown,
}

/// A proposal that waits, or is in flight.
pub struct Job {
    pub lane: Lane,
    pub bytes: usize,
    /// How often it was appended and conflicted.
    pub conflicts: u32,
    /// Its name while it waits.
    number: u64,
    commands: Arc<[Command]>,
    /// The reply to each command that has one; the others are still to be proposed.
    replies: Vec<Option<Reply>>,
    answer: oneshot::Sender<Answer>,
    /// Its share of the lane's bytes, given back when it is answered.
    _room: OwnedSemaphorePermit,
}

impl Job {
    /// A proposal and where its answer arrives.
    pub fn new(
        lane: Lane,
        commands: Arc<[Command]>,
        bytes: usize,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let replies = vec![None; commands.len()];
        (Self { lane, bytes, conflicts: 0, number: 0, commands, replies, answer, _room: room }, receiver)
    }

    /// The commands that have no reply yet.
    pub fn pending(&self) -> Vec<Command> {
        let pending = self.commands.iter().zip(&self.replies).filter(|(_, reply)| reply.is_none());
        pending.map(|(command, _)| command.clone()).collect()
    }

    pub fn pending_len(&self) -> usize {
        self.replies.iter().filter(|reply| reply.is_none()).count()
    }

    /// Whether nothing of it has been done.
    fn is_untouched(&self) -> bool {
        self.replies.iter().all(Option::is_none)
    }

    /// Takes the replies to what was pending, one each; those that `again` picks stay pending. True if none does.
    pub fn settle(&mut self, replies: Vec<Reply>, again: impl Fn(&Reply) -> bool) -> bool {
        let pending = self.replies.iter_mut().filter(|reply| reply.is_none());
        for (slot, reply) in pending.zip(replies) {
            *slot = (!again(&reply)).then_some(reply);
        }
        self.replies.iter().all(Option::is_some)
    }

    /// Answers with the replies; all are there.
    pub fn answer_replies(mut self) {
        let replies = std::mem::take(&mut self.replies).into_iter().flatten().collect();
        self.answer(Answer::Replies(replies));
    }

    pub fn answer(self, answer: Answer) {
        // Whoever proposed may have gone away.
        drop(self.answer.send(answer));
    }
}

struct Slot {
    bytes: usize,
    room: Arc<Semaphore>,
    queue: Mutex<VecDeque<Job>>,
    in_flight: AtomicUsize,
    /// Entries in flight at one time. Few, so that proposals that come meanwhile share the next one.
    max_in_flight: usize,
}

impl Slot {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Job>> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// All lanes.
pub struct Lanes {
    slots: [Slot; 4],
    arrived: Notify,
    jobs: AtomicU64,
}

impl Lanes {
    pub fn new(limits: &Limits) -> Self {
        let slot = |bytes: usize, max_in_flight: usize| Slot {
            bytes,
            room: Arc::new(Semaphore::new(bytes)),
            queue: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            max_in_flight,
        };
        let share = (limits.entries_in_flight / 4).max(1);
        Self {
            slots: [
                slot(limits.fire_bytes, 2 * share),
                slot(limits.outcome_bytes, share),
                slot(limits.api_bytes, share),
                slot(limits.backlog_bytes, share),
            ],
            arrived: Notify::new(),
            jobs: AtomicU64::new(0),
        }
    }

    fn slot(&self, lane: Lane) -> &Slot {
        &self.slots[usize::from(lane.number())]
    }

    /// Room in a lane for a proposal; `None` if the lane is full.
    pub fn reserve(&self, lane: Lane, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let slot = self.slot(lane);
        // Even a proposal larger than its lane can pass, alone.
        let permits = bytes.clamp(1, slot.bytes.max(1)) as u32;
        slot.room.clone().try_acquire_many_owned(permits).ok()
    }

    /// Puts a job at the end, and answers the number under which it may be withdrawn.
    pub fn push(&self, mut job: Job) -> u64 {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        job.number = number;
        self.slot(job.lane).queue().push_back(job);
        self.arrived.notify_one();
        number
    }

    /// Takes a job out of the queue. False if it is not there any more, or has been done in part: then only its answer
    /// can tell what becomes of it.
    pub fn withdraw(&self, lane: Lane, number: u64) -> bool {
        let mut queue = self.slot(lane).queue();
        let place = queue.iter().position(|job| job.number == number && job.is_untouched());
        place.and_then(|place| queue.remove(place)).is_some()
    }

    /// Puts jobs back in front, in their order.
    pub fn push_front(&self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            self.slot(job.lane).queue().push_front(job);
        }
        self.arrived.notify_one();
    }

    /// Waits until a job has arrived since the last wait.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Takes the front of a lane, together at most about `max_bytes` and `max_commands` but at least one job, if the
    /// lane may have another entry in flight.
    pub fn take(&self, lane: Lane, max_bytes: usize, max_commands: usize) -> Vec<Job> {
        let slot = self.slot(lane);
        if slot.in_flight.load(Ordering::Relaxed) >= slot.max_in_flight {
            return Vec::new();
        }
        let mut queue = slot.queue();
        let (mut jobs, mut bytes, mut commands) = (Vec::new(), 0, 0);
        while let Some(job) = queue.front() {
            bytes += job.bytes;
            commands += job.replies.len();
            if !jobs.is_empty() && (bytes > max_bytes || commands > max_commands) {
                break;
            }
            jobs.extend(queue.pop_front());
        }
        jobs
    }

    /// Everything that waits, of every lane.
    pub fn take_all(&self) -> Vec<Job> {
        self.slots.iter().flat_map(|slot| std::mem::take(&mut *slot.queue())).collect()
    }

    pub fn entries_in_flight(&self, lane: Lane) -> usize {
        self.slot(lane).in_flight.load(Ordering::Relaxed)
    }

    pub fn entry_started(&self, lane: Lane) {
        self.slot(lane).in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub fn entry_finished(&self, lane: Lane) {
        self.slot(lane).in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
