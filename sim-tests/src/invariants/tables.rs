//! The tables as the log left them, entry by entry: what an answer may have shown, and what may have refused a request.
//!
//! An answer shows the state after one of the entries in its [`Window`]: at least what any node had applied when it was
//! asked for (so much is committed, and a linearizable read waits for it), and nothing that nobody had applied when it
//! came. What goes without a row being written (finished tasks that expire) may be there or not from when it may go.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::sim::Bound;
use campanile_model::{
    AttemptRecord, FINISHED_KEPT, Millis, OnFinish, Reason, RunId, TaskId, TaskSpec, TaskStatus, Timestamp, limits,
};

use super::index::{Facts, Operation, RunFacts, TaskFacts};
use crate::history::{Event, TaskRow};

/// Log indexes, of which the first and the last are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub first: u64,
    pub last: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Named<'h> {
    Nothing,
    Task(&'h TaskRow),
    /// This, unless it has expired by now.
    Perhaps(&'h TaskRow),
}

impl<'h> Named<'h> {
    /// The task that it stands for, or may.
    pub fn task(self) -> Option<&'h TaskRow> {
        match self {
            Self::Nothing => None,
            Self::Task(row) | Self::Perhaps(row) => Some(row),
        }
    }

    pub fn may_be_free(self) -> bool {
        !matches!(self, Self::Task(_))
    }
}

/// Occurrences that one entry decided not to fire.
#[derive(Clone, Copy, Debug)]
pub struct Lapse {
    pub index: u64,
    pub version: u32,
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u64,
    pub reason: Reason,
}

pub struct Tables<'f, 'h> {
    pub facts: &'f Facts<'h>,
    /// Each change of what a name stands for, in log order.
    named: BTreeMap<&'h str, Vec<(u64, Option<&'h TaskRow>)>>,
    /// Indexes at which some task's row changed, ascending.
    changes: Vec<u64>,
    runs_of: BTreeMap<TaskId, Vec<RunId>>,
    /// In the order of their instants.
    lapses: BTreeMap<TaskId, Vec<Lapse>>,
    kept: Millis,
}

impl<'f, 'h> Tables<'f, 'h> {
    pub fn new(facts: &'f Facts<'h>) -> Self {
        let mut rows: Vec<&TaskRow> =
            facts.tasks.values().flat_map(|task| task.rows.iter().map(|row| row.it)).collect();
        // Stable: rows of one task and entry keep their order. A task that frees a name comes before the one that takes it.
        rows.sort_by_key(|row| row.index);
        let mut named: BTreeMap<&str, Vec<(u64, Option<&TaskRow>)>> = BTreeMap::new();
        let mut changes: Vec<u64> = Vec::new();
        for row in rows {
            if changes.last() != Some(&row.index) {
                changes.push(row.index);
            }
            let changes = named.entry(&row.name).or_default();
            let bearer = changes.last().and_then(|(_, bearer)| *bearer);
            if row.status != TaskStatus::Deleted {
                changes.push((row.index, Some(row)));
            } else if bearer.is_some_and(|bearer| bearer.task == row.task) {
                changes.push((row.index, None));
            }
        }
        let mut runs_of: BTreeMap<TaskId, Vec<RunId>> = BTreeMap::new();
        for (id, run) in &facts.runs {
            if let Some(row) = run.rows.first() {
                runs_of.entry(row.it.occurrence.task).or_default().push(*id);
            }
        }
        let mut lapses: BTreeMap<TaskId, Vec<Lapse>> = BTreeMap::new();
        for timed in &facts.history.events {
            if let Event::Lapse { index, task, version, first, last, count, reason } = timed.event {
                lapses.entry(task).or_default().push(Lapse { index, version, first, last, count, reason });
            }
        }
        lapses.values_mut().for_each(|lapses| lapses.sort_by_key(|lapse| lapse.first));
        let kept = facts.history.header.time(Bound::FinishedKept, FINISHED_KEPT);
        Self { facts, named, changes, runs_of, lapses, kept }
    }

