//! A snapshot on its way in. What arrives is checked against the manifest; what does not fit is refused, and dropping
//! an unfinished one removes what has come.

use std::sync::Arc;

use super::directory::Directory;
use super::manifest::Manifest;
use crate::engine::Disk;
use crate::{StoreError, StoreResult};

pub struct Receiving {
    disk: Arc<dyn Disk>,
    generation: u64,
    directory: Directory,
    manifest: Manifest,
    /// What has come of each file of the manifest.
    arrived: Vec<Arrived>,
}

#[derive(Clone, Default)]
struct Arrived {
    bytes: u64,
    checksum: crc32fast::Hasher,
}

impl Receiving {
    /// What comes lies in `directory`, as the database of this generation.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        generation: u64,
        directory: Directory,
        manifest: Manifest,
    ) -> StoreResult<Receiving> {
        manifest.check()?;
        let free_bytes = disk.space()?.free_bytes;
        if manifest.total_bytes() > free_bytes {
            let needed = manifest.total_bytes();
            return Err(StoreError::Refused(format!("it has {needed} bytes, but {free_bytes} are free")));
        }
        // Every file is there from the beginning, also those that are empty.
        for file in &manifest.files {
            disk.append(&format!("{}/{}", directory.name(), file.name), &[])?;
        }
        let arrived = vec![Arrived::default(); manifest.files.len()];
        Ok(Receiving { disk, generation, directory, manifest, arrived })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many bytes of a file have come: where its next piece begins. `None` for a file not in the manifest.
    pub fn arrived_bytes(&self, file: usize) -> Option<u64> {
        self.arrived.get(file).map(|arrived| arrived.bytes)
    }

    /// Takes the next piece of a file.
    pub fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        let refuse = |why: String| Err(StoreError::Refused(why));
        let (Some(wanted), Some(arrived)) = (self.manifest.files.get(file), self.arrived.get_mut(file)) else {
            return refuse(format!("file {file} is not in the manifest"));
        };
        if offset != arrived.bytes {
            return refuse(format!("{} goes on at {}, not at {offset}", wanted.name, arrived.bytes));
        }
        if bytes.len() as u64 > wanted.bytes - arrived.bytes {
            return refuse(format!("{} has {} bytes, and more have come", wanted.name, wanted.bytes));
        }
        self.disk.append(&format!("{}/{}", self.directory.name(), wanted.name), bytes)?;
        arrived.checksum.update(bytes);
        arrived.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Checks that all has come as it was sent, and makes it durable.
    pub fn finish(self) -> StoreResult<Received> {
        for (wanted, arrived) in self.manifest.files.iter().zip(self.arrived) {
            if arrived.bytes != wanted.bytes {
                let message = format!("{} has {} bytes, {} have come", wanted.name, wanted.bytes, arrived.bytes);
                return Err(StoreError::Refused(message));
            }
            if arrived.checksum.finalize() != wanted.crc32 {
                return Err(StoreError::Refused(format!("{} has another checksum than it should", wanted.name)));
            }
        }
        self.disk.sync_dir(self.directory.name())?;
        Ok(Received { generation: self.generation, directory: self.directory, manifest: self.manifest })
    }
}

/// A snapshot that has come whole and is durable, to be installed.
pub struct Received {
    pub(super) generation: u64,
    pub(super) directory: Directory,
    manifest: Manifest,
}

impl Received {
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}
