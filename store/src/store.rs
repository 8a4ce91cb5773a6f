//! The state of a node: the open database, whoever writes it and whoever reads it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::apply::Applier;
use crate::engine::{Batch, Disk, Engine, Statistic};
use crate::error::StoreResult;
use crate::keys;
use crate::snapshot::{Generation, Manifest, Received, Receiving, Snapshot, Snapshots};
use crate::tables::{self, Globals};
use crate::view::View;

/// The state on a disk. Clones are the same state.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What the store, its applier and its views have in common.
pub(crate) struct Shared {
    disk: Arc<dyn Disk>,
    snapshots: Snapshots,
    /// Held while a snapshot is made.
    making: Mutex<()>,
    current: Mutex<Current>,
    /// There is one writer, or none.
    applier_taken: AtomicBool,
}

/// The database that is open, and where it stands. Behind one lock, so that a view's index is that of its rows.
struct Current {
    database: Arc<Database>,
    index: u64,
    globals: Globals,
    /// The view of this index, once someone has asked for it.
    view: Option<View>,
}

/// One database, from its opening until a snapshot takes its place and nobody reads it any more.
pub(crate) struct Database {
    generation: Arc<Generation>,
    /// No run below it is live, in the state in which that was found and in every later one. A hint for scans.
    pub live_floor: AtomicU64,
}

impl Database {
    pub fn engine(&self) -> &dyn Engine {
        self.generation.engine().as_ref()
    }
}

impl Current {
    fn open(generation: Arc<Generation>) -> StoreResult<Self> {
        let database = Arc::new(Database { generation, live_floor: AtomicU64::new(0) });
        let index = tables::position(database.engine())?.map_or(0, |position| position.index);
        let globals = tables::globals(database.engine())?;
        Ok(Self { database, index, globals, view: None })
    }

    /// Index and mark of the last batch; 0 and `None` in an empty state.
    fn mark(&self) -> StoreResult<(u64, Option<Vec<u8>>)> {
        let position = tables::position(self.database.engine())?;
        Ok(position.map_or((0, None), |position| (position.index, Some(position.mark))))
    }
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().expect("nothing panics while it holds this lock")
    }

    pub fn database(&self) -> Arc<Database> {
        self.current().database.clone()
    }

    pub fn release_applier(&self) {
        self.applier_taken.store(false, Ordering::Release);
    }

    /// Writes a batch that takes the state to `index`. Views asked for meanwhile wait for it: they would otherwise have
    /// new rows under an old index.
    pub fn write(&self, database: &Arc<Database>, batch: Batch, index: u64, globals: Globals) -> StoreResult<()> {
        let mut current = self.current();
        assert!(Arc::ptr_eq(&current.database, database), "a snapshot was installed while a batch was written");
        current.view = None;
        database.engine().write(batch)?;
        current.index = index;
        current.globals = globals;
        Ok(())
    }
}

impl Store {
    /// Opens the state on this disk, or creates an empty one.
    pub fn open(disk: Arc<dyn Disk>) -> StoreResult<Self> {
        let (snapshots, generation) = Snapshots::open(disk.clone(), &keys::FAMILIES)?;
        let current = Mutex::new(Current::open(generation)?);
        let applier_taken = AtomicBool::new(false);
        Ok(Self { shared: Arc::new(Shared { disk, snapshots, making: Mutex::default(), current, applier_taken }) })
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.shared.disk
    }

    /// The state as last committed. Cheap; every batch committed before the call is in it.
    pub fn view(&self) -> View {
        let mut current = self.shared.current();
        let Current { database, index, globals, view } = &mut *current;
        view.get_or_insert_with(|| View::new(database, *index, *globals)).clone()
    }

    /// How the open database does.
    pub fn statistics(&self) -> Vec<Statistic> {
        self.shared.database().engine().statistics()
    }

    /// The single writer. Panics if there is one already.
    pub fn applier(&self) -> Applier {
        let taken = self.shared.applier_taken.swap(true, Ordering::AcqRel);
        assert!(!taken, "the state has a writer already");
        Applier::new(self.shared.clone())
    }

    /// Index of the last committed batch and the mark written with it; 0 and `None` in an empty state.
    pub fn mark(&self) -> StoreResult<(u64, Option<Vec<u8>>)> {
        self.shared.current().mark()
    }

    /// Makes the state durable as it is now, and says how far it is, as [`Store::mark`] does: nothing up to there is
    /// needed of the log any more, neither by this node nor by one that it sends a snapshot to. Blocks for as long as it
    /// takes to write what was written since the last time; commits go on.
    pub fn flush(&self) -> StoreResult<(u64, Option<Vec<u8>>)> {
        let (database, mark) = {
            let current = self.shared.current();
            (current.database.clone(), current.mark()?)
        };
        database.engine().flush()?;
        Ok(mark)
    }

