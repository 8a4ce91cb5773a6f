//! A state as files: taken on one node, read by others, received and installed by a node that is too far behind.
//!
//! On the disk:
//!
//! ```text
//! state/CURRENT            number of the generation in use
//! state/<generation>/      the state's database
//! snapshots/<number>/files/    a checkpoint of a state, never opened as a database
//! snapshots/<number>/manifest  written last: without it the snapshot is not complete
//! ```
//!
//! [`Snapshots`] owns both directories. Its duties: a snapshot counts only when all of it is durable; one is kept, and
//! those that somebody still reads; a crash at any point leaves one state that opens, the old or the new one. It knows
//! nothing of tables, and what the mark means only its owner knows.

mod directory;
mod manifest;
mod receive;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use campanile_model::codec;

use self::directory::Directory;
pub use self::manifest::{Manifest, ManifestFile};
use self::manifest::{Stored, checksum_files};
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
    directory: Arc<Directory>,
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
        Ok(self.disk.read_at(&format!("{}/{name}", files_of(self.directory.name())), offset, max)?)
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
    generation: u64,
    index: u64,
    mark: Vec<u8>,
}

/// A snapshot just taken, and the one it takes the place of.
pub struct Taken {
    pub snapshot: Arc<Snapshot>,
    /// Its files are removed with the last who holds it, which may take a while: not for threads that serve others.
    pub replaced: Option<Arc<Snapshot>>,
}

/// The snapshots of a disk, and which generation of the state is in use.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    families: Vec<Family>,
    inner: Mutex<Inner>,
}

struct Inner {
    latest: Option<Arc<Snapshot>>,
    /// The next snapshot's directory; numbers are not used twice.
    next_number: u64,
    generation: u64,
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
        let (latest, next_number) = clean_snapshots(&disk, generation)?;

