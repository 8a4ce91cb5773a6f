//! Random operations on a database and on a plain map must read the same.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use campanile_store::engine::{Batch, Engine, Op, Purpose, Read};
use proptest::prelude::*;

use crate::{A, B, Bench, open};

type Model = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Op>),
    Flush,
    Snapshot,
    Reopen,
    Scan { lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>, reverse: bool },
}

/// Few and short keys, so that they meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff)], 0..3)
}

fn op() -> impl Strategy<Value = Op> {
    let family = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        4 => (family(), key(), prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(family, key, value)| Op::Put { family, key, value }),
        2 => (family(), key()).prop_map(|(family, key)| Op::Delete { family, key }),
        1 => (family(), key(), key()).prop_map(|(family, start, end)| Op::DeleteRange { family, start, end }),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(op(), 0..6).prop_map(Step::Write),
        1 => Just(Step::Flush),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Reopen),
        4 => (bound(), bound(), any::<bool>()).prop_map(|(lower, upper, reverse)| Step::Scan { lower, upper, reverse }),
    ];
    prop::collection::vec(step, 1..24)
}

fn apply(model: &mut Model, ops: &[Op]) {
    for op in ops.iter().cloned() {
        match op {
            Op::Put { family, key, value } => drop(model.insert((family.0, key), value)),
            Op::Delete { family, key } => drop(model.remove(&(family.0, key))),
            Op::DeleteRange { family, start, end } => {
                model.retain(|(name, key), _| *name != family.0 || *key < start || *key >= end);
            }
        }
    }
}

fn scan_model(model: &Model, lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let above = |key: &Vec<u8>| match lower {
        Bound::Unbounded => true,
        Bound::Included(bound) => key >= bound,
        Bound::Excluded(bound) => key > bound,
    };
    let below = |key: &Vec<u8>| match upper {
        Bound::Unbounded => true,
        Bound::Included(bound) => key <= bound,
        Bound::Excluded(bound) => key < bound,
    };
    let rows = model.iter().filter(|((family, key), _)| *family == A.0 && above(key) && below(key));
    let mut rows: Vec<_> = rows.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    if reverse {
        rows.reverse();
    }
    rows
}

fn assert_same(reader: &dyn Read, model: &Model) {
    for family in [A, B] {
        let rows = reader.scan(family, Bound::Unbounded, Bound::Unbounded, false).map(|row| row.unwrap());
        let wanted = model.iter().filter(|((name, _), _)| *name == family.0);
        assert!(rows.eq(wanted.map(|((_, key), value)| (key.clone(), value.clone()))), "family {}", family.0);
    }
    for ((family, key), value) in model {
        let family = if *family == A.0 { A } else { B };
        assert_eq!(reader.get(family, key).unwrap().as_ref(), Some(value));
    }
    // Many at once, in an order of their own, with some that are not there and one twice.
    let mut keys: Vec<&[u8]> = model.keys().rev().map(|(_, key)| key.as_slice()).collect();
    keys.extend(keys.first().copied());
    keys.push(b"never there");
    for family in [A, B] {
        let one_by_one: Vec<_> = keys.iter().map(|key| reader.get(family, key).unwrap()).collect();
        assert_eq!(reader.get_many(family, &keys).unwrap(), one_by_one);
    }
}

fn check(bench: &Bench, purpose: Purpose, steps: &[Step]) {
    let mut engine: Arc<dyn Engine> = open(&bench.disk, "db", purpose);
    let mut model = Model::new();
    let mut snapshots: Vec<(Arc<dyn Read>, Model)> = Vec::new();
    for step in steps {
        match step {
            Step::Write(ops) => {
                engine.write(Batch { ops: ops.clone() }).unwrap();
                apply(&mut model, ops);
            }
            Step::Flush => engine.flush().unwrap(),
            Step::Snapshot => snapshots.push((engine.snapshot(), model.clone())),
            Step::Reopen => {
                for (snapshot, model) in snapshots.drain(..) {
                    assert_same(&*snapshot, &model);
                }
                engine.flush().unwrap();
                drop(engine);
                engine = open(&bench.disk, "db", purpose);
            }
            Step::Scan { lower, upper, reverse } => {
                let (low, high) = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
                let found: Vec<_> = engine.scan(A, low, high, *reverse).map(|row| row.unwrap()).collect();
                assert_eq!(found, scan_model(&model, lower, upper, *reverse));
            }
        }
    }
    assert_same(&*engine, &model);
    for (snapshot, model) in snapshots {
        assert_same(&*snapshot, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn the_memory_engine_is_a_map(steps in steps(), log in any::<bool>()) {
        check(&crate::in_memory(), if log { Purpose::Log } else { Purpose::State }, &steps);
    }
}

#[cfg(not(madsim))]
proptest! {
    // Opening RocksDB takes tens of milliseconds.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_rocks_engine_is_a_map(steps in steps(), log in any::<bool>()) {
        check(&crate::on_file_system(), if log { Purpose::Log } else { Purpose::State }, &steps);
    }
}