    /// A snapshot of this index or a later one: the last that was made, or else one of the state as it is now. Blocks for
    /// as long as it takes to read the whole state; commits and new views wait only while the engine makes its
    /// checkpoint.
    pub fn snapshot(&self, at_least: u64) -> StoreResult<Arc<Snapshot>> {
        // Whoever comes second finds what the first has made.
        let _making = self.shared.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = self.shared.snapshots.latest().filter(|latest| latest.manifest().index >= at_least) {
            return Ok(latest);
        }
        // Most of the work, done before anybody has to wait.
        self.shared.database().engine().flush()?;
        let taking = {
            let current = self.shared.current();
            let (index, mark) = current.mark()?;
            self.shared.snapshots.begin(current.database.engine(), index, mark.unwrap_or_default())?
        };
        self.shared.snapshots.finish(taking)
    }

    /// Keeps no snapshot of before this index any longer. Blocks while its files are removed.
    pub fn release_snapshots_before(&self, index: u64) {
        self.shared.snapshots.release_before(index);
    }

    /// Begins to receive the snapshot that a peer described so.
    pub fn receive_snapshot(&self, manifest: Manifest) -> StoreResult<Receiving> {
        self.shared.snapshots.receive(manifest)
    }

    /// Goes on from a received state. Views taken before keep reading the old one; the applier drops what it was
    /// building.
    pub fn install_snapshot(&self, received: Received) -> StoreResult<()> {
        let mut current = self.shared.current();
        *current = Current::open(self.shared.snapshots.install(received)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::*;
    use crate::apply::testing::*;

    /// Brings a snapshot from one store to another, in small pieces.
    fn transfer(from: &Snapshot, to: &Store) -> Received {
        let mut receiving = to.receive_snapshot(from.manifest().clone()).unwrap();
        for file in 0..from.manifest().files.len() {
            let mut offset = 0;
            loop {
                let piece = from.read(file, offset, 1000).unwrap();
                if piece.is_empty() {
                    break;
                }
                offset += piece.len() as u64;
                receiving.write(file, offset - piece.len() as u64, &piece).unwrap();
            }
        }
        receiving.finish().unwrap()
    }

    #[test]
    fn a_snapshot_and_the_rest_of_the_log_equal_the_whole_log() {
        let (mut m, mut behind) = (Machine::new(), Machine::empty());
        let id = m.create("a", recurring(), next(60));
        let run = m.fire(id, next(120)).unwrap();
        let snapshot = m.store.snapshot(0).unwrap();
        let old = behind.view();
        let entry = Entry { time: at(1), commands: vec![Command::TrimTimers { before: at(1) }] };
        behind.applier.apply(1, &entry).unwrap();

        let received = transfer(&snapshot, &behind.store);
        behind.store.install_snapshot(received).unwrap();
        assert_eq!(behind.store.mark().unwrap(), m.store.mark().unwrap());
        assert_eq!(behind.view().digest().unwrap(), m.view().digest().unwrap());
        assert_eq!(behind.view().index(), m.index);
        assert_eq!(old.task(id).unwrap(), None, "an old view stays as it was");

        (behind.index, behind.now) = (m.index, m.now);
        for machine in [&mut m, &mut behind] {
            assert!(machine.outcome(run, Outcome::Succeeded));
            assert!(machine.fire(id, next(180)).is_some());
        }
        assert_eq!(behind.view().digest().unwrap(), m.view().digest().unwrap());
    }

    #[test]
    fn a_snapshot_is_made_once_for_all_who_need_no_later_one() {
        let mut m = Machine::new();
        m.create("a", recurring(), next(60));
        let first = m.store.snapshot(m.index).unwrap();
        assert_eq!(first.manifest().index, m.index);
        m.create("b", recurring(), next(60));
        assert!(Arc::ptr_eq(&m.store.snapshot(first.manifest().index).unwrap(), &first));
        let second = m.store.snapshot(m.index).unwrap();
        assert_eq!(second.manifest().index, m.index);
        assert!(Arc::ptr_eq(&m.store.snapshot(0).unwrap(), &second));
        m.store.release_snapshots_before(m.index + 1);
        assert!(!Arc::ptr_eq(&m.store.snapshot(0).unwrap(), &second));
    }

    #[test]
    fn what_was_flushed_survives_the_power() {
        let hardware = crate::engine::MemDisk::new();
        let store = Store::open(hardware.attach()).unwrap();
        let mut applier = store.applier();
        let mut apply = |index| {
            applier.apply(index, &Entry { time: at(1), commands: Vec::new() }).unwrap();
            applier.commit(index, b"mark").unwrap();
        };
        apply(1);
        assert_eq!(store.flush().unwrap(), (1, Some(b"mark".to_vec())));
        apply(2);
        hardware.power_off();
        assert_eq!(Store::open(hardware.attach()).unwrap().mark().unwrap(), (1, Some(b"mark".to_vec())));
    }

    #[test]
    fn an_opened_state_goes_on_where_it_was_left() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let digest = m.view().digest().unwrap();
        let disk = m.store.disk().clone();
        let index = m.index;
        drop(m);
        let store = Store::open(disk).unwrap();
        assert_eq!((store.view().index(), store.view().digest().unwrap()), (index, digest));
        assert!(store.view().task(id).unwrap().is_some());
    }
}
