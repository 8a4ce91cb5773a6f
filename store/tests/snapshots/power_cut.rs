//! The power is cut before every single operation on the disk, one after the other: each time the next start must find
//! a state that was whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use campanile_store::engine::{Disk, Engine, Family, MemDisk, Purpose, Space};

use crate::{open, sender, take, transfer, values, write};

/// A disk whose power fails before the operation after `left` more of them.
struct Fused {
    hardware: MemDisk,
    disk: Arc<dyn Disk>,
    left: AtomicUsize,
}

impl Fused {
    fn disk(&self) -> &dyn Disk {
        let burnt = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if burnt {
            self.hardware.power_off();
        }
        &*self.disk
    }
}

impl Disk for Fused {
    fn open(&self, name: &str, purpose: Purpose, families: &[Family]) -> io::Result<Arc<dyn Engine>> {
        self.disk().open(name, purpose, families)
    }
    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk().read_file(name)
    }
    fn write_file(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.disk().write_file(name, content)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        self.disk().list(dir)
    }
    fn list_dirs(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk().list_dirs(dir)
    }
    fn read_at(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        self.disk().read_at(name, offset, max)
    }
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk().append(name, bytes)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk().sync_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.disk().remove_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.disk().space()
    }
}

/// Runs `work` on a disk with an old state, with the power failing after 0, 1, 2... operations, until it
/// gets through; shows `check` what each failure left: whether the work had got through, and the state.
fn cut_everywhere(work: impl Fn(&Arc<dyn Disk>) -> bool, check: impl Fn(bool, Vec<String>)) -> usize {
    for operations in 0.. {
        let hardware = MemDisk::new();
        {
            let (_snapshots, generation) = open(&hardware.attach());
            write(generation.engine(), 1, "old");
            generation.engine().flush().unwrap();
        }
        let disk = hardware.attach();
        let fused = Fused { hardware: hardware.clone(), disk, left: AtomicUsize::new(operations) };
        let got_through = work(&(Arc::new(fused) as Arc<dyn Disk>));
        hardware.power_off();

        let disk = hardware.attach();
        let (snapshots, generation) = open(&disk);
        check(got_through, values(&**generation.engine()));
        // Nothing of the attempt is left over.
        assert_eq!(disk.list_dirs("state").unwrap().len(), 1);
        assert!(disk.list_dirs("snapshots").unwrap().is_empty());
        // And it can be done now.
        let sent = sender(&MemDisk::new().attach());
        let again = snapshots.install(transfer(&sent, &snapshots).unwrap()).unwrap();
        assert_eq!(values(&**again.engine()), ["a", "b"]);
        if got_through {
            return operations;
        }
    }
    unreachable!("the work gets through with enough operations")
}

#[test]
fn an_install_leaves_the_old_state_or_the_new_one() {
    let sent = sender(&MemDisk::new().attach());
    let install = |disk: &Arc<dyn Disk>| {
        let Ok((snapshots, _old)) = campanile_store::snapshot::Snapshots::open(disk.clone(), &crate::FAMILIES) else {
            return false;
        };
        transfer(&sent, &snapshots).and_then(|received| snapshots.install(received)).is_ok()
    };
    let operations = cut_everywhere(install, |got_through, values| {
        let is_new = values == ["a", "b"];
        assert!(is_new || values == ["old"], "{values:?}");
        assert!(is_new || !got_through);
    });
    assert!(operations > 10, "the power was cut {operations} times");
}

#[test]
fn taking_leaves_the_state_as_it_was() {
    let take_one = |disk: &Arc<dyn Disk>| {
        let Ok((snapshots, generation)) = campanile_store::snapshot::Snapshots::open(disk.clone(), &crate::FAMILIES)
        else {
            return false;
        };
        take(&snapshots, generation.engine(), 6).is_ok()
    };
    cut_everywhere(take_one, |_, values| assert_eq!(values, ["old"]));
}
