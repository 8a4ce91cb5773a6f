//! `Fire`: the next occurrence of a task is decided, and the one after it takes its place.
//!
//! This is the hot path. For a one-shot that is due it reads the task's row, writes it back, writes the run and an
//! expiry timer, and touches nothing else.

use campanile_model::{
    Decision, FireLine, Next, Origin, Reason, Reply, TaskId, TaskState, TaskStatus, Timestamp, planted, sometimes,
};

use super::context::{Answer, Apply};
use super::runs::Start;
use crate::TaskTimer;
use crate::effect::Effect;
use crate::tables;

/// Rows read together: one after the other, they were half of what it cost to apply a fire.
const READ_AT_ONCE: usize = 512;

impl Apply<'_> {
    pub fn fire(&mut self, lines: &[FireLine]) -> Answer {
        let mut done = 0;
        for lines in lines.chunks(READ_AT_ONCE) {
            let tasks: Vec<TaskId> = lines.iter().map(|line| line.task).collect();
            for (line, below) in lines.iter().zip(tables::tasks(self.base, &tasks)?) {
                done += u32::from(self.fire_line(line, below)?);
            }
        }
        Ok(Reply::Lines { done })
    }

    /// Whether the line took effect. `below` is the task before this batch.
    fn fire_line(&mut self, line: &FireLine, below: Option<TaskState>) -> Answer<bool> {
        let Some(mut task) = tables::task_over(self.overlay, below, line.task)? else { return Ok(false) };
        let Some(next) = task.next.filter(|next| decides(line, &task, *next) || planted!(SkipCompareAndSet)) else {
            sometimes!(FireWasNoOp);
            return Ok(false);
        };
        if next.due_at > self.time && !planted!(EarlyFire) {
            // The clock that found it due was ahead of the log's. Its row in the time index is still there.
            let timer = TaskTimer::of(&task, next);
            self.emit(Effect::TaskArmed { task: task.id, wake_at: next.due_at, timer });
            return Ok(false);
        }
        let scheduled_at = line.scheduled_at;
        assert!(
            scheduled_at > task.decided_until || planted!(SkipCompareAndSet),
            "task {} is decided until {} and {scheduled_at} comes after",
            task.id,
            task.decided_until
        );
        match line.decision {
            Decision::Fire => self.fire_occurrence(&mut task, next)?,
            Decision::Lapse { last, count, reason } => {
                self.enter_lapsed(&mut task, (scheduled_at, last), count, reason)?;
            }
        }
        task.decided_until = decided_last(line);
        task.next = line.next.filter(|_| task.remaining != Some(0));
        match task.next {
            Some(_) => self.arm(&task),
            None => self.finish_task(&mut task),
        }
        self.put(&task);
        Ok(true)
    }

    fn fire_occurrence(&mut self, task: &mut TaskState, next: Next) -> Answer<()> {
        let start = self.make_room(task, Origin::Schedule)?;
        if let Start::Dropped(reason) = start {
            return self.enter_lapsed(task, (next.scheduled_at, next.scheduled_at), 1, reason);
        }
        self.start_run(task, (next.scheduled_at, next.due_at), Origin::Schedule, start == Start::Waiting);
        task.open_line = None;
        if !planted!(RemainingNotCounted) {
            task.remaining = task.remaining.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }
}

/// The last occurrence that the line decides.
fn decided_last(line: &FireLine) -> Timestamp {
    match line.decision {
        Decision::Fire => line.scheduled_at,
        Decision::Lapse { last, .. } => last,
    }
}

