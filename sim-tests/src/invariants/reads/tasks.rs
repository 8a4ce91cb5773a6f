//! Tasks as they are read, one by one and in lists.

use campanile_model::api::{TaskView, TaskWritten};
use campanile_model::sim::Bound;
use campanile_model::{TaskId, TaskSpec, TaskStatus, Timestamp, limits};

use super::page::{Belongs, Page, Pages, Witness};
use super::{Asked, Judged, explained, same};
use crate::history::{Action, Paging, TaskFilter, TaskRow};
use crate::invariants::linearizable::same_spec;
use crate::invariants::tables::{Named, Tables};

/// What a signing secret reads as.
const HIDDEN: &str = "whsec_***";

/// Where a task stands in lists: those with a name by their names, then the others by their ids.
pub type Key = (Option<TaskId>, String);

fn key(id: TaskId, name: &str) -> Key {
    match name.parse::<TaskId>() {
        Ok(_) => (Some(id), String::new()),
        Err(_) => (None, name.to_owned()),
    }
}

/// A task that was asked for by name, or by the id that is one's name.
pub fn one(asked: &Asked, name: &str, view: &TaskView) -> Judged {
    if view.name != name && view.id.to_string() != name {
        return Err(format!("{name:?} was asked for, and task {} ({:?}) is the answer", view.id, view.name));
    }
    explained(asked.tables.moments_of(view.id, asked.window), |index| shows(asked.tables, view, index))
}

/// What a write answers: the row that it left, or that it found as it was to be. Under an idempotency key it may be one of
/// long ago.
pub fn written(asked: &Asked, action: &Action, task: &TaskWritten) -> Judged {
    let Some(facts) = asked.tables.task(task.id) else { return Err(format!("there is no task {}", task.id)) };
    let keyed = matches!(action, Action::Put { idempotency_key: Some(_), .. });
    let first = if keyed { 0 } else { asked.window.first };
    let from = facts.rows.partition_point(|row| row.it.index <= first).saturating_sub(1);
    let meanwhile = facts.rows[from..].iter().map(|row| row.it).take_while(|row| row.index <= asked.window.last);
    let next = task.next.map(|next| (next.scheduled_at, next.due_at));
    let told = (task.version, task.state, next, task.name.as_str());
    let rows: Vec<_> = meanwhile
        .map(|row| {
            let next = row.next.map(|next| (next.scheduled_at, next.due_at));
            (row.version, row.status, next, row.name.as_str())
        })
        .collect();
    if rows.contains(&told) { Ok(()) } else { Err(format!("it was told {told:?}, and the rows were {rows:?}")) }
}

/// Whether a task reads so after an entry.
fn shows(tables: &Tables, view: &TaskView, index: u64) -> Judged {
    let Some(row) = tables.find(&view.name, index).task().filter(|row| row.task == view.id) else {
        return Err(format!("{:?} is not task {}", view.name, view.id));
    };
    same("the version", &view.version, &row.version)?;
    same("the state", &view.state, &row.status)?;
    let due = |scheduled_at: Timestamp, due_at: Timestamp| (scheduled_at, due_at);
    let next = row.next.map(|next| due(next.scheduled_at, next.due_at));
    same("the next occurrence", &view.next.map(|next| due(next.scheduled_at, next.due_at)), &next)?;
    let decided = Some(row.decided_until).filter(|until| *until > Timestamp::MIN);
    same("decided_until", &view.decided_until, &decided)?;
    same("remaining_fires", &view.remaining_fires, &row.remaining)?;
    same("the tally", &view.tally, &row.tally)?;
    same("created_at", &Some(view.created_at), &tables.created_at(row))?;
    same("updated_at", &Some(view.updated_at), &tables.written_at(row))?;
    same("the namespace", &view.namespace.as_str(), &"default")?;
    match tables.facts.spec(row.task, row.version) {
        Some(spec) => is_spec(&view.spec, spec),
        None => Ok(()),
    }
}

/// Whether a definition reads as this one does, which hides its secret.
fn is_spec(shown: &TaskSpec, spec: &TaskSpec) -> Judged {
    if !same_spec(shown, spec) {
        return Err(format!("the definition is {shown:?} and was {spec:?}"));
    }
    let campanile_model::Target::Http(target) = &spec.target;
    let campanile_model::Target::Http(read) = &shown.target;
    let hidden = target.signing_secret.as_ref().map(|_| HIDDEN);
    same("the signing secret", &read.signing_secret.as_deref(), &hidden)
}

/// Whether a task's row is what the filter asks for, of all but labels.
fn wants(filter: &TaskFilter, row: &TaskRow) -> bool {
    let due = row.next.map(|next| next.due_at);
    filter.prefix.as_ref().is_none_or(|prefix| row.name.starts_with(prefix))
        && row.status != TaskStatus::Deleted
        && filter.state.is_none_or(|state| row.status == state)
        && filter.due_after.is_none_or(|from| due.is_some_and(|due| due >= from))
        && filter.due_before.is_none_or(|until| due.is_some_and(|due| due < until))
}

fn bears(filter: &TaskFilter, spec: &TaskSpec) -> bool {
    filter.label.as_ref().is_none_or(|(key, value)| spec.labels.get(key) == Some(value))
}

pub fn page(
    asked: &Asked,
    pages: &mut Pages<Key>,
    filter: &TaskFilter,
    paging: &Paging,
    items: &[TaskView],
    more: bool,
) -> Judged {
    let (tables, window) = (asked.tables, asked.window);
    let header = &tables.facts.history.header;
    let usual = header.bound(Bound::PageItems, limits::PAGE_ITEMS_DEFAULT as u64);
    let page = Page {
        op: asked.operation.id,
        follows: paging.follows,
        shown: items.iter().map(|task| key(task.id, &task.name)).collect(),
        limit: paging.limit.map_or(usual, u64::from),
        more,
        window,
    };
    let witness = Witness {
        moments: |window| tables.moments(window),
        fits: |index| {
            items.iter().try_for_each(|task| {
                shows(tables, task, index).map_err(|why| format!("of task {}, {why}", task.id))?;
                let row = tables.find(&task.name, index).task();
                if row.is_some_and(|row| wants(filter, row)) && bears(filter, &task.spec) {
                    return Ok(());
                }
                Err(format!("task {} is not what was asked for", task.id))
            })
        },
        list: |index| list(tables, filter, index),
        scan: header.bound(Bound::ScanRows, limits::SCAN_ROWS as u64),
    };
    pages.judge(page, witness)
}

/// The tasks that a filter wants after an entry, and how many there are.
fn list(tables: &Tables, filter: &TaskFilter, index: u64) -> (Vec<(Key, Belongs)>, u64) {
    let mut rows = 0;
    let mut found = Vec::new();
    for (_, named) in tables.names(index) {
        let Some(row) = named.task() else { continue };
        rows += 1;
        let spec = tables.facts.spec(row.task, row.version);
        if !wants(filter, row) || spec.is_some_and(|spec| !bears(filter, spec)) {
            continue;
        }
        let known = spec.is_some() || filter.label.is_none();
        let sure = known && matches!(named, Named::Task(_));
        found.push((key(row.task, &row.name), if sure { Belongs::Surely } else { Belongs::Perhaps }));
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    (found, rows)
}
