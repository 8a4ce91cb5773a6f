//! The last step before a command is written to the log, on the leader only: everything that needs a clock, a schedule
//! or a random draw is computed here and travels in the entry, because `apply` may use none of these.
//!
//! Before a definition changes (update, pause, resume, delete) the occurrences that are already due are *settled*:
//! decided by the old definition in the same entry, in front of the change. So none is lost, and none fires under the
//! old definition after the change is acknowledged (P7).

use std::sync::{Arc, Mutex, PoisonError};

use campanile_model::{
    Code, Command, FireLine, Millis, PreparedPut, PutMode, PutTask, Rejection, TaskName, TaskSpec, TaskState,
    TaskStatus, Timestamp, bound, limits, planted,
};
use campanile_raft::{Prepare, Prepared};
use campanile_store::{StoreError, View};
use campanile_timer::{Anchors, Plan};
use rand::{Rng, rngs::SmallRng};

use crate::decide::{decide, decided_until, is_spent};
use crate::plans::{PlanError, Planned, Plans};
use crate::secret;

pub struct Preparer {
    plans: Arc<Plans>,
    rng: Mutex<SmallRng>,
}

impl Preparer {
    pub fn new(plans: Arc<Plans>, rng: SmallRng) -> Self {
        Self { plans, rng: Mutex::new(rng) }
    }

    fn draw(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    fn put(&self, work: &mut Work<'_>, put: &mut PutTask) -> Result<(), Rejection> {
        let current = if put.task.name.is_empty() { None } else { work.view.find_task(&put.task).map_err(storage)? };
        let time = work.time;
        let Some(current) = current else {
            secret::keep(&mut put.spec.target, None)?;
            let spread = if put.task.name.is_empty() { self.draw() } else { spread_of(&put.task) };
            let plan = Plan::compile(&put.spec, Anchors::new(time, spread))?;
            let (next, period) = (plan.first(Timestamp::MIN), plan.period());
            put.prepared = Some(PreparedPut { expected: None, unchanged: false, since: time, next, period, spread });
            return Ok(());
        };
        if put.mode == PutMode::Create {
            // The name is taken: `apply` says so, and nothing of that task has to be decided for it.
            return Ok(());
        }
        let expected = Some((current.id, current.version));
        let planned = self.plans.of(work.view, &current).map_err(plan)?;
        secret::keep(&mut put.spec.target, Some(&planned.spec.target))?;
        if put.spec == planned.spec {
            let TaskState { since, next, period, spread, .. } = current;
            put.prepared = Some(PreparedPut { expected, unchanged: true, since, next, period, spread });
            return Ok(());
        }
        work.settle(&self.plans, &current)?;
        let decided_until = current.decided_until.max(decided_until(&current, &work.lines));
        let spent = is_spent(&current, &work.lines);
        let held = held_back(&current, &planned, &put.spec, decided_until).filter(|held| *held <= time && !spent);
        let TaskState { created_at, spread, .. } = current;
        let since = held.map_or(time, |held| held.saturating_sub(Millis(1)));
        let plan = Plan::compile(&put.spec, Anchors { created_at, version_at: time, since, spread })?;
        let (next, period) = (plan.first(decided_until), plan.period());
        put.prepared = Some(PreparedPut { expected, unchanged: false, since, next, period, spread });
        Ok(())
    }

    fn settle_named(&self, work: &mut Work<'_>, task: &TaskName) -> Result<(), Rejection> {
        match work.view.find_task(task).map_err(storage)? {
            Some(current) => work.settle(&self.plans, &current),
            // `apply` answers that it is not there.
            None => Ok(()),
        }
    }
}

impl Prepare for Preparer {
    fn prepare(&self, view: &View, time: Timestamp, commands: Vec<Command>) -> Result<Prepared, Rejection> {
        let mut work = Work { view, time, lines: Vec::new() };
        let is_alone = commands.len() == 1;
        let (mut ready, mut refused) = (Vec::with_capacity(commands.len() + 1), Vec::new());
        for (place, mut command) in commands.into_iter().enumerate() {
            let prepared = match &mut command {
                Command::PutTask(put) => self.put(&mut work, put),
                Command::PauseTask(pause) => self.settle_named(&mut work, &pause.task),
                Command::ResumeTask(resume) => self.settle_named(&mut work, &resume.task),
                Command::DeleteTask(delete) => self.settle_named(&mut work, &delete.task),
                _ => Ok(()),
            };
            match prepared {
                Ok(()) => ready.push(command),
                Err(rejection) if is_alone || planted!(RefusalShared) => return Err(rejection),
                // The others of a batch stand for themselves.
                Err(rejection) => refused.push((place, rejection)),
            }
        }
        let settling = usize::from(!work.lines.is_empty());
        if settling == 1 {
            ready.insert(0, Command::Fire { lines: work.lines });
        }
        let replies = settling..ready.len();
        Ok(Prepared { commands: ready, replies, refused })
    }
}

/// The first occurrence that has come by the old definition and is not due yet, because of its jitter: it stays an
/// occurrence of an update that leaves the schedules as they are. Otherwise a task that is updated again and again would
/// never fire. By other schedules nothing of it is left, as of all that was to come.
fn held_back(task: &TaskState, old: &Planned, new: &TaskSpec, decided_until: Timestamp) -> Option<Timestamp> {
    let lives = matches!(task.status, TaskStatus::Active | TaskStatus::Paused) && task.next.is_some();
    let lives = lives && !planted!(HeldBackForgotten);
    let same = old.spec.schedules == new.schedules && old.spec.start_at == new.start_at;
    if lives && same { old.plan.next_after(decided_until) } else { None }
}

/// One proposal being prepared.
struct Work<'a> {
    view: &'a View,
    time: Timestamp,
    /// Decisions to be written in front of the commands.
    lines: Vec<FireLine>,
}

