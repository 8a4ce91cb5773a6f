//! Snapshots on both kinds of disk: taken, read, received, installed; and what a crash at each step leaves.

mod power_cut;

use std::ops::Bound;
use std::sync::Arc;

use campanile_store::engine::{Batch, Disk, Engine, Family, MemDisk, Read};
use campanile_store::snapshot::{Generation, Manifest, Received, Snapshot, Snapshots};
use campanile_store::{StoreError, StoreResult};

const ROWS: Family = Family("rows");
const EMPTY: Family = Family("empty");
const FAMILIES: [Family; 2] = [ROWS, EMPTY];

fn open(disk: &Arc<dyn Disk>) -> (Snapshots, Arc<Generation>) {
    Snapshots::open(disk.clone(), &FAMILIES).expect("opens")
}

fn write(engine: &Arc<dyn Engine>, key: u32, value: &str) {
    let mut batch = Batch::default();
    batch.put(ROWS, key.to_be_bytes().to_vec(), value.into());
    engine.write(batch).expect("a write");
}

fn values(reader: &(impl Read + ?Sized)) -> Vec<String> {
    let rows = reader.scan(ROWS, Bound::Unbounded, Bound::Unbounded, false);
    rows.map(|row| String::from_utf8(row.expect("a row").1).expect("text")).collect()
}

fn take(snapshots: &Snapshots, engine: &Arc<dyn Engine>, index: u64) -> StoreResult<Arc<Snapshot>> {
    snapshots.finish(snapshots.begin(&**engine, index, format!("mark {index}").into_bytes())?)
}

/// Sends a snapshot in small pieces.
fn transfer(from: &Snapshot, to: &Snapshots) -> StoreResult<Received> {
    let mut receiving = to.receive(from.manifest().clone())?;
    for file in 0..from.manifest().files.len() {
        loop {
            let offset = receiving.arrived_bytes(file).expect("a file of the manifest");
            let piece = from.read(file, offset, 1000)?;
            if piece.is_empty() {
                break;
            }
            receiving.write(file, offset, &piece)?;
        }
    }
    receiving.finish()
}

/// A snapshot at index 100 of the values "a", "b", on a disk of its own.
fn sender(disk: &Arc<dyn Disk>) -> Arc<Snapshot> {
    let (snapshots, generation) = open(disk);
    write(generation.engine(), 1, "a");
    write(generation.engine(), 2, "b");
    take(&snapshots, generation.engine(), 100).expect("a snapshot")
}

fn in_memory(test: impl Fn(Arc<dyn Disk>, Arc<dyn Disk>)) {
    test(MemDisk::new().attach(), MemDisk::new().attach());
}

#[cfg(not(madsim))]
fn on_file_system(test: impl Fn(Arc<dyn Disk>, Arc<dyn Disk>)) {
    use campanile_store::engine::FsDisk;
    let directories = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let disk = |directory: &tempfile::TempDir| Arc::new(FsDisk::open(directory.path()).expect("a disk"));
    test(disk(&directories.0), disk(&directories.1));
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::in_memory(super::$name); })*
        }
        #[cfg(not(madsim))]
        mod rocks {
            $(#[test] fn $name() { super::on_file_system(super::$name); })*
        }
    };
}

on_both!(
    a_snapshot_is_of_one_life,
    only_the_latest_and_those_being_read_are_kept,
    a_later_snapshot_is_not_replaced_by_an_earlier_one,
    a_released_snapshot_goes_when_nobody_reads_it,
    a_state_travels,
    leftovers_are_removed_at_the_start,
    what_does_not_fit_the_manifest_is_refused,
    harm_on_the_way_is_noticed,
    hostile_manifests_are_refused,
    a_lost_state_is_not_taken_for_an_empty_one,
);

fn a_snapshot_is_of_one_life(disk: Arc<dyn Disk>, _: Arc<dyn Disk>) {
    let (snapshots, generation) = open(&disk);
    assert!(snapshots.latest().is_none());
    write(generation.engine(), 1, "a");
    let taken = take(&snapshots, generation.engine(), 7).unwrap();
    assert_eq!((taken.manifest().index, taken.manifest().mark.as_slice()), (7, &b"mark 7"[..]));
    assert!(taken.manifest().total_bytes() > 0);
    assert_eq!(snapshots.latest().unwrap().manifest(), taken.manifest());
    drop((taken, snapshots, generation));
    let (snapshots, generation) = open(&disk);
    assert!(snapshots.latest().is_none());
    assert_eq!(values(&**generation.engine()), ["a"]);
}

