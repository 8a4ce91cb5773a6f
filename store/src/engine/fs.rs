//! The real disk: a directory of the file system, with RocksDB databases and a few plain files in it.
//!
//! What it says is durable has been fsynced, and so have the directories that lead to it. It takes no lock of its own:
//! two processes are kept apart by the lock file of the databases.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rocks::{Memory, RocksEngine};
use super::{Disk, Engine, Family, Purpose, Space, path};

/// Ending of a file that is being written and will be renamed.
const UNFINISHED: &str = ".tmp";

pub struct FsDisk {
    root: PathBuf,
    /// Shared by the databases of this disk, so that their memory has one bound.
    memory: Memory,
}

impl FsDisk {
    /// Uses this directory, and creates it if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<FsDisk> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|error| about(&root, error))?;
        Ok(FsDisk { root, memory: Memory::default() })
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        path::check(name)?;
        Ok(self.root.join(name))
    }

    fn entries(&self, dir: &str, want: fn(&fs::FileType) -> bool) -> io::Result<Vec<(String, fs::DirEntry)>> {
        let path = self.path(dir)?;
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| about(&path, error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| about(&path, error))?;
            // A name that is not text is none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && want(&entry.file_type()?)
            {
                found.push((name, entry));
            }
        }
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(found)
    }
}

impl Disk for FsDisk {
    fn open(&self, name: &str, purpose: Purpose, families: &[Family]) -> io::Result<Arc<dyn Engine>> {
        let path = self.path(name)?;
        fs::create_dir_all(&path).map_err(|error| about(&path, error))?;
        let engine = RocksEngine::open(&self.root, name, purpose, families, &self.memory)?;
        sync_up(&self.root, &path)?;
        Ok(Arc::new(engine))
    }

    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name)?;
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(about(&path, error)),
        }
    }

    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let unfinished = self.path(&format!("{name}{UNFINISHED}"))?;
        let write = || -> io::Result<()> {
            create_parent(&path)?;
            let mut file = File::create(&unfinished)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            sync_up(&self.root, parent(&path))
        };
        write().map_err(|error| about(&path, error))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let entries = self.entries(dir, fs::FileType::is_file)?;
        entries.into_iter().map(|(name, entry)| Ok((name, entry.metadata()?.len()))).collect()
    }

    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(self.entries(dir, fs::FileType::is_dir)?.into_iter().map(|(name, _)| name).collect())
    }

    fn read_at(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let path = self.path(name)?;
        let read = || -> io::Result<Vec<u8>> {
            let file = File::open(&path)?;
            let left = file.metadata()?.len().saturating_sub(offset);
            let mut bytes = vec![0; max.min(usize::try_from(left).unwrap_or(usize::MAX))];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        read().map_err(|error| about(&path, error))
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        let append = || -> io::Result<()> {
            create_parent(&path)?;
            OpenOptions::new().create(true).append(true).open(&path)?.write_all(bytes)
        };
        append().map_err(|error| about(&path, error))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.path(dir)?;
        sync_files(&self.root, &path).map_err(|error| about(&path, error))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.path(dir)?;
        match fs::remove_dir_all(&path) {
            Ok(()) => sync(parent(&path)).map_err(|error| about(&path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(about(&path, error)),
        }
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(&self.root).map_err(|error| about(&self.root, error.into()))?;
        Ok(Space { free_bytes: found.f_bavail * found.f_frsize, total_bytes: found.f_blocks * found.f_frsize })
    }
}

/// Fsyncs the files of a directory, the directory, and those that lead to it.
fn sync_files(root: &Path, dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            sync(&entry.path())?;
        }
    }
    sync_up(root, dir)
}

/// Fsyncs a directory and those above it up to the root: any of them may just have been created.
pub(super) fn sync_up(root: &Path, dir: &Path) -> io::Result<()> {
    dir.ancestors().take_while(|above| above.starts_with(root)).try_for_each(sync)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn create_parent(path: &Path) -> io::Result<()> {
    fs::create_dir_all(parent(path))
}

/// Names are checked, so every path has the root above it.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Says which file an error is about.
fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
