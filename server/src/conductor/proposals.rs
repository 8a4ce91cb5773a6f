//! Decisions on their way into the log: gathered into batches, several in flight, tried again until they are answered.
//! Trying again is safe whatever became of the first try, because every line is compared with the state it was made
//! from. A decision that has waited too long is not tried again but given back, to be made anew: what was right to fire
//! when it was made may be beyond its catch-up window by now.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use campanile_model::{AttemptLine, Command, FireLine, Reply, RunId, TaskId, Timestamp, Token, bound, filled, planted};
use campanile_raft::{Clock, Lane, ProposeError, Replica, rt};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use super::{From, Proposal};
use crate::metrics::Metrics;

/// Proposals in flight at once: enough to keep the log busy while one is being synced.
const IN_FLIGHT: usize = 4;
/// Pause before a proposal is tried again.
const REPEAT_AFTER: Duration = Duration::from_millis(50);
/// A decision older than this is made anew instead of being proposed (again). Not longer than the shortest grace.
const FRESH: Duration = campanile_model::limits::GRACE_MIN.to_std();
/// Lines of one command.
const LINES: usize = 2000;
/// Lines that may wait for a place in flight; beyond that timers wait undecided. No more than are in flight: what waited
/// longer would have to be decided anew.
const WAITING_LINES: usize = IN_FLIGHT * LINES;
/// Tasks that may wait to be removed; beyond that the wheel waits.
const WAITING_EXPIRIES: usize = 100_000;
/// Tasks removed by one entry.
const EXPIRIES: usize = 128;
/// Ledger lines that one entry removes of one of them; the rest follows.
const EXPIRE_LINES: u32 = 100;

#[derive(Default)]
pub(crate) struct Proposals {
    fires: VecDeque<Gathered<FireLine>>,
    attempts: VecDeque<Gathered<AttemptLine>>,
    expiries: VecDeque<(TaskId, Timestamp)>,
    queue: VecDeque<Proposal>,
    in_flight: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Earliest timer of each proposal in flight.
    in_flight_due: Vec<Timestamp>,
    /// What failed and is too old to be tried again.
    given_back: VecDeque<Undecided>,
}

/// A line that will share a command with others.
struct Gathered<T> {
    line: T,
    due: Timestamp,
    decided_at: Instant,
}

/// Whether a decision may still be proposed as it was made.
fn is_fresh(decided_at: Instant, now: Instant) -> bool {
    planted!(DecisionRepeated) || now.duration_since(decided_at) < FRESH
}

impl Proposal {
    /// Whether it may still be proposed as it is.
    fn is_fresh(&self, now: Instant) -> bool {
        self.decided_at.is_none_or(|decided_at| is_fresh(decided_at, now))
    }
}

/// What a decision was about that has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// The timer that rang, or an earlier one.
    pub wake_at: Timestamp,
    pub of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Task(TaskId),
    Retry(RunId, Token),
}

impl Of {
    pub fn task(self) -> Option<TaskId> {
        match self {
            Self::Task(task) => Some(task),
            Self::Retry(..) => None,
        }
    }
}

/// A proposal that has been answered, or not.
pub(crate) struct Finished {
    pub from: From,
    proposal: Proposal,
    result: Result<Vec<Reply>, ProposeError>,
}

/// What is to be done next.
pub(crate) enum Step {
    Propose(Proposal),
    /// These have waited too long, or failed: they are to be decided anew, and go in front then.
    DecideAgain(Vec<Undecided>),
    /// This has waited too long for its place: it has ended, and is to be given back.
    GiveBack(Proposal),
}

/// The sabotage `DecisionOutlivesReign`: what goes on when the reign has ended, and its futures with it.
async fn propose_beyond_the_reign(
    replica: Replica,
    lane: Lane,
    commands: Vec<Command>,
) -> Result<Vec<Reply>, ProposeError> {
    let (answer, answered) = oneshot::channel();
    // At the end of the reign nobody waits for the answer.
    rt::spawn(async move { drop(answer.send(replica.propose(lane, commands).await)) });
    answered.await.unwrap_or(Err(ProposeError::NoLeader))
}