impl Work<'_> {
    fn settle(&mut self, plans: &Plans, task: &TaskState) -> Result<(), Rejection> {
        if task.next.is_none_or(|next| next.due_at > self.time) {
            return Ok(());
        }
        let planned = plans.of(self.view, task).map_err(plan)?;
        let decided = decide(task, &planned.spec, &planned.plan, self.time);
        let most = bound!(CatchUpPerEntry, limits::CATCH_UP_PER_ENTRY);
        if decided.more || self.lines.len() + decided.lines.len() > most {
            return Err(Rejection::new(
                Code::CatchingUp,
                format!("task {} has more than {most} occurrences still to decide", task.id),
            ));
        }
        self.lines.extend(decided.lines);
        Ok(())
    }
}

/// The task's stable hash: it spreads jitter and cron's `~`, and is the same wherever the name is the same.
pub(crate) fn spread_of(task: &TaskName) -> u64 {
    let mut text = Vec::with_capacity(task.namespace.len() + 1 + task.name.len());
    text.extend_from_slice(task.namespace.as_bytes());
    text.push(0);
    text.extend_from_slice(task.name.as_bytes());
    xxhash_rust::xxh3::xxh3_64(&text)
}

fn storage(error: StoreError) -> Rejection {
    tracing::error!(%error, "reading state for a proposal failed");
    Rejection::new(Code::Internal, "reading state failed; see the node's log")
}

fn plan(error: PlanError) -> Rejection {
    tracing::error!(%error, "a stored definition cannot be used");
    Rejection::new(Code::Internal, "a stored definition cannot be used; see the node's log")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use campanile_model::{HttpMethod, HttpTarget, Next, Schedule, Target};
    use campanile_store::{Store, engine::MemDisk};
    use rand::SeedableRng;

    use super::*;

    fn create(name: &str, schedule: Schedule) -> Command {
        let target = HttpTarget {
            url: "http://127.0.0.1:9000/".into(),
            method: HttpMethod::Post,
            headers: BTreeMap::new(),
            signing_secret: None,
        };
        Command::PutTask(Box::new(PutTask {
            task: TaskName { namespace: "default".into(), name: name.into() },
            spec: TaskSpec::new(vec![schedule], Target::Http(target)),
            mode: PutMode::Create,
            idempotency: None,
            prepared: None,
        }))
    }

    #[test]
    fn what_cannot_be_prepared_is_refused_alone() {
        let store = Store::open(MemDisk::new().attach()).expect("an empty disk");
        let preparer = Preparer::new(Arc::default(), SmallRng::seed_from_u64(1));
        let now = Timestamp::from_millis(1_000_000_000_000);
        let good = || create("good", Schedule::Every(Millis(90_000)));
        let bad = || create("bad", Schedule::Every(Millis(1)));
        let prepare = |commands| preparer.prepare(&store.view(), now, commands);
        let done = prepare(vec![good(), bad(), good()]).expect("two are prepared");
        assert_eq!((done.commands.len(), done.replies), (2, 0..2));
        assert!(matches!(&done.refused[..], [(1, Rejection { code: Code::LimitExceeded, .. })]));
        assert_eq!(prepare(vec![bad()]).err().map(|refusal| refusal.code), Some(Code::LimitExceeded));
    }

    #[test]
    fn what_a_schedule_says_travels_in_the_entry() {
        let store = Store::open(MemDisk::new().attach()).expect("an empty disk");
        let preparer = Preparer::new(Arc::default(), SmallRng::seed_from_u64(1));
        let now = Timestamp::from_millis(1_000_000_000_000);
        let prepared = |schedule| {
            let put = create("a", schedule);
            let done = preparer.prepare(&store.view(), now, vec![put]).expect("it is prepared");
            match &done.commands[..] {
                [Command::PutTask(put)] => put.prepared.clone().expect("what was prepared"),
                other => panic!("{other:?}"),
            }
        };
        let next = |millis| {
            let at = now.saturating_add(Millis(millis));
            Some(Next { scheduled_at: at, due_at: at })
        };
        let every = prepared(Schedule::Every(Millis(90_000)));
        assert_eq!((every.next, every.period), (next(90_000), Some(Millis(90_000))));
        let delay = prepared(Schedule::Delay(Millis(500)));
        assert_eq!((delay.next, delay.period), (next(500), None));
    }
}
