//! RocksDB as an [`Engine`]: the one place that knows it.
//!
//! Families are column families. The log's writes go through RocksDB's write-ahead log; the state's do not, they are
//! durable when [`Engine::flush`] has written all families to files in one atomic step, or when RocksDB did so by
//! itself. How a database is tuned is said in `tuning`.

mod tuning;

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties::{self, PropName};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBPinnableSlice, DBRawIterator, ErrorKind, FlushOptions, ReadOptions,
    Snapshot, WriteBatch, WriteOptions,
};
use self_cell::self_cell;

pub use self::tuning::Memory;
use super::{Batch, Engine, Family, KeyValue, Op, Purpose, Read, Rows, Statistic, fs, path};

/// The family RocksDB insists on; nothing is stored in it.
const DEFAULT_FAMILY: &str = "default";

/// A statistic's name, what it is, and RocksDB's name of it.
type Property = (&'static str, &'static str, &'static PropName);

/// What each family has of its own: added up.
const FAMILY_STATISTICS: [Property; 6] = [
    ("memtable_bytes", "Bytes of rows that are not in files yet", properties::CUR_SIZE_ALL_MEM_TABLES),
    ("memtables_to_flush", "Full memtables that wait for their flush", properties::NUM_IMMUTABLE_MEM_TABLE),
    ("table_reader_bytes", "Bytes held for open files, without blocks", properties::ESTIMATE_TABLE_READERS_MEM),
    ("file_bytes", "Bytes of the files that hold rows", properties::LIVE_SST_FILES_SIZE),
    ("estimated_rows", "Rows, estimated", properties::ESTIMATE_NUM_KEYS),
    ("pending_compaction_bytes", "Bytes that merging has to rewrite", properties::ESTIMATE_PENDING_COMPACTION_BYTES),
];

/// What the families of a database share.
const DATABASE_STATISTICS: [Property; 3] = [
    ("block_cache_bytes", "Bytes of blocks in the cache, which both databases share", properties::BLOCK_CACHE_USAGE),
    (
        "delayed_write_bytes_per_second",
        "What writes are slowed to because merging is behind; 0 while they are not",
        properties::ACTUAL_DELAYED_WRITE_RATE,
    ),
    ("background_errors", "Flushes and merges that failed", properties::BACKGROUND_ERRORS),
];

pub struct RocksEngine {
    database: Arc<Database>,
    /// The disk's directory, in which checkpoints are written.
    root: PathBuf,
    purpose: Purpose,
}

/// An open database; it is closed when the engine and every snapshot are gone.
struct Database {
    db: DB,
    /// Its directory's name on the disk, for messages.
    name: String,
    families: Vec<Family>,
}

impl Database {
    fn family(&self, family: Family) -> io::Result<&ColumnFamily> {
        self.db.cf_handle(family.0).ok_or_else(|| {
            let message = format!("database {}: family {} was not opened", self.name, family.0);
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })
    }

    fn error(&self, error: rocksdb::Error) -> io::Error {
        describe(&self.name, error)
    }

    fn get(&self, family: Family, key: &[u8], options: &ReadOptions) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf_opt(self.family(family)?, key, options).map_err(|error| self.error(error))
    }

    fn get_many(&self, family: Family, keys: &[&[u8]], options: &ReadOptions) -> io::Result<Vec<Option<Vec<u8>>>> {
        let rows =
            self.db.batched_multi_get_cf_opt(self.family(family)?, keys.iter().copied(), keys.is_sorted(), options);
        let copy = |row: Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>| Ok(row?.map(|row| row.to_vec()));
        rows.into_iter().map(|row| copy(row).map_err(|error| self.error(error))).collect()
    }

    fn scan<'a>(
        &'a self,
        family: Family,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
        mut options: ReadOptions,
    ) -> Rows<'a> {
        let handle = match self.family(family) {
            Ok(handle) => handle,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        // RocksDB's bounds are inclusive below and exclusive above; the least key after `k` is `k` and a zero byte.
        let after = |key: &[u8]| [key, &[0]].concat();
        let start = match lower {
            Bound::Unbounded => Vec::new(),
            Bound::Included(key) => key.to_vec(),
            Bound::Excluded(key) => after(key),
        };
        let end = match upper {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(after(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
        };
        if let Some(end) = end {
            if start >= end {
                return Box::new(std::iter::empty());
            }
            options.set_iterate_upper_bound(end);
        }
        if !start.is_empty() {
            options.set_iterate_lower_bound(start);
        }
        let mut rows = self.db.raw_iterator_cf_opt(handle, options);
        if reverse {
            rows.seek_to_last();
        } else {
            rows.seek_to_first();
        }
        Box::new(Cursor { database: self, rows: Some(rows), reverse })
    }
}

fn describe(name: &str, error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Corruption => io::ErrorKind::InvalidData,
        ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::Busy | ErrorKind::TryAgain => io::ErrorKind::WouldBlock,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("database {name}: {error}"))
}

fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options
}

/// Rows of a scan as they are asked for.
struct Cursor<'a> {
    database: &'a Database,
    /// Stands on the row to give next; `None` after the end or an error.
    rows: Option<DBRawIterator<'a>>,
    reverse: bool,
}

