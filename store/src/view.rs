//! Reading: one consistent state at a known log index, for as long as the reader likes.

#[cfg(madsim)]
mod census;
mod lists;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use campanile_model::{
    IdempotencyRow, LogPlace, NodeState, Run, RunId, ShardTable, TaskId, TaskName, TaskSpec, TaskState, Timestamp,
};

#[cfg(madsim)]
pub use census::{Census, TaskRows};
pub use lists::{LedgerLine, LedgerQuery, Page, RunQuery, TaskQuery};

use crate::digest::{self, Digest};
use crate::engine::Read;
use crate::error::StoreResult;
use crate::keys::{self, TimerKey};
use crate::store::Database;
use crate::tables::{self, Counts, Globals, TimerRow};

/// A state. Clones are the same state.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    read: Arc<dyn Read>,
    database: Arc<Database>,
    index: u64,
    globals: Globals,
    /// No run below this one is live in this state.
    live_floor: RunId,
}

impl View {
    /// The current state of the database. The caller sees to it that nothing is written meanwhile.
    pub(crate) fn new(database: &Arc<Database>, index: u64, globals: Globals) -> Self {
        // The floor first: one found by a later state must not be taken for this one's.
        let live_floor = RunId(database.live_floor.load(Ordering::Acquire));
        let read = database.engine().snapshot();
        Self { inner: Arc::new(Inner { read, database: database.clone(), index, globals, live_floor }) }
    }

    pub(crate) fn read(&self) -> &dyn Read {
        self.inner.read.as_ref()
    }

    /// Index of the last entry applied; 0 if there was none.
    pub fn index(&self) -> u64 {
        self.inner.index
    }

    /// Time of the last entry applied; [`Timestamp::MIN`] if there was none.
    pub fn time(&self) -> Timestamp {
        self.inner.globals.time
    }

    /// The task of this name, which may be an id's text. Deleted ones are invisible.
    pub fn find_task(&self, name: &TaskName) -> StoreResult<Option<TaskState>> {
        tables::find_task(self.read(), name)
    }

    /// The task of this id, deleted ones included.
    pub fn task(&self, id: TaskId) -> StoreResult<Option<TaskState>> {
        tables::task(self.read(), id)
    }

    /// The tasks of these ids, in their order: cheaper than one after the other.
    pub fn tasks(&self, ids: &[TaskId]) -> StoreResult<Vec<Option<TaskState>>> {
        tables::tasks(self.read(), ids)
    }

    pub fn spec(&self, id: TaskId, version: u32) -> StoreResult<Option<TaskSpec>> {
        tables::spec(self.read(), id, version)
    }

    /// These versions of tasks, in their order.
    pub fn specs(&self, versions: &[(TaskId, u32)]) -> StoreResult<Vec<Option<TaskSpec>>> {
        tables::specs(self.read(), versions)
    }

    /// The run, live or finished.
    pub fn run(&self, id: RunId) -> StoreResult<Option<Run>> {
        match tables::live_run(self.read(), id)? {
            Some(run) => Ok(Some(run)),
            None => tables::finished_run(self.read(), id),
        }
    }

    /// Unfinished runs after `after`, in log order.
    pub fn live_runs(&self, after: Option<RunId>, max: usize) -> StoreResult<Vec<Run>> {
        let floor = self.inner.live_floor;
        // Runs end about as they began, so below the first live one lie the remains of all those before it. Whoever
        // has waded through them tells the others where to begin.
        let from_start = after.is_none_or(|after| after < floor);
        let (floor_key, after_key) = (keys::run(floor), after.map(keys::run));
        let lower = match &after_key {
            Some(after) if !from_start => Bound::Excluded(after.as_slice()),
            _ => Bound::Included(floor_key.as_slice()),
        };
        let runs: Vec<Run> = self
            .read()
            .scan(keys::LIVE, lower, Bound::Unbounded, false)
            .take(max)
            .map(|row| tables::decode(&row?.1))
            .collect::<StoreResult<_>>()?;
        if from_start && max > 0 {
            let first = runs.first().map_or(RunId::at(LogPlace::new(self.index() + 1, 0)), |run| run.id);
            self.inner.database.live_floor.fetch_max(first.0, Ordering::AcqRel);
        }
        Ok(runs)
    }

    /// Rows of the time index after `after` and before `until`, in key order. Stale ones are among them.
    pub fn timers(&self, after: Option<TimerKey>, until: Timestamp, max: usize) -> StoreResult<Vec<TimerRow>> {
        let trimmed = keys::instant(self.timers_trimmed_until()).to_vec();
        let after = after.map(keys::timer);
        let lower = match &after {
            Some(after) if *after >= trimmed => Bound::Excluded(after.as_slice()),
            _ => Bound::Included(trimmed.as_slice()),
        };
        let upper = keys::instant(until);
        let rows = self.read().scan(keys::TIME, lower, Bound::Excluded(&upper), false);
        rows.take(max).map(|row| tables::read_timer(row?)).collect()
    }

