//! What a crash leaves: everything synced, and never a part of a batch.
//!
//! The simulated disk loses its power. For RocksDB a child process works and dies, which loses its memtables; what a
//! power cut does to the file system below it cannot be tested here.

use std::sync::Arc;

use campanile_store::engine::{Batch, Disk, Engine, MemDisk, Purpose};
use futures::executor::block_on;

use crate::{A, B, get, open, put, rows};

/// Writes the same number to both families.
fn pair(number: usize) -> Batch {
    let mut batch = Batch::default();
    batch.put(A, format!("{number:04}").into(), "v".into());
    batch.put(B, format!("{number:04}").into(), "v".into());
    batch
}

/// What happens before the crash; the databases stay open for it.
fn write_synced_and_not(disk: &Arc<dyn Disk>) -> [Arc<dyn Engine>; 2] {
    let log = open(disk, "log", Purpose::Log);
    let state = open(disk, "state", Purpose::State);
    log.write(put(A, "1", "before a sync")).unwrap();
    block_on(log.write_synced(put(A, "2", "synced"))).unwrap();
    state.write(pair(1)).unwrap();
    state.flush().unwrap();
    state.write(pair(2)).unwrap();
    [log, state]
}

fn assert_only_the_unsynced_is_lost(disk: &Arc<dyn Disk>) {
    let log = open(disk, "log", Purpose::Log);
    assert_eq!(rows(&*log, A), ["1=before a sync", "2=synced"]);
    let state = open(disk, "state", Purpose::State);
    assert_eq!(rows(&*state, A), ["0001=v"], "flushed is kept, the rest lost");
    assert_eq!(rows(&*state, B), ["0001=v"]);
    state.write(pair(3)).unwrap();
    assert_eq!(rows(&*state, A), ["0001=v", "0003=v"]);
}

#[test]
fn memory_loses_only_the_unsynced() {
    let hardware = MemDisk::new();
    let _open = write_synced_and_not(&hardware.attach());
    hardware.power_off();
    assert_only_the_unsynced_is_lost(&hardware.attach());
}

#[test]
fn a_power_failure_keeps_whole_batches_from_the_oldest_on() {
    for spared in 0..=5 {
        let hardware = MemDisk::new();
        let state = open(&hardware.attach(), "state", Purpose::State);
        for number in 0..5 {
            state.write(pair(number)).unwrap();
        }
        hardware.power_off_sparing(|name, unsynced| {
            assert_eq!((name, unsynced), ("state", 5));
            spared
        });
        let state = open(&hardware.attach(), "state", Purpose::State);
        let wanted: Vec<String> = (0..spared).map(|number| format!("{number:04}=v")).collect();
        assert_eq!(rows(&*state, A), wanted);
        assert_eq!(rows(&*state, B), wanted);
        hardware.power_off();
        let state = open(&hardware.attach(), "state", Purpose::State);
        assert_eq!(rows(&*state, A), wanted, "what a failure spared is on the disk");
    }
}

#[test]
fn the_dead_cannot_write() {
    let hardware = MemDisk::new();
    let disk = hardware.attach();
    let engine = open(&disk, "db", Purpose::Log);
    engine.write(put(A, "k", "v")).unwrap();
    let snapshot = engine.snapshot();
    hardware.power_off();
    let next = open(&hardware.attach(), "db", Purpose::Log);
    assert!(engine.write(put(A, "k", "late")).is_err());
    assert!(block_on(engine.write_synced(put(A, "k", "late"))).is_err());
    assert!(engine.flush().is_err() && engine.checkpoint("copy").is_err() && engine.get(A, b"k").is_err());
    assert!(engine.scan(A, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, false).next().unwrap().is_err());
    assert!(disk.write_file("f", b"late").is_err() && disk.append("f", b"late").is_err());
    assert!(disk.read_file("f").is_err() && disk.remove_dir("db").is_err());
    assert_eq!(rows(&*snapshot, A), ["k=v"]);
    drop((engine, snapshot, disk));
    assert_eq!(rows(&*next, A), [""; 0]);
    assert!(hardware.attach().open("db", Purpose::Log, &crate::FAMILIES).is_err(), "the next life holds the lock");
}

