//! The life of a run as its task sees it: room is made, it starts or waits, it ends, the next one is let in.
//!
//! A task that tracks its runs lists the live ones in log order. Those that wait for their turn (`buffer_*`) stand at
//! the end of the list: a run starts at once only where none waits.

use campanile_model::{
    AttemptRecord, AttemptResult, FINISHED_KEPT, LedgerRow, NodeId, OccurrenceId, OnFinish, Origin, Overlap, Reason,
    Run, RunId, RunState, TaskState, TaskStatus, Timestamp, Token, bound, limits, planted, sometimes,
};

use super::context::{Answer, Apply};
use crate::effect::Effect;
use crate::error::StoreResult;
use crate::tables;

/// What the overlap policy makes of an occurrence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    /// Behind the runs that are live.
    Waiting,
    Dropped(Reason),
}

/// Whether one more live run is listed. The policies that hold runs back bound the list by themselves, and need all of
/// it.
fn has_room(task: &TaskState) -> bool {
    let holds_back = !matches!(task.overlap, Overlap::Allow | Overlap::Skip);
    holds_back || task.live.len() < bound!(TrackedRuns, limits::TRACKED_RUNS)
}

impl Apply<'_> {
    /// Applies the overlap policy to the task's live runs before another one comes.
    pub fn make_room(&mut self, task: &mut TaskState, origin: Origin) -> StoreResult<Start> {
        if task.live.is_empty() {
            return Ok(Start::Now);
        }
        Ok(match task.overlap {
            Overlap::Allow => Start::Now,
            Overlap::Skip if origin == Origin::Schedule && !planted!(SkipFiresAnyway) => {
                Start::Dropped(Reason::Overlap)
            }
            Overlap::Skip => Start::Now,
            Overlap::BufferOne => {
                if !planted!(BufferOneKeepsBoth) {
                    self.discard_waiting(task)?;
                }
                Start::Waiting
            }
            Overlap::BufferAll if self.buffer_is_full(task)? => {
                sometimes!(BufferFull);
                Start::Dropped(Reason::BufferFull)
            }
            Overlap::BufferAll => Start::Waiting,
            Overlap::CancelOther => {
                let left = if planted!(CancelOtherLeavesOne) { task.live.pop() } else { None };
                for id in std::mem::replace(&mut task.live, left.into_iter().collect()) {
                    let run = tables::known_live_run(&self.read(), id)?;
                    self.cancel(run);
                }
                Start::Now
            }
        })
    }

    /// Those that wait stand at the end of the list.
    fn buffer_is_full(&self, task: &TaskState) -> StoreResult<bool> {
        let Some(place) = task.live.len().checked_sub(bound!(BufferedRuns, limits::BUFFERED_RUNS)) else {
            return Ok(false);
        };
        let run = tables::known_live_run(&self.read(), task.live[place])?;
        Ok(run.state == RunState::Pending)
    }

    /// The task's live runs in log order, at most `max`, the newest ones: found in its ledger, because only a task that
    /// tracks its runs lists them. In all of it: a run that is live for long holds back more lines than are ever kept.
    pub fn find_live_runs(&self, task: &TaskState, max: usize) -> StoreResult<Vec<RunId>> {
        let read = self.read();
        let lines = tables::newest_ledger_rows(&read, task.id, task.lines as usize)?;
        let listed = lines.into_iter().filter_map(|(_, row)| match row {
            LedgerRow::Fired { run } => Some(run),
            LedgerRow::Range { .. } => None,
        });
        let own = task.one_shot_run.map(|(_, run)| run);
        let mut live = Vec::new();
        for run in own.into_iter().chain(listed) {
            if live.len() < max && tables::is_live(&read, run)? {
                live.push(run);
            }
        }
        live.sort_unstable();
        Ok(live)
    }

    /// Makes the run of an occurrence and its ledger line; the first attempt starts at once unless it is to wait.
    pub fn start_run(
        &mut self,
        task: &mut TaskState,
        (scheduled_at, due_at): (Timestamp, Timestamp),
        origin: Origin,
        waits: bool,
    ) -> (RunId, OccurrenceId) {
        let place = self.next_place();
        let run = Run {
            id: RunId::at(place),
            task: task.id,
            version: task.version,
            scheduled_at,
            origin,
            due_at,
            fired_at: self.time,
            state: RunState::Pending,
            attempt: 0,
            token: Token::default(),
            owner: NodeId::default(),
            epoch: 0,
            retry_at: None,
            finished_at: None,
            attempts: Vec::new(),
        };
        let named = (run.id, run.occurrence());
        self.cached.globals.counts.live_runs += 1;
        sometimes!(RunNotListed, task.tracks_runs() && !has_room(task));
        if task.tracks_runs() && has_room(task) {
            task.live.push(run.id);
        }
        self.enter_fired(task, &run);
        if waits {
            tables::put_live_run(self.overlay, &run);
        } else {
            self.hand_out(run, Token::at(place));
        }
        named
    }

    /// Starts the run's next attempt: whoever owns the task's shard delivers it.
    pub fn hand_out(&mut self, mut run: Run, token: Token) {
        assert!(token > run.token, "run {} has token {} and is given {token}", run.id, run.token);
        let shard = self.shard_owner(run.task);
        run.state = RunState::Running;
        run.attempt += if planted!(AttemptNumberSkipped) && run.attempt > 0 { 2 } else { 1 };
        run.token = token;
        run.owner = shard.owner;
        run.epoch = shard.epoch;
        run.retry_at = None;
        tables::put_live_run(self.overlay, &run);
        self.emit(Effect::AttemptReady { run: Box::new(run) });
    }

    /// Enters how the current attempt ended in the run's history.
    pub fn record_attempt(&self, run: &mut Run, result: AttemptResult, status: Option<u16>, error: String) {
        assert!(run.state == RunState::Running, "an attempt of run {} ends while it is {:?}", run.id, run.state);
        if run.attempts.len() >= bound!(AttemptHistory, limits::ATTEMPT_HISTORY) {
            sometimes!(AttemptForgotten);
            run.attempts.remove(0);
        }
        run.attempts.push(AttemptRecord {
            number: run.attempt,
            token: run.token,
            node: run.owner,
            ended_at: self.time,
            result,
            status,
            error,
        });
    }

    /// Ends the run. What that means for its task is up to the caller: see [`Self::tell_task`].
    pub fn end(&mut self, mut run: Run, state: RunState) -> Run {
        assert!(!run.state.is_finished(), "run {} ends twice", run.id);
        assert!(state.is_finished(), "run {} ends as {state:?}", run.id);
        run.state = state;
        run.retry_at = None;
        run.finished_at = Some(self.time);
        if planted!(FinishedRunStaysLive) {
            tables::put_live_run(self.overlay, &run);
        } else {
            tables::move_finished_run(self.overlay, &run);
        }
        self.cached.globals.counts.live_runs -= 1;
        self.emit(Effect::RunEnded { run: run.id, token: run.token, owner: run.owner });
        run
    }

    pub fn cancel(&mut self, mut run: Run) -> Run {
        if run.state == RunState::Running {
            self.record_attempt(&mut run, AttemptResult::Cancelled, None, String::new());
        }
        self.end(run, RunState::Cancelled)
    }

    /// Cancels the runs that wait for their turn: they were fired, but will not start.
    pub fn discard_waiting(&mut self, task: &mut TaskState) -> StoreResult<()> {
        while let Some(id) = task.live.last() {
            let run = tables::known_live_run(&self.read(), *id)?;
            if run.state != RunState::Pending {
                break;
            }
            task.live.pop();
            self.cancel(run);
        }
        Ok(())
    }

    /// Lets the task know that its run has ended, if that concerns it. With `gone`, the receiver wants no more.
    pub fn tell_task(&mut self, run: &Run, gone: bool) -> Answer<()> {
        let task = tables::known_task(&self.read(), run.task)?;
        self.tell(task, run, gone)
    }

    /// The same for a task that has been read.
    pub fn tell(&mut self, mut task: TaskState, run: &Run, gone: bool) -> Answer<()> {
        if !task.tracks_runs() && !gone {
            return Ok(());
        }
        task.live.retain(|id| *id != run.id);
        task.last_ended = self.time;
        self.count_failure(&mut task, run, gone)?;
        if !(planted!(WaitingNotStarted) && run.state == RunState::Failed) {
            self.promote(&mut task)?;
        }
        if task.status == TaskStatus::Finished && self.may_expire(&task) && !task.one_shot {
            self.arm_expiry(task.id, bound!(FinishedKept, FINISHED_KEPT));
        }
        self.put(&task);
        Ok(())
    }

    /// Runs of an older version say nothing about the current one, which may go to another place.
    fn count_failure(&mut self, task: &mut TaskState, run: &Run, gone: bool) -> Answer<()> {
        if run.version != task.version {
            return Ok(());
        }
        match run.state {
            RunState::Succeeded => task.failures = 0,
            RunState::Failed | RunState::TimedOut => task.failures = task.failures.saturating_add(1),
            _ => {}
        }
        let limit_met = task.pause_on_failure.is_some_and(|limit| task.failures >= limit);
        let (limit_met, gone) = (limit_met && !planted!(PauseOnFailureIgnored), gone && !planted!(GoneNotPausing));
        if task.status == TaskStatus::Active && (gone || limit_met) {
            self.set_paused(task)?;
        }
        Ok(())
    }

    /// Starts the first waiting run if no other is live.
    fn promote(&mut self, task: &mut TaskState) -> StoreResult<()> {
        let Some(first) = task.live.first() else { return Ok(()) };
        let mut run = tables::known_live_run(&self.read(), *first)?;
        if run.state == RunState::Pending {
            if planted!(BufferReversed)
                && let Some(newest) = task.live.last()
            {
                run = tables::known_live_run(&self.read(), *newest)?;
            }
            let token = Token::at(self.next_place());
            self.hand_out(run, token);
        }
        Ok(())
    }

    /// The task has no next occurrence and will get none by itself.
    pub fn finish_task(&mut self, task: &mut TaskState) {
        assert!(task.next.is_none(), "task {} is finished with an occurrence left", task.id);
        task.status = TaskStatus::Finished;
        task.open_line = None;
        self.emit(Effect::TaskDisarmed { task: task.id });
        if self.may_expire(task) {
            self.arm_expiry(task.id, bound!(FinishedKept, FINISHED_KEPT));
        }
    }

    /// Whether a finished task is to go by itself. A one-shot goes, run and all, a day after it was decided, if its run
    /// has ended by then; another task only if it says so, and counted from the end of its last run.
    pub fn may_expire(&self, task: &TaskState) -> bool {
        task.one_shot || (task.on_finish == OnFinish::Delete && task.live.is_empty())
    }
}
