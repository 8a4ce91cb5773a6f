//! A disk in memory for simulation and tests. It outlives the node that uses it, keeps what was not synced apart, and
//! loses it with the power.
//!
//! [`MemDisk`] is the hardware: whoever owns it can cut its power or make it fail. A node gets [`MemDisk::attach`],
//! which is the disk for one life of the node: after a power failure it answers nothing but errors, so that what is
//! left of a dead node cannot write under the feet of the next one. Nothing here reads a clock or draws a random
//! number, and all order is key order; how long a sync takes, and how much unsynced data a power failure happens to
//! spare, is told by the owner.

mod database;
mod table;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;

use self::database::{Database, MemEngine};
use self::work::Counters;
pub use self::work::DiskWork;
use super::{Disk, Engine, Family, Purpose, Space, path};

/// What `space` says the disk is large.
const TOTAL_BYTES: u64 = 1 << 40;

/// Called for every synced write; the write is durable when the future is ready.
type SyncDelay = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The hardware. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemDisk {
    platter: Arc<Mutex<Platter>>,
}

#[derive(Default)]
struct Platter {
    /// Counts power failures: who attached before the last one is cut off.
    life: u64,
    files: BTreeMap<String, File>,
    databases: BTreeMap<String, Arc<Mutex<Database>>>,
    full: bool,
    /// Everything that would write fails.
    failing: bool,
    fail_next_sync: bool,
    sync_delay: Option<SyncDelay>,
    work: Arc<Counters>,
}

struct File {
    content: Vec<u8>,
    /// How many of the bytes would be there after a power failure; `None` if not even the name would.
    durable: Option<usize>,
}

impl MemDisk {
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// The disk as one life of a node sees it.
    pub fn attach(&self) -> Arc<dyn Disk> {
        let life = lock(&self.platter).life;
        Arc::new(Attached { platter: self.platter.clone(), life })
    }

    /// Cuts the power: everything unsynced is gone, and whoever is attached is cut off. Attach again to go on.
    pub fn power_off(&self) {
        self.power_off_sparing(|_, _| 0);
    }

    /// Cuts the power. For each database, `spare(directory, unsynced)` says how many of its unsynced batches, counted
    /// from the oldest, had reached the disk by themselves.
    pub fn power_off_sparing(&self, mut spare: impl FnMut(&str, usize) -> usize) {
        let mut platter = lock(&self.platter);
        platter.life += 1;
        platter.fail_next_sync = false;
        platter.files.retain(|_, file| match file.durable {
            Some(durable) => {
                file.content.truncate(durable);
                true
            }
            None => false,
        });
        for (directory, database) in &mut platter.databases {
            let left = lock(database).fail_power(|unsynced| spare(directory, unsynced));
            *database = Arc::new(Mutex::new(left));
        }
    }

    /// Makes the next sync of anything fail. A database whose sync failed refuses writes until the power has been off.
    pub fn fail_next_sync(&self) {
        lock(&self.platter).fail_next_sync = true;
    }

    /// While full, everything that would write fails.
    pub fn set_full(&self, full: bool) {
        lock(&self.platter).full = full;
    }

    /// While failing, everything that would write ends with an I/O error.
    pub fn set_failing(&self, failing: bool) {
        lock(&self.platter).failing = failing;
    }

    /// Changes one bit of what is durable, as old disks do; which one is told by `draw`. Whoever reads the row meets its
    /// checksum. Call it while the power is off.
    pub fn flip_bit(&self, draw: u64) {
        let platter = lock(&self.platter);
        let databases = platter.databases.len() as u64;
        if let Some(database) = platter.databases.values().nth((draw % databases.max(1)) as usize) {
            lock(database).flip_bit(draw / databases.max(1));
        }
    }

    /// Whether a bit was flipped that nobody can mend.
    pub fn is_damaged(&self) -> bool {
        lock(&self.platter).databases.values().any(|database| lock(database).is_damaged())
    }

    /// All that its databases have done, whatever has become of them.
    pub fn work(&self) -> DiskWork {
        lock(&self.platter).work.get()
    }

    /// Makes each synced write of a database take as long as the future that `delay` returns.
    pub fn set_sync_delay(&self, delay: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        lock(&self.platter).sync_delay = Some(Arc::new(delay));
    }
}

