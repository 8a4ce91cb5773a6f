//! What a simulated disk has done, counted. A simulation does the same each time, so these say more of what our code
//! costs than any clock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::{Batch, Op};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskWork {
    pub batches: u64,
    pub syncs: u64,
    /// Rows put and deleted; a range that is deleted counts as one.
    pub rows_written: u64,
    /// Of keys and values.
    pub bytes_written: u64,
    /// Rows looked up, found or not, and rows of scans.
    pub rows_read: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    syncs: AtomicU64,
    rows_written: AtomicU64,
    bytes_written: AtomicU64,
    rows_read: AtomicU64,
}

impl Counters {
    pub fn read(&self) {
        self.rows_read.fetch_add(1, Ordering::Relaxed);
    }

    pub fn write(&self, batch: &Batch) {
        let bytes = |op: &Op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } => key.len(),
            Op::DeleteRange { start, end, .. } => start.len() + end.len(),
        };
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows_written.fetch_add(batch.ops.len() as u64, Ordering::Relaxed);
        self.bytes_written.fetch_add(batch.ops.iter().map(bytes).sum::<usize>() as u64, Ordering::Relaxed);
    }

    pub fn sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> DiskWork {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskWork {
            batches: get(&self.batches),
            syncs: get(&self.syncs),
            rows_written: get(&self.rows_written),
            bytes_written: get(&self.bytes_written),
            rows_read: get(&self.rows_read),
        }
    }
}
