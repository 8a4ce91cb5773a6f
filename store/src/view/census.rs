//! How many rows there are of what: the simulator asks, to see that nothing grows that ought to go. In no real build.

use std::collections::BTreeMap;
use std::ops::Bound;

use campanile_model::{LedgerRow, TaskId, TaskState, Timestamp};

use super::View;
use crate::engine::Family;
use crate::error::StoreResult;
use crate::keys;
use crate::tables;

/// Rows of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Every task that has a row, deleted ones included.
    pub tasks: BTreeMap<TaskId, TaskRows>,
    /// Runs that have finished.
    pub runs: u64,
    /// When the first idempotency key runs out.
    pub first_key: Option<Timestamp>,
    /// The first row of the time index.
    pub first_timer: Option<Timestamp>,
}

/// Rows of one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskRows {
    /// Ledger lines of runs.
    pub fired: u64,
    /// Other ledger lines.
    pub ranges: u64,
    /// Definitions.
    pub versions: u64,
}

impl View {
    pub fn census(&self) -> StoreResult<Census> {
        let mut census = Census::default();
        let all = |family: Family| self.read().scan(family, Bound::Unbounded, Bound::Unbounded, false);
        for row in all(keys::TASKS) {
            let task: TaskState = tables::decode(&row?.1)?;
            census.tasks.entry(task.id).or_default();
        }
        for row in all(keys::LEDGER) {
            let (line, row) = tables::read_ledger_row(row?)?;
            let rows = census.tasks.entry(line.task).or_default();
            match row {
                LedgerRow::Fired { .. } => rows.fired += 1,
                LedgerRow::Range { .. } => rows.ranges += 1,
            }
        }
        for row in all(keys::SPECS) {
            let (key, _) = row?;
            if let Some(id) = key.first_chunk() {
                census.tasks.entry(TaskId(u64::from_be_bytes(*id))).or_default().versions += 1;
            }
        }
        for row in all(keys::RUNS) {
            row?;
            census.runs += 1;
        }
        if let Some(row) = all(keys::IDEM_EXPIRY).next() {
            census.first_key = keys::read_key_expiry(&row?.0).map(|(at, _)| at);
        }
        if let Some(row) = all(keys::TIME).next() {
            census.first_timer = keys::read_timer(&row?.0).map(|key| key.wake_at);
        }
        Ok(census)
    }
}