impl Platter {
    fn check_room(&self) -> io::Result<()> {
        if self.failing {
            return Err(io::Error::other("the simulated disk fails"));
        }
        if self.full { Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full")) } else { Ok(()) }
    }

    /// Takes the planned failure, if there is one.
    fn check_sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.fail_next_sync) {
            return Err(io::Error::other("the simulated disk failed to sync"));
        }
        Ok(())
    }

    fn is_taken(&self, dir: &str) -> bool {
        let inside = format!("{dir}/");
        self.databases.contains_key(dir)
            || self.files.range(inside.clone()..).next().is_some_and(|(name, _)| name.starts_with(&inside))
    }

    fn remove(&mut self, dir: &str) {
        let inside = format!("{dir}/");
        self.files.retain(|name, _| !name.starts_with(&inside));
        self.databases.retain(|name, _| name != dir && !name.starts_with(&inside));
    }
}

/// Locks, also after a panic elsewhere: every change under these locks is whole at each step that can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn power_failed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the simulated disk lost its power")
}

/// One life's access to the disk.
#[derive(Clone)]
struct Attached {
    platter: Arc<Mutex<Platter>>,
    life: u64,
}

impl Attached {
    /// The platter, if this life is not over.
    fn platter(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = lock(&self.platter);
        if platter.life == self.life { Ok(platter) } else { Err(power_failed()) }
    }
}

impl Disk for Attached {
    fn open(&self, name: &str, _purpose: Purpose, families: &[Family]) -> io::Result<Arc<dyn Engine>> {
        path::check(name)?;
        let mut platter = self.platter()?;
        let database = match platter.databases.get(name) {
            Some(database) => database.clone(),
            None => {
                platter.check_room()?;
                let inside = format!("{name}/");
                let files = platter.files.range(inside.clone()..).take_while(|(name, _)| name.starts_with(&inside));
                let mut database = Database::new(platter.work.clone());
                for (file_name, file) in files {
                    database.load(name, &file_name[inside.len()..], families, &file.content)?;
                }
                let database = Arc::new(Mutex::new(database));
                platter.databases.insert(name.to_owned(), database.clone());
                database
            }
        };
        lock(&database).open(name, families)?;
        Ok(Arc::new(MemEngine::new(self.clone(), database)))
    }

    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        path::check(name)?;
        Ok(self.platter()?.files.get(name).map(|file| file.content.clone()))
    }

    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        path::check(name)?;
        let mut platter = self.platter()?;
        platter.check_room()?;
        platter.check_sync()?;
        platter.files.insert(name.to_owned(), File { content: content.to_vec(), durable: Some(content.len()) });
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        path::check(dir)?;
        let inside = format!("{dir}/");
        let platter = self.platter()?;
        let files = platter.files.range(inside.clone()..).take_while(|(name, _)| name.starts_with(&inside));
        Ok(files
            .map(|(name, file)| (&name[inside.len()..], file.content.len() as u64))
            .filter(|(name, _)| !name.contains('/'))
            .map(|(name, bytes)| (name.to_owned(), bytes))
            .collect())
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        path::check(dir)?;
        let inside = format!("{dir}/");
        let platter = self.platter()?;
        let below_files = platter.files.keys().filter_map(|name| path::parent(name));
        let names: BTreeSet<String> = below_files
            .chain(platter.databases.keys().map(String::as_str))
            .filter_map(|name| name.strip_prefix(&inside))
            .filter_map(|rest| rest.split('/').next())
            .map(str::to_owned)
            .collect();
        Ok(names.into_iter().collect())
    }

    fn read_at(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        path::check(name)?;
        let platter = self.platter()?;
        let file = platter.files.get(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))?;
        let start = file.content.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let end = file.content.len().min(start.saturating_add(max));
        Ok(file.content[start..end].to_vec())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        path::check(name)?;
        let mut platter = self.platter()?;
        platter.check_room()?;
        let file = platter.files.entry(name.to_owned()).or_insert(File { content: Vec::new(), durable: None });
        file.content.extend_from_slice(bytes);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        path::check(dir)?;
        let inside = format!("{dir}/");
        let mut platter = self.platter()?;
        platter.check_sync()?;
        for (name, file) in platter.files.range_mut(inside.clone()..) {
            match name.strip_prefix(&inside) {
                Some(rest) if !rest.contains('/') => file.durable = Some(file.content.len()),
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        path::check(dir)?;
        self.platter()?.remove(dir);
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let platter = self.platter()?;
        let used: u64 = platter.files.values().map(|file| file.content.len() as u64).sum::<u64>()
            + platter.databases.values().map(|database| lock(database).bytes()).sum::<u64>();
        let free_bytes = if platter.full { 0 } else { TOTAL_BYTES.saturating_sub(used) };
        Ok(Space { free_bytes, total_bytes: TOTAL_BYTES })
    }
}