/// One command's lines, the oldest first; or those of them that have waited too long.
fn take<T>(gathered: &mut VecDeque<Gathered<T>>, now: Instant, of: impl Fn(&T) -> Of) -> Option<Taken<T>> {
    let decided_at = gathered.front()?.decided_at;
    if !is_fresh(decided_at, now) {
        let is_stale = |it: &Gathered<T>| !is_fresh(it.decided_at, now);
        let count = gathered.iter().take(bound!(FireLines, LINES)).take_while(|it| is_stale(it)).count();
        let undecided = gathered.drain(..count).map(|it| Undecided { wake_at: it.due, of: of(&it.line) });
        return Some(Taken::Stale(undecided.collect()));
    }
    // Those that were made anew are in front of others that have waited longer: these are not to go with them.
    let fresh = gathered.iter().take(bound!(FireLines, LINES)).take_while(|it| is_fresh(it.decided_at, now));
    let (count, decided_at) = fresh.fold((0, decided_at), |(count, oldest), it| (count + 1, oldest.min(it.decided_at)));
    let (lines, dues): (Vec<T>, Vec<Timestamp>) = gathered.drain(..count).map(|it| (it.line, it.due)).unzip();
    Some(Taken::Fresh(Fresh { lines, dues, decided_at }))
}

enum Taken<T> {
    Fresh(Fresh<T>),
    Stale(Vec<Undecided>),
}

impl<T> Taken<T> {
    fn into_step(self, command: impl FnOnce(Vec<T>) -> Command) -> Step {
        match self {
            Self::Fresh(fresh) => Step::Propose(fresh.into_proposal(command)),
            Self::Stale(undecided) => Step::DecideAgain(undecided),
        }
    }
}

struct Fresh<T> {
    lines: Vec<T>,
    dues: Vec<Timestamp>,
    /// When the oldest of them was decided.
    decided_at: Instant,
}

impl<T> Fresh<T> {
    fn into_proposal(self, command: impl FnOnce(Vec<T>) -> Command) -> Proposal {
        Proposal {
            lane: Lane::Fire,
            commands: vec![command(self.lines)],
            from: From::Wheel,
            first_due: self.dues.iter().copied().min(),
            dues: self.dues,
            decided_at: Some(self.decided_at),
        }
    }
}

fn of_fire(line: &FireLine) -> Of {
    Of::Task(line.task)
}

fn of_attempt(line: &AttemptLine) -> Of {
    Of::Retry(line.run, line.expected)
}

impl Proposals {
    pub fn fire(&mut self, lines: impl IntoIterator<Item = FireLine>, due: Timestamp, decided_at: Instant) {
        self.fires.extend(lines.into_iter().map(|line| Gathered { line, due, decided_at }));
    }

    pub fn attempt(&mut self, line: Option<AttemptLine>, due: Timestamp, decided_at: Instant) {
        self.attempts.extend(line.map(|line| Gathered { line, due, decided_at }));
    }

    /// Lines that were decided anew: they have waited longer than all others.
    pub fn put_first(&mut self, fires: Vec<FireLine>, attempts: Vec<AttemptLine>, due: Timestamp, decided_at: Instant) {
        for line in fires.into_iter().rev() {
            self.fires.push_front(Gathered { line, due, decided_at });
        }
        for line in attempts.into_iter().rev() {
            self.attempts.push_front(Gathered { line, due, decided_at });
        }
    }

    /// A task's time to be removed has come.
    pub fn expire(&mut self, task: TaskId, due: Timestamp) {
        self.expiries.push_back((task, due));
    }

    /// Members come first: without them nothing fires, or nothing is delivered.
    pub fn push(&mut self, proposal: Proposal) {
        match proposal.from {
            From::Membership => self.queue.push_front(proposal),
            From::Wheel | From::Backlog => self.queue.push_back(proposal),
        }
    }