#[test]
fn files_are_cut_to_what_was_synced() {
    let hardware = MemDisk::new();
    let disk = hardware.attach();
    disk.append("in/a", b"synced").unwrap();
    disk.sync_dir("in").unwrap();
    disk.append("in/a", b", and not").unwrap();
    disk.append("in/b", b"never synced").unwrap();
    disk.write_file("pointer", b"durable").unwrap();
    hardware.power_off();
    let disk = hardware.attach();
    assert_eq!(disk.read_file("in/a").unwrap().as_deref(), Some(&b"synced"[..]));
    assert_eq!(disk.read_file("in/b").unwrap(), None);
    assert_eq!(disk.read_file("pointer").unwrap().as_deref(), Some(&b"durable"[..]));
}

#[test]
fn a_write_is_durable_only_when_its_sync_has_taken_its_time() {
    use futures::FutureExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    let hardware = MemDisk::new();
    let released = Arc::new(AtomicBool::new(false));
    let gate = released.clone();
    hardware.set_sync_delay(move || {
        let gate = gate.clone();
        Box::pin(futures::future::poll_fn(move |_| {
            if gate.load(Ordering::SeqCst) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        }))
    });
    let engine = open(&hardware.attach(), "db", Purpose::Log);
    let mut first = engine.write_synced(put(A, "1", "v"));
    assert!((&mut first).now_or_never().is_none());
    assert_eq!(get(&*engine, A, "1").as_deref(), Some("v"), "visible at once");
    let mut second = engine.write_synced(put(A, "2", "v"));
    assert!((&mut second).now_or_never().is_none());
    released.store(true, Ordering::SeqCst);
    first.now_or_never().expect("ready").unwrap();
    hardware.power_off();
    assert!(second.now_or_never().expect("ready").is_err());
    assert_eq!(rows(&*open(&hardware.attach(), "db", Purpose::Log), A), ["1=v"]);
}

#[test]
fn a_failed_sync_stops_the_database() {
    let hardware = MemDisk::new();
    let engine = open(&hardware.attach(), "db", Purpose::Log);
    block_on(engine.write_synced(put(A, "1", "v"))).unwrap();
    hardware.fail_next_sync();
    assert!(block_on(engine.write_synced(put(A, "2", "v"))).is_err());
    assert!(block_on(engine.write_synced(put(A, "3", "v"))).is_err(), "nothing is written on top of the unknown");
    hardware.power_off();
    assert_eq!(rows(&*open(&hardware.attach(), "db", Purpose::Log), A), ["1=v"]);
}

