//! The Raft log on disk: openraft's log storage on an [`Engine`] of its own.
//!
//! 1. Appends, votes, truncations and purges are queued, in order, for one [`writer`]: it puts all that is waiting into
//!    one batch with one fsync, and only then answers. This is the group commit of the whole node.
//! 2. What is queued is readable at once from the [`cache`], which also keeps the recent tail in memory so that
//!    replication and apply rarely read the disk.
//! 3. Every record carries a checksum, checked when it is read. Corruption or a failed write is fatal: the error goes to
//!    openraft, which stops, and to [`Fatal`], which stops the node. A node must not vote on a log it cannot trust.

mod cache;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use campanile_model::{bound, codec, sometimes};
use campanile_store::engine::{Disk, Engine, Family, Purpose, Statistic};
use futures::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use tokio::sync::{mpsc, oneshot};

use crate::fatal::Fatal;
use crate::form::{self, LogIdForm, VoteForm};
use crate::metrics::Metrics;
use crate::rt;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use cache::Cache;
use writer::Job;

const ENTRIES: Family = Family("entries");
const META: Family = Family("meta");
const KEY_VOTE: &[u8] = b"vote";
const KEY_COMMITTED: &[u8] = b"committed";
const KEY_PURGED: &[u8] = b"purged";

/// Bytes of log read at a time, for one append request or one step of apply.
const READ_BYTES: usize = 2 << 20;

/// The log. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    /// Unbounded: openraft bounds what it has in flight, the proposer's lanes bound what reaches openraft.
    queue: mpsc::UnboundedSender<Job>,
    /// The writer's. After the queue, whose end ends it.
    _thread: Arc<rt::Dedicated>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    cache: Mutex<Cache>,
    metrics: Arc<Metrics>,
    fatal: Fatal,
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reports an error that the node must not survive, and passes it on.
    fn fail(&self, error: io::Error) -> io::Error {
        self.fatal.raise(format!("raft log: {error}"));
        error
    }
}

impl LogStore {
    /// Opens the log of this disk and starts its writer.
    pub fn open(disk: &dyn Disk, cache_bytes: usize, metrics: Arc<Metrics>, fatal: Fatal) -> io::Result<Self> {
        let engine = disk.open("log", Purpose::Log, &[ENTRIES, META])?;
        let read_id = |key: &[u8]| -> io::Result<Option<LogId>> {
            let Some(bytes) = engine.get(META, key)? else { return Ok(None) };
            Ok(Some(codec::decode::<LogIdForm>(&unseal(&bytes)?).map_err(corrupt)?.into()))
        };
        let purged = read_id(KEY_PURGED)?;
        let committed = read_id(KEY_COMMITTED)?;
        let vote = match engine.get(META, KEY_VOTE)? {
            None => None,
            Some(bytes) => Some(codec::decode::<VoteForm>(&unseal(&bytes)?).map_err(corrupt)?.into()),
        };
        let newest = engine.scan(ENTRIES, Bound::Unbounded, Bound::Unbounded, true).next().transpose()?;
        let last = match newest {
            None => purged,
            Some((key, record)) => Some(decode_row(&key, record)?.log_id).max(purged),
        };
        let oldest = engine.scan(ENTRIES, Bound::Unbounded, Bound::Unbounded, false).next().transpose()?;
        let begin = match oldest {
            Some((key, record)) => decode_row(&key, record)?.log_id.index,
            None => 0,
        };
        // A purge that a power failure undid leaves entries in front, which stay hidden.
        let begin = begin.max(purged.map_or(0, |purged| purged.index + 1));
        let cache = Cache::new(cache_bytes, begin, purged, last, vote, committed);
        let shared = Arc::new(Shared { engine, cache: Mutex::new(cache), metrics, fatal });
        let (queue, jobs) = mpsc::unbounded_channel();
        let thread = rt::spawn_dedicated("campanile-log", writer::run(shared.clone(), jobs))?;
        Ok(Self { shared, queue, _thread: Arc::new(thread) })
    }

    /// Whether nothing was ever written: no vote, no entry.
    pub fn is_empty(&self) -> bool {
        let cache = self.shared.cache();
        cache.vote.is_none() && cache.last.is_none()
    }

    /// Index of the last entry, purged ones included.
    pub fn last_index(&self) -> Option<u64> {
        self.shared.cache().last.map(|last| last.index)
    }

    /// Gives back the memory of what is on disk. For when nobody is about to read it.
    pub fn forget_written(&self) {
        self.shared.cache().forget_written();
    }

    /// Moves rows out of the database's memory into files. For when nothing is being written.
    pub async fn write_out(&self) -> io::Result<()> {
        let shared = self.shared.clone();
        rt::run_blocking(move || shared.engine.flush().map_err(|error| shared.fail(error))).await?
    }

    /// How its database does.
    pub fn statistics(&self) -> Vec<Statistic> {
        self.shared.engine.statistics()
    }