    /// Timers before this instant have been decided and are gone.
    pub fn timers_trimmed_until(&self) -> Timestamp {
        self.inner.globals.timers_trimmed_until
    }

    pub fn nodes(&self) -> StoreResult<Vec<NodeState>> {
        tables::nodes(self.read())
    }

    pub fn shards(&self) -> StoreResult<ShardTable> {
        tables::shards(self.read())
    }

    pub fn idempotency(&self, namespace: &str, key: &str) -> StoreResult<Option<IdempotencyRow>> {
        tables::idempotency(self.read(), &keys::named(namespace, key))
    }

    pub fn counts(&self) -> StoreResult<Counts> {
        Ok(self.inner.globals.counts)
    }

    /// Hash of the whole state: equal on every node at one index. Reads every row.
    pub fn digest(&self) -> StoreResult<Digest> {
        digest::of(self.read())
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use crate::TimerKey;
    use crate::apply::testing::*;

    #[test]
    fn an_empty_state_reads_as_empty() {
        let m = Machine::empty();
        let view = m.view();
        assert_eq!((view.index(), view.time()), (0, Timestamp::MIN));
        assert_eq!(m.store.mark().unwrap(), (0, None));
        assert!(view.shards().unwrap().shards.iter().all(|shard| shard.owner == NodeId(0)));
        assert!(view.timers(None, Timestamp::LAST, 9).unwrap().is_empty());
    }

    #[test]
    fn live_runs_are_found_past_those_that_ended() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let runs: Vec<_> = (0..5).map(|_| m.trigger("a")).collect();
        let ids = |m: &Machine, after, max| {
            m.view().live_runs(after, max).unwrap().iter().map(|run| run.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&m, None, 2), runs[..2]);
        assert_eq!(ids(&m, Some(runs[1]), 9), runs[2..]);
        assert_eq!(ids(&m, Some(runs[3]), 9), runs[4..], "which says nothing of those before");
        let before = m.view();
        for run in &runs[..3] {
            m.outcome(*run, Outcome::Succeeded);
        }
        assert_eq!(ids(&m, None, 9), runs[3..]);
        assert_eq!(ids(&m, Some(runs[0]), 9), runs[3..], "from below the first live one");
        assert_eq!(before.live_runs(None, 9).unwrap().len(), 5, "an older view finds what was live then");
        for run in &runs[3..] {
            m.outcome(*run, Outcome::Succeeded);
        }
        assert!(ids(&m, None, 9).is_empty());
        assert!(ids(&m, None, 0).is_empty());
        let late = m.trigger("a");
        assert_eq!(ids(&m, None, 9), [late]);
    }

    #[test]
    fn timers_come_in_order_and_in_pages() {
        let mut m = Machine::new();
        for secs in [90, 60, 60, 30] {
            m.create("", one_shot(secs), next(secs));
        }
        let rows = m.view().timers(None, at(90), 9).unwrap();
        let keys: Vec<TimerKey> = rows.iter().map(|row| row.key).collect();
        assert_eq!(keys.iter().map(|key| key.wake_at).collect::<Vec<_>>(), [at(30), at(60), at(60)]);
        assert!(keys.is_sorted());
        assert_eq!(m.view().timers(Some(keys[1]), at(90), 9).unwrap(), rows[2..]);
        let timer = rows[0].task.expect("a task's timer");
        assert_eq!((timer.version, timer.one_shot, timer.paused), (1, true, false));
    }

    #[test]
    fn a_view_is_that_of_its_index() {
        let mut m = Machine::new();
        let before = m.view();
        let id = m.create("a", by_hand(), None);
        assert_eq!(before.task(id).unwrap(), None);
        assert_eq!((before.index(), m.view().index()), (1, 2));
        // What is applied and not committed is not there yet.
        let put = m.prepared_put("b", by_hand(), PutMode::Create, None);
        m.applier.apply(3, &Entry { time: at(5), commands: vec![Command::PutTask(Box::new(put))] }).unwrap();
        assert!(m.applier.pending_bytes() > 0);
        assert_eq!(m.view().find_task(&named("b")).unwrap(), None);
        m.applier.commit(4, b"four").unwrap();
        assert!(m.view().find_task(&named("b")).unwrap().is_some());
        assert_eq!((m.view().index(), m.view().time()), (4, at(5)));
        assert_eq!(m.store.mark().unwrap(), (4, Some(b"four".to_vec())));
    }

    #[test]
    #[should_panic(expected = "has a writer already")]
    fn there_is_one_writer() {
        let m = Machine::new();
        m.store.applier();
    }
}
