//! The wheel: putting a timer in, taking it out, and handing out what is due, per timer.

use std::hint::black_box;

use campanile_model::{Millis, Timestamp};
use campanile_timer::wheel::Wheel;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const TIMERS: u64 = 100_000;
const HOUR: u64 = 3_600_000;
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The n-th of instants within the next hour, in no order.
fn scattered(n: u64) -> Timestamp {
    START.saturating_add(Millis(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % HOUR))
}

fn filled() -> Wheel<u64> {
    let mut wheel = Wheel::new(START);
    for n in 0..TIMERS {
        wheel.insert(scattered(n), n);
    }
    wheel
}

fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    group.throughput(Throughput::Elements(TIMERS)).sample_size(20);
    group.bench_function("insert", |bencher| {
        bencher.iter_batched(|| (), |()| black_box(filled()), BatchSize::LargeInput);
    });
    group.bench_function("insert and cancel", |bencher| {
        bencher.iter_batched_ref(
            filled,
            |wheel| {
                for n in 0..TIMERS {
                    let key = wheel.insert(scattered(n + 1), n);
                    black_box(wheel.cancel(key));
                }
            },
            BatchSize::LargeInput,
        );
    });
    // An hour in the conductor's steps of 5 ms: as many calls as there are steps, most of which find nothing.
    group.bench_function("advance an hour by steps of 5 ms", |bencher| {
        bencher.iter_batched_ref(
            filled,
            |wheel| {
                let mut due = Vec::new();
                for step in (0..=HOUR).step_by(5) {
                    wheel.advance(START.saturating_add(Millis(step)), &mut due);
                }
                assert_eq!(due.len() as u64, TIMERS);
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, wheel);
criterion_main!(benches);
