//! The codec: log entries as bytes and back, per command or line.

use std::collections::BTreeMap;
use std::hint::black_box;

use campanile_model::{
    Command, Decision, Entry, FireLine, HttpMethod, HttpTarget, Json, Millis, Next, PreparedPut, PutMode, PutTask,
    Schedule, Target, TaskId, TaskName, TaskSpec, Timestamp, codec,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LINES: u64 = 512;
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn next(n: u64) -> Next {
    let at = START.saturating_add(Millis(n));
    Next { scheduled_at: at, due_at: at }
}

/// Fires of recurring tasks.
fn fires() -> Entry {
    let line = |n| FireLine {
        task: TaskId(1 << 40 | n),
        version: 1,
        scheduled_at: next(n).scheduled_at,
        decision: Decision::Fire,
        next: Some(next(n + 60_000)),
    };
    Entry { time: START, commands: vec![Command::Fire { lines: (0..LINES).map(line).collect() }] }
}

/// The benchmark's task, submitted so many times.
fn puts() -> Entry {
    let target = Target::Http(HttpTarget {
        url: "http://127.0.0.1:9000/hook".into(),
        method: HttpMethod::Post,
        headers: BTreeMap::new(),
        signing_secret: None,
    });
    let put = |n| {
        Command::PutTask(Box::new(PutTask {
            task: TaskName { namespace: "default".into(), name: String::new() },
            spec: TaskSpec {
                payload: Some(Json::from_value(&"x".repeat(62).into())),
                ..TaskSpec::new(vec![Schedule::At(next(n).scheduled_at)], target.clone())
            },
            mode: PutMode::Create,
            idempotency: None,
            prepared: Some(PreparedPut {
                since: Timestamp::from_millis(0),
                expected: None,
                unchanged: false,
                next: Some(next(n)),
                period: None,
                spread: n,
            }),
        }))
    };
    Entry { time: START, commands: (0..LINES).map(put).collect() }
}

fn entries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(LINES));
    for (name, entry) in [("fires", fires()), ("puts", puts())] {
        let bytes = codec::encode(&entry);
        group.bench_function(format!("encode {name}"), |bencher| bencher.iter(|| codec::encode(black_box(&entry))));
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter(|| codec::decode::<Entry>(black_box(&bytes)).expect("what was encoded"));
        });
    }
    group.finish();
}

criterion_group!(benches, entries);
criterion_main!(benches);
