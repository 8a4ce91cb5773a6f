//! Apply: entries become one write batch each, on the simulated disk (what our code costs) and on RocksDB; and the keys
//! of the time index. Per command or line.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use campanile_model::{
    Command, Decision, Entry, FireLine, HttpMethod, HttpTarget, Json, Millis, Next, NodeId, Outcome, OutcomeLine,
    PreparedPut, PutMode, PutTask, Reply, Schedule, ShardId, Target, TaskId, TaskName, TaskSpec, Timer, Timestamp,
};
use campanile_store::engine::{Disk, FsDisk, MemDisk};
use campanile_store::keys::{self, TimerKey};
use campanile_store::{Applier, Effect, Store};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LINES: usize = 512;
/// Recurring tasks that fire in turn.
const TASKS: usize = 20 * LINES;
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const PERIOD: Millis = Millis(60_000);

struct Machine {
    _store: Store,
    applier: Applier,
    index: u64,
    now: Timestamp,
    /// Each with its next occurrence.
    tasks: Vec<(TaskId, Timestamp)>,
    turn: usize,
}

impl Machine {
    /// One node that owns everything, and the recurring tasks.
    fn new(disk: Arc<dyn Disk>) -> Self {
        let store = Store::open(disk).expect("an empty disk");
        let applier = store.applier();
        let mut machine = Self { _store: store, applier, index: 0, now: START, tasks: Vec::new(), turn: 0 };
        let shards = (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(1))).collect();
        machine.run(vec![Command::NodeUp { node: NodeId(1), incarnation: 1, shards }]);
        while machine.tasks.len() < TASKS {
            let first = START.saturating_add(PERIOD);
            let (replies, _) = machine.put(Schedule::Every(PERIOD), first);
            machine.tasks.extend(replies.into_iter().map(|reply| match reply {
                Reply::Task(task) => (task.id, first),
                other => panic!("{other:?}"),
            }));
        }
        machine
    }

    fn run(&mut self, commands: Vec<Command>) -> (Vec<Reply>, Vec<Effect>) {
        self.index += 1;
        let replies = self.applier.apply(self.index, &Entry { time: self.now, commands }).expect("an entry");
        (replies, self.applier.commit(self.index, b"mark").expect("a batch").list)
    }

    fn put(&mut self, schedule: Schedule, first: Timestamp) -> (Vec<Reply>, Vec<Effect>) {
        let target = Target::Http(HttpTarget {
            url: "http://127.0.0.1:9000/hook".into(),
            method: HttpMethod::Post,
            headers: BTreeMap::new(),
            signing_secret: None,
        });
        let next = Some(Next { scheduled_at: first, due_at: first });
        let put = PutTask {
            task: TaskName { namespace: "default".into(), name: String::new() },
            spec: TaskSpec {
                payload: Some(Json::from_value(&"x".repeat(62).into())),
                ..TaskSpec::new(vec![schedule], target)
            },
            mode: PutMode::Create,
            idempotency: None,
            prepared: Some(PreparedPut {
                expected: None,
                unchanged: false,
                since: Timestamp::MIN,
                next,
                period: None,
                spread: 7,
            }),
        };
        self.run((0..LINES).map(|_| Command::PutTask(Box::new(put.clone()))).collect())
    }

    /// The next tasks in turn fire, and their runs succeed.
    fn fire(&mut self) {
        let turn = self.turn..self.turn + LINES;
        self.turn = (self.turn + LINES) % TASKS;
        let lines = self.tasks[turn.clone()].iter().map(|(task, at)| {
            let at = *at;
            let next = at.saturating_add(PERIOD);
            let next = Some(Next { scheduled_at: next, due_at: next });
            FireLine { task: *task, version: 1, scheduled_at: at, decision: Decision::Fire, next }
        });
        let lines: Vec<FireLine> = lines.collect();
        for (_, at) in &mut self.tasks[turn] {
            self.now = self.now.max(*at);
            *at = at.saturating_add(PERIOD);
        }
        let (_, effects) = self.run(vec![Command::Fire { lines }]);
        let outcomes = effects.into_iter().filter_map(|effect| match effect {
            Effect::AttemptReady { run } => {
                let (result, status) = (Outcome::Succeeded, Some(200));
                Some(OutcomeLine { run: run.id, token: run.token, result, status, error: String::new() })
            }
            _ => None,
        });
        let lines: Vec<OutcomeLine> = outcomes.collect();
        assert_eq!(lines.len(), LINES);
        black_box(self.run(vec![Command::Outcomes { lines }]));
    }
}

fn apply(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let real: Arc<dyn Disk> = Arc::new(FsDisk::open(directory.path()).expect("a disk"));
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(LINES as u64)).sample_size(20);
    for (engine, disk) in [("memory", MemDisk::new().attach()), ("RocksDB", real)] {
        let mut machine = Machine::new(disk);
        group.bench_function(format!("create one-shots, {engine}"), |bencher| {
            let far = START.saturating_add(Millis(u64::from(u32::MAX) * 1000));
            bencher.iter(|| black_box(machine.put(Schedule::At(far), far)));
        });
        group.bench_function(format!("fire recurring tasks and end their runs, {engine}"), |bencher| {
            bencher.iter(|| machine.fire());
        });
    }
    group.finish();
}

fn time_index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keys");
    let key = |n: u64| TimerKey { wake_at: START.saturating_add(Millis(n)), timer: Timer::Task(TaskId(n)) };
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function("encode timers", |bencher| {
        bencher.iter(|| (0..LINES as u64).map(|n| keys::timer(black_box(key(n))).len()).sum::<usize>());
    });
    let encoded: Vec<Vec<u8>> = (0..LINES as u64).map(|n| keys::timer(key(n))).collect();
    group.bench_function("decode timers", |bencher| {
        bencher.iter(|| encoded.iter().filter_map(|key| keys::read_timer(black_box(key))).count());
    });
    group.finish();
}

criterion_group!(benches, apply, time_index);
criterion_main!(benches);
