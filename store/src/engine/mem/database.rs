//! A database of the simulated disk: persistent ordered maps, of which a copy costs nothing, so that a snapshot is a
//! clone and the durable state is another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::table::Table;
use super::work::Counters;
use super::{Attached, File, lock, power_failed};
use crate::engine::{Batch, Engine, Family, Op, Read, Rows, Statistic, path};
use futures::future::BoxFuture;

/// The name a family's rows have as a file of a checkpoint.
const ROWS_SUFFIX: &str = ".rows";

#[derive(Clone, Default)]
struct Tables {
    families: BTreeMap<Family, Table>,
    work: Arc<Counters>,
}

impl Tables {
    fn table(&self, family: Family) -> io::Result<&Table> {
        self.families.get(&family).ok_or_else(|| unknown_family(family))
    }

    fn apply(&mut self, batch: &Batch) {
        for op in &batch.ops {
            match op {
                Op::Put { family, key, value } => {
                    self.change(*family, |table| table.insert(key, value));
                }
                Op::Delete { family, key } => self.change(*family, |table| table.remove(key)),
                Op::DeleteRange { family, start, end } => {
                    self.change(*family, |table| table.remove_range(start, end));
                }
            }
        }
    }

    /// Every batch has been checked by [`Tables::check`] before it is applied, so the family is there.
    fn change(&mut self, family: Family, change: impl FnOnce(&mut Table)) {
        change(self.families.entry(family).or_default());
    }

    fn check(&self, batch: &Batch) -> io::Result<()> {
        for op in &batch.ops {
            let (Op::Put { family, .. } | Op::Delete { family, .. } | Op::DeleteRange { family, .. }) = op;
            self.table(*family)?;
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = self.table(family)?.get(key).map(|value| value.to_vec());
        self.work.read();
        Ok(value)
    }

    fn scan(&self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'static> {
        match self.table(family) {
            Ok(table) => {
                let work = self.work.clone();
                Box::new(table.scan(lower, upper, reverse).inspect(move |_| work.read()))
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn bytes(&self) -> u64 {
        self.families.values().map(Table::bytes).sum()
    }
}

fn unknown_family(family: Family) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("family {} was not opened", family.0))
}

#[derive(Default)]
pub(super) struct Database {
    /// What a power failure leaves.
    durable: Tables,
    /// What was written since, oldest first.
    unsynced: VecDeque<Batch>,
    /// How many batches were ever made durable: the number of the first one in `unsynced`.
    synced: u64,
    /// What reads see: `durable` and `unsynced` together.
    current: Tables,
    is_open: bool,
    /// Rows whose bytes have changed by themselves: reading one finds that its checksum is wrong.
    damaged: BTreeSet<(Family, Arc<[u8]>)>,
    /// A sync failed: what is on the disk is unknown, so nothing may be written on top.
    failed: bool,
    /// The power went while this database was open; what is left of it has a new `Database`.
    dead: bool,
}

impl Database {
    /// An empty one, whose work is counted here.
    pub fn new(work: Arc<Counters>) -> Self {
        let tables = Tables { work, ..Tables::default() };
        Self { durable: tables.clone(), current: tables, ..Self::default() }
    }

    /// Adds one file of a checkpoint.
    pub fn load(&mut self, directory: &str, file: &str, families: &[Family], rows: &[u8]) -> io::Result<()> {
        let family = file.strip_suffix(ROWS_SUFFIX).and_then(|name| families.iter().find(|family| family.0 == name));
        let Some(&family) = family else {
            let message = format!("{directory}: {file} is no rows of a family to be opened");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let table = decode_rows(rows).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{directory}: {file} is cut off or corrupt"))
        })?;
        self.durable.families.insert(family, table);
        self.current = self.durable.clone();
        Ok(())
    }

    /// Takes the lock and makes sure that exactly these families are there.
    pub fn open(&mut self, directory: &str, families: &[Family]) -> io::Result<()> {
        if self.is_open {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{directory} is open already")));
        }
        if let Some((family, key)) = self.damaged.first() {
            let message = format!(
                "{directory}: a row of {} with a key of {} bytes does not match its checksum",
                family.0,
                key.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if let Some(family) = self.current.families.keys().find(|family| !families.contains(family)) {
            let message = format!("{directory} has a family {} that is not to be opened", family.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        for family in families {
            self.durable.families.entry(*family).or_default();
            self.current.families.entry(*family).or_default();
        }
        self.is_open = true;
        Ok(())
    }

    /// The power goes. Returns the database that the next life finds.
    pub fn fail_power(&mut self, spare: impl FnOnce(usize) -> usize) -> Database {
        self.dead = true;
        let spared = if self.unsynced.is_empty() { 0 } else { spare(self.unsynced.len()) };
        let mut tables = self.durable.clone();
        for batch in self.unsynced.iter().take(spared) {
            tables.apply(batch);
        }
        Database { durable: tables.clone(), current: tables, damaged: self.damaged.clone(), ..Database::default() }
    }

    pub fn bytes(&self) -> u64 {
        self.current.bytes()
    }

    /// Damages one durable row, if there is any. It is found when the database is opened again, which reads every row
    /// here; RocksDB finds it when it reads the block.
    pub fn flip_bit(&mut self, draw: u64) {
        let rows =
            || self.durable.families.iter().flat_map(|(family, table)| table.keys().map(move |key| (*family, key)));
        let count = rows().count() as u64;
        if let Some((family, key)) = rows().nth((draw % count.max(1)) as usize) {
            let damaged = (family, key.clone());
            self.damaged.insert(damaged);
        }
    }

    pub fn is_damaged(&self) -> bool {
        !self.damaged.is_empty()
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.dead { Err(power_failed()) } else { Ok(()) }
    }

    fn write(&mut self, batch: Batch) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier sync of this database failed"));
        }
        self.current.check(&batch)?;
        self.current.apply(&batch);
        self.current.work.write(&batch);
        self.unsynced.push_back(batch);
        Ok(())
    }

    /// The number that the next batch will have.
    fn written(&self) -> u64 {
        self.synced + self.unsynced.len() as u64
    }

    /// Makes the batches numbered below `until` durable.
    fn sync(&mut self, until: u64) {
        self.current.work.sync();
        if until >= self.written() {
            self.synced = self.written();
            self.durable = self.current.clone();
            self.unsynced.clear();
        }
        while self.synced < until
            && let Some(batch) = self.unsynced.pop_front()
        {
            self.durable.apply(&batch);
            self.synced += 1;
        }
    }
}

/// An open database. It, and every snapshot of it, keeps the database from being opened a second time.
pub(super) struct MemEngine {
    open: Arc<Open>,
}

struct Open {
    disk: Attached,
    database: Arc<Mutex<Database>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.database).is_open = false;
    }
}

impl MemEngine {
    pub fn new(disk: Attached, database: Arc<Mutex<Database>>) -> MemEngine {
        MemEngine { open: Arc::new(Open { disk, database }) }
    }