fn only_the_latest_and_those_being_read_are_kept(disk: Arc<dyn Disk>, _: Arc<dyn Disk>) {
    let (snapshots, generation) = open(&disk);
    let count = || disk.list_dirs("snapshots").unwrap().len();
    write(generation.engine(), 1, "a");
    let first = take(&snapshots, generation.engine(), 1).unwrap();
    for index in 2..5 {
        write(generation.engine(), 1, "later");
        take(&snapshots, generation.engine(), index).unwrap();
    }
    assert_eq!(count(), 2);
    let all_read = first.manifest().files.iter().enumerate().all(|(number, file)| {
        let bytes = first.read(number, 0, usize::MAX).unwrap();
        bytes.len() as u64 == file.bytes && crc32fast::hash(&bytes) == file.crc32
    });
    assert!(all_read, "the first one is whole as long as it is read");
    drop(first);
    assert_eq!(count(), 1);
    assert_eq!(snapshots.latest().unwrap().manifest().index, 4);
}

fn a_later_snapshot_is_not_replaced_by_an_earlier_one(disk: Arc<dyn Disk>, _: Arc<dyn Disk>) {
    let (snapshots, generation) = open(&disk);
    let slow = snapshots.begin(&**generation.engine(), 1, Vec::new()).unwrap();
    take(&snapshots, generation.engine(), 2).unwrap();
    drop(snapshots.finish(slow).unwrap());
    assert_eq!(snapshots.latest().unwrap().manifest().index, 2);
    assert_eq!(disk.list_dirs("snapshots").unwrap().len(), 1);
}

fn a_released_snapshot_goes_when_nobody_reads_it(disk: Arc<dyn Disk>, _: Arc<dyn Disk>) {
    let (snapshots, generation) = open(&disk);
    let count = || disk.list_dirs("snapshots").unwrap().len();
    let read = take(&snapshots, generation.engine(), 3).unwrap();
    snapshots.release_before(3);
    assert!(snapshots.latest().is_some(), "it is not of before");
    snapshots.release_before(4);
    assert!(snapshots.latest().is_none());
    assert_eq!(count(), 1);
    drop(read);
    assert_eq!(count(), 0);
}

fn a_state_travels(from: Arc<dyn Disk>, to: Arc<dyn Disk>) {
    let sent = sender(&from);
    let (snapshots, old) = open(&to);
    write(old.engine(), 9, "old");
    let view = old.engine().snapshot();

    let new = snapshots.install(transfer(&sent, &snapshots).unwrap()).unwrap();
    assert_eq!(values(&**new.engine()), ["a", "b"]);
    assert_eq!(values(&*view), ["old"], "who reads the old state goes on reading");
    assert_eq!(to.list_dirs("state").unwrap(), ["1", "2"]);
    drop(view);
    drop(old);
    assert_eq!(to.list_dirs("state").unwrap(), ["2"]);

    write(new.engine(), 3, "c");
    new.engine().flush().unwrap();
    drop((snapshots, new));
    let (snapshots, generation) = open(&to);
    assert_eq!(values(&**generation.engine()), ["a", "b", "c"]);

    // And back to where it came from.
    let returned = take(&snapshots, generation.engine(), 200).unwrap();
    let (origin, _generation) = open(&from);
    let installed = origin.install(transfer(&returned, &origin).unwrap()).unwrap();
    assert_eq!(values(&**installed.engine()), ["a", "b", "c"]);
    assert_eq!(values(&**generation.engine()), ["a", "b", "c"]);
}

