//! A state as files: taken on one node, read by others, received and installed by a node that is too far behind.
//!
//! On the disk:
//!
//! ```text
//! state/CURRENT        number of the generation in use
//! state/<generation>/  the state's database; one that is on its way in, until it is installed
//! snapshots/<number>/  a checkpoint of a state, never opened as a database
//! ```
//!
//! A snapshot's files are for another node to read and for nothing else: they are made when one asks, and a start finds
//! none. What the log may be purged up to is the state's own durability, not theirs.
//!
//! [`Snapshots`] owns both directories. Its duties: the last snapshot is kept until it is released, and those that
//! somebody still reads; a crash at any point leaves one state that opens, the old or the new one. It knows nothing of
//! tables, and what the mark means only its owner knows.

mod directory;
mod manifest;
mod receive;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::directory::Directory;
use self::manifest::checksum_files;
pub use self::manifest::{Manifest, ManifestFile};
pub use self::receive::{Received, Receiving};
use crate::engine::{Disk, Engine, Family, Purpose};
use crate::{StoreError, StoreResult};

const STATES: &str = "state";
const POINTER: &str = "state/CURRENT";
const SNAPSHOTS: &str = "snapshots";

/// The generation of a new node.
const FIRST_GENERATION: u64 = 1;

/// A complete snapshot. Its files stay on the disk as long as anybody holds it.
pub struct Snapshot {
    manifest: Manifest,
    disk: Arc<dyn Disk>,
    directory: Directory,
}

impl Snapshot {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// At most `max` bytes of a file of the manifest, from `offset`; empty at its end. A peer asks for it, so a file
    /// that is not in the manifest is refused.
    pub fn read(&self, file: usize, offset: u64, max: usize) -> StoreResult<Vec<u8>> {
        let Some(ManifestFile { name, .. }) = self.manifest.files.get(file) else {
            return Err(StoreError::Refused(format!("snapshot {} has no file {file}", self.manifest.id)));
        };
        Ok(self.disk.read_at(&format!("{}/{name}", self.directory.name()), offset, max)?)
    }
}

/// A state's database. Its directory is removed when a snapshot was installed in its place and nobody holds it any
/// more, so whoever reads from the engine holds the generation too.
pub struct Generation {
    // Closed before the directory goes: fields are dropped in this order.
    engine: Arc<dyn Engine>,
    _directory: Arc<Directory>,
}

impl Generation {
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }
}

/// A snapshot half taken: what [`Snapshots::begin`] leaves for [`Snapshots::finish`].
pub struct Taking {
    directory: Directory,
    index: u64,
    mark: Vec<u8>,
}

/// The snapshots of a disk, and which generation of the state is in use.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    families: Vec<Family>,
    inner: Mutex<Inner>,
}

struct Inner {
    latest: Option<Arc<Snapshot>>,
    /// For directories of snapshots and of generations; not used twice.
    next_number: u64,
    generation_directory: Arc<Directory>,
}

impl Snapshots {
    /// Opens the state in use, or the first one on an empty disk, and then removes what a crash left over. The lock of
    /// the open database says that no other process works in these directories.
    pub fn open(disk: Arc<dyn Disk>, families: &[Family]) -> StoreResult<(Snapshots, Arc<Generation>)> {
        let generation = current_generation(&*disk)?;
        let directory = generation_name(generation);
        let engine = disk.open(&directory, Purpose::State, families)?;
        for other in disk.list_dirs(STATES)?.iter().map(|name| format!("{STATES}/{name}")) {
            if other != directory {
                disk.remove_dir(&other)?;
            }
        }
        disk.remove_dir(SNAPSHOTS)?;

        let directory = Arc::new(Directory::kept(disk.clone(), directory));
        let inner = Inner { latest: None, next_number: generation + 1, generation_directory: directory.clone() };
        let snapshots = Snapshots { disk, families: families.to_vec(), inner: Mutex::new(inner) };
        Ok((snapshots, Arc::new(Generation { engine, _directory: directory })))
    }

