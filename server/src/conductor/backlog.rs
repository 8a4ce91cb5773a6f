//! What was overdue when this node began to lead, or became so: decided oldest first at a bounded rate, in a lane of
//! its own, so that it never delays what is on time (P8). Decisions that were not committed in time come here too.

use std::collections::VecDeque;

use campanile_model::{AttemptLine, Command, FireLine, TaskId, Timestamp, bound, limits};
use campanile_raft::Lane;
use campanile_store::{StoreError, TimerKey, View};

use super::proposals::{Of, Proposals, Undecided};
use super::ring::{arm_again, decide_task, late_after, retry};
use super::window::{Armed, Window, armed, before};
use super::{Context, From, Proposal};

pub(crate) struct Backlog {
    rate_per_second: u32,
    /// Rows of the time index before this instant are read here, the later ones by the window.
    until: Timestamp,
    /// The last row read; `None` once all have been.
    after: Option<TimerKey>,
    /// Timers that became late in the window, and decisions to be made anew.
    late: VecDeque<(Timestamp, Late)>,
    /// Decisions allowed now, in thousandths; negative after a task with many.
    allowance_milli: i64,
    allowed_at: Timestamp,
    /// Earliest timers of the proposals in flight.
    in_flight: Option<Timestamp>,
    proposals_in_flight: u32,
}

/// What is decided here.
enum Late {
    Timer(Armed),
    /// A task of which a decision is owed, whatever its next timer is by now.
    Task(TaskId),
}

impl Late {
    /// The task to be decided, if it is about one.
    fn task(&self) -> Option<TaskId> {
        match self {
            Self::Timer(Armed::Task(task, _)) | Self::Task(task) => Some(*task),
            Self::Timer(Armed::Retry(..) | Armed::Expire(_)) => None,
        }
    }
}

impl Backlog {
    pub fn new(view: &View, now: Timestamp, rate_per_second: u32) -> Self {
        let until = now.saturating_sub(late_after());
        let from = view.timers_trimmed_until();
        Self {
            rate_per_second,
            until,
            after: (from < until).then(|| before(from)),
            late: VecDeque::new(),
            allowance_milli: 0,
            allowed_at: now,
            in_flight: None,
            proposals_in_flight: 0,
        }
    }

    pub fn reads_until(&self) -> Timestamp {
        self.until
    }

    pub fn add(&mut self, late: Vec<(Timestamp, Armed)>) {
        self.late.extend(late.into_iter().map(|(wake_at, armed)| (wake_at, Late::Timer(armed))));
    }

    /// Takes what was decided, not committed in time, and is late by now. It is read and decided as it is then.
    pub fn decide_again(&mut self, undecided: Vec<Undecided>) {
        for undecided in undecided {
            let late = match undecided.of {
                Of::Task(task) => Late::Task(task),
                Of::Retry(run, token) => Late::Timer(Armed::Retry(run, token)),
            };
            self.late.push_back((undecided.wake_at, late));
        }
    }

    /// The earliest timer still to be decided here.
    pub fn first_due(&self) -> Option<Timestamp> {
        let on_disk = self.after.map(|key| key.wake_at);
        let late = self.late.iter().map(|(wake_at, _)| *wake_at).min();
        [on_disk, late, self.in_flight].into_iter().flatten().min()
    }

    pub fn finished(&mut self) {
        self.proposals_in_flight = self.proposals_in_flight.saturating_sub(1);
        if self.proposals_in_flight == 0 {
            self.in_flight = None;
        }
    }

    /// Decides as much as the rate allows, once what it decided before is answered: so the rows it reads are current.
    pub fn tick(
        &mut self,
        context: &Context,
        now: Timestamp,
        proposals: &mut Proposals,
        window: &mut Window,
    ) -> Result<(), StoreError> {
        let elapsed_ms = now.since(self.allowed_at).0.min(1000) as i64;
        self.allowed_at = now;
        let rate = i64::from(self.rate_per_second);
        // At most a quarter of a second's worth is saved up.
        self.allowance_milli = (self.allowance_milli + rate * elapsed_ms).min(rate * 250);
        let idle = self.after.is_none() && self.late.is_empty();
        if idle || self.proposals_in_flight > 0 || self.allowance_milli < 1000 {
            return Ok(());
        }
        let view = context.replica.store().view();
        let mut batch = Vec::new();
        if let Some(after) = self.after {
            let count = (self.allowance_milli / 1000) as usize;
            let rows = view.timers(Some(after), self.until, count)?;
            self.after = rows.last().filter(|_| rows.len() == count).map(|row| row.key);
            batch.extend(rows.iter().filter_map(|row| armed(row).map(|armed| (row.key.wake_at, Late::Timer(armed)))));
        } else {
            let count = ((self.allowance_milli / 1000) as usize).min(self.late.len());
            batch.extend(self.late.drain(..count));
        }
        self.decide(context, &view, batch, now, proposals, window)
    }

    fn decide(
        &mut self,
        context: &Context,
        view: &View,
        batch: Vec<(Timestamp, Late)>,
        now: Timestamp,
        proposals: &mut Proposals,
        window: &mut Window,
    ) -> Result<(), StoreError> {
        let decided_at = context.clock.instant();
        let mut commands = Vec::new();
        let mut lines: Vec<FireLine> = Vec::new();
        let mut attempts: Vec<AttemptLine> = Vec::new();
        let first = batch.first().map(|(wake_at, _)| *wake_at);
        let tasks: Vec<TaskId> = batch.iter().filter_map(|(_, late)| late.task()).collect();
        let mut states = view.tasks(&tasks)?.into_iter();
        for (wake_at, late) in batch {
            // Reading a stale row costs too, though much less than deciding one.
            self.allowance_milli -= 100;
            let timer = match late {
                Late::Timer(Armed::Task(_, timer)) => Some(timer),
                Late::Task(_) => None,
                Late::Timer(Armed::Retry(run, token)) => {
                    attempts.extend(retry(context, view, run, token, now)?);
                    continue;
                }
                Late::Timer(Armed::Expire(task)) => {
                    proposals.expire(task, wake_at);
                    continue;
                }
            };
            let Some(state) = states.next().flatten() else { continue };
            let decided = decide_task(context, view, &state, timer.as_ref(), now)?;
            if decided.lines.is_empty() {
                arm_again(&state, now, window);
            }
            self.allowance_milli -= 1000 * decided.lines.len() as i64;
            lines.extend(decided.lines);
            // One entry holds a bounded number of decisions, whatever one task contributes.
            if lines.len() >= bound!(CatchUpPerEntry, limits::CATCH_UP_PER_ENTRY) {
                commands.push(Command::Fire { lines: std::mem::take(&mut lines) });
            }
        }
        if !lines.is_empty() {
            commands.push(Command::Fire { lines });
        }
        if !attempts.is_empty() {
            commands.push(Command::Attempts { lines: attempts });
        }
        for command in commands {
            self.proposals_in_flight += 1;
            self.in_flight = self.in_flight.into_iter().chain(first).min();
            let (lane, from) = (Lane::Backlog, From::Backlog);
            proposals.push(Proposal {
                lane,
                commands: vec![command],
                from,
                first_due: first,
                dues: Vec::new(),
                decided_at: Some(decided_at),
            });
        }
        Ok(())
    }
}