impl Iterator for Cursor<'_> {
    type Item = io::Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let Some((key, value)) = rows.item() else {
            // The end, unless the status says that it is an error.
            let end = rows.status();
            self.rows = None;
            return end.err().map(|error| Err(self.database.error(error)));
        };
        let row = (key.to_vec(), value.to_vec());
        if self.reverse {
            rows.prev();
        } else {
            rows.next();
        }
        Some(Ok(row))
    }
}

impl RocksEngine {
    pub fn open(
        root: &Path,
        name: &str,
        purpose: Purpose,
        families: &[Family],
        memory: &Memory,
    ) -> io::Result<RocksEngine> {
        let names = families.iter().map(|family| family.0).chain([DEFAULT_FAMILY]);
        let descriptor = |family| {
            let options = tuning::family_options(family, purpose, memory)?;
            Ok(ColumnFamilyDescriptor::new(family, options))
        };
        let open = || -> Result<DB, rocksdb::Error> {
            let descriptors = names.map(descriptor).collect::<Result<Vec<_>, _>>()?;
            DB::open_cf_descriptors(&tuning::database_options(purpose, memory), root.join(name), descriptors)
        };
        let db = open().map_err(|error| describe(name, error))?;
        let database = Database { db, name: name.to_owned(), families: families.to_vec() };
        Ok(RocksEngine { database: Arc::new(database), root: root.to_owned(), purpose })
    }

    fn write_with(&self, batch: Batch, options: &WriteOptions) -> io::Result<()> {
        let mut rows = WriteBatch::default();
        for op in batch.ops {
            match op {
                Op::Put { family, key, value } => rows.put_cf(self.database.family(family)?, key, value),
                Op::Delete { family, key } => rows.delete_cf(self.database.family(family)?, key),
                // RocksDB takes an inverted range for an error, but an empty one for nothing to do.
                Op::DeleteRange { start, end, .. } if start >= end => {}
                Op::DeleteRange { family, start, end } => {
                    rows.delete_range_cf(self.database.family(family)?, start, end);
                }
            }
        }
        self.database.db.write_opt(rows, options).map_err(|error| self.database.error(error))
    }
}

impl Read for RocksEngine {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.database.get(family, key, &read_options())
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> io::Result<Vec<Option<Vec<u8>>>> {
        self.database.get_many(family, keys, &read_options())
    }

    fn scan<'a>(&'a self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'a> {
        self.database.scan(family, lower, upper, reverse, read_options())
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(self.purpose == Purpose::State);
        self.write_with(batch, &options)
    }

    fn write_synced(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            match self.purpose {
                Purpose::Log => {
                    let mut options = WriteOptions::default();
                    options.set_sync(true);
                    self.write_with(batch, &options)
                }
                // Earlier writes are in no log that could be synced.
                Purpose::State => {
                    self.write(batch)?;
                    self.flush()
                }
            }
        })
    }

    fn snapshot(&self) -> Arc<dyn Read> {
        let snapshot = OwnedSnapshot::new(self.database.clone(), |database| database.db.snapshot());
        Arc::new(RocksSnapshot(snapshot))
    }

    fn flush(&self) -> io::Result<()> {
        let database = &self.database;
        let families =
            database.families.iter().map(|family| database.family(*family)).collect::<io::Result<Vec<_>>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        database.db.flush_cfs_opt(&families, &options).map_err(|error| database.error(error))
    }

    fn checkpoint(&self, name: &str) -> io::Result<()> {
        path::check(name)?;
        let target = self.root.join(name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Checkpoint::new(&self.database.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&target))
            .map_err(|error| self.database.error(error))?;
        // RocksDB syncs what it wrote and what it copies; the links, and the directories above, are ours to sync. Not
        // file by file: commits wait for this.
        fs::sync_up(&self.root, &target)
    }

    fn statistics(&self) -> Vec<Statistic> {
        let database = &self.database;
        let of_family = |family: &Family, property: &PropName| {
            let handle = database.db.cf_handle(family.0)?;
            database.db.property_int_value_cf(handle, property).ok().flatten()
        };
        let sum = |property| database.families.iter().filter_map(|family| of_family(family, property)).sum();
        let shared = |property| database.families.first().and_then(|family| of_family(family, property)).unwrap_or(0);
        let family = FAMILY_STATISTICS.map(|(name, help, property)| Statistic { name, help, value: sum(property) });
        let common =
            DATABASE_STATISTICS.map(|(name, help, property)| Statistic { name, help, value: shared(property) });
        family.into_iter().chain(common).collect()
    }
}

self_cell! {
    /// A snapshot together with the database that it borrows from.
    struct OwnedSnapshot {
        owner: Arc<Database>,
        #[covariant]
        dependent: Snapshot,
    }
}

struct RocksSnapshot(OwnedSnapshot);

impl RocksSnapshot {
    fn options(&self) -> ReadOptions {
        let mut options = read_options();
        options.set_snapshot(self.0.borrow_dependent());
        options
    }
}

impl Read for RocksSnapshot {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.0.borrow_owner().get(family, key, &self.options())
    }

    fn get_many(&self, family: Family, keys: &[&[u8]]) -> io::Result<Vec<Option<Vec<u8>>>> {
        self.0.borrow_owner().get_many(family, keys, &self.options())
    }

    fn scan<'a>(&'a self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'a> {
        self.0.borrow_owner().scan(family, lower, upper, reverse, self.options())
    }
}
