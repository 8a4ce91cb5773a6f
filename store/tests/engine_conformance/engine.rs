//! Reads, writes, snapshots and checkpoints of an open database.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Bound::{self, Excluded, Included, Unbounded};

use futures::executor::block_on;

use campanile_store::engine::{Batch, Family, Purpose, Read};

use crate::{A, B, Bench, get, on_both, open, put, rows, text};

on_both!(
    a_row_is_read_back_and_deleted,
    many_rows_are_read_in_any_order,
    scans_keep_to_their_bounds,
    a_scan_sees_no_later_write,
    a_batch_is_applied_in_order_and_across_families,
    a_batch_with_an_unknown_family_changes_nothing,
    a_range_is_deleted_without_its_end,
    a_snapshot_stays_as_it_was,
    a_snapshot_outlives_its_engine,
    a_database_opens_once,
    a_checkpoint_is_an_independent_database,
    a_checkpoint_holds_unsynced_writes,
    a_checkpoint_replaces_nothing,
    synced_writes_survive_reopening,
    families_are_fixed,
    statistics_are_told_once_each_and_follow_what_is_written,
);

fn a_row_is_read_back_and_deleted(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    assert_eq!(get(&*engine, A, "k"), None);
    engine.write(put(A, "k", "one")).unwrap();
    assert_eq!(get(&*engine, A, "k").as_deref(), Some("one"));
    assert_eq!(get(&*engine, B, "k"), None, "families are apart");
    engine.write(put(A, "k", "")).unwrap();
    assert_eq!(get(&*engine, A, "k").as_deref(), Some(""), "an empty value is a value");
    let mut batch = Batch::default();
    batch.delete(A, "k".into());
    batch.delete(A, "never there".into());
    engine.write(batch).unwrap();
    assert_eq!(get(&*engine, A, "k"), None);
    let unknown = engine.get(Family("unknown"), b"k").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidInput);
    assert!(engine.get_many(Family("unknown"), &[b"k"]).is_err());
    assert!(engine.get_many(A, &[]).unwrap().is_empty());
    assert!(engine.scan(Family("unknown"), Unbounded, Unbounded, false).next().unwrap().is_err());
}

