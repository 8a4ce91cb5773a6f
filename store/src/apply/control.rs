//! What operators do to tasks and runs by hand: pause, resume, delete, trigger, cancel.

use campanile_model::{
    Code, DELETED_KEPT, DeleteTask, Origin, PauseTask, Reply, ResumeTask, RunId, RunReply, RunState, TaskChange,
    TaskState, TaskStatus, TriggerTask, bound, planted,
};

use super::context::{Answer, Apply, check_version, reject, task_reply};
use super::runs::Start;
use crate::effect::Effect;
use crate::tables;

impl Apply<'_> {
    pub fn pause_task(&mut self, pause: &PauseTask) -> Answer {
        let mut task = self.existing_task(&pause.task)?;
        check_version(&task, pause.if_version)?;
        match task.status {
            TaskStatus::Paused => return Ok(task_reply(&task, TaskChange::Unchanged)),
            TaskStatus::Finished => return finished(&task),
            TaskStatus::Active | TaskStatus::Deleted => {}
        }
        self.check_settled(&task)?;
        self.set_paused(&mut task)?;
        self.put(&task);
        Ok(task_reply(&task, TaskChange::Paused))
    }

    /// From here on the task's occurrences lapse. Runs that wait for their turn are discarded with it.
    pub fn set_paused(&mut self, task: &mut TaskState) -> Answer<()> {
        self.discard_waiting(task)?;
        if !planted!(PauseNotStored) {
            task.status = TaskStatus::Paused;
        }
        task.open_line = None;
        self.arm(task);
        Ok(())
    }

    pub fn resume_task(&mut self, resume: &ResumeTask) -> Answer {
        let mut task = self.existing_task(&resume.task)?;
        check_version(&task, resume.if_version)?;
        match task.status {
            TaskStatus::Active => return Ok(task_reply(&task, TaskChange::Unchanged)),
            TaskStatus::Finished => return finished(&task),
            TaskStatus::Paused | TaskStatus::Deleted => {}
        }
        self.check_settled(&task)?;
        task.status = TaskStatus::Active;
        task.open_line = None;
        task.failures = 0;
        if task.next.is_none() && self.has_schedules(&task)? {
            self.finish_task(&mut task);
        }
        self.arm(&task);
        self.put(&task);
        Ok(task_reply(&task, TaskChange::Resumed))
    }

    fn has_schedules(&self, task: &TaskState) -> Answer<bool> {
        let spec = tables::known_spec(&self.read(), task.id, task.version)?;
        Ok(!spec.schedules.is_empty())
    }

    pub fn delete_task(&mut self, delete: &DeleteTask) -> Answer {
        let mut task = self.existing_task(&delete.task)?;
        check_version(&task, delete.if_version)?;
        self.check_settled(&task)?;
        if delete.cancel_runs {
            for id in self.find_live_runs(&task, usize::MAX)? {
                let run = tables::known_live_run(&self.read(), id)?;
                if run.state == RunState::Pending && planted!(WaitingSurvivesDelete) {
                    continue;
                }
                self.cancel(run);
            }
            task.live.clear();
        } else {
            self.discard_waiting(&mut task)?;
        }
        tables::delete_name(self.overlay, &task);
        self.cached.globals.counts.tasks -= 1;
        task.status = if planted!(DeleteKeepsFiring) { TaskStatus::Active } else { TaskStatus::Deleted };
        task.next = task.next.filter(|_| planted!(DeleteKeepsFiring));
        task.open_line = None;
        self.emit(Effect::TaskDisarmed { task: task.id });
        self.arm_expiry(task.id, bound!(DeletedKept, DELETED_KEPT));
        self.put(&task);
        Ok(task_reply(&task, TaskChange::Deleted))
    }

    /// Fires a task by hand, whatever its schedule says: also if it is paused or finished.
    /// The operator's wish goes before `overlap: skip`: the run starts beside the live one. Under `buffer_one` and
    /// `buffer_all` it waits like any other, and is refused where a scheduled one would be dropped.
    pub fn trigger_task(&mut self, trigger: &TriggerTask) -> Answer {
        self.check_namespace(&trigger.task.namespace)?;
        if let Some(reply) = self.recall(trigger.idempotency.as_ref())? {
            return Ok(reply);
        }
        let mut task = self.existing_task(&trigger.task)?;
        let origin = Origin::Manual(task.triggers + 1);
        let start = self.make_room(&mut task, origin)?;
        if let Start::Dropped(_) = start {
            return reject(Code::Overloaded, "the task's buffer of waiting runs is full");
        }
        task.triggers += 1;
        if planted!(TriggerUsesRemaining) {
            task.remaining = task.remaining.map(|left| left.saturating_sub(1));
        }
        let (run, occurrence) = self.start_run(&mut task, (self.time, self.time), origin, start == Start::Waiting);
        self.put(&task);
        let reply = Reply::Run(RunReply { run, occurrence });
        self.remember(trigger.idempotency.as_ref(), &reply)?;
        Ok(reply)
    }

    pub fn cancel_run(&mut self, id: RunId) -> Answer {
        let Some(run) = tables::live_run(&self.read(), id)? else {
            return match tables::finished_run(&self.read(), id)? {
                Some(run) => reject(Code::RunFinished, format!("run {id} is {} already", run.state.as_str())),
                None => reject(Code::RunNotFound, format!("there is no run {id}")),
            };
        };
        let occurrence = run.occurrence();
        let run = self.cancel(run);
        self.tell_task(&run, false)?;
        Ok(Reply::Run(RunReply { run: id, occurrence }))
    }
}

