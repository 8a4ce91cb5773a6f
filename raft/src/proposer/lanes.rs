//! The queues in front of the log: one for each kind of work, each with bounded bytes, so that none starves another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use campanile_model::{Command, Rejection, Reply, filled, sometimes};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::Limits;
pub use crate::network::wire::ProposeAnswer as Answer;

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

    /// What the simulator calls the bytes that wait in it.
    #[cfg(madsim)]
    fn gauge(self) -> &'static str {
        match self {
            Self::Fire => "bytes of the fire lane",
            Self::Outcome => "bytes of the outcome lane",
            Self::Api => "bytes of the api lane",
            Self::Backlog => "bytes of the backlog lane",
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Commands of one entry, about. What fires goes before clients' writes into the log and still waits for those in
    /// front of it there: few and small entries of them.
    pub fn entry_commands(self) -> usize {
        match self {
            Self::Api => 512,
            Self::Fire | Self::Outcome | Self::Backlog => 4096,
        }
    }

    /// How long a proposal waits to be taken. Then it is withdrawn, and nothing of it was appended: what was right to
    /// propose may not be right any more, and a client can ask another time.
    pub fn patience(self) -> Duration {
        match self {
            Self::Fire => Duration::from_secs(1),
            Self::Backlog => Duration::from_secs(2),
            Self::Outcome | Self::Api => Duration::from_secs(5),
        }
    }
}

/// A proposal that waits, or is in flight.
pub struct Job {
    pub lane: Lane,
    pub bytes: usize,
    /// How often it was appended and conflicted.
    pub conflicts: u32,
    commands: Arc<[Command]>,
    /// The reply to each command that has one; the others are still to be proposed.
    replies: Vec<Option<Reply>>,
    answer: oneshot::Sender<Answer>,
    /// Set by whoever is first: the batcher that takes it, or the proposer that withdraws it.
    decided: Arc<AtomicBool>,
    taken: bool,
    /// Its share of the lane's bytes, given back when it is answered.
    _room: OwnedSemaphorePermit,
}

/// The proposer's end of a job.
pub struct Waiting {
    pub answer: oneshot::Receiver<Answer>,
    decided: Arc<AtomicBool>,
}

impl Waiting {
    /// Takes the proposal back, unless it has been taken. Nothing of it is ever appended then.
    pub fn withdraw(&self) -> bool {
        !self.decided.swap(true, Ordering::AcqRel)
    }
}

impl Job {
    /// A proposal and where its answer arrives.
    pub fn new(lane: Lane, commands: Arc<[Command]>, bytes: usize, room: OwnedSemaphorePermit) -> (Self, Waiting) {
        let (answer, receiver) = oneshot::channel();
        let decided = Arc::new(AtomicBool::new(false));
        let replies = vec![None; commands.len()];
        let waiting = Waiting { answer: receiver, decided: decided.clone() };
        (Self { lane, bytes, conflicts: 0, commands, replies, answer, decided, taken: false, _room: room }, waiting)
    }

    /// Whether it may be appended: not if it was withdrawn.
    fn take(&mut self) -> bool {
        self.taken = self.taken || !self.decided.swap(true, Ordering::AcqRel);
        self.taken
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
        self.replies.iter().all(|reply| matches!(reply, None | Some(Reply::Rejected(_))))
    }

