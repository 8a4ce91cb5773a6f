//! `PutTask`: a task is created, or gets a new version.

use campanile_model::{
    Code, Next, OnFinish, PreparedPut, PutMode, PutTask, Tally, TaskChange, TaskId, TaskState, TaskStatus, Timestamp,
    bound, limits, planted,
};

use super::context::{Answer, Apply, reject, task_reply};
use crate::tables;

impl Apply<'_> {
    pub fn put_task(&mut self, put: &PutTask) -> Answer {
        self.check_namespace(&put.task.namespace)?;
        if let Some(reply) = self.recall(put.idempotency.as_ref())? {
            return Ok(reply);
        }
        let name = &put.task.name;
        // A new task without a name has nothing to be found by.
        let current = if name.is_empty() { None } else { tables::find_task(&self.read(), &put.task)? };
        match (put.mode, &current) {
            (PutMode::Create, Some(_)) => return reject(Code::TaskExists, format!("there is a task {name:?} already")),
            (PutMode::UpdateVersion(wanted), Some(task)) => super::context::check_version(task, Some(wanted))?,
            (PutMode::UpdateVersion(_), None) => return task_not_found(name),
            // An id names a task that apply made, never one to be made.
            (_, None) if name.parse::<TaskId>().is_ok() => return task_not_found(name),
            _ => {}
        }
        let Some(prepared) = &put.prepared else { return reject(Code::Conflict, "the write was not prepared") };
        let fits = prepared.expected == current.as_ref().map(|task| (task.id, task.version));
        let conflicts = if planted!(GuardInverted) { fits } else { !fits };
        if conflicts {
            return reject(Code::Conflict, format!("task {name:?} was changed while the write was prepared"));
        }
        let (task, change) = match current {
            Some(task) if prepared.unchanged => (task, TaskChange::Unchanged),
            Some(task) => (self.update(task, put, prepared)?, TaskChange::Updated),
            None => (self.create(put, prepared), TaskChange::Created),
        };
        let reply = task_reply(&task, change);
        self.remember(put.idempotency.as_ref(), &reply)?;
        Ok(reply)
    }

    fn create(&mut self, put: &PutTask, prepared: &PreparedPut) -> TaskState {
        let id = TaskId::at(self.next_place());
        let mut task = TaskState {
            id,
            namespace: put.task.namespace.clone(),
            name: put.task.name.clone(),
            status: TaskStatus::Active,
            version: 0,
            created_at: self.time,
            version_at: self.time,
            since: self.time,
            next: None,
            decided_until: Timestamp::MIN,
            spread: prepared.spread,
            remaining: None,
            triggers: 0,
            failures: 0,
            one_shot: false,
            period: None,
            overlap: put.spec.overlap,
            pause_on_failure: None,
            retention: put.spec.retention,
            on_finish: OnFinish::Keep,
            grace: put.spec.catch_up.grace,
            live: Vec::new(),
            last_ended: self.time,
            one_shot_run: None,
            open_line: None,
            lines: 0,
            version_lines: 0,
            tally: Tally::default(),
            folded: Tally::default(),
        };
        tables::put_name(self.overlay, &task);
        self.cached.globals.counts.tasks += 1;
        self.set_version(&mut task, put, prepared);
        task
    }

    fn update(&mut self, mut task: TaskState, put: &PutTask, prepared: &PreparedPut) -> Answer<TaskState> {
        self.check_settled(&task)?;
        if prepared.next.is_some_and(|next| next.scheduled_at <= task.decided_until) {
            return reject(Code::Conflict, format!("everything until {} is decided already", task.decided_until));
        }
        self.discard_waiting(&mut task)?;
        self.keep_one_shot_line(&mut task);
        self.supersede_version(&mut task);
        if put.spec.tracks_runs() && !task.tracks_runs() {
            // What is live counts from here on, whatever version fired it.
            task.live = self.find_live_runs(&task, bound!(TrackedRuns, limits::TRACKED_RUNS))?;
        }
        self.set_version(&mut task, put, prepared);
        Ok(task)
    }

    /// Writes the definition as the task's next version, and the task with what `apply` needs of it.
    fn set_version(&mut self, task: &mut TaskState, put: &PutTask, prepared: &PreparedPut) {
        let spec = &put.spec;
        task.version += 1;
        task.version_at = self.time;
        task.since = prepared.since;
        task.remaining = spec.remaining;
        task.failures = 0;
        task.one_shot = spec.is_one_shot();
        task.period = prepared.period;
        task.overlap = spec.overlap;
        task.pause_on_failure = spec.pause_on_failure;
        task.retention = spec.retention;
        task.on_finish = spec.on_finish;
        task.grace = spec.catch_up.grace;
        task.open_line = None;
        task.next = prepared.next.filter(|_| spec.remaining != Some(0));
        task.decided_until = task.decided_until.max(decided_by_version(self.time, task.next));
        if !task.tracks_runs() {
            task.live.clear();
        }
        tables::put_spec(self.overlay, task.id, task.version, spec);

        // Nothing will ever be due, and not because the task is fired by hand only.
        let exhausted = task.next.is_none() && !spec.schedules.is_empty();
        match task.status {
            TaskStatus::Paused => {}
            TaskStatus::Active | TaskStatus::Finished if exhausted => self.finish_task(task),
            TaskStatus::Active | TaskStatus::Finished => task.status = TaskStatus::Active,
            TaskStatus::Deleted => unreachable!("a deleted task is not found by name"),
        }
        self.arm(task);
        self.put(task);
    }
}