    fn submit(&self, job: Job) -> io::Result<()> {
        self.queue.send(job).map_err(|_| self.shared.fail(io::Error::other("the log's writer has stopped")))
    }

    async fn submit_and_wait(&self, job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.submit(job(done))?;
        match written.await {
            Ok(result) => result,
            Err(_) => Err(self.shared.fail(io::Error::other("the log's writer has stopped"))),
        }
    }

    /// Entries with indexes in `[start, end)` that the log holds, at most about `max_bytes` of them but at least one.
    async fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let (start, disk_end) = {
            let cache = self.shared.cache();
            let start = start.max(cache.first());
            let end = end.min(cache.next());
            if start >= end {
                return Ok(Vec::new());
            }
            let cached_from = cache.cached_from();
            if cached_from <= start {
                return Ok(cache.range(start, end, max_bytes));
            }
            (start, end.min(cached_from))
        };
        // Older than the cache: from disk, up to where the cache begins. The caller comes again for the rest.
        let shared = self.shared.clone();
        rt::run_blocking(move || shared.read_disk(start, disk_end, max_bytes)).await?
    }

    /// All of `[start, end)`, in as many reads as it takes.
    async fn read_all(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = start;
        loop {
            let part = self.read(next, end, bound!(LogRead, READ_BYTES)).await?;
            let Some(last) = part.last() else { return Ok(entries) };
            next = last.log_id.index + 1;
            entries.extend(part);
        }
    }
}

impl Shared {
    fn read_disk(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let (lower, upper) = (start.to_be_bytes(), end.to_be_bytes());
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for row in self.engine.scan(ENTRIES, Bound::Included(&lower), Bound::Excluded(&upper), false) {
            let (key, record) = row.map_err(|error| self.fail(error))?;
            bytes += record.len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            let entry = decode_row(&key, record).map_err(|error| self.fail(error))?;
            let expected = entries.last().map_or(start, |last| last.log_id.index + 1);
            if entry.log_id.index != expected {
                return self.missing(expected, entries);
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return self.missing(start, entries);
        }
        Ok(entries)
    }

    /// A row was not there: fine if it has been purged or truncated meanwhile, corruption otherwise.
    fn missing(&self, index: u64, found: Vec<Entry>) -> io::Result<Vec<Entry>> {
        let cache = self.cache();
        let expected_on_disk = index >= cache.first() && index < cache.next() && index < cache.cached_from();
        drop(cache);
        if expected_on_disk {
            return Err(self.fail(io::Error::new(io::ErrorKind::InvalidData, format!("log entry {index} is missing"))));
        }
        Ok(found)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read_all(start, end).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, bound!(LogRead, READ_BYTES)).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let state = (self.clone(), start, Vec::new().into_iter());
        stream::unfold(Some(state), move |state| async move {
            let (log, mut next, mut part) = state?;
            if let Some(entry) = part.next() {
                return Some((Ok(entry), Some((log, next, part))));
            }
            match log.read(next, end, bound!(LogRead, READ_BYTES)).await {
                Err(error) => Some((Err(error), None)),
                Ok(entries) => {
                    next = entries.last()?.log_id.index + 1;
                    let mut part = entries.into_iter();
                    part.next().map(|entry| (Ok(entry), Some((log, next, part))))
                }
            }
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.cache().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let cache = self.shared.cache();
        Ok(LogState { last_purged_log_id: cache.purged, last_log_id: cache.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.submit_and_wait(|done| Job::Vote { vote: VoteForm::from(&vote), done }).await?;
        self.shared.cache().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Written with the next append: see there.
        self.shared.cache().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.cache().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (sequence, committed) = {
            let mut cache = self.shared.cache();
            (cache.append(&entries), cache.committed.map(Into::into))
        };
        self.submit(Job::Append { sequence, entries, committed, callback })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        sometimes!(LogTruncated);
        self.shared.cache().truncate_after(last);
        let from = last.map_or(0, |last| last.index + 1);
        self.submit_and_wait(|done| Job::Truncate { from, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.cache().purge(upto);
        self.submit_and_wait(|done| Job::Purge { upto: upto.into(), done }).await
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn decode_row(key: &[u8], record: Vec<u8>) -> io::Result<Entry> {
    let entry = form::decode_record(Bytes::from(record)).map_err(corrupt)?;
    if key != entry.log_id.index.to_be_bytes() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("log entry {} stands under key {key:?}", entry.log_id.index),
        ));
    }
    Ok(entry)
}

/// Puts a checksum in front of a small row.
fn seal(body: Vec<u8>) -> Vec<u8> {
    let mut row = crc32fast::hash(&body).to_be_bytes().to_vec();
    row.extend(body);
    row
}

/// Checks and removes the checksum.
fn unseal(row: &[u8]) -> io::Result<Vec<u8>> {
    match row.split_first_chunk::<4>() {
        Some((crc, body)) if crc32fast::hash(body) == u32::from_be_bytes(*crc) => Ok(body.to_vec()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "log metadata does not match its checksum")),
    }
}
