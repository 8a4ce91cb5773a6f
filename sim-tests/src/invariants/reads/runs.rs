//! Runs as they are read, one by one and in lists.

use std::cmp::Reverse;

use campanile_model::api::RunView;
use campanile_model::sim::Bound;
use campanile_model::{OccurrenceId, Origin, RunId, RunState, Timestamp, limits};

use super::page::{Belongs, Page, Pages, Witness};
use super::{Asked, Judged, explained, same};
use crate::history::{Paging, RunRow};
use crate::invariants::index::RunFacts;
use crate::invariants::retention_kept::least_kept;
use crate::invariants::tables::{Named, Tables};

/// Where a run stands in its task's ledger.
pub type Place = (Timestamp, u32);

pub fn place(occurrence: OccurrenceId) -> Place {
    let origin = match occurrence.origin {
        Origin::Schedule => 0,
        Origin::Manual(nth) => nth,
    };
    (occurrence.scheduled_at, origin)
}

pub fn row_at<'h>(run: &RunFacts<'h>, index: u64) -> Option<&'h RunRow> {
    let next = run.rows.partition_point(|row| row.it.index <= index);
    Some(run.rows.get(next.checked_sub(1)?)?.it)
}

/// A run that was asked for.
pub fn one(asked: &Asked, id: RunId, view: &RunView) -> Judged {
    same("the run", &view.id, &id)?;
    explained(asked.tables.moments_of(view.task_id, asked.window), |index| shows(asked.tables, view, index))
}

/// One that was cancelled.
pub fn cancelled(asked: &Asked, id: RunId, view: &RunView) -> Judged {
    same("the state of what was cancelled", &view.state, &RunState::Cancelled)?;
    one(asked, id, view)
}

/// Whether a run reads so after an entry.
fn shows(tables: &Tables, view: &RunView, index: u64) -> Judged {
    let run = tables.facts.runs.get(&view.id);
    let Some((run, row)) = run.and_then(|run| Some((run, row_at(run, index)?))) else {
        return Err(format!("there is no run {}", view.id));
    };
    same("the occurrence", &view.occurrence_id, &row.occurrence)?;
    same("the task", &view.task_id, &row.occurrence.task)?;
    same("the version", &view.version, &row.version)?;
    same("the origin", &view.origin, &row.occurrence.origin.into())?;
    same("scheduled_at", &view.scheduled_at, &row.occurrence.scheduled_at)?;
    same("due_at", &view.due_at, &row.due_at)?;
    same("fired_at", &view.fired_at, &row.fired_at)?;
    same("the state", &view.state, &row.state)?;
    same("the attempt", &view.attempt, &row.attempt)?;
    same("the token", &view.fencing_token, &row.token)?;
    same("the node", &view.node, &row.owner)?;
    same("retry_at", &view.retry_at, &row.retry_at)?;
    same("finished_at", &view.finished_at, &row.finished_at)?;
    same("the attempts", &view.attempts, &tables.attempts(run, index))?;
    let task = tables.task(row.occurrence.task).and_then(|task| task.after(index));
    match (&view.task, task) {
        (Some(name), Some(row)) => same("the task's name", name, &row.name),
        (Some(name), None) => Err(format!("there is no task {name:?}")),
        // It goes a while after it was deleted, or has expired.
        (None, task) => {
            let may_be_gone = |row| tables.may_be_gone(row, index);
            let gone = task.is_none_or(|row| row.status == campanile_model::TaskStatus::Deleted || may_be_gone(row));
            if gone { Ok(()) } else { Err("its task is there, and is not named".into()) }
        }
    }
}

pub fn page(
    asked: &Asked,
    pages: &mut Pages<Reverse<Place>>,
    (name, state): (&str, Option<RunState>),
    paging: &Paging,
    items: &[RunView],
    more: bool,
) -> Judged {
    let (tables, window) = (asked.tables, asked.window);
    let header = &tables.facts.history.header;
    let usual = header.bound(Bound::PageItems, limits::PAGE_ITEMS_DEFAULT as u64);
    let page = Page {
        op: asked.operation.id,
        follows: paging.follows,
        shown: items.iter().map(|run| Reverse(place(run.occurrence_id))).collect(),
        limit: paging.limit.map_or(usual, u64::from),
        more,
        window,
    };
    let witness = Witness {
        moments: |window| tables.moments_of_name(name, window),
        fits: |index| {
            let Some(task) = tables.find(name, index).task() else { return Err(format!("there is no task {name:?}")) };
            items.iter().try_for_each(|run| {
                same("the task", &run.task_id, &task.task)?;
                same("the name", &run.task.as_deref(), &Some(task.name.as_str()))?;
                shows(tables, run, index).map_err(|why| format!("of run {}, {why}", run.id))?;
                if state.is_none_or(|state| run.state == state) { Ok(()) } else { Err("not asked for".into()) }
            })
        },
        list: |index| {
            let runs = listed(tables, tables.find(name, index), index);
            let task = tables.find(name, index).task();
            let rows = runs.len() + task.map_or(0, |task| tables.lapses(task.task, index).count());
            let wanted = runs.into_iter().filter(|run| state.is_none_or(|state| run.row.state == state));
            let mut list: Vec<_> = wanted.map(|run| (Reverse(run.place), run.belongs)).collect();
            list.reverse();
            (list, rows as u64)
        },
        scan: header.bound(Bound::ScanRows, limits::SCAN_ROWS as u64),
    };
    pages.judge(page, witness)
}

/// A run in its task's ledger.
pub struct Listed<'h> {
    pub place: Place,
    pub row: &'h RunRow,
    pub belongs: Belongs,
}

/// A task's runs after an entry, in the order of its ledger. Those that retention may have folded are there perhaps.
pub fn listed<'h>(tables: &Tables<'_, 'h>, named: Named<'h>, index: u64) -> Vec<Listed<'h>> {
    let Some((id, task)) = named.task().and_then(|row| Some((row.task, tables.task(row.task)?))) else {
        return Vec::new();
    };
    let facts = tables.facts;
    let mut runs: Vec<_> = tables
        .runs_of(id)
        .filter_map(|(id, run)| row_at(run, index).map(|row| (place(row.occurrence), id, run, row)))
        .collect();
    runs.sort_unstable_by_key(|(place, ..)| *place);
    let least = least_kept(facts, id, task);
    let most = facts.history.header.bound(Bound::LedgerLines, limits::LEDGER_LINES.into());
    let is_small = most < u64::from(limits::LEDGER_LINES);
    let now = tables.time(index).unwrap_or(Timestamp::MIN);
    let count = runs.len();
    // Folding goes up to the first that is live. One that has come later may stand before what was folded by then.
    let mut first_live: Option<RunId> = None;
    let goes = tables.may_have_begun_to_go(task, index);
    let mut found = Vec::with_capacity(count);
    for (nth, (place, id, run, row)) in runs.into_iter().enumerate() {
        if !row.state.is_finished() {
            first_live = Some(first_live.map_or(id, |live| live.min(id)));
        }
        let held = first_live.is_some_and(|live| live <= id);
        let by_policy =
            least.is_some_and(|least| count - nth - 1 < least.runs as usize || place.0.saturating_add(least.age) > now);
        let stays = held || run.in_the_end.is_some() || (by_policy && !is_small && !goes);
        let sure = stays && matches!(named, Named::Task(_));
        found.push(Listed { place, row, belongs: if sure { Belongs::Surely } else { Belongs::Perhaps } });
    }
    found
}
