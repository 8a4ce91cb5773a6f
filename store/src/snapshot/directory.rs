//! A directory that goes with the last one who uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::Disk;

pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    name: String,
    remove_on_drop: AtomicBool,
}

impl Directory {
    /// One that is removed on drop, unless [`Directory::keep`] is called.
    pub fn temporary(disk: Arc<dyn Disk>, name: String) -> Directory {
        Directory { disk, name, remove_on_drop: AtomicBool::new(true) }
    }

    /// One that stays until [`Directory::remove_when_unused`] is called.
    pub fn kept(disk: Arc<dyn Disk>, name: String) -> Directory {
        Directory { disk, name, remove_on_drop: AtomicBool::new(false) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn keep(&self) {
        self.remove_on_drop.store(false, Ordering::SeqCst);
    }

    pub fn remove_when_unused(&self) {
        self.remove_on_drop.store(true, Ordering::SeqCst);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.remove_on_drop.load(Ordering::SeqCst) {
            return;
        }
        // What is left over costs space only, and the next start removes it.
        if let Err(error) = self.disk.remove_dir(&self.name) {
            tracing::warn!(directory = self.name, %error, "an unused directory could not be removed");
        }
    }
}