fn finished<T>(task: &TaskState) -> Answer<T> {
    reject(Code::TaskFinished, format!("task {:?} has no occurrence left", task.display_name()))
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;
    use crate::Effect;

    #[test]
    fn a_paused_task_lapses_and_goes_on_when_resumed() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        assert!(matches!(m.pause("a"), Reply::Task(TaskReply { change: TaskChange::Paused, .. })));
        assert!(matches!(&m.effects[..], [Effect::TaskArmed { timer, .. }] if timer.paused));
        assert!(matches!(m.pause("a"), Reply::Task(TaskReply { change: TaskChange::Unchanged, .. })));
        m.now = at(60);
        let fire = m.line(id, Decision::Fire, next(120));
        assert_eq!(m.run(Command::Fire { lines: vec![fire] }), Reply::Lines { done: 0 }, "no fire after a pause");
        assert_eq!(code(&m.resume("a")), Some(Code::Conflict), "what lapsed is entered first");
        m.decide(id, Decision::Lapse { last: at(60), count: 1, reason: Reason::Paused }, next(120));
        assert!(matches!(m.resume("a"), Reply::Task(TaskReply { change: TaskChange::Resumed, .. })));
        assert!(m.fire(id, next(180)).is_some());
        assert_eq!(m.task(id).tally.paused, 1);
    }

    #[test]
    fn pausing_discards_what_waits_and_lets_finish_what_runs() {
        let mut m = Machine::new();
        let id = m.create("a", with_overlap(Overlap::BufferAll), next(60));
        let first = m.fire(id, next(120)).unwrap();
        let second = m.fire(id, next(180)).unwrap();
        m.pause("a");
        assert_eq!(m.get_run(second).state, RunState::Cancelled);
        assert!(m.outcome(first, Outcome::Succeeded));
        assert!(m.handed_out().is_empty());
    }

    #[test]
    fn a_deleted_task_frees_its_name_and_keeps_its_runs_for_a_while() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let run = m.fire(id, next(120)).unwrap();
        let line = m.line(id, Decision::Fire, next(180));
        m.delete("a", false);
        assert_eq!(m.view().find_task(&named("a")).unwrap(), None);
        assert_eq!(m.view().find_task(&named(&id.to_string())).unwrap(), None);
        assert_eq!(code(&m.delete("a", false)), Some(Code::TaskNotFound));
        m.now = at(120);
        assert_eq!(m.run(Command::Fire { lines: vec![line] }), Reply::Lines { done: 0 }, "no fire after a delete");
        assert_ne!(m.create("a", recurring(), next(180)), id);
        assert!(m.outcome(run, Outcome::Succeeded));
    }

    #[test]
    fn a_delete_cancels_runs_if_asked() {
        let mut m = Machine::new();
        let a = m.create("a", recurring(), next(60));
        let b = m.create("b", one_shot(60), next(60));
        let (x, y) = (m.fire(a, next(120)).unwrap(), m.fire(b, None).unwrap());
        m.delete("a", true);
        assert_eq!(m.get_run(x).state, RunState::Cancelled);
        assert_eq!(m.get_run(y).state, RunState::Running, "another task's run is left alone");
        m.delete("b", true);
        assert_eq!(m.get_run(y).state, RunState::Cancelled);
    }

    #[test]
    fn a_delete_cancels_a_run_that_holds_back_more_lines_than_are_kept() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let stuck = m.trigger("a");
        for _ in 0..limits::LEDGER_LINES + 1 {
            let run = m.trigger("a");
            m.outcome(run, Outcome::Succeeded);
        }
        m.delete("a", true);
        assert_eq!(m.get_run(stuck).state, RunState::Cancelled);
    }

    #[test]
    fn a_delete_cancels_the_runs_that_are_settled_with_it() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let ended = m.fire(id, next(120)).unwrap();
        m.outcome(ended, Outcome::Succeeded);
        m.now = at(120);
        // As preparation has it: what is due is decided in front of the change.
        let settle = Command::Fire { lines: vec![m.line(id, Decision::Fire, next(180))] };
        let delete = Command::DeleteTask(DeleteTask { task: named("a"), if_version: None, cancel_runs: true });
        let replies = m.run_all(vec![settle, delete]);
        assert!(matches!(replies[..], [Reply::Lines { done: 1 }, Reply::Task(_)]));
        let runs = m.view().runs_of(id, &Default::default()).unwrap().items;
        let states: Vec<_> = runs.iter().map(|run| run.state).collect();
        assert_eq!(states, [RunState::Cancelled, RunState::Succeeded], "newest first");
        assert_eq!(m.view().counts().unwrap().live_runs, 0);
    }

    #[test]
    fn a_trigger_runs_whatever_the_status_says() {
        let mut m = Machine::new();
        let id = m.create("a", with_overlap(Overlap::Skip), next(60));
        let first = m.trigger("a");
        assert_eq!(m.get_run(first).origin, Origin::Manual(1));
        let second = m.trigger("a");
        assert_eq!(m.get_run(second).state, RunState::Running, "beside the live one, although overlap is skip");
        m.pause("a");
        m.trigger("a");
        let task = m.task(id);
        assert_eq!((task.triggers, task.tally.triggered, task.lines), (3, 3, 3));
        let done = m.create("b", one_shot(70), next(70));
        m.fire(done, None);
        m.trigger("b");
        assert_eq!(m.task(done).lines, 1);
        assert_eq!(code(&m.pause("b")), Some(Code::TaskFinished));
    }

    #[test]
    fn a_run_is_cancelled_once() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        assert!(matches!(m.run(Command::CancelRun { run }), Reply::Run(_)));
        assert!(!m.outcome(run, Outcome::Succeeded));
        assert_eq!(code(&m.run(Command::CancelRun { run })), Some(Code::RunFinished));
        assert_eq!(code(&m.run(Command::CancelRun { run: RunId(5) })), Some(Code::RunNotFound));
        assert_eq!(m.view().counts().unwrap().live_runs, 0);
    }
}