fn leftovers_are_removed_at_the_start(disk: Arc<dyn Disk>, _: Arc<dyn Disk>) {
    let (snapshots, generation) = open(&disk);
    write(generation.engine(), 1, "a");
    generation.engine().flush().unwrap();
    drop((snapshots, generation));
    disk.append("snapshots/9/half", b"taken").unwrap();
    disk.append("snapshots/0000000008/files/half", b"as builds before 2026-11-23 kept them").unwrap();
    disk.append("state/7/half", b"received").unwrap();
    let (snapshots, generation) = open(&disk);
    assert!(disk.list_dirs("snapshots").unwrap().is_empty());
    assert_eq!(disk.list_dirs("state").unwrap(), ["1"]);
    assert!(snapshots.latest().is_none());
    assert_eq!(values(&**generation.engine()), ["a"]);
}

fn refused<T>(result: StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Refused(_)))
}

fn what_does_not_fit_the_manifest_is_refused(from: Arc<dyn Disk>, to: Arc<dyn Disk>) {
    let sent = sender(&from);
    let (snapshots, _generation) = open(&to);
    let count = sent.manifest().files.len();
    let large = (0..count).find(|file| sent.manifest().files[*file].bytes >= 8).expect("a file");
    let bytes = sent.read(large, 0, usize::MAX).unwrap();
    assert!(refused(sent.read(count, 0, 1)));
    assert_eq!(sent.read(large, bytes.len() as u64, 1).unwrap(), b"");

    let mut receiving = snapshots.receive(sent.manifest().clone()).unwrap();
    assert!(refused(receiving.write(count, 0, b"x")), "no such file");
    assert!(refused(receiving.write(large, 1, &bytes[1..])), "a gap");
    receiving.write(large, 0, &bytes[..4]).unwrap();
    assert!(refused(receiving.write(large, 0, &bytes[..4])), "the same again");
    assert!(refused(receiving.write(large, 4, &bytes)), "too much");
    receiving.write(large, 4, &bytes[4..]).unwrap();
    assert!(refused(receiving.write(large, bytes.len() as u64, b"x")), "one byte too much");
    drop(receiving);
    assert!(refused(snapshots.receive(sent.manifest().clone()).unwrap().finish()), "nothing has come");
    assert_eq!(to.list_dirs("state").unwrap(), ["1"], "what came is gone");
}

fn harm_on_the_way_is_noticed(from: Arc<dyn Disk>, to: Arc<dyn Disk>) {
    let sent = sender(&from);
    let (snapshots, _generation) = open(&to);
    let mut receiving = snapshots.receive(sent.manifest().clone()).unwrap();
    for (number, file) in sent.manifest().files.iter().enumerate() {
        let mut bytes = sent.read(number, 0, usize::MAX).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes);
        if number + 1 == sent.manifest().files.len() {
            let last = bytes.last_mut().expect("the last file is not empty");
            *last ^= 1;
        }
        receiving.write(number, 0, &bytes).unwrap();
    }
    assert!(refused(receiving.finish()));
}

fn hostile_manifests_are_refused(from: Arc<dyn Disk>, to: Arc<dyn Disk>) {
    let good = sender(&from).manifest().clone();
    let (snapshots, _generation) = open(&to);
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        snapshots.receive(manifest)
    };
    for name in ["", "..", "../x", "/etc/passwd", "sub/file", "a\0b", "a b"] {
        assert!(refused(with(&|manifest| manifest.files[0].name = name.into())), "{name:?}");
    }
    assert!(refused(with(&|manifest| manifest.files.push(manifest.files[0].clone()))));
    assert!(refused(with(&|manifest| manifest.files.iter_mut().for_each(|file| file.bytes = u64::MAX))));
    assert!(with(&|_| ()).is_ok());
}

fn a_lost_state_is_not_taken_for_an_empty_one(from: Arc<dyn Disk>, to: Arc<dyn Disk>) {
    let sent = sender(&from);
    let (snapshots, old) = open(&to);
    drop((snapshots.install(transfer(&sent, &snapshots).unwrap()).unwrap(), old, snapshots));
    to.remove_dir("state/2").unwrap();
    assert!(matches!(Snapshots::open(to.clone(), &FAMILIES), Err(StoreError::Corrupt(_))));
    to.write_file("state/CURRENT", b"two").unwrap();
    assert!(matches!(Snapshots::open(to, &FAMILIES), Err(StoreError::Corrupt(_))));
}
