//! What a snapshot consists of: the list of its files, by which the receiver knows that it has got all of it unharmed.

use bincode::{Decode, Encode};
use campanile_model::codec::Versioned;

use crate::engine::Disk;
use crate::{StoreError, StoreResult};

/// Files are read in pieces of this size for their checksums.
const CHUNK_BYTES: usize = 1 << 20;

/// A state of this many files would be far beyond what a node holds.
const MAX_FILES: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Manifest {
    /// The same for the same files only: index and checksum over the list of files.
    pub id: String,
    /// Index of the last entry in the state.
    pub index: u64,
    /// What the log's owner stored with that entry.
    pub mark: Vec<u8>,
    /// In order of name.
    pub files: Vec<ManifestFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ManifestFile {
    pub name: String,
    pub bytes: u64,
    pub crc32: u32,
}

impl Versioned for Manifest {
    const NAME: &'static str = "snapshot manifest";
}

impl Manifest {
    pub(super) fn new(index: u64, mark: Vec<u8>, files: Vec<ManifestFile>) -> Manifest {
        let mut list = crc32fast::Hasher::new();
        list.update(&mark);
        for file in &files {
            list.update(file.name.as_bytes());
            list.update(&file.bytes.to_be_bytes());
            list.update(&file.crc32.to_be_bytes());
        }
        Manifest { id: format!("{index}-{:08x}", list.finalize()), index, mark, files }
    }

    pub fn total_bytes(&self) -> u64 {
        self.files.iter().fold(0, |total, file| total.saturating_add(file.bytes))
    }

    /// Checks what a peer sent before anything is done with it.
    pub(super) fn check(&self) -> StoreResult<()> {
        let refuse = |why: &str| Err(StoreError::Refused(format!("manifest of snapshot {:?}: {why}", self.id)));
        if self.files.len() > MAX_FILES {
            return refuse("too many files");
        }
        if !self.files.iter().all(|file| is_plain(&file.name)) {
            return refuse("a file's name is not plain");
        }
        if !self.files.is_sorted_by(|left, right| left.name < right.name) {
            return refuse("files are not in order");
        }
        Ok(())
    }
}

/// Files of a checkpoint lie flat in their directory and have the names that engines give.
fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= 255 && name.chars().all(allowed) && name != "." && name != ".."
}

/// Lists the files of a directory with sizes and checksums.
pub(super) fn checksum_files(disk: &dyn Disk, directory: &str) -> StoreResult<Vec<ManifestFile>> {
    let checksum = |(name, bytes): (String, u64)| {
        let path = format!("{directory}/{name}");
        let mut hasher = crc32fast::Hasher::new();
        let mut offset = 0;
        while offset < bytes {
            let chunk = disk.read_at(&path, offset, CHUNK_BYTES)?;
            if chunk.is_empty() {
                return Err(StoreError::Corrupt(format!("{path} ends at {offset} of {bytes} bytes")));
            }
            hasher.update(&chunk);
            offset += chunk.len() as u64;
        }
        Ok(ManifestFile { name, bytes, crc32: hasher.finalize() })
    };
    disk.list(directory)?.into_iter().map(checksum).collect()
}