    /// Whether more may be gathered.
    pub fn has_room(&self) -> bool {
        filled!("conductor lines", self.fires.len() + self.attempts.len(), 2 * WAITING_LINES);
        self.fires.len() + self.attempts.len() < bound!(WaitingLines, WAITING_LINES)
            && self.expiries.len() < bound!(WaitingExpiries, WAITING_EXPIRIES)
    }

    /// Whether anything is on its way.
    #[cfg(madsim)]
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The earliest timer that is being decided.
    pub fn first_due(&self) -> Option<Timestamp> {
        let queued = self.queue.iter().filter_map(|proposal| proposal.first_due);
        let lines = self.fires.iter().map(|it| it.due).chain(self.attempts.iter().map(|it| it.due));
        let gathered = lines.chain(self.expiries.iter().map(|(_, due)| *due));
        let given_back = self.given_back.iter().map(|undecided| undecided.wake_at);
        queued.chain(gathered).chain(given_back).chain(self.in_flight_due.iter().copied()).min()
    }

    /// Puts a proposal into flight.
    pub fn submit(&mut self, proposal: Proposal, replica: &Replica, clock: &Clock) {
        self.in_flight_due.extend(proposal.first_due);
        let (replica, clock) = (replica.clone(), clock.clone());
        self.in_flight.push(Box::pin(async move {
            let result = if planted!(DecisionOutlivesReign) {
                propose_beyond_the_reign(replica, proposal.lane, proposal.commands.clone()).await
            } else {
                replica.propose_as_leader(proposal.lane, proposal.commands.clone()).await
            };
            if result.is_err() {
                // It keeps its place in flight for a moment, so that a refusal is not answered by a storm.
                clock.sleep(REPEAT_AFTER).await;
            }
            Finished { from: proposal.from, proposal, result }
        }));
        filled!("proposals in flight", self.in_flight.len(), IN_FLIGHT);
    }

    /// What is next, if there is a place in flight: members, then fires, and what can wait last. What may have to be
    /// decided anew waits until it `may_decide`.
    pub fn next(&mut self, now: Instant, may_decide: bool) -> Option<Step> {
        if self.in_flight.len() >= IN_FLIGHT {
            return None;
        }
        if let Some(members) = self.queue.pop_front_if(|proposal| proposal.from == From::Membership) {
            return Some(Step::Propose(members));
        }
        if may_decide && let Some(step) = self.next_lines(now) {
            return Some(step);
        }
        let proposal = self.queue.pop_front().or_else(|| self.next_expiries())?;
        Some(if proposal.is_fresh(now) { Step::Propose(proposal) } else { Step::GiveBack(proposal) })
    }

    fn next_lines(&mut self, now: Instant) -> Option<Step> {
        if !self.given_back.is_empty() {
            let count = self.given_back.len().min(bound!(FireLines, LINES));
            return Some(Step::DecideAgain(self.given_back.drain(..count).collect()));
        }
        if let Some(fires) = take(&mut self.fires, now, of_fire) {
            return Some(fires.into_step(|lines| Command::Fire { lines }));
        }
        let attempts = take(&mut self.attempts, now, of_attempt)?;
        Some(attempts.into_step(|lines| Command::Attempts { lines }))
    }

    fn next_expiries(&mut self) -> Option<Proposal> {
        let first_due = Some(self.expiries.iter().take(bound!(Expiries, EXPIRIES)).map(|(_, due)| *due).min()?);
        let taken = self.expiries.drain(..self.expiries.len().min(bound!(Expiries, EXPIRIES)));
        let max_lines = bound!(ExpireLines, EXPIRE_LINES);
        let commands = taken.map(|(task, _)| Command::ExpireTask { task, max_lines }).collect();
        let dues = Vec::new();
        Some(Proposal { lane: Lane::Backlog, commands, from: From::Wheel, first_due, dues, decided_at: None })
    }

    /// The next proposal that is answered; pending for ever while none is in flight.
    pub async fn finished(&mut self) -> Option<Finished> {
        match self.in_flight.next().await {
            Some(finished) => Some(finished),
            None => std::future::pending().await,
        }
    }