    pub fn window(&self, invoked: u64, returned: u64) -> Window {
        let before = |count: usize| count.checked_sub(1).map_or(0, |last| self.facts.entries[last].index);
        let entries = &self.facts.entries;
        Window {
            first: before(entries.partition_point(|entry| entry.t < invoked)),
            last: before(entries.partition_point(|entry| entry.t <= returned)),
        }
    }

    /// The states that an answer may have shown.
    pub fn shown(&self, operation: &Operation, returned: u64) -> Window {
        let window = self.window(operation.invoked, returned);
        Window { first: if operation.is_stale() { 0 } else { window.first }, ..window }
    }

    /// The states in a window that may differ in a task, each by its last entry: by then most may have gone.
    pub fn moments(&self, window: Window) -> Vec<u64> {
        let from = self.changes.partition_point(|index| *index <= window.first);
        let to = self.changes.partition_point(|index| *index <= window.last);
        ends(self.changes[from..to.max(from)].iter().copied(), window)
    }

    /// What a name stood for in a window, at one time after the other: within entries, too.
    pub fn meanings(&self, name: &str, window: Window) -> impl Iterator<Item = Named<'h>> + '_ {
        let changes = self.named.get(name).map_or(&[][..], Vec::as_slice);
        let from = changes.partition_point(|(index, _)| *index <= window.first);
        let to = changes.partition_point(|(index, _)| *index <= window.last);
        let first = from.checked_sub(1).and_then(|before| changes[before].1);
        let later = changes[from..to.max(from)].iter().map(|(_, bearer)| *bearer);
        std::iter::once(first).chain(later).map(move |bearer| self.meaning(bearer, window.last))
    }

    /// How often what the name stands for changed in a window.
    pub fn changes_of(&self, name: &str, window: Window) -> usize {
        let changes = self.named.get(name).map_or(&[][..], Vec::as_slice);
        changes.iter().filter(|(index, _)| *index > window.first && *index <= window.last).count()
    }

