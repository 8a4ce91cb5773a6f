//! The state machine: log entries in, one write batch, replies and effects out.
//!
//! [`Applier::apply`] is a pure function of the state and the entry. It reads no clock, draws no random number, knows no
//! configuration and iterates in key order only, so that every node that applies the same entries holds the same rows.
//! Its duties, per entry:
//!
//! 1. run every command against what the commands before it left behind, and answer each;
//! 2. give out ids and tokens from the entry's index and one position counter that all its commands share;
//! 3. collect effects for whoever drives timers and deliveries.
//!
//! One file per family of commands. A handler checks first and writes after, so a rejected command has changed nothing.

mod attempt;
mod context;
mod control;
#[cfg(test)]
mod encoding;
mod fire;
mod idempotency;
mod ledger;
mod nodes;
mod outcome;
#[cfg(test)]
mod properties;
mod put;
mod retention;
mod runs;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod transcript;
mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use campanile_model::{Entry, NodeId, NodeState, Reply, ShardTable, Timestamp};

use crate::effect::{Effect, Effects};
use crate::error::StoreResult;
use crate::overlay::Overlay;
use crate::store::{Database, Shared};
use crate::tables::{self, Globals, Position};

use context::Apply;

/// The single writer of state. An error leaves it half way through an entry: it is fatal to the node, and the entry is
/// applied again from the log when the node comes back.
pub struct Applier {
    shared: Arc<Shared>,
    /// `None` until the first use.
    building: Option<Building>,
}

/// A batch being built on top of a database.
struct Building {
    database: Arc<Database>,
    cached: Cached,
    overlay: Overlay,
    effects: Vec<Effect>,
    /// Index of the last entry applied, and of the last one committed; `None` in an empty state.
    applied: Option<u64>,
    committed: Option<u64>,
}

/// Small tables that nearly every command reads, held decoded. Rebuilt from the rows when a database is opened.
struct Cached {
    globals: Globals,
    shards: ShardTable,
    nodes: BTreeMap<NodeId, NodeState>,
    /// Idempotency keys that expired before this instant are known to be gone: where the next search may start.
    keys_expired_until: Timestamp,
}

impl Building {
    fn load(database: Arc<Database>) -> StoreResult<Self> {
        let read = database.engine();
        let cached = Cached {
            globals: tables::globals(read)?,
            shards: tables::shards(read)?,
            nodes: tables::nodes(read)?.into_iter().map(|node| (node.id, node)).collect(),
            keys_expired_until: Timestamp::MIN,
        };
        let committed = tables::position(read)?.map(|position| position.index);
        let (overlay, effects) = (Overlay::default(), Vec::new());
        Ok(Self { database, cached, overlay, effects, applied: committed, committed })
    }
}

impl Applier {
    /// Whoever makes a second one while there is a first breaks the state: see [`crate::Store::applier`].
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, building: None }
    }

    /// Applies one entry into the batch being built. One reply per command, in order.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> StoreResult<Vec<Reply>> {
        let building = self.building()?;
        let last = building.applied;
        assert!(last.is_none_or(|last| index > last), "entry {index} comes after {last:?}");
        let before = building.cached.globals.time;
        assert!(entry.time >= before, "entry {index} is stamped {}, the one before it {before}", entry.time);
        building.applied = Some(index);
        building.cached.globals.time = entry.time;
        let Building { database, cached, overlay, effects, .. } = building;
        let mut apply = Apply::new(database.engine(), overlay, cached, effects, index, entry.time);
        entry.commands.iter().map(|command| apply.command(command)).collect()
    }

    /// Writes everything applied since the last commit, together with `mark` and `index`, in one unsynced batch.
    /// There need not be any: blank and membership entries of the log only move the mark.
    pub fn commit(&mut self, index: u64, mark: &[u8]) -> StoreResult<Effects> {
        let shared = self.shared.clone();
        let building = self.building()?;
        let (applied, committed) = (building.applied, building.committed);
        assert!(committed.is_none_or(|last| index > last), "commit of {index} comes after {committed:?}");
        assert!(applied.is_none_or(|last| index >= last), "commit of {index}, but {applied:?} is applied");
        let globals = building.cached.globals;
        let mut overlay = std::mem::take(&mut building.overlay);
        tables::put_position(&mut overlay, &Position { index, mark: mark.to_vec() });
        tables::put_globals(&mut overlay, &globals);
        shared.write(&building.database, overlay.into_batch(), index, globals)?;
        (building.applied, building.committed) = (Some(index), Some(index));
        Ok(Effects { index, time: globals.time, list: std::mem::take(&mut building.effects) })
    }

    /// Bytes of the batch being built.
    pub fn pending_bytes(&self) -> usize {
        self.building.as_ref().map_or(0, |building| building.overlay.bytes())
    }

    /// The batch being built. After a snapshot was installed, what was read from or meant for the old database is void.
    fn building(&mut self) -> StoreResult<&mut Building> {
        let database = self.shared.database();
        if self.building.as_ref().is_some_and(|building| !Arc::ptr_eq(&building.database, &database)) {
            self.building = None;
        }
        match &mut self.building {
            Some(building) => Ok(building),
            none => Ok(none.insert(Building::load(database)?)),
        }
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.shared.release_applier();
    }
}
