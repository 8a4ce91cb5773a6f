//! One suite for every implementation of the seam to the disk: what holds on RocksDB must hold on the simulated disk,
//! or the simulator proves nothing about the real node.

mod crash;
mod disk;
mod engine;
mod model;

use std::ops::Bound;
use std::sync::Arc;

use campanile_store::engine::{Batch, Disk, Engine, Family, KeyValue, MemDisk, Purpose, Read};

pub const A: Family = Family("a");
pub const B: Family = Family("b");
pub const FAMILIES: [Family; 2] = [A, B];

/// A disk, and what has to stay alive with it.
pub struct Bench {
    pub disk: Arc<dyn Disk>,
    _directory: Option<tempfile::TempDir>,
}

pub fn in_memory() -> Bench {
    Bench { disk: MemDisk::new().attach(), _directory: None }
}

#[cfg(not(madsim))]
pub fn on_file_system() -> Bench {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = campanile_store::engine::FsDisk::open(directory.path()).expect("a directory to use");
    Bench { disk: Arc::new(disk), _directory: Some(directory) }
}

/// Makes a test of each named function for each implementation.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name(crate::in_memory()); })*
        }
        #[cfg(not(madsim))]
        mod rocks {
            $(#[test] fn $name() { super::$name(crate::on_file_system()); })*
        }
    };
}
pub(crate) use on_both;

pub fn open(disk: &Arc<dyn Disk>, name: &str, purpose: Purpose) -> Arc<dyn Engine> {
    disk.open(name, purpose, &FAMILIES).expect("the database opens")
}

pub fn put(family: Family, key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(family, key.into(), value.into());
    batch
}

pub fn get(reader: &(impl Read + ?Sized), family: Family, key: &str) -> Option<String> {
    reader.get(family, key.as_bytes()).expect("a read").map(|value| String::from_utf8(value).expect("text"))
}

/// All rows of a family as `key=value`, in order.
pub fn rows(reader: &(impl Read + ?Sized), family: Family) -> Vec<String> {
    let rows = reader.scan(family, Bound::Unbounded, Bound::Unbounded, false);
    rows.map(|row| text(row.expect("a row"))).collect()
}

pub fn text((key, value): KeyValue) -> String {
    format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))
}