    /// What a name stands for after an entry.
    pub fn find(&self, name: &str, index: u64) -> Named<'h> {
        let changes = self.named.get(name).map_or(&[][..], Vec::as_slice);
        let next = changes.partition_point(|(changed, _)| *changed <= index);
        self.meaning(next.checked_sub(1).and_then(|last| changes[last].1), index)
    }

    /// All names, with what they stand for after an entry.
    pub fn names(&self, index: u64) -> impl Iterator<Item = (&'h str, Named<'h>)> + '_ {
        self.named.keys().map(move |name| (*name, self.find(name, index)))
    }

    fn meaning(&self, bearer: Option<&'h TaskRow>, index: u64) -> Named<'h> {
        match bearer {
            None => Named::Nothing,
            Some(row) if self.may_be_gone(row, index) => Named::Perhaps(row),
            Some(row) => Named::Task(row),
        }
    }

    /// Whether a task that was left so may have expired by an entry.
    pub fn may_be_gone(&self, row: &TaskRow, index: u64) -> bool {
        let goes = |spec: &TaskSpec| spec.is_one_shot() || spec.on_finish == OnFinish::Delete;
        let (Some(now), Some(written)) = (self.time(index), self.written_at(row)) else { return false };
        row.status == TaskStatus::Finished
            && self.facts.spec(row.task, row.version).is_none_or(goes)
            && written.max(row.decided_until).saturating_add(self.kept) <= now
    }

    /// Whether a task may have begun to go by an entry: its lines go first, and it stays after all if a run is live or it
    /// is written anew.
    pub fn may_have_begun_to_go(&self, task: &TaskFacts, index: u64) -> bool {
        let rows = &task.rows[..task.rows.partition_point(|row| row.it.index <= index)];
        rows.iter().enumerate().any(|(nth, row)| {
            let until = rows.get(nth + 1).map_or(index, |next| next.it.index);
            row.it.status == TaskStatus::Finished && self.may_be_gone(row.it, until)
        })
    }

    /// The time of the log at an entry.
    pub fn time(&self, index: u64) -> Option<Timestamp> {
        let entries = &self.facts.entries;
        Some(entries.get(entries.partition_point(|entry| entry.index <= index).checked_sub(1)?)?.time)
    }

    /// When the task was created.
    pub fn created_at(&self, row: &TaskRow) -> Option<Timestamp> {
        self.facts.stamp(self.facts.tasks.get(&row.task)?.rows.first()?.it.index)
    }

    /// When the row's version was written.
    pub fn written_at(&self, row: &TaskRow) -> Option<Timestamp> {
        let rows = &self.facts.tasks.get(&row.task)?.rows;
        let first = rows.partition_point(|other| other.it.version < row.version);
        self.facts.stamp(rows.get(first)?.it.index)
    }

    pub fn task(&self, id: TaskId) -> Option<&'f TaskFacts<'h>> {
        self.facts.tasks.get(&id)
    }

    /// A task's runs, in log order.
    pub fn runs_of(&self, task: TaskId) -> impl Iterator<Item = (RunId, &'f RunFacts<'h>)> + '_ {
        let runs = self.runs_of.get(&task).map_or(&[][..], Vec::as_slice);
        runs.iter().filter_map(|id| Some((*id, self.facts.runs.get(id)?)))
    }

    /// What did not fire of a task, up to an entry.
    pub fn lapses(&self, task: TaskId, index: u64) -> impl Iterator<Item = Lapse> + '_ {
        let lapses = self.lapses.get(&task).map_or(&[][..], Vec::as_slice);
        lapses.iter().copied().filter(move |lapse| lapse.index <= index)
    }

    /// The states in a window that may differ in a task's row or in one of its runs.
    pub fn moments_of(&self, task: TaskId, window: Window) -> Vec<u64> {
        ends(self.changes_in(task, window).into_iter(), window)
    }

    fn changes_in(&self, task: TaskId, window: Window) -> BTreeSet<u64> {
        let within = |index: &u64| *index > window.first && *index <= window.last;
        let rows = self.task(task).into_iter().flat_map(|task| task.rows.iter().map(|row| row.it.index));
        let runs = self.runs_of(task).flat_map(|(_, run)| run.rows.iter().map(|row| row.it.index));
        let lapses = self.lapses(task, window.last).map(|lapse| lapse.index);
        rows.chain(runs).chain(lapses).filter(within).collect()
    }

    /// The same for whatever a name stands for in it.
    pub fn moments_of_name(&self, name: &str, window: Window) -> Vec<u64> {
        let tasks: BTreeSet<TaskId> = self.meanings(name, window).filter_map(Named::task).map(|row| row.task).collect();
        let changes: BTreeSet<u64> = tasks.into_iter().flat_map(|task| self.changes_in(task, window)).collect();
        ends(changes.into_iter(), window)
    }

    /// A run's attempts that had ended by an entry, as many as its history keeps.
    pub fn attempts(&self, run: &RunFacts, index: u64) -> Vec<AttemptRecord> {
        let mut found: Vec<AttemptRecord> = Vec::new();
        for last in run.rows.iter().filter(|row| row.it.index <= index).filter_map(|row| row.it.last.as_ref()) {
            if found.last() != Some(last) {
                found.push(last.clone());
            }
        }
        let most = self.facts.history.header.bound(Bound::AttemptHistory, limits::ATTEMPT_HISTORY as u64);
        let surplus = found.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
        found.split_off(surplus)
    }
}

/// The last entries of the states that begin with a window and with each of these changes in it, which ascend.
fn ends(changes: impl Iterator<Item = u64>, window: Window) -> Vec<u64> {
    changes.map(|change| change - 1).chain([window.last.max(window.first)]).collect()
}