    /// Clones what reads see now.
    fn tables(&self) -> io::Result<Tables> {
        let database = lock(&self.open.database);
        database.check_alive()?;
        Ok(database.current.clone())
    }

    /// Syncs everything below batch number `until`.
    fn sync(&self, until: u64) -> io::Result<()> {
        let mut platter = self.open.disk.platter()?;
        let mut database = lock(&self.open.database);
        if let Err(error) = platter.check_sync() {
            database.failed = true;
            return Err(error);
        }
        database.sync(until);
        Ok(())
    }
}

impl Read for MemEngine {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let database = lock(&self.open.database);
        database.check_alive()?;
        database.current.get(family, key)
    }

    fn scan<'a>(&'a self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'a> {
        let database = lock(&self.open.database);
        match database.check_alive() {
            Ok(()) => database.current.scan(family, lower, upper, reverse),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

impl Engine for MemEngine {
    fn write(&self, batch: Batch) -> io::Result<()> {
        let platter = self.open.disk.platter()?;
        platter.check_room()?;
        lock(&self.open.database).write(batch)
    }

    fn write_synced(&self, batch: Batch) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.write(batch)?;
            let until = lock(&self.open.database).written();
            let delay = self.open.disk.platter()?.sync_delay.clone();
            if let Some(delay) = delay {
                delay().await;
            }
            self.sync(until)
        })
    }

    fn snapshot(&self) -> Arc<dyn Read> {
        let tables = lock(&self.open.database).current.clone();
        Arc::new(MemSnapshot { tables, _open: self.open.clone() })
    }

    fn flush(&self) -> io::Result<()> {
        self.open.disk.platter()?.check_room()?;
        let until = lock(&self.open.database).written();
        self.sync(until)
    }

    fn checkpoint(&self, name: &str) -> io::Result<()> {
        path::check(name)?;
        let tables = self.tables()?;
        let mut platter = self.open.disk.platter()?;
        platter.check_room()?;
        platter.check_sync()?;
        if platter.is_taken(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} exists")));
        }
        for (family, table) in &tables.families {
            let content = encode_rows(table);
            let durable = Some(content.len());
            platter.files.insert(format!("{name}/{}{ROWS_SUFFIX}", family.0), File { content, durable });
        }
        Ok(())
    }

    fn statistics(&self) -> Vec<Statistic> {
        let bytes = lock(&self.open.database).bytes();
        vec![Statistic { name: "row_bytes", help: "Bytes of keys and values", value: bytes }]
    }
}

struct MemSnapshot {
    tables: Tables,
    /// As with RocksDB, a database is not closed while somebody reads from it.
    _open: Arc<Open>,
}

impl Read for MemSnapshot {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.tables.get(family, key)
    }

    fn scan<'a>(&'a self, family: Family, lower: Bound<&[u8]>, upper: Bound<&[u8]>, reverse: bool) -> Rows<'a> {
        self.tables.scan(family, lower, upper, reverse)
    }
}

/// Rows one after the other, each as length and bytes of its key, then of its value.
fn encode_rows(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    for part in table.iter().flat_map(|(key, value)| [key, value]) {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// `None` if the bytes end inside a row.
fn decode_rows(mut bytes: &[u8]) -> Option<Table> {
    fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = u64::from_be_bytes(*bytes.split_off(..8)?.first_chunk()?);
        bytes.split_off(..usize::try_from(length).ok()?)
    }
    let mut table = Table::default();
    while !bytes.is_empty() {
        let key = part(&mut bytes)?;
        let value = part(&mut bytes)?;
        table.insert(key, value);
    }
    Some(table)
}