/// Until where a version written at `time` leaves nothing to be added to the ledger: until it was written, but not past
/// its own first occurrence, which may lie before that (`at` an instant in the past).
fn decided_by_version(time: Timestamp, next: Option<Next>) -> Timestamp {
    match next {
        Some(next) if next.scheduled_at <= time => {
            Timestamp::from_millis(next.scheduled_at.as_millis().saturating_sub(1))
        }
        _ => time,
    }
}

fn task_not_found<T>(name: &str) -> Answer<T> {
    reject(Code::TaskNotFound, format!("there is no task {name:?}"))
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;

    fn put(m: &mut Machine, name: &str, mode: PutMode) -> Reply {
        let put = m.prepared_put(name, recurring(), mode, next(600));
        m.run(Command::PutTask(Box::new(put)))
    }

    #[test]
    fn names_and_modes() {
        let mut m = Machine::new();
        assert_eq!(code(&put(&mut m, "a", PutMode::UpdateVersion(1))), Some(Code::TaskNotFound));
        assert_eq!(code(&put(&mut m, "t77", PutMode::Upsert)), Some(Code::TaskNotFound));
        let id = m.create("a", recurring(), next(60));
        assert_eq!(code(&put(&mut m, "a", PutMode::Create)), Some(Code::TaskExists));
        assert_eq!(code(&put(&mut m, "a", PutMode::UpdateVersion(2))), Some(Code::VersionMismatch));
        let updated = put(&mut m, &id.to_string(), PutMode::UpdateVersion(1));
        assert!(matches!(updated, Reply::Task(TaskReply { version: 2, change: TaskChange::Updated, .. })));
        let mut elsewhere = m.prepared_put("a", recurring(), PutMode::Upsert, None);
        elsewhere.task.namespace = "other".into();
        assert_eq!(code(&m.run(Command::PutTask(Box::new(elsewhere)))), Some(Code::NamespaceNotFound));
        // Each task without a name is a new one.
        let (x, y) = (m.create("", by_hand(), None), m.create("", by_hand(), None));
        assert_ne!(x, y);
        assert_eq!(m.view().find_task(&named(&x.to_string())).unwrap().unwrap().id, x);
        assert_eq!(m.view().counts().unwrap().tasks, 3);
    }

    #[test]
    fn what_was_prepared_for_another_state_is_a_conflict() {
        let mut m = Machine::new();
        let early = m.prepared_put("a", recurring(), PutMode::Upsert, next(60));
        let id = m.create("a", recurring(), next(60));
        assert_eq!(code(&m.run(Command::PutTask(Box::new(early)))), Some(Code::Conflict));
        let unprepared = PutTask { prepared: None, ..m.prepared_put("a", recurring(), PutMode::Upsert, None) };
        assert_eq!(code(&m.run(Command::PutTask(Box::new(unprepared)))), Some(Code::Conflict));
        // An occurrence that is due has to be decided first.
        m.now = at(60);
        assert_eq!(code(&m.put("a", recurring(), next(120))), Some(Code::Conflict));
        m.fire(id, next(120));
        assert_eq!(code(&m.put("a", recurring(), next(60))), Some(Code::Conflict), "second 60 is decided");
        assert_eq!(code(&m.put("a", recurring(), next(121))), None);
        let task = m.task(id);
        assert_eq!((task.version, task.version_at, task.decided_until), (2, at(60), at(60)));
    }

    #[test]
    fn an_equal_definition_writes_nothing() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let before = m.task(id);
        let mut put = m.prepared_put("a", recurring(), PutMode::Upsert, next(90));
        put.prepared.as_mut().unwrap().unchanged = true;
        let reply = m.run(Command::PutTask(Box::new(put)));
        assert!(matches!(reply, Reply::Task(TaskReply { version: 1, change: TaskChange::Unchanged, .. })));
        assert_eq!(m.task(id), before);
    }

    #[test]
    fn the_status_follows_what_is_left() {
        let mut m = Machine::new();
        let hand = m.create("hand", by_hand(), None);
        assert_eq!(m.task(hand).status, TaskStatus::Active);
        let over = m.create("over", recurring(), None);
        assert_eq!(m.task(over).status, TaskStatus::Finished);
        m.put("over", recurring(), next(60));
        assert_eq!(m.task(over).status, TaskStatus::Active);
        m.pause("over");
        m.put("over", recurring(), next(61));
        assert_eq!(m.task(over).status, TaskStatus::Paused);
    }

    #[test]
    fn runs_that_are_live_count_when_the_new_version_looks_at_them() {
        let mut m = Machine::new();
        let id = m.create("a", one_shot(30), next(30));
        let shot = m.fire(id, None).unwrap();
        m.put("a", recurring(), next(60));
        let ended = m.fire(id, next(120)).unwrap();
        m.outcome(ended, Outcome::Succeeded);
        let running = m.fire(id, next(180)).unwrap();
        m.put("a", with_overlap(Overlap::Skip), next(181));
        assert_eq!(m.task(id).live, [shot, running]);
        assert_eq!(m.fire(id, next(240)), None, "two are live");
        m.outcome(shot, Outcome::Succeeded);
        assert_eq!(m.fire(id, next(300)), None, "one is live");
        m.outcome(running, Outcome::Succeeded);
        assert!(m.fire(id, next(360)).is_some());
        assert_eq!(m.task(id).tally.overlap, 2);
    }

    #[test]
    fn many_live_runs_leave_the_buffer_its_room() {
        let mut m = Machine::new();
        let id = m.create("a", by_hand(), None);
        let runs: Vec<_> = (0..limits::TRACKED_RUNS + 2).map(|_| m.trigger("a")).collect();
        m.put("a", TaskSpec { overlap: Overlap::BufferAll, ..by_hand() }, None);
        assert_eq!(m.task(id).live, runs[2..], "the newest ones");
        let waiting = m.trigger("a");
        let second = m.trigger("a");
        assert_eq!(m.get_run(second).state, RunState::Pending, "two wait, of a thousand that may");
        for run in runs {
            assert_eq!(m.get_run(waiting).state, RunState::Pending);
            m.outcome(run, Outcome::Succeeded);
        }
        assert_eq!(m.get_run(waiting).state, RunState::Running);
    }

    #[test]
    fn the_list_of_live_runs_is_bounded() {
        let mut m = Machine::new();
        let spec = TaskSpec { overlap: Overlap::Skip, ..recurring() };
        let id = m.create("a", spec, next(60));
        let runs: Vec<_> = (0..limits::TRACKED_RUNS + 1).map(|_| m.trigger("a")).collect();
        assert_eq!(m.task(id).live, runs[..limits::TRACKED_RUNS]);
        assert_eq!(m.fire(id, next(120)), None);
        for run in runs {
            m.outcome(run, Outcome::Succeeded);
        }
        assert!(m.fire(id, next(180)).is_some());
    }

    #[test]
    fn an_instant_in_the_past_fires_at_once() {
        let mut m = Machine::new();
        m.now = at(100);
        let id = m.create("late", one_shot(10), next(10));
        assert_eq!(m.view().timers(None, at(101), 9).unwrap().last().unwrap().key.wake_at, at(100));
        assert!(m.fire(id, None).is_some());
    }

    #[test]
    fn a_one_shot_keeps_its_line_through_updates() {
        let mut m = Machine::new();
        let id = m.create("a", one_shot(10), next(10));
        let first = m.fire(id, None).unwrap();
        m.put("a", one_shot(20), next(20));
        let second = m.fire(id, None).unwrap();
        let lines = m.view().ledger(id, &Default::default()).unwrap().items;
        let runs: Vec<_> = lines.iter().map(|line| (line.scheduled_at, line.run)).collect();
        assert_eq!(runs, [(at(10), Some(first)), (at(20), Some(second))]);
        let newest_first: Vec<_> =
            m.view().runs_of(id, &Default::default()).unwrap().items.iter().map(|run| run.id).collect();
        assert_eq!(newest_first, [second, first]);
    }

    #[test]
    fn a_key_answers_again_until_it_expires() {
        let mut m = Machine::new();
        let keyed = |m: &Machine, name: &str, fingerprint| {
            let mut put = m.prepared_put(name, recurring(), PutMode::Create, next(9999));
            put.idempotency = Some(Idempotency { key: "k".into(), fingerprint });
            Command::PutTask(Box::new(put))
        };
        let command = keyed(&m, "a", 1);
        let first = m.run(command.clone());
        assert_eq!(m.run(command), first);
        let other = keyed(&m, "b", 2);
        assert_eq!(code(&m.run(other.clone())), Some(Code::IdempotencyMismatch));
        assert_eq!(m.view().counts().unwrap().idempotency_keys, 1);
        m.now = m.now.saturating_add(limits::IDEMPOTENCY_TTL);
        assert_eq!(code(&m.run(other)), None, "the key is free again at the instant it expires");
        assert_eq!(m.view().counts().unwrap().idempotency_keys, 1);
        // A rejected request leaves no key behind.
        let mut rejected = m.prepared_put("b", recurring(), PutMode::Create, None);
        rejected.idempotency = Some(Idempotency { key: "new".into(), fingerprint: 1 });
        assert_eq!(code(&m.run(Command::PutTask(Box::new(rejected)))), Some(Code::TaskExists));
        assert_eq!(m.view().idempotency("default", "new").unwrap(), None);
    }
}