    /// Counts what was done. What was not answered is queued again, or given back.
    pub fn settle(&mut self, finished: Finished, now: Instant, time: Timestamp, metrics: &Metrics) {
        let Finished { proposal, result, from } = finished;
        if let Some(due) = proposal.first_due
            && let Some(position) = self.in_flight_due.iter().position(|other| *other == due)
        {
            self.in_flight_due.swap_remove(position);
        }
        match result {
            Ok(replies) => {
                for (command, reply) in proposal.commands.iter().zip(&replies) {
                    let Reply::Lines { done } = *reply else { continue };
                    match command {
                        Command::Fire { lines } => {
                            for due in &proposal.dues {
                                metrics.commit_lateness.observe(time.since(*due).0 as f64 / 1000.0);
                            }
                            metrics.decisions.inc_by(u64::from(done));
                            metrics.stale_decisions.inc_by((lines.len() as u64).saturating_sub(u64::from(done)));
                        }
                        // There is more of the task to remove.
                        Command::ExpireTask { task, max_lines } if done >= *max_lines => {
                            self.expire(*task, proposal.first_due.unwrap_or(Timestamp::MIN));
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, lane = ?proposal.lane, "a decision was not committed; trying again");
                metrics.proposals_repeated.inc();
                match from {
                    From::Wheel if proposal.is_fresh(now) => self.queue.push_back(proposal),
                    From::Wheel | From::Backlog => self.give_back(&proposal),
                    // Membership looks again by itself.
                    From::Membership => {}
                }
            }
        }
    }

    /// What a proposal was about is to be decided anew.
    pub fn give_back(&mut self, proposal: &Proposal) {
        let wake_at = proposal.first_due.unwrap_or(Timestamp::MIN);
        for command in &proposal.commands {
            let undecided: Vec<Of> = match command {
                Command::Fire { lines } => lines.iter().map(of_fire).collect(),
                Command::Attempts { lines } => lines.iter().map(of_attempt).collect(),
                _ => Vec::new(),
            };
            self.given_back.extend(undecided.into_iter().map(|of| Undecided { wake_at, of }));
        }
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::Decision;

    use super::*;

    fn line(task: u64) -> FireLine {
        let scheduled_at = Timestamp::from_millis(1000);
        FireLine { task: TaskId(task), version: 1, scheduled_at, decision: Decision::Fire, next: None }
    }

    fn proposed(step: Option<Step>) -> Option<Proposal> {
        match step {
            Some(Step::Propose(proposal)) => Some(proposal),
            _ => None,
        }
    }

    fn tasks(step: Option<Step>) -> Vec<u64> {
        let commands = proposed(step).map_or_else(Vec::new, |proposal| proposal.commands);
        let tasks = commands.iter().flat_map(|command| match command {
            Command::Fire { lines } => lines.iter().map(|line| line.task.0).collect(),
            Command::ExpireTask { task, .. } => vec![task.0],
            _ => Vec::new(),
        });
        tasks.collect()
    }

    #[test]
    fn members_come_first_and_removals_last_and_together() {
        let due = Timestamp::from_millis(1000);
        let start = campanile_raft::Clock::system().instant();
        let mut proposals = Proposals::default();
        for task in 1..=EXPIRIES as u64 + 1 {
            proposals.expire(TaskId(task), due);
        }
        proposals.fire([line(7)], due, start);
        let (lane, from) = (Lane::Fire, From::Membership);
        proposals.push(Proposal {
            lane,
            commands: Vec::new(),
            from,
            first_due: None,
            dues: Vec::new(),
            decided_at: None,
        });
        assert_eq!(proposed(proposals.next(start, true)).map(|proposal| proposal.from), Some(From::Membership));
        assert_eq!(tasks(proposals.next(start, true)), [7]);
        let removals = proposed(proposals.next(start, true)).expect("a batch");
        assert_eq!(removals.commands.len(), EXPIRIES);
        // One of them has more to remove, and is asked for again.
        let replies =
            (0..EXPIRIES as u32).map(|place| Reply::Lines { done: if place == 3 { EXPIRE_LINES } else { 1 } });
        let finished = Finished { from: From::Wheel, proposal: removals, result: Ok(replies.collect()) };
        proposals.settle(finished, start, due, &Metrics::default());
        assert_eq!(tasks(proposals.next(start, true)), [EXPIRIES as u64 + 1, 4]);
        assert_eq!(proposals.first_due(), None);
    }

    fn undecided(step: Option<Step>) -> Vec<Of> {
        match step {
            Some(Step::DecideAgain(undecided)) => undecided.into_iter().map(|undecided| undecided.of).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_decision_that_waited_too_long_is_given_back() {
        let due = Timestamp::from_millis(1000);
        let start = campanile_raft::Clock::system().instant();
        let mut proposals = Proposals::default();
        proposals.fire([line(1)], due, start);
        proposals.fire([line(2)], due, start + FRESH / 2);
        let now = start + FRESH;
        assert!(proposals.next(now, false).is_none(), "the clock is in doubt");
        assert_eq!(undecided(proposals.next(now, true)), [Of::Task(TaskId(1))]);
        // Decided anew it goes in front, or under load it would never come to be proposed.
        proposals.put_first(vec![line(1)], Vec::new(), due, now);
        assert_eq!(tasks(proposals.next(now, true)), [1, 2]);
    }

    #[test]
    fn what_waited_too_long_does_not_go_with_what_was_made_anew() {
        let due = Timestamp::from_millis(1000);
        let start = campanile_raft::Clock::system().instant();
        let mut proposals = Proposals::default();
        proposals.fire([line(2), line(3)], due, start);
        let now = start + FRESH;
        proposals.put_first(vec![line(1)], Vec::new(), due, now);
        assert_eq!(tasks(proposals.next(now, true)), [1]);
        assert_eq!(undecided(proposals.next(now, true)), [2, 3].map(|task| Of::Task(TaskId(task))));
        // As old as the oldest of them.
        proposals.fire([line(2)], due, start + FRESH / 2);
        proposals.put_first(vec![line(1)], Vec::new(), due, now);
        let both = proposed(proposals.next(now, true)).expect("both are fresh");
        assert_eq!((both.dues.len(), both.decided_at), (2, Some(start + FRESH / 2)));
    }

    #[test]
    fn a_proposal_that_failed_is_tried_again_while_it_is_fresh() {
        let due = Timestamp::from_millis(1000);
        let start = campanile_raft::Clock::system().instant();
        let metrics = Metrics::default();
        let mut proposals = Proposals::default();
        proposals.fire([line(1)], due, start);
        for (after, again) in [(FRESH / 2, true), (FRESH, false)] {
            let proposal = proposed(proposals.next(start, true)).expect("it is proposed");
            let finished = Finished { from: proposal.from, proposal, result: Err(ProposeError::OutcomeUnknown) };
            proposals.settle(finished, start + after, due, &metrics);
            assert_eq!(proposals.given_back.is_empty(), again);
        }
        assert_eq!(undecided(proposals.next(start, true)), [Of::Task(TaskId(1))]);
        assert!(proposals.next(start, true).is_none());
    }

    #[test]
    fn what_waited_too_long_behind_others_is_given_back() {
        let due = Timestamp::from_millis(1000);
        let start = campanile_raft::Clock::system().instant();
        let mut proposals = Proposals::default();
        let commands = vec![Command::Fire { lines: vec![line(1)] }];
        let (lane, from, first_due) = (Lane::Backlog, From::Backlog, Some(due));
        proposals.push(Proposal { lane, commands, from, first_due, dues: Vec::new(), decided_at: Some(start) });
        let Some(Step::GiveBack(proposal)) = proposals.next(start + FRESH, true) else { panic!("it is proposed") };
        proposals.give_back(&proposal);
        assert_eq!(proposals.first_due(), Some(due));
        assert_eq!(undecided(proposals.next(start + FRESH, true)), [Of::Task(TaskId(1))]);
    }
}
