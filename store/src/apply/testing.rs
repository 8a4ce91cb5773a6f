//! A state machine to play with: a simulated disk, a clock that is a number, and the leader's part of a write.

use std::collections::BTreeMap;

use campanile_model::*;

use crate::engine::mem::MemDisk;
use crate::{Applier, Effect, Store, View};

/// Seconds after an arbitrary start, as an instant.
pub fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}

/// An occurrence that is due when it is scheduled.
pub fn next(secs: i64) -> Option<Next> {
    Some(Next { scheduled_at: at(secs), due_at: at(secs) })
}

pub fn named(name: &str) -> TaskName {
    TaskName { namespace: "default".into(), name: name.into() }
}

fn target() -> Target {
    Target::Http(HttpTarget {
        url: "http://127.0.0.1:9000/hook".into(),
        method: HttpMethod::Post,
        headers: BTreeMap::new(),
        signing_secret: None,
    })
}

/// Fires every minute, but the tests say when.
pub fn recurring() -> TaskSpec {
    TaskSpec::new(vec![Schedule::Every(Millis::from_secs(60))], target())
}

pub fn one_shot(secs: i64) -> TaskSpec {
    TaskSpec::new(vec![Schedule::At(at(secs))], target())
}

pub fn by_hand() -> TaskSpec {
    TaskSpec::new(Vec::new(), target())
}

pub fn with_overlap(overlap: Overlap) -> TaskSpec {
    TaskSpec { overlap, ..recurring() }
}

/// A store with its applier; every call is a log entry of its own, committed at once.
pub struct Machine {
    pub store: Store,
    pub applier: Applier,
    pub index: u64,
    pub now: Timestamp,
    /// Effects of the last entry.
    pub effects: Vec<Effect>,
}

impl Machine {
    /// An empty state, at second 0, in which node 1 owns all shards.
    pub fn new() -> Self {
        let mut machine = Self::empty();
        let shards = (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(1))).collect();
        machine.run(Command::NodeUp { node: NodeId(1), incarnation: 11, shards });
        machine
    }

    pub fn empty() -> Self {
        let store = Store::open(MemDisk::new().attach()).unwrap();
        let applier = store.applier();
        Self { store, applier, index: 0, now: at(0), effects: Vec::new() }
    }

    pub fn view(&self) -> View {
        self.store.view()
    }

    pub fn run_all(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        self.index += 1;
        let replies = self.applier.apply(self.index, &Entry { time: self.now, commands }).unwrap();
        self.effects = self.applier.commit(self.index, b"mark").unwrap().list;
        replies
    }

    pub fn run(&mut self, command: Command) -> Reply {
        self.run_all(vec![command]).remove(0)
    }

    /// Fills in what preparation would find.
    pub fn prepared_put(&self, name: &str, spec: TaskSpec, mode: PutMode, next: Option<Next>) -> PutTask {
        let found = if name.is_empty() { None } else { self.view().find_task(&named(name)).unwrap() };
        let expected = found.map(|task| (task.id, task.version));
        let period = match spec.schedules[..] {
            [Schedule::Every(period)] => Some(period),
            _ => None,
        };
        let prepared = PreparedPut { expected, unchanged: false, since: self.now, next, period, spread: 7 };
        PutTask { task: named(name), spec, mode, idempotency: None, prepared: Some(prepared) }
    }

    pub fn put(&mut self, name: &str, spec: TaskSpec, next: Option<Next>) -> Reply {
        let put = self.prepared_put(name, spec, PutMode::Upsert, next);
        self.run(Command::PutTask(Box::new(put)))
    }

    /// Creates a task and answers its id.
    pub fn create(&mut self, name: &str, spec: TaskSpec, next: Option<Next>) -> TaskId {
        match self.put(name, spec, next) {
            Reply::Task(TaskReply { id, change: TaskChange::Created, .. }) => id,
            reply => panic!("{reply:?}"),
        }
    }

    pub fn task(&self, id: TaskId) -> TaskState {
        self.view().task(id).unwrap().expect("the task is there")
    }

    pub fn get_run(&self, id: RunId) -> Run {
        self.view().run(id).unwrap().expect("the run is there")
    }

    pub fn line(&self, id: TaskId, decision: Decision, following: Option<Next>) -> FireLine {
        let task = self.task(id);
        let scheduled_at = task.next.expect("something is due").scheduled_at;
        FireLine { task: id, version: task.version, scheduled_at, decision, next: following }
    }

    /// Fires the task's next occurrence when it is due. The run, if it got one.
    pub fn fire(&mut self, id: TaskId, following: Option<Next>) -> Option<RunId> {
        self.decide(id, Decision::Fire, following);
        let index = self.index;
        let runs = self.view().live_runs(None, usize::MAX).unwrap();
        runs.into_iter().map(|run| run.id).find(|id| id.place().index() == index)
    }

    pub fn decide(&mut self, id: TaskId, decision: Decision, following: Option<Next>) {
        let line = self.line(id, decision, following);
        self.now = self.now.max(self.task(id).next.unwrap().due_at);
        assert_eq!(self.run(Command::Fire { lines: vec![line] }), Reply::Lines { done: 1 });
    }

    pub fn outcome(&mut self, run: RunId, result: Outcome) -> bool {
        let token = self.get_run(run).token;
        self.outcome_with(run, token, result)
    }

    pub fn outcome_with(&mut self, run: RunId, token: Token, result: Outcome) -> bool {
        let line = OutcomeLine { run, token, result, status: Some(200), error: String::new() };
        match self.run(Command::Outcomes { lines: vec![line] }) {
            Reply::Outcomes { accepted } => accepted[0],
            reply => panic!("{reply:?}"),
        }
    }

    pub fn attempt(&mut self, run: RunId, expected: Token, action: AttemptAction) -> bool {
        let lines = vec![AttemptLine { run, expected, action }];
        self.run(Command::Attempts { lines }) == Reply::Lines { done: 1 }
    }

    pub fn trigger(&mut self, name: &str) -> RunId {
        match self.run(Command::TriggerTask(TriggerTask { task: named(name), idempotency: None })) {
            Reply::Run(reply) => reply.run,
            reply => panic!("{reply:?}"),
        }
    }

    pub fn pause(&mut self, name: &str) -> Reply {
        self.run(Command::PauseTask(PauseTask { task: named(name), if_version: None }))
    }

    pub fn resume(&mut self, name: &str) -> Reply {
        self.run(Command::ResumeTask(ResumeTask { task: named(name), if_version: None }))
    }

    pub fn delete(&mut self, name: &str, cancel_runs: bool) -> Reply {
        let delete = DeleteTask { task: named(name), if_version: None, cancel_runs };
        self.run(Command::DeleteTask(delete))
    }

    /// Whether each attempt handed out by the last entry is of this run.
    pub fn handed_out(&self) -> Vec<RunId> {
        let handed = self.effects.iter().filter_map(|effect| match effect {
            Effect::AttemptReady { run } => Some(run.id),
            _ => None,
        });
        handed.collect()
    }
}

pub fn code(reply: &Reply) -> Option<Code> {
    match reply {
        Reply::Rejected(rejection) => Some(rejection.code),
        _ => None,
    }
}