/// A row that is there and not found would be a fire that is dropped: so from many files and blocks, and from memory.
fn many_rows_are_read_in_any_order(bench: Bench) {
    const ROWS: usize = 3000;
    let engine = open(&bench.disk, "db", Purpose::State);
    let key = |number: usize| format!("{number:08}").into_bytes();
    for files in 0..4 {
        let mut batch = Batch::default();
        for number in (files..ROWS).step_by(4) {
            batch.put(A, key(number), number.to_string().into_bytes());
        }
        engine.write(batch).unwrap();
        if files < 3 {
            engine.flush().unwrap();
        }
    }
    let rising: Vec<usize> = (0..ROWS + 100).collect();
    let falling = rising.iter().rev().copied().collect();
    let scattered = rising.iter().map(|number| number * 1009 % rising.len()).collect();
    for order in [rising.clone(), falling, scattered] {
        let keys: Vec<Vec<u8>> = order.iter().map(|number| key(*number)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let wanted: Vec<Option<Vec<u8>>> =
            order.iter().map(|number| (*number < ROWS).then(|| number.to_string().into_bytes())).collect();
        assert!(engine.get_many(A, &keys).unwrap() == wanted);
        assert!(engine.snapshot().get_many(A, &keys).unwrap() == wanted);
    }
}

fn scans_keep_to_their_bounds(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    for key in ["a", "b", "b\0", "c", "d"] {
        engine.write(put(A, key, "v")).unwrap();
    }
    engine.write(put(B, "bb", "other family")).unwrap();
    let keys = |lower: Bound<&str>, upper: Bound<&str>| -> Vec<String> {
        let (lower, upper) = (lower.map(str::as_bytes), upper.map(str::as_bytes));
        let scan = |reader: &dyn Read, reverse| -> Vec<String> {
            let rows = reader.scan(A, lower, upper, reverse);
            rows.map(|row| String::from_utf8(row.unwrap().0).unwrap()).collect()
        };
        let forward = scan(&*engine, false);
        let mut backward = scan(&*engine, true);
        backward.reverse();
        assert_eq!(forward, backward);
        assert_eq!(forward, scan(&*engine.snapshot(), false));
        forward
    };
    assert_eq!(keys(Unbounded, Unbounded), ["a", "b", "b\0", "c", "d"]);
    assert_eq!(keys(Included("b"), Included("c")), ["b", "b\0", "c"]);
    assert_eq!(keys(Excluded("b"), Included("c")), ["b\0", "c"]);
    assert_eq!(keys(Included("b"), Excluded("c")), ["b", "b\0"]);
    assert_eq!(keys(Excluded("b"), Excluded("c")), ["b\0"]);
    assert_eq!(keys(Included("bb"), Unbounded), ["c", "d"]);
    assert_eq!(keys(Unbounded, Excluded("a")), [""; 0]);
    assert_eq!(keys(Included("b"), Included("b")), ["b"]);
    assert_eq!(keys(Included("b"), Excluded("b")), [""; 0]);
    assert_eq!(keys(Excluded("b"), Included("b")), [""; 0]);
    assert_eq!(keys(Excluded("b"), Excluded("b")), [""; 0]);
    assert_eq!(keys(Included("c"), Included("a")), [""; 0], "inverted bounds hold nothing");
    assert_eq!(keys(Excluded("d"), Unbounded), [""; 0]);
}

fn a_scan_sees_no_later_write(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    for key in ["a", "b", "c"] {
        engine.write(put(A, key, "old")).unwrap();
    }
    let mut scan = engine.scan(A, Unbounded, Unbounded, false);
    assert_eq!(text(scan.next().unwrap().unwrap()), "a=old");
    engine.write(put(A, "b", "new")).unwrap();
    engine.write(put(A, "bb", "new")).unwrap();
    assert_eq!(scan.map(|row| text(row.unwrap())).collect::<Vec<_>>(), ["b=old", "c=old"]);
}

fn a_batch_is_applied_in_order_and_across_families(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    let mut batch = Batch::default();
    batch.put(A, "k".into(), "one".into());
    batch.delete(A, "k".into());
    batch.put(A, "k".into(), "two".into());
    batch.put(B, "k".into(), "three".into());
    batch.put(B, "l".into(), "gone".into());
    batch.delete_range(B, "l".into(), "m".into());
    engine.write(batch).unwrap();
    assert_eq!(rows(&*engine, A), ["k=two"]);
    assert_eq!(rows(&*engine, B), ["k=three"]);
}

fn a_batch_with_an_unknown_family_changes_nothing(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    let mut batch = put(A, "k", "v");
    batch.put(Family("unknown"), "k".into(), "v".into());
    assert_eq!(engine.write(batch).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(rows(&*engine, A), [""; 0]);
}

fn a_range_is_deleted_without_its_end(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::Log);
    for key in ["a", "b", "c", "d"] {
        engine.write(put(A, key, "v")).unwrap();
    }
    let delete = |start: &str, end: &str| {
        let mut batch = Batch::default();
        batch.delete_range(A, start.into(), end.into());
        engine.write(batch).unwrap();
    };
    delete("b", "d");
    assert_eq!(rows(&*engine, A), ["a=v", "d=v"]);
    delete("a", "a");
    delete("d", "a");
    assert_eq!(rows(&*engine, A), ["a=v", "d=v"], "empty and inverted ranges delete nothing");
    engine.flush().unwrap();
    delete("", "d");
    engine.write(put(A, "c", "again")).unwrap();
    assert_eq!(rows(&*engine, A), ["c=again", "d=v"]);
}

fn a_snapshot_stays_as_it_was(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    engine.write(put(A, "k", "old")).unwrap();
    let snapshot = engine.snapshot();
    engine.write(put(A, "k", "new")).unwrap();
    engine.write(put(B, "k", "new")).unwrap();
    engine.flush().unwrap();
    let mut batch = Batch::default();
    batch.delete_range(A, "a".into(), "z".into());
    engine.write(batch).unwrap();
    assert_eq!(get(&*snapshot, A, "k").as_deref(), Some("old"));
    assert_eq!(rows(&*snapshot, A), ["k=old"]);
    assert_eq!(rows(&*snapshot, B), [""; 0]);
    assert_eq!(rows(&*engine, A), [""; 0]);
}

fn a_snapshot_outlives_its_engine(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    engine.write(put(A, "k", "v")).unwrap();
    let snapshot = engine.snapshot();
    drop(engine);
    assert_eq!(rows(&*snapshot, A), ["k=v"]);
    assert!(bench.disk.open("db", Purpose::State, &crate::FAMILIES).is_err(), "the snapshot keeps it open");
    drop(snapshot);
    open(&bench.disk, "db", Purpose::State);
}

fn a_database_opens_once(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    assert!(bench.disk.open("db", Purpose::State, &crate::FAMILIES).is_err());
    drop(engine);
    open(&bench.disk, "db", Purpose::State);
}

fn a_checkpoint_is_an_independent_database(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    engine.write(put(A, "k", "then")).unwrap();
    engine.flush().unwrap();
    engine.checkpoint("copies/1").unwrap();
    engine.write(put(A, "k", "now")).unwrap();

    let copy = open(&bench.disk, "copies/1", Purpose::State);
    assert_eq!(rows(&*copy, A), ["k=then"]);
    copy.write(put(A, "k", "otherwise")).unwrap();
    copy.flush().unwrap();
    assert_eq!(rows(&*engine, A), ["k=now"]);
    drop(engine);
    bench.disk.remove_dir("db").unwrap();
    assert_eq!(rows(&*copy, A), ["k=otherwise"]);
    assert_eq!(bench.disk.list_dirs("copies").unwrap(), ["1"]);
}

fn a_checkpoint_holds_unsynced_writes(bench: Bench) {
    for (name, purpose) in [("log", Purpose::Log), ("state", Purpose::State)] {
        let engine = open(&bench.disk, name, purpose);
        engine.write(put(A, "k", "v")).unwrap();
        engine.write(put(B, "k", "w")).unwrap();
        let copy = format!("{name}-copy");
        engine.checkpoint(&copy).unwrap();
        let copy = open(&bench.disk, &copy, purpose);
        assert_eq!((rows(&*copy, A), rows(&*copy, B)), (vec!["k=v".to_owned()], vec!["k=w".to_owned()]));
    }
}

fn a_checkpoint_replaces_nothing(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    engine.write(put(A, "k", "v")).unwrap();
    engine.checkpoint("copy").unwrap();
    assert!(engine.checkpoint("copy").is_err());
    assert!(engine.checkpoint("../copy").is_err());
}

fn synced_writes_survive_reopening(bench: Bench) {
    for (name, purpose) in [("log", Purpose::Log), ("state", Purpose::State)] {
        let engine = open(&bench.disk, name, purpose);
        block_on(engine.write_synced(put(A, "k", "v"))).unwrap();
        drop(engine);
        let engine = open(&bench.disk, name, purpose);
        assert_eq!(rows(&*engine, A), ["k=v"]);
    }
}

fn families_are_fixed(bench: Bench) {
    drop(open(&bench.disk, "db", Purpose::State));
    assert!(bench.disk.open("db", Purpose::State, &[A]).is_err(), "a family is left out");
    let more = bench.disk.open("db", Purpose::State, &[A, B, Family("c")]).unwrap();
    more.write(put(Family("c"), "k", "v")).unwrap();
    assert_eq!(rows(&*more, Family("c")), ["k=v"]);
}

fn statistics_are_told_once_each_and_follow_what_is_written(bench: Bench) {
    let engine = open(&bench.disk, "db", Purpose::State);
    let empty = engine.statistics();
    engine.write(put(A, "k", &"v".repeat(1 << 20))).unwrap();
    let full = engine.statistics();
    assert_ne!(empty, full);
    let names: BTreeSet<_> = full.iter().map(|statistic| statistic.name).collect();
    assert_eq!(names.len(), full.len(), "{full:?}");
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')), "{names:?}");
}