        let directory = Arc::new(Directory::kept(disk.clone(), directory));
        let inner = Inner { latest, next_number, generation, generation_directory: directory.clone() };
        let snapshots = Snapshots { disk, families: families.to_vec(), inner: Mutex::new(inner) };
        Ok((snapshots, Arc::new(Generation { engine, _directory: directory })))
    }

    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.inner().latest.clone()
    }

    /// First half of taking a snapshot: a checkpoint of the engine, which stands at this index and mark. Nothing may be
    /// written to the engine until this returns; a [`Engine::flush`] before makes that short.
    pub fn begin(&self, engine: &dyn Engine, index: u64, mark: Vec<u8>) -> StoreResult<Taking> {
        let (directory, generation) = self.new_directory();
        engine.flush()?;
        engine.checkpoint(&files_of(directory.name()))?;
        Ok(Taking { directory, generation, index, mark })
    }

    /// Second half: finds the files' checksums, and keeps the snapshot as the latest. Writes go on meanwhile. Only files
    /// that the snapshot before did not have are read: what a snapshot costs follows what was written since.
    pub fn finish(&self, taking: Taking) -> StoreResult<Taken> {
        let Taking { directory, generation, index, mark } = taking;
        let before = self.latest();
        let known = before.as_deref().map(|snapshot| (files_of(snapshot.directory.name()), &snapshot.manifest));
        let files = checksum_files(&*self.disk, &files_of(directory.name()), known)?;
        let snapshot = self.complete(directory, generation, Manifest::new(index, mark, files))?;
        let replaced = publish(&mut self.inner(), snapshot.clone());
        Ok(Taken { snapshot, replaced })
    }

    /// Begins to receive the snapshot that a peer described so.
    pub fn receive(&self, manifest: Manifest) -> StoreResult<Receiving> {
        let (directory, _) = self.new_directory();
        Receiving::begin(self.disk.clone(), directory, manifest)
    }

    /// Makes the received state the one in use, and the received snapshot the latest. The state before it stays open
    /// for those who hold its [`Generation`]. The switch is the pointer file's replacement: before it the old state is
    /// what a restart finds, after it the new one.
    pub fn install(&self, received: Received) -> StoreResult<Arc<Generation>> {
        let (directory, manifest) = received.into_parts();
        // Removed when the lock is released.
        let _replaced;
        // Held to the end: there is one next generation.
        let mut inner = self.inner();
        let generation = inner.generation + 1;
        let name = generation_name(generation);
        // What is served to peers must stay as it is, so the database is a copy.
        self.disk.copy_checkpoint(&files_of(directory.name()), &name)?;
        let new_directory = Directory::temporary(self.disk.clone(), name.clone());
        let engine = self.disk.open(&name, Purpose::State, &self.families)?;
        let snapshot = self.complete(directory, generation, manifest)?;

        // If the pointer's write fails, it may still be on the disk: nothing it could mean may be removed.
        new_directory.keep();
        snapshot.directory.keep();
        self.disk.write_file(POINTER, pointer_content(generation).as_bytes())?;

        let new_directory = Arc::new(new_directory);
        inner.generation = generation;
        std::mem::replace(&mut inner.generation_directory, new_directory.clone()).remove_when_unused();
        _replaced = publish(&mut inner, snapshot);
        Ok(Arc::new(Generation { engine, _directory: new_directory }))
    }

    /// A directory for a new snapshot, which goes with its owner unless it is kept, and the generation in use.
    fn new_directory(&self) -> (Directory, u64) {
        let mut inner = self.inner();
        let number = inner.next_number;
        inner.next_number += 1;
        (Directory::temporary(self.disk.clone(), format!("{SNAPSHOTS}/{number:010}")), inner.generation)
    }

    /// Writes the manifest: from here on the snapshot is found after a restart, if that runs this generation.
    fn complete(&self, directory: Directory, generation: u64, manifest: Manifest) -> StoreResult<Arc<Snapshot>> {
        let stored = Stored { generation, manifest };
        self.disk.write_file(&manifest_of(directory.name()), &codec::encode(&stored))?;
        let disk = self.disk.clone();
        Ok(Arc::new(Snapshot { manifest: stored.manifest, disk, directory: Arc::new(directory) }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is under the lock changes in single steps, so it is whole even if a holder panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes this snapshot the latest, unless a later one has come meanwhile; then it goes when nobody reads it. Returns the
/// one it replaces, which is removed when nobody holds it.
fn publish(inner: &mut Inner, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
    if inner.latest.as_ref().is_some_and(|latest| latest.manifest.index > snapshot.manifest.index) {
        return None;
    }
    snapshot.directory.keep();
    let before = inner.latest.replace(snapshot)?;
    before.directory.remove_when_unused();
    Some(before)
}

fn files_of(snapshot: &str) -> String {
    format!("{snapshot}/files")
}

fn manifest_of(snapshot: &str) -> String {
    format!("{snapshot}/manifest")
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

/// Finds the latest complete snapshot and removes all others. Returns the next free number too.
fn clean_snapshots(disk: &Arc<dyn Disk>, generation: u64) -> StoreResult<(Option<Arc<Snapshot>>, u64)> {
    let mut latest: Option<Snapshot> = None;
    let mut next_number = 0;
    for entry in disk.list_dirs(SNAPSHOTS)? {
        let name = format!("{SNAPSHOTS}/{entry}");
        if let Ok(number) = entry.parse::<u64>() {
            next_number = next_number.max(number + 1);
        }
        let Some(manifest) = complete_manifest(&**disk, &name, generation)? else {
            disk.remove_dir(&name)?;
            continue;
        };
        let directory = Arc::new(Directory::kept(disk.clone(), name));
        let snapshot = Snapshot { manifest, disk: disk.clone(), directory };
        // Names come in ascending order, so of two at one index the one taken later wins.
        let older = match latest.take() {
            Some(found) if found.manifest.index > snapshot.manifest.index => {
                latest = Some(found);
                Some(snapshot)
            }
            found => {
                latest = Some(snapshot);
                found
            }
        };
        if let Some(older) = older {
            disk.remove_dir(older.directory.name())?;
        }
    }
    Ok((latest.map(Arc::new), next_number))
}

/// The manifest of a snapshot that is complete. One received for a generation that never came into use is none: it
/// may be ahead of the state.
fn complete_manifest(disk: &dyn Disk, snapshot: &str, generation: u64) -> StoreResult<Option<Manifest>> {
    let Some(bytes) = disk.read_file(&manifest_of(snapshot))? else { return Ok(None) };
    let stored: Stored = codec::decode(&bytes)
        .map_err(|source| StoreError::Codec { what: "manifest of a snapshot on this disk", source })?;
    if stored.generation > generation {
        return Ok(None);
    }
    // A removal that a crash cut short may have left the manifest.
    let found = disk.list(&files_of(snapshot))?;
    let wanted = stored.manifest.files.iter().map(|file| (&file.name, file.bytes));
    let is_whole = wanted.eq(found.iter().map(|(name, bytes)| (name, *bytes)));
    Ok(is_whole.then_some(stored.manifest))
}