/// Whether the line is about the task as it is, and makes sense: time goes on with it.
fn decides(line: &FireLine, task: &TaskState, next: Next) -> bool {
    let status = match line.decision {
        Decision::Lapse { reason: Reason::Paused, .. } => TaskStatus::Paused,
        _ if planted!(PausedFires) => task.status,
        _ => TaskStatus::Active,
    };
    let last = decided_last(line);
    let some = !matches!(line.decision, Decision::Lapse { count: 0, .. });
    (task.status, next.scheduled_at) == (status, line.scheduled_at)
        && (task.version == line.version || planted!(OldVersionFires))
        && last >= line.scheduled_at
        && some
        && line.next.is_none_or(|next| next.scheduled_at > last)
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;
    use crate::{Effect, LedgerQuery, RunQuery};

    #[test]
    fn a_one_shot_fires_once_and_is_finished() {
        let mut m = Machine::new();
        let id = m.create("once", one_shot(10), next(10));
        let line = m.line(id, Decision::Fire, None);
        let run = m.fire(id, None).expect("a run");
        let task = m.task(id);
        assert_eq!((task.status, task.next, task.lines), (TaskStatus::Finished, None, 0));
        assert_eq!(task.one_shot_run, Some((at(10), run)));
        assert_eq!(task.decided_until, at(10));
        assert_eq!(m.handed_out(), [run]);
        assert!(m.effects.iter().any(|effect| matches!(effect, Effect::ExpiryArmed { .. })));
        let stored = m.get_run(run);
        assert_eq!((stored.attempt, stored.owner, stored.epoch), (1, NodeId(1), 1));
        assert_eq!(stored.token.0, run.0);
        // The same line again finds nothing to decide.
        assert_eq!(m.run(Command::Fire { lines: vec![line] }), Reply::Lines { done: 0 });
        assert_eq!(m.task(id), task);
        let ledger = m.view().ledger(id, &LedgerQuery::default()).unwrap();
        assert_eq!(ledger.items.len(), 1);
        assert_eq!(ledger.items[0].run, Some(run));
        assert_eq!(m.view().runs_of(id, &RunQuery::default()).unwrap().items, [stored]);
    }

    #[test]
    fn a_line_that_is_stale_early_or_senseless_does_nothing() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        m.now = at(60);
        let good = m.line(id, Decision::Fire, next(120));
        let lapse = |last, count, reason| Decision::Lapse { last: at(last), count, reason };
        let bad = [
            FireLine { task: TaskId(5), ..good.clone() },
            FireLine { version: 2, ..good.clone() },
            FireLine { scheduled_at: at(61), ..good.clone() },
            FireLine { next: next(60), ..good.clone() },
            FireLine { decision: lapse(60, 0, Reason::Coalesced), ..good.clone() },
            FireLine { decision: lapse(59, 1, Reason::Coalesced), ..good.clone() },
            FireLine { decision: lapse(120, 2, Reason::Coalesced), ..good.clone() },
            FireLine { decision: lapse(60, 1, Reason::Paused), ..good.clone() },
        ];
        let before = m.task(id);
        for line in bad {
            assert_eq!(m.run(Command::Fire { lines: vec![line.clone()] }), Reply::Lines { done: 0 }, "{line:?}");
        }
        assert_eq!(m.task(id), before);
        assert_eq!(m.run(Command::Fire { lines: vec![good.clone(), good] }), Reply::Lines { done: 1 });
        // Second 120 is not yet: the line is dropped, and whoever sent it is told when it will be.
        let early = m.line(id, Decision::Fire, next(180));
        m.now = at(119);
        assert_eq!(m.run(Command::Fire { lines: vec![early] }), Reply::Lines { done: 0 });
        assert!(matches!(m.effects[..], [Effect::TaskArmed { wake_at, .. }] if wake_at == at(120)));
    }

    #[test]
    fn alike_neighbours_share_a_line() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let lapse = |last, count, reason| Decision::Lapse { last: at(last), count, reason };
        m.decide(id, lapse(180, 3, Reason::BeyondWindow), next(240));
        m.decide(id, lapse(300, 2, Reason::BeyondWindow), next(360));
        m.decide(id, lapse(360, 1, Reason::Coalesced), next(420));
        m.fire(id, next(480));
        m.decide(id, lapse(480, 1, Reason::Coalesced), next(540));
        let lines = m.view().ledger(id, &LedgerQuery::default()).unwrap().items;
        let counts: Vec<_> = lines.iter().map(|line| (line.last, line.count, line.kind)).collect();
        let expected = [
            (at(300), 5, Kind::Missed),
            (at(360), 1, Kind::Missed),
            (at(420), 1, Kind::Fired),
            (at(480), 1, Kind::Missed),
        ];
        assert_eq!(counts, expected);
        let task = m.task(id);
        assert_eq!((task.tally.total(), task.tally.beyond_window, task.tally.coalesced), (8, 5, 2));
    }

    #[test]
    fn the_last_fire_left_ends_the_task() {
        let mut m = Machine::new();
        let spec = TaskSpec { remaining: Some(2), on_finish: OnFinish::Delete, ..recurring() };
        let id = m.create("a", spec, next(60));
        m.decide(id, Decision::Lapse { last: at(60), count: 1, reason: Reason::Coalesced }, next(120));
        let first = m.fire(id, next(180)).unwrap();
        let second = m.fire(id, next(240)).unwrap();
        let task = m.task(id);
        assert_eq!((task.status, task.remaining, task.next), (TaskStatus::Finished, Some(0), None));
        let expires = |m: &Machine| m.effects.iter().any(|effect| matches!(effect, Effect::ExpiryArmed { .. }));
        assert!(!expires(&m), "its runs are live");
        m.outcome(first, Outcome::Succeeded);
        assert!(!expires(&m), "one of its runs is live");
        m.outcome(second, Outcome::Failed);
        assert!(expires(&m));
    }

    #[test]
    fn skip_drops_what_overlaps() {
        let mut m = Machine::new();
        let id = m.create("a", with_overlap(Overlap::Skip), next(60));
        let run = m.fire(id, next(120)).unwrap();
        assert_eq!(m.fire(id, next(180)), None);
        assert_eq!(m.task(id).tally.overlap, 1);
        m.outcome(run, Outcome::Succeeded);
        assert!(m.fire(id, next(240)).is_some());
    }

    #[test]
    fn buffer_one_keeps_the_latest() {
        let mut m = Machine::new();
        let id = m.create("a", with_overlap(Overlap::BufferOne), next(60));
        let first = m.fire(id, next(120)).unwrap();
        let second = m.fire(id, next(180)).unwrap();
        assert_eq!(m.get_run(second).state, RunState::Pending);
        let third = m.fire(id, next(240)).unwrap();
        assert_eq!(m.get_run(second).state, RunState::Cancelled);
        m.outcome(first, Outcome::Failed);
        assert_eq!(m.handed_out(), [third]);
        let run = m.get_run(third);
        assert_eq!((run.state, run.attempt), (RunState::Running, 1));
        assert!(run.token.0 > run.id.0);
    }

    #[test]
    fn buffer_all_waits_in_line_up_to_its_bound() {
        let mut m = Machine::new();
        let id = m.create("a", with_overlap(Overlap::BufferAll), next(60));
        let runs: Vec<_> = (1..=1001).map(|n| m.fire(id, next(60 + 60 * n)).unwrap()).collect();
        assert_eq!(runs.len(), limits::BUFFERED_RUNS + 1);
        assert_eq!(m.fire(id, next(600_000)), None);
        assert_eq!(m.task(id).tally.buffer_full, 1);
        let trigger = Command::TriggerTask(TriggerTask { task: named("a"), idempotency: None });
        assert_eq!(code(&m.run(trigger)), Some(Code::Overloaded));
        m.outcome(runs[0], Outcome::Succeeded);
        assert_eq!(m.handed_out(), [runs[1]]);
        m.outcome(runs[1], Outcome::TimedOut);
        assert_eq!(m.handed_out(), [runs[2]]);
    }

    #[test]
    fn cancel_other_runs_alone() {
        let mut m = Machine::new();
        let id = m.create("a", with_overlap(Overlap::CancelOther), next(60));
        let first = m.fire(id, next(120)).unwrap();
        let second = m.fire(id, next(180)).unwrap();
        let cancelled = m.get_run(first);
        assert_eq!(cancelled.state, RunState::Cancelled);
        assert_eq!(cancelled.attempts[0].result, AttemptResult::Cancelled);
        assert_eq!(m.handed_out(), [second]);
        assert_eq!(m.task(id).live, [second]);
    }
}
