//! openraft's own storage suite, and what it does not test, on both kinds of disk.

use std::sync::Arc;
use std::time::Duration;

use campanile_store::Store;
use campanile_store::engine::mem::MemDisk;
use campanile_store::engine::{Batch, Disk, Family, Purpose};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};
use openraft_rt::{AsyncRuntime, Oneshot};

use crate::effects::Publisher;
use crate::fatal::Fatal;
use crate::log_store::LogStore;
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::state_machine::StateMachine;
use crate::types::{Entry, TypeConfig, Vote, log_id};

/// Opens both stores on a disk, as a replica does.
fn open(disk: Arc<dyn Disk>, fatal: &Fatal) -> (LogStore, StateMachine) {
    let metrics = Arc::new(Metrics::default());
    // A small cache, so that the suite reads from the disk too.
    let log = LogStore::open(disk.as_ref(), 256, metrics.clone(), fatal.clone()).expect("open the log");
    let store = Store::open(disk).expect("open the state");
    let publisher = Publisher::new(metrics.clone());
    let machine = StateMachine::start(store, publisher, metrics, fatal.clone()).expect("start the state machine");
    (log, machine)
}

struct OnMemory;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for OnMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let (log, machine) = open(MemDisk::new().attach(), &Fatal::default());
        Ok(((), log, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_on_a_disk_in_memory() {
    Suite::test_all(OnMemory).await.unwrap();
}

fn blanks(from: u64, to: u64) -> Vec<Entry> {
    (from..to).map(|index| Entry { log_id: log_id(1, index), payload: EntryPayload::Blank }).collect()
}

/// Appends and waits until it is durable.
async fn append(log: &mut LogStore, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, flushed) = <Runtime as AsyncRuntime>::Oneshot::channel();
    log.append(entries, IOFlushed::signal(done)).await?;
    flushed.await.expect("the writer answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_noticed_and_fatal() {
    let (hardware, fatal) = (MemDisk::new(), Fatal::default());
    let mut log = LogStore::open(hardware.attach().as_ref(), 0, Arc::default(), fatal.clone()).unwrap();
    append(&mut log, blanks(0, 10)).await.unwrap();
    hardware.power_off();

    let disk = hardware.attach();
    let engine = disk.open("log", Purpose::Log, &[Family("entries"), Family("meta")]).unwrap();
    let key = 4_u64.to_be_bytes();
    let mut record = engine.get(Family("entries"), &key).unwrap().unwrap();
    *record.last_mut().unwrap() ^= 1;
    let mut batch = Batch::default();
    batch.put(Family("entries"), key.to_vec(), record);
    engine.write_synced(batch).await.unwrap();
    drop(engine);

    let mut log = LogStore::open(disk.as_ref(), 0, Arc::default(), fatal.clone()).unwrap();
    assert_eq!(log.try_get_log_entries(0..4).await.unwrap().len(), 4);
    let error = log.try_get_log_entries(0..10).await.unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    assert!(fatal.raised().await.contains("checksum"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_synced_survives_the_power_and_what_failed_is_never_acknowledged() {
    let (hardware, fatal) = (MemDisk::new(), Fatal::default());
    let mut log = LogStore::open(hardware.attach().as_ref(), 1 << 20, Arc::default(), fatal.clone()).unwrap();
    append(&mut log, blanks(0, 5)).await.unwrap();
    log.save_vote(&Vote::new(3, 1)).await.unwrap();
    hardware.fail_next_sync();
    assert!(append(&mut log, blanks(5, 6)).await.is_err());
    assert!(append(&mut log, blanks(6, 7)).await.is_err(), "nothing is written after a failed sync");
    assert!(fatal.raised().await.contains("sync"));

    hardware.power_off();
    let mut log = LogStore::open(hardware.attach().as_ref(), 1 << 20, Arc::default(), Fatal::default()).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 4)));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_wait_share_one_fsync() {
    let (hardware, metrics) = (MemDisk::new(), Arc::new(Metrics::default()));
    hardware.set_sync_delay(|| Box::pin(tokio::time::sleep(Duration::from_millis(20))));
    let mut log = LogStore::open(hardware.attach().as_ref(), 1 << 20, metrics.clone(), Fatal::default()).unwrap();
    let mut waiting = Vec::new();
    for index in 0..100 {
        let (done, flushed) = <Runtime as AsyncRuntime>::Oneshot::channel();
        log.append(blanks(index, index + 1), IOFlushed::signal(done)).await.unwrap();
        waiting.push(flushed);
    }
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    let syncs = metrics.log_syncs.get();
    assert!((1..=20).contains(&syncs), "{syncs} fsyncs for 100 appends");
}

#[cfg(not(madsim))]
mod on_files {
    use super::*;
    use campanile_store::engine::fs::FsDisk;

    struct OnFiles;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnFiles {
        async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let directory = tempfile::tempdir().expect("make a directory");
            let disk = FsDisk::open(directory.path()).expect("open the disk");
            let (log, machine) = open(Arc::new(disk), &Fatal::default());
            Ok((directory, log, machine))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openrafts_suite_on_files() {
        Suite::test_all(OnFiles).await.unwrap();
    }
}
