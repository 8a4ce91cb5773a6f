//! The wheel against a sorted map, over random sequences of operations.

use std::collections::BTreeMap;

use campanile_model::Timestamp;
use campanile_timer::wheel::{Key, Wheel};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Insert `count` timers at this distance from the wheel's time.
    Insert {
        distance: i64,
        count: usize,
    },
    /// Cancel the n-th key ever given out, modulo their number.
    Cancel(usize),
    /// Advance by this much; negative is a clock that jumps back.
    Advance(i64),
    /// Advance to the n-th pending deadline, give or take a millisecond.
    AdvanceTo {
        pending: usize,
        off_by: i64,
    },
    Clear(i64),
}

/// Distances of every order of magnitude, and those around the levels' widths.
fn distance() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => (0u32..44).prop_flat_map(|bits| 0..=1i64 << bits),
        2 => (0u32..7, -2i64..=2, 0i64..3).prop_map(|(level, near, times)| times * (1 << (6 * level)) + near),
        1 => 0i64..200,
        1 => -5000i64..0,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (distance(), prop_oneof![4 => Just(1usize), 1 => 2usize..300]).prop_map(|(distance, count)| Op::Insert { distance, count }),
        3 => any::<usize>().prop_map(Op::Cancel),
        6 => distance().prop_map(Op::Advance),
        4 => (any::<usize>(), -1i64..=1).prop_map(|(pending, off_by)| Op::AdvanceTo { pending, off_by }),
        1 => distance().prop_map(Op::Clear),
    ]
}

/// What the wheel must be: deadlines, then order of insertion.
#[derive(Default)]
struct Model {
    pending: BTreeMap<(Timestamp, u64), Key>,
    inserted: u64,
    keys: Vec<(Key, (Timestamp, u64))>,
}

fn moved(from: Timestamp, by: i64) -> Timestamp {
    Timestamp::from_millis(from.as_millis().saturating_add(by))
}

fn check(start: Timestamp, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut wheel = Wheel::new(start);
    let mut model = Model::default();
    // Whether a timer was inserted with its deadline past since the wheel last moved.
    let mut overdue = false;
    for op in ops {
        match op {
            Op::Insert { distance, count } => {
                let at = moved(wheel.now(), distance);
                overdue |= distance < 0;
                for _ in 0..count {
                    let id = (at, model.inserted);
                    model.inserted += 1;
                    let key = wheel.insert(at, id);
                    model.pending.insert(id, key);
                    model.keys.push((key, id));
                }
            }
            Op::Cancel(n) if !model.keys.is_empty() => {
                let (key, id) = model.keys[n % model.keys.len()];
                let expected = model.pending.remove(&id).map(|_| id);
                prop_assert_eq!(wheel.cancel(key), expected);
            }
            Op::Cancel(_) => {}
            Op::Advance(by) => {
                advance(&mut wheel, &mut model, by)?;
                overdue &= by < 0;
            }
            Op::AdvanceTo { pending, off_by } => {
                let nth = model.pending.keys().nth(pending % model.pending.len().max(1));
                if let Some((at, _)) = nth {
                    let by = at.millis_from(wheel.now()).saturating_add(off_by);
                    advance(&mut wheel, &mut model, by)?;
                    overdue &= by < 0;
                }
            }
            Op::Clear(by) => {
                let now = moved(wheel.now(), by);
                wheel.clear(now);
                model.pending.clear();
                overdue = false;
                prop_assert_eq!(wheel.now(), now);
            }
        }
        prop_assert_eq!(wheel.len(), model.pending.len());
        prop_assert_eq!(wheel.is_empty(), model.pending.is_empty());
        let next = model.pending.keys().next().map(|(at, _)| *at);
        match (wheel.next_deadline(), next) {
            (None, None) => {}
            (Some(bound), Some(next)) => {
                prop_assert!(bound <= next, "bound {:?} is after the next deadline {:?}", bound, next);
                // Exact in the window of level 0, and otherwise never a reason to wake up for nothing; but a bound in the
                // past may be that of a timer since cancelled, until the wheel moves.
                if bound < wheel.now() {
                    prop_assert!(overdue);
                } else if next.millis_from(wheel.now()) < 64 - wheel.now().as_millis().rem_euclid(64) {
                    prop_assert_eq!(bound, next);
                } else {
                    prop_assert!(bound > wheel.now());
                }
            }
            (bound, next) => prop_assert!(false, "bound {bound:?}, next {next:?}"),
        }
    }
    Ok(())
}

fn advance(wheel: &mut Wheel<(Timestamp, u64)>, model: &mut Model, by: i64) -> Result<(), TestCaseError> {
    let before = wheel.now();
    let now = moved(before, by);
    let mut out = Vec::new();
    wheel.advance(now, &mut out);
    let mut expected = Vec::new();
    if now >= before {
        let later = model.pending.split_off(&(moved(now, 1), 0));
        expected.extend(std::mem::replace(&mut model.pending, later).into_keys().map(|id| (id.0, id)));
    }
    prop_assert_eq!(out, expected);
    prop_assert_eq!(wheel.now(), now.max(before));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_wheel_is_a_sorted_map(
        start in prop_oneof![Just(0i64), -5_000_000_000i64..5_000_000_000, Just(1_795_000_000_000i64)],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        check(Timestamp::from_millis(start), ops)?;
    }
}

#[test]
fn the_ends_of_time_are_instants_like_any_other() {
    let mut wheel = Wheel::new(Timestamp::MIN);
    let end = Timestamp::from_millis(i64::MAX);
    wheel.insert(end, "end");
    wheel.insert(Timestamp::MIN, "beginning");
    wheel.insert(Timestamp::from_millis(0), "epoch");
    let mut out = Vec::new();
    wheel.advance(Timestamp::from_millis(-1), &mut out);
    assert_eq!(out, [(Timestamp::MIN, "beginning")]);
    out.clear();
    wheel.advance(end, &mut out);
    assert_eq!(out, [(Timestamp::from_millis(0), "epoch"), (end, "end")]);
    wheel.advance(end, &mut out);
    assert_eq!((out.len(), wheel.is_empty()), (2, true));
}

#[test]
fn a_slot_moved_down_in_part_keeps_the_order_of_equal_deadlines() {
    // 5000 timers of one deadline, two levels up: some go down ahead of time, the rest when their slot begins.
    let start = Timestamp::from_millis(0);
    let deadline = Timestamp::from_millis(2 << 12);
    let mut wheel = Wheel::new(start);
    for n in 0..5000 {
        wheel.insert(deadline, n);
    }
    let mut out = Vec::new();
    wheel.advance(Timestamp::from_millis((2 << 12) - 10), &mut out);
    for n in 5000..10_000 {
        wheel.insert(deadline, n);
    }
    wheel.advance(Timestamp::from_millis((2 << 12) - 5), &mut out);
    assert!(out.is_empty());
    wheel.advance(deadline, &mut out);
    assert_eq!(out, (0..10_000).map(|n| (deadline, n)).collect::<Vec<_>>());
}
