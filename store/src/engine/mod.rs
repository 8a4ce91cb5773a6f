//! The seam to the disk. A node's data directory is a [`Disk`]; it holds two databases, each an [`Engine`]: the log,
//! whose writes are synced, and the state, whose writes are not (it is recovered by replaying the log).
//!
//! Implementations: `rocks` (RocksDB and the file system) and `mem` (ordered maps that keep unsynced writes apart and
//! lose them on power failure). One conformance suite runs on both.

#[cfg(not(madsim))]
pub mod fs;
pub mod mem;
mod path;
#[cfg(not(madsim))]
pub mod rocks;

#[cfg(not(madsim))]
pub use fs::FsDisk;
pub use mem::MemDisk;

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use futures::future::BoxFuture;

/// A key-ordered table of a database. The number is stable: it names a RocksDB column family on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(pub &'static str);

pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Rows of a scan, in key order (or in reverse, if asked).
pub type Rows<'a> = Box<dyn Iterator<Item = io::Result<KeyValue>> + Send + 'a>;

/// Point reads and range scans over one consistent state.
pub trait Read: Send + Sync {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// The rows under these keys, in the order of the keys. May cost much less than one [`Read::get`] after the other.
    fn get_many(&self, family: Family, keys: &[&[u8]]) -> io::Result<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| self.get(family, key)).collect()
    }

    /// Rows with keys in `(lower, upper)`, ascending, or descending if `reverse`.
    fn scan<'a>(&'a self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'a>;
}

/// A change to one database, atomic across families.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub ops: Vec<Op>,
}

#[derive(Clone, Debug)]
pub enum Op {
    Put {
        family: Family,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        family: Family,
        key: Vec<u8>,
    },
    /// Deletes keys in `[start, end)`.
    DeleteRange {
        family: Family,
        start: Vec<u8>,
        end: Vec<u8>,
    },
}

impl Batch {
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.ops.push(Op::Put { family, key, value });
    }

    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.ops.push(Op::Delete { family, key });
    }

    pub fn delete_range(&mut self, family: Family, start: Vec<u8>, end: Vec<u8>) {
        self.ops.push(Op::DeleteRange { family, start, end });
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// A database.
pub trait Engine: Read {
    /// Writes without waiting for the disk: visible to reads at once, lost with the power, never torn.
    fn write(&self, batch: Batch) -> io::Result<()>;

    /// Writes and syncs: durable, together with every earlier write, when the future is ready. The real engine blocks
    /// inside the poll, so await it where blocking does no harm (see `raft`'s log writer); the simulated one takes
    /// virtual time.
    fn write_synced(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>>;

    /// A consistent state to read from while writes go on.
    fn snapshot(&self) -> Arc<dyn Read>;

    /// Makes every earlier write durable without a log (memtables to files, all families atomically). Blocks.
    fn flush(&self) -> io::Result<()>;

    /// Writes a durable copy of the database as the directory `name` of its disk, sharing files where it can. Blocks.
    fn checkpoint(&self, name: &str) -> io::Result<()>;

    /// How the engine does: each engine has its own. Asked for at every scrape, so it must be cheap.
    fn statistics(&self) -> Vec<Statistic>;
}

/// A number that an engine shows of itself, as a gauge of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// Lower case, with the unit at its end.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

/// How a database is to be tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Small synced appends, read back soon, deleted in ranges from the front.
    Log,
    /// Unsynced batches, point reads, short scans; flushed rarely and atomically across families.
    State,
}

/// A node's data directory. Names are relative, may contain `/`, and never `..`.
pub trait Disk: Send + Sync {
    /// Opens or creates the database in directory `name` with these families.
    fn open(&self, name: &str, purpose: Purpose, families: &[Family]) -> io::Result<Arc<dyn Engine>>;

    /// Reads a small file whole; `None` if it is not there.
    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a small file atomically and durably (write beside, fsync, rename, fsync the directory).
    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Names and sizes of the plain files of a directory, sorted by name; empty if it is not there.
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>>;

    /// Names of the sub-directories of a directory, sorted.
    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Reads at most `max` bytes of a file of any size, from `offset`; empty at its end.
    fn read_at(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>>;

    /// Appends to a file, creating it and its directory as needed. Not durable before [`Disk::sync_dir`].
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Fsyncs every file of a directory and the directory itself.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Removes a directory and all in it; it is no error if it is not there. Open databases keep their open files.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;

    /// Bytes free for writing, and the size of the whole.
    fn space(&self) -> io::Result<Space>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
}