#[test]
fn a_full_disk_takes_no_writes() {
    let hardware = MemDisk::new();
    let disk = hardware.attach();
    let engine: Arc<dyn Engine> = open(&disk, "db", Purpose::Log);
    hardware.set_full(true);
    assert_eq!(engine.write(put(A, "k", "v")).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert!(disk.append("f", b"x").is_err() && disk.write_file("f", b"x").is_err());
    assert!(engine.checkpoint("copy").is_err());
    assert_eq!(disk.space().unwrap().free_bytes, 0);
    hardware.set_full(false);
    engine.write(put(A, "k", "v")).unwrap();
    assert_eq!(rows(&*engine, A), ["k=v"]);
}

#[cfg(not(madsim))]
mod rocks {
    use std::fs;
    use std::path::{Path, PathBuf};

    use campanile_store::engine::FsDisk;

    use super::*;

    /// Set in a child process: the directory it is to work in until it dies.
    const CHILD_DIRECTORY: &str = "CAMPANILE_TEST_CRASH_DIRECTORY";

    /// Runs the named test of this program in a process of its own, which must die by a signal, and opens what it left.
    fn crash_in_child(test: &str, directory: &Path) -> Arc<dyn Disk> {
        use std::os::unix::process::ExitStatusExt;
        let program = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(program);
        child.args(["--exact", test]).env(CHILD_DIRECTORY, directory);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.signal().is_some(), "the child ended otherwise: {}\n{said}", output.status);
        Arc::new(FsDisk::open(directory).unwrap())
    }

    /// The disk to work on, if this process is the child.
    fn disk_of_child() -> Option<Arc<dyn Disk>> {
        let directory = std::env::var_os(CHILD_DIRECTORY)?;
        Some(Arc::new(FsDisk::open(directory).unwrap()))
    }

    #[test]
    fn rocks_loses_only_the_unsynced() {
        if let Some(disk) = disk_of_child() {
            let _open = write_synced_and_not(&disk);
            std::process::abort();
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = crash_in_child("crash::rocks::rocks_loses_only_the_unsynced", directory.path());
        assert_only_the_unsynced_is_lost(&disk);
    }

    /// The first file with this ending.
    fn file(directory: &Path, ending: &str) -> PathBuf {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.into_iter().find(|path| path.extension().is_some_and(|found| found == ending)).unwrap()
    }

    /// Flips one byte in the first half of a file.
    fn damage(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 4;
        bytes[middle] ^= 0x40;
        fs::write(path, bytes).unwrap();
    }

    /// A log whose rows are in its write-ahead log only, which is the file that comes back.
    fn write_log(directory: &Path) -> PathBuf {
        let disk = FsDisk::open(directory).unwrap();
        let engine = disk.open("log", Purpose::Log, &crate::FAMILIES).unwrap();
        // Several of the blocks of 32 KiB that the file is made of: RocksDB is lenient in the last one.
        for number in 0..RECORDS {
            block_on(engine.write_synced(put(A, &format!("{number:04}"), &"v".repeat(1000)))).unwrap();
        }
        drop(engine);
        let path = file(&directory.join("log"), "log");
        assert!(fs::metadata(&path).unwrap().len() > 1000 * RECORDS as u64);
        path
    }

    const RECORDS: usize = 200;

    /// What follows the damage was acknowledged as durable: a log without it must not be served.
    #[test]
    fn a_log_damaged_before_its_end_does_not_open() {
        let directory = tempfile::tempdir().unwrap();
        damage(&write_log(directory.path()));
        let disk = FsDisk::open(directory.path()).unwrap();
        let Err(error) = disk.open("log", Purpose::Log, &crate::FAMILIES) else { panic!("the damage is not noticed") };
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("database log"), "{error}");
    }

    /// A record that was being written when the power went was acknowledged to nobody.
    #[test]
    fn a_log_with_a_torn_end_opens_without_its_last_record() {
        for cut in [1, 500, 1000] {
            let directory = tempfile::tempdir().unwrap();
            let path = write_log(directory.path());
            let wal = fs::OpenOptions::new().write(true).open(&path).unwrap();
            wal.set_len(wal.metadata().unwrap().len() - cut).unwrap();
            let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(directory.path()).unwrap());
            let log = open(&disk, "log", Purpose::Log);
            assert_eq!(rows(&*log, A).len(), RECORDS - 1, "{cut} bytes cut off");
            block_on(log.write_synced(put(A, "next", "v"))).unwrap();
            assert_eq!(rows(&*log, A).len(), RECORDS);
        }
    }

    #[test]
    fn a_damaged_block_is_an_error_that_names_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let engine = disk.open("state", Purpose::State, &crate::FAMILIES).unwrap();
        for number in 0..1000 {
            engine.write(put(A, &format!("{number:04}"), &format!("{:x}", number * 7919 % 65_521))).unwrap();
        }
        engine.flush().unwrap();
        drop(engine);
        drop(disk);
        damage(&file(&directory.path().join("state"), "sst"));
        let disk = FsDisk::open(directory.path()).unwrap();
        let engine = disk.open("state", Purpose::State, &crate::FAMILIES).unwrap();
        let scan = engine.scan(A, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, false);
        let error = scan.filter_map(Result::err).next().expect("the damage is noticed");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("database state"), "{error}");
    }

    #[test]
    fn families_are_flushed_together_when_memory_runs_out() {
        if let Some(disk) = disk_of_child() {
            // Open until the end: closing it would flush everything.
            let state = open(&disk, "state", Purpose::State);
            write_more_than_memtables_hold(&*state);
            std::process::abort();
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = crash_in_child("crash::rocks::families_are_flushed_together_when_memory_runs_out", directory.path());
        let state = open(&disk, "state", Purpose::State);
        let numbers = state.scan(A, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, true);
        let last_in_a = numbers.map(|row| row.unwrap().0).next().expect("something was flushed");
        assert_ne!(last_in_a, (WRITES - 1).to_be_bytes(), "what memory held last is lost");
        assert_eq!(state.get(B, b"last").unwrap(), Some(last_in_a));
    }

    const WRITES: u32 = 250;

    /// Nearly all of it in one family.
    fn write_more_than_memtables_hold(state: &dyn Engine) {
        let large = vec![7u8; 1 << 20];
        for number in 0..WRITES {
            let mut batch = Batch::default();
            batch.put(A, number.to_be_bytes().to_vec(), large.clone());
            batch.put(B, b"last".to_vec(), number.to_be_bytes().to_vec());
            state.write(batch).unwrap();
        }
    }
}