    /// The last snapshot taken, unless it was released.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.inner().latest.clone()
    }

    /// Keeps no snapshot of before this index any longer: its files go with the last who reads them. That may be here,
    /// and takes a while.
    pub fn release_before(&self, index: u64) {
        let _released = self.inner().latest.take_if(|latest| latest.manifest.index < index);
    }

    /// First half of taking a snapshot: a checkpoint of the engine, which stands at this index and mark. Nothing may be
    /// written to the engine until this returns; a [`Engine::flush`] before makes that short.
    pub fn begin(&self, engine: &dyn Engine, index: u64, mark: Vec<u8>) -> StoreResult<Taking> {
        let (_, directory) = self.new_directory(SNAPSHOTS);
        engine.flush()?;
        engine.checkpoint(directory.name())?;
        Ok(Taking { directory, index, mark })
    }

    /// Second half: reads the files for their checksums, and keeps the snapshot as the latest, unless a later one has
    /// come meanwhile. Writes go on.
    pub fn finish(&self, taking: Taking) -> StoreResult<Arc<Snapshot>> {
        let Taking { directory, index, mark } = taking;
        let files = checksum_files(&*self.disk, directory.name())?;
        let manifest = Manifest::new(index, mark, files);
        let snapshot = Arc::new(Snapshot { manifest, disk: self.disk.clone(), directory });
        // Removed when the lock is released.
        let mut _replaced = None;
        let mut inner = self.inner();
        if inner.latest.as_ref().is_none_or(|latest| latest.manifest.index <= index) {
            _replaced = inner.latest.replace(snapshot.clone());
        }
        drop(inner);
        Ok(snapshot)
    }

    /// Begins to receive the snapshot that a peer described so.
    pub fn receive(&self, manifest: Manifest) -> StoreResult<Receiving> {
        let (generation, directory) = self.new_directory(STATES);
        Receiving::begin(self.disk.clone(), generation, directory, manifest)
    }

    /// Makes the received state the one in use. The state before it stays open for those who hold its [`Generation`].
    /// The switch is the pointer file's replacement: before it the old state is what a restart finds, after it the new
    /// one.
    pub fn install(&self, received: Received) -> StoreResult<Arc<Generation>> {
        let Received { generation, directory, .. } = received;
        let engine = self.disk.open(directory.name(), Purpose::State, &self.families)?;
        // Held to the end: pointer and memory change together.
        let mut inner = self.inner();
        // If the pointer's write fails, it may still be on the disk: nothing it could mean may be removed.
        directory.keep();
        self.disk.write_file(POINTER, pointer_content(generation).as_bytes())?;

        let directory = Arc::new(directory);
        std::mem::replace(&mut inner.generation_directory, directory.clone()).remove_when_unused();
        Ok(Arc::new(Generation { engine, _directory: directory }))
    }

    /// A new directory and its number. It goes with its owner, unless it is kept.
    fn new_directory(&self, parent: &str) -> (u64, Directory) {
        let mut inner = self.inner();
        let number = inner.next_number;
        inner.next_number += 1;
        (number, Directory::temporary(self.disk.clone(), format!("{parent}/{number}")))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is under the lock changes in single steps, so it is whole even if a holder panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn generation_name(generation: u64) -> String {
    format!("{STATES}/{generation}")
}

fn pointer_content(generation: u64) -> String {
    format!("{generation}\n")
}

/// Reads the pointer file. An empty disk gets one before its first state, so a state without a pointer has lost it.
fn current_generation(disk: &dyn Disk) -> StoreResult<u64> {
    let Some(content) = disk.read_file(POINTER)? else {
        if let Some(state) = disk.list_dirs(STATES)?.first() {
            return Err(StoreError::Corrupt(format!("there is {STATES}/{state}, but {POINTER} is missing")));
        }
        disk.write_file(POINTER, pointer_content(FIRST_GENERATION).as_bytes())?;
        return Ok(FIRST_GENERATION);
    };
    let number: Option<u64> = std::str::from_utf8(&content).ok().and_then(|text| text.trim_end().parse().ok());
    let Some(generation) = number else {
        return Err(StoreError::Corrupt(format!("{POINTER} holds no number")));
    };
    // Opening creates what is missing, and a lost state must not become an empty one. Only the first may be missing:
    // its pointer is written before it.
    if generation != FIRST_GENERATION && !disk.list_dirs(STATES)?.contains(&generation.to_string()) {
        return Err(StoreError::Corrupt(format!("{POINTER} names generation {generation}, which is not there")));
    }
    Ok(generation)
}