    /// Takes in what of the pending is not to be proposed, by its place among them, and why not.
    pub fn leave_out(&mut self, refused: Vec<(usize, Rejection)>) {
        let mut pending: Vec<&mut Option<Reply>> = self.replies.iter_mut().filter(|reply| reply.is_none()).collect();
        for (place, rejection) in refused {
            if let Some(slot) = pending.get_mut(place) {
                **slot = Some(Reply::Rejected(rejection));
            }
        }
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

    /// Nothing more of it is appended, because of `answer`. Where part of it was already, that part counts.
    pub fn refuse(mut self, answer: Answer) {
        match answer {
            Answer::Rejected(rejection) if self.replies.iter().any(Option::is_some) => {
                self.replies.iter_mut().for_each(|reply| {
                    reply.get_or_insert_with(|| Reply::Rejected(rejection.clone()));
                });
                self.answer_replies();
            }
            answer if self.is_untouched() => self.answer(answer),
            _ => self.answer(Answer::OutcomeUnknown),
        }
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
        let share = (limits.entries_in_flight / 4).max(2);
        Self {
            slots: [
                slot(limits.fire_bytes, 2 * share),
                slot(limits.outcome_bytes, share),
                slot(limits.api_bytes, share / 2),
                slot(limits.backlog_bytes, share),
            ],
            arrived: Notify::new(),
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
        let room = slot.room.clone().try_acquire_many_owned(permits).ok();
        sometimes!(LaneFull, room.is_none());
        filled!(lane.gauge(), slot.bytes - slot.room.available_permits().min(slot.bytes), slot.bytes);
        room
    }

    pub fn push(&self, job: Job) {
        self.slot(job.lane).queue().push_back(job);
        self.arrived.notify_one();
    }

    /// Puts jobs back in front, in their order.
    pub fn push_front(&self, jobs: Vec<Job>) {
        for job in jobs.into_iter().rev() {
            self.slot(job.lane).queue().push_front(job);
        }
        self.arrived.notify_one();
    }

    /// Has whoever waits in [`Self::arrived`] look again.
    pub fn look_again(&self) {
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
            jobs.extend(queue.pop_front().and_then(|mut job| job.take().then_some(job)));
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

#[cfg(test)]
mod tests {
    use campanile_model::{Code, Rejection, TaskId};

    use super::*;
    use crate::config::Limits;

    /// A proposal of two commands.
    fn job(lanes: &Lanes) -> (Job, Waiting) {
        let command = |task| Command::ExpireTask { task: TaskId(task), max_lines: 1 };
        let room = lanes.reserve(Lane::Fire, 10).expect("there is room");
        Job::new(Lane::Fire, [command(1), command(2)].into(), 10, room)
    }

    #[test]
    fn what_is_withdrawn_is_never_taken_and_what_is_taken_never_withdrawn() {
        let lanes = Lanes::new(&Limits::default());
        let ((first, waiting), (second, other)) = (job(&lanes), job(&lanes));
        lanes.push(first);
        lanes.push(second);
        assert!(waiting.withdraw());
        let taken = lanes.take(Lane::Fire, 1000, 1000);
        assert_eq!(taken.len(), 1);
        assert!(!other.withdraw());
        // A proposal that conflicted is taken a second time.
        lanes.push_front(taken);
        assert_eq!(lanes.take(Lane::Fire, 1000, 1000).len(), 1);
    }

    #[test]
    fn a_proposal_that_is_done_in_part_is_not_called_undone() {
        let lanes = Lanes::new(&Limits::default());
        let conflict = || Reply::Rejected(Rejection::new(Code::Conflict, "changed meanwhile"));
        let refused = |answer: Answer, done: bool| {
            let (mut job, mut waiting) = job(&lanes);
            if done {
                assert!(!job.settle(vec![Reply::Done, conflict()], |reply| matches!(reply, Reply::Rejected(_))));
            }
            job.refuse(answer);
            waiting.answer.try_recv().expect("it was answered")
        };
        assert!(matches!(refused(Answer::NotLeader, false), Answer::NotLeader));
        assert!(matches!(refused(Answer::NotLeader, true), Answer::OutcomeUnknown));
        let rejection = Rejection::new(Code::NotFound, "gone");
        assert!(matches!(refused(Answer::Rejected(rejection.clone()), false), Answer::Rejected(_)));
        let Answer::Replies(replies) = refused(Answer::Rejected(rejection.clone()), true) else {
            panic!("the first command was done")
        };
        assert_eq!(replies, [Reply::Done, Reply::Rejected(rejection)]);
    }

    #[test]
    fn what_is_left_out_is_refused_and_the_rest_goes_on() {
        let lanes = Lanes::new(&Limits::default());
        let rejection = |code| Rejection::new(code, "not this one");
        let (mut first, _answer) = job(&lanes);
        first.leave_out(vec![(1, rejection(Code::NotFound))]);
        assert_eq!(first.pending_len(), 1);
        assert!(first.settle(vec![Reply::Done], |_| false));
        let (mut second, mut waiting) = job(&lanes);
        second.leave_out(vec![(0, rejection(Code::NotFound))]);
        second.refuse(Answer::NotLeader);
        assert!(matches!(waiting.answer.try_recv(), Ok(Answer::NotLeader)), "nothing of it was done");
        let (mut third, mut waiting) = job(&lanes);
        third.leave_out(vec![(0, rejection(Code::NotFound))]);
        third.refuse(Answer::Rejected(rejection(Code::Conflict)));
        let Ok(Answer::Replies(replies)) = waiting.answer.try_recv() else { panic!("each has a reply") };
        assert_eq!(replies, [Code::NotFound, Code::Conflict].map(|code| Reply::Rejected(rejection(code))));
    }
}
