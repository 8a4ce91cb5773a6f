//! What the log keeps in memory, counted by the allocator. A test program of its own, because it counts for the whole
//! process. RocksDB allocates for itself and is not counted.
#![cfg(not(madsim))]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use campanile_raft::{Clock, Lane, Replica, SnapshotPolicy};
use campanile_store::engine::fs::FsDisk;
use common::{Cluster, PrepareManual, put, until};

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: passes everything to the system's allocator; only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decoded commands take several times the room of encoded ones, and the room that encoding grew into may be as large
/// again: a tail of 12 MB of log, none of it too old to be kept, must not cost much more than that. Once nothing is
/// written anymore it is given back, and a snapshot is taken of far less log than under load.
#[tokio::test(flavor = "multi_thread")]
async fn the_logs_tail_is_kept_encoded_and_not_at_rest() {
    const ROUNDS: usize = 250;
    const COMMANDS: usize = 500;
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FsDisk::open(directory.path()).unwrap());
    let mut config = Cluster::configure(1, |_| ()).hosts.remove(&1).unwrap().config;
    config.limits.log_cache_bytes = usize::MAX;
    config.snapshots = SnapshotPolicy::after(64 << 20);
    let replica = Replica::start(config, disk, Arc::new(PrepareManual), Clock::system()).await.unwrap();
    let mut leadership = replica.leadership();
    leadership.wait_for(|now| now.ready).await.unwrap();
    // Whatever is made at the first use is there before counting begins.
    replica.propose(Lane::Api, vec![put("first")]).await.unwrap();

    let log_bytes = || replica.metrics().log_bytes.get() as usize;
    let (held, logged) = (HELD.load(Ordering::Relaxed), log_bytes());
    for round in 0..ROUNDS {
        let commands = (0..COMMANDS).map(|n| put(&format!("task-{round}-{n}"))).collect();
        replica.propose(Lane::Api, commands).await.unwrap();
    }
    let (grown, logged) = (HELD.load(Ordering::Relaxed).saturating_sub(held), log_bytes() - logged);
    assert!(logged > 6_000_000, "only {logged} bytes of log were written");
    assert!(grown < logged * 6 / 5, "{grown} bytes are held for {logged} bytes of log");

    let log_memtables = || {
        let log = replica.databases().into_iter().find(|(database, _)| *database == "log").expect("a log").1;
        log.iter().find(|statistic| statistic.name == "memtable_bytes").expect("what memtables hold").value as usize
    };
    assert_eq!(replica.status().snapshot, 0, "a snapshot was taken under load");
    assert!(log_memtables() > logged / 4, "the log went to files under load");
    until("nothing of the log is in memory", || HELD.load(Ordering::Relaxed).saturating_sub(held) < logged / 10).await;
    until("a snapshot is taken of all there is", || replica.status().snapshot == replica.status().applied).await;
    until("the log's rows are in files", || log_memtables() < logged / 10).await;
    replica.shutdown().await;
}
