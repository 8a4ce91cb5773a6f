//! The one writer of the log: drains the queue, writes what was waiting as one batch, syncs once, answers all.
//!
//! Order is the queue's order. After a failed write nothing is written any more and every later job fails too: what the
//! disk holds after a failed fsync is unknown.

use std::io;
use std::sync::Arc;

use campanile_model::{bound, codec, planted, sometimes};
use campanile_store::engine::Batch;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::{ENTRIES, KEY_COMMITTED, KEY_PURGED, KEY_VOTE, META, Shared, seal};
use crate::form::{self, LogIdForm, VoteForm};
use crate::types::{Entry, TypeConfig};

/// One batch takes about this much; what is left over goes into the next.
const BATCH_BYTES: usize = 8 << 20;

/// A change to the log.
pub enum Job {
    Append {
        sequence: u64,
        entries: Vec<Entry>,
        /// How far the log was committed, at or before what is in front of these entries. A hint for the next start: it
        /// is not worth a write of its own, and what it says can be learned again.
        committed: Option<LogIdForm>,
        callback: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: VoteForm,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Removes entries from this index on.
    Truncate {
        from: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Removes entries up to this one. Needs no sync: what comes back after a power failure is purged again.
    Purge {
        upto: LogIdForm,
        done: oneshot::Sender<io::Result<()>>,
    },
}

/// Who waits for a batch.
enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Job(oneshot::Sender<io::Result<()>>),
}

#[derive(Default)]
struct Group {
    batch: Batch,
    bytes: usize,
    sync: bool,
    appended: u64,
    sequence: u64,
    committed: Option<LogIdForm>,
    waiters: Vec<Waiter>,
}

impl Group {
    fn add(&mut self, job: Job) {
        match job {
            Job::Append { sequence, entries, committed, callback } => {
                for entry in &entries {
                    let mut record = Vec::with_capacity(form::record_bytes(entry));
                    form::encode_record(entry, &mut record);
                    self.bytes += record.len();
                    self.batch.put(ENTRIES, entry.log_id.index.to_be_bytes().to_vec(), record);
                }
                self.appended += entries.len() as u64;
                self.sequence = sequence;
                self.committed = committed;
                self.sync = true;
                self.waiters.push(Waiter::Append(callback));
            }
            Job::Vote { vote, done } => {
                self.batch.put(META, KEY_VOTE.to_vec(), seal(codec::encode(&vote)));
                self.sync = true;
                self.waiters.push(Waiter::Job(done));
            }
            Job::Truncate { from, done } => {
                self.batch.delete_range(ENTRIES, from.to_be_bytes().to_vec(), u64::MAX.to_be_bytes().to_vec());
                self.sync = true;
                self.waiters.push(Waiter::Job(done));
            }
            Job::Purge { upto, done } => {
                self.batch.delete_range(ENTRIES, vec![0; 8], (upto.index + 1).to_be_bytes().to_vec());
                self.batch.put(META, KEY_PURGED.to_vec(), seal(codec::encode(&upto)));
                self.waiters.push(Waiter::Job(done));
            }
        }
    }

    fn answer(self, result: &io::Result<()>) {
        let result = || match result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        for waiter in self.waiters {
            match waiter {
                Waiter::Append(callback) => callback.io_completed(result()),
                // Whoever asked may have been cancelled; the change stands all the same.
                Waiter::Job(done) => drop(done.send(result())),
            }
        }
    }
}

/// Runs until every handle of the log is gone.
pub async fn run(shared: Arc<Shared>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut failed: io::Result<()> = Ok(());
    while let Some(job) = jobs.recv().await {
        let mut group = Group::default();
        group.add(job);
        while group.bytes < bound!(LogBatch, BATCH_BYTES) {
            match jobs.try_recv() {
                Ok(job) => group.add(job),
                Err(_) => break,
            }
        }
        if failed.is_ok() {
            failed = write(&shared, &mut group).await.map_err(|error| shared.fail(error));
            if failed.is_err() {
                sometimes!(LogFailed);
            }
        }
        group.answer(&failed);
    }
}

async fn write(shared: &Shared, group: &mut Group) -> io::Result<()> {
    let mut batch = std::mem::take(&mut group.batch);
    if let Some(committed) = &group.committed {
        batch.put(META, KEY_COMMITTED.to_vec(), seal(codec::encode(committed)));
    }
    if group.sync && !planted!(AckBeforeFsync) {
        shared.engine.write_synced(batch).await?;
        shared.metrics.log_syncs.add(1);
    } else {
        shared.engine.write(batch)?;
    }
    shared.metrics.log_entries.add(group.appended);
    shared.metrics.log_bytes.add(group.bytes as u64);
    if group.sequence > 0 {
        shared.cache().set_written(group.sequence);
    }
    Ok(())
}
