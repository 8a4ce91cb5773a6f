//! Lists, a page at a time: tasks, the runs of a task, its ledger.
//!
//! A page ends when it is full, or when [`limits::SCAN_ROWS`] rows have been looked at; `next` says where to go on. A
//! continuation is a key of this store, opaque to everyone else; one that was made up yields an empty page.

use std::ops::Bound;

use campanile_model::{
    Kind, LedgerRow, Origin, Reason, Run, RunId, RunState, TaskId, TaskState, TaskStatus, Timestamp, bound, limits,
    planted, sometimes,
};

use super::View;
use crate::error::StoreResult;
use crate::keys::{self, LineKey, is_empty_range};
use crate::tables;

/// Some of the items of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The query's `after` for the rest; `None` at the end of the list.
    pub next: Option<Vec<u8>>,
}

/// Which tasks. Every condition given must hold.
#[derive(Clone, Debug)]
pub struct TaskQuery {
    pub namespace: String,
    /// Of the name clients use; empty for all.
    pub name_prefix: String,
    pub status: Option<TaskStatus>,
    /// The next occurrence is due at or after this instant.
    pub due_from: Option<Timestamp>,
    /// The next occurrence is due before this instant.
    pub due_until: Option<Timestamp>,
    /// The current version bears this label, key and value.
    pub label: Option<(String, String)>,
    pub after: Option<Vec<u8>>,
    pub max: usize,
}

impl Default for TaskQuery {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            name_prefix: String::new(),
            status: None,
            due_from: None,
            due_until: None,
            label: None,
            after: None,
            max: bound!(PageItems, limits::PAGE_ITEMS_DEFAULT),
        }
    }
}

/// Which runs of a task.
#[derive(Clone, Debug)]
pub struct RunQuery {
    pub state: Option<RunState>,
    pub after: Option<Vec<u8>>,
    pub max: usize,
}

impl Default for RunQuery {
    fn default() -> Self {
        Self { state: None, after: None, max: bound!(PageItems, limits::PAGE_ITEMS_DEFAULT) }
    }
}

/// Which ledger lines of a task.
#[derive(Clone, Debug)]
pub struct LedgerQuery {
    /// Lines that reach to this instant or beyond.
    pub from: Option<Timestamp>,
    /// Lines that start before this instant.
    pub until: Option<Timestamp>,
    pub after: Option<Vec<u8>>,
    pub max: usize,
}

impl Default for LedgerQuery {
    fn default() -> Self {
        Self { from: None, until: None, after: None, max: bound!(PageItems, limits::PAGE_ITEMS_DEFAULT) }
    }
}

/// What became of `count` neighbouring occurrences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    pub scheduled_at: Timestamp,
    /// `scheduled_at` of the last of them.
    pub last: Timestamp,
    pub origin: Origin,
    pub count: u64,
    pub kind: Kind,
    /// Why they did not fire.
    pub reason: Option<Reason>,
    /// The version under which they did not fire; a run names its own.
    pub version: Option<u32>,
    pub run: Option<RunId>,
}

impl LedgerLine {
    fn new(line: LineKey, row: LedgerRow) -> Self {
        let LineKey { scheduled_at, origin, .. } = line;
        match row {
            LedgerRow::Fired { run } => Self {
                scheduled_at,
                last: scheduled_at,
                origin,
                count: 1,
                kind: Kind::Fired,
                reason: None,
                version: None,
                run: Some(run),
            },
            LedgerRow::Range { last, count, reason, version } => Self {
                scheduled_at,
                last,
                origin,
                count,
                kind: reason.kind(),
                reason: Some(reason),
                version: Some(version),
                run: None,
            },
        }
    }
}

/// Collects a page and counts what is looked at.
struct Paging<T> {
    page: Page<T>,
    max: usize,
    scanned: usize,
}

impl<T> Paging<T> {
    fn new(max: usize) -> Self {
        Self { page: Page { items: Vec::new(), next: None }, max, scanned: 0 }
    }

    /// How many rows may be looked at before the page can be full.
    fn room(&self) -> usize {
        (self.max - self.page.items.len()).min(bound!(ScanRows, limits::SCAN_ROWS) - self.scanned).max(1)
    }

    /// Takes one row of the list, at `place`. Whether there is room for another.
    fn take(&mut self, item: Option<T>, place: impl FnOnce() -> Vec<u8>) -> bool {
        self.scanned += 1;
        self.page.items.extend(item);
        let full = self.page.items.len() >= self.max || self.scanned >= bound!(ScanRows, limits::SCAN_ROWS);
        if full {
            sometimes!(PageFull);
            self.page.next = Some(place());
        }
        !full
    }
}

/// Whether the task itself, without its definition, is what the query wants.
fn is_wanted(query: &TaskQuery, task: &TaskState) -> bool {
    let due = task.next.map(|next| next.due_at);
    task.namespace == query.namespace
        && task.status != TaskStatus::Deleted
        && query.status.is_none_or(|status| task.status == status)
        && query.due_from.is_none_or(|from| due.is_some_and(|due| due >= from))
        && query.due_until.is_none_or(|until| due.is_some_and(|due| due < until))
        && (query.name_prefix.is_empty() || task.display_name().starts_with(&query.name_prefix))
}

impl View {
    /// Tasks with a name in the order of their names, then those without in the order of their ids.
    pub fn list_tasks(&self, query: &TaskQuery) -> StoreResult<Page<TaskState>> {
        let mut paging = Paging::new(query.max);
        let mut parts = vec![keys::named(&query.namespace, &query.name_prefix)];
        // Without a name of its own, a task is called by its id.
        if query.name_prefix.is_empty() || query.name_prefix.starts_with('t') {
            parts.push(keys::unnamed_prefix(&query.namespace));
        }
        for prefix in parts {
            let end = keys::after_prefix(&prefix);
            let lower = match query.after.as_deref() {
                Some(after) if after >= prefix.as_slice() => Bound::Excluded(after),
                _ => Bound::Included(prefix.as_slice()),
            };
            let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            if is_empty_range(lower, upper) {
                continue;
            }
            let mut names = self.read().scan(keys::NAMES, lower, upper, false);
            if query.after.is_some() && planted!(PageSkipsOne) {
                names.next();
            }
            loop {
                let rows = names.by_ref().take(paging.room()).collect::<Result<Vec<_>, _>>()?;
                if rows.is_empty() {
                    break;
                }
                let ids = rows.iter().map(|(_, value)| tables::read_name(value)).collect::<StoreResult<Vec<_>>>()?;
                let found = self.matching(query, tables::known_tasks(self.read(), &ids)?)?;
                for ((key, _), task) in rows.into_iter().zip(found) {
                    if !paging.take(task, || key) {
                        return Ok(paging.page);
                    }
                }
            }
        }
        Ok(paging.page)
    }

    /// Those of the tasks that the query wants, each in its place.
    fn matching(&self, query: &TaskQuery, tasks: Vec<TaskState>) -> StoreResult<Vec<Option<TaskState>>> {
        let mut wanted: Vec<Option<TaskState>> =
            tasks.into_iter().map(|task| is_wanted(query, &task).then_some(task)).collect();
        if let Some((key, value)) = &query.label {
            let versions: Vec<_> = wanted.iter().flatten().map(|task| (task.id, task.version)).collect();
            let mut specs = tables::known_specs(self.read(), &versions)?.into_iter();
            for task in &mut wanted {
                let bears = task.is_some() && specs.next().is_some_and(|spec| spec.labels.get(key) == Some(value));
                *task = task.take().filter(|_| bears);
            }
        }
        Ok(wanted)
    }

    /// The task's runs that retention has kept, newest first, live ones included.
    pub fn runs_of(&self, id: TaskId, query: &RunQuery) -> StoreResult<Page<Run>> {
        let mut paging = Paging::new(query.max);
        let (start, end) = (keys::task(id), keys::after_prefix(&keys::task(id)));
        let after = query.after.as_deref();
        if after.is_some_and(|after| !after.starts_with(&start)) {
            return Ok(paging.page);
        }
        let upper = after.or(end.as_deref()).map_or(Bound::Unbounded, Bound::Excluded);
        self.walk_ledger(id, (Bound::Included(&start), upper), true, |line, row| {
            let run = match row {
                LedgerRow::Fired { run } => Some(self.known_run(run)?),
                LedgerRow::Range { .. } => None,
            };
            let wanted = |run: &Run| query.state.is_none_or(|state| run.state == state) || planted!(FilterPasses);
            let run = run.filter(wanted);
            Ok(paging.take(run, || keys::ledger(line)))
        })?;
        Ok(paging.page)
    }

    /// The task's ledger lines that retention has kept, oldest first.
    pub fn ledger(&self, id: TaskId, query: &LedgerQuery) -> StoreResult<Page<LedgerLine>> {
        let mut paging = Paging::new(query.max);
        let first = match query.from {
            Some(from) => self.line_reaching(id, from)?,
            None => keys::task(id).to_vec(),
        };
        let end = match query.until {
            Some(until) => Some(keys::ledger_from(id, until)),
            None => keys::after_prefix(&keys::task(id)),
        };
        let lower = match &query.after {
            Some(after) if *after >= first => Bound::Excluded(after.as_slice()),
            _ => Bound::Included(first.as_slice()),
        };
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.walk_ledger(id, (lower, upper), false, |line, row| {
            let item = LedgerLine::new(line, row);
            let item = Some(item).filter(|item| query.from.is_none_or(|from| item.last >= from));
            Ok(paging.take(item, || keys::ledger(line)))
        })?;
        Ok(paging.page)
    }

    /// The oldest ledger rows, of which retention may fold some. A one-shot's own line is not among them.
    pub fn oldest_ledger_rows(&self, task: TaskId, max: usize) -> StoreResult<Vec<LedgerLine>> {
        let rows = tables::oldest_ledger_rows(self.read(), task, max)?;
        Ok(rows.into_iter().map(|(line, row)| LedgerLine::new(line, row)).collect())
    }

    /// Where lines begin that may reach to `from`: at the latest range that starts before it, else at `from`. Ranges
    /// do not overlap, so no earlier one can; manual triggers between them are points.
    fn line_reaching(&self, id: TaskId, from: Timestamp) -> StoreResult<Vec<u8>> {
        let (start, end) = (keys::task(id), keys::ledger_from(id, from));
        let rows = self.read().scan(keys::LEDGER, Bound::Included(&start), Bound::Excluded(&end), true);
        for row in rows.take(bound!(ScanRows, limits::SCAN_ROWS)) {
            let (line, row) = tables::read_ledger_row(row?)?;
            if line.origin == Origin::Schedule {
                return Ok(match row {
                    LedgerRow::Range { .. } => keys::ledger(line),
                    LedgerRow::Fired { .. } => end,
                });
            }
        }
        Ok(end)
    }

    /// Shows `each` the ledger lines between two keys until it has enough, a one-shot's own line in its place.
    fn walk_ledger(
        &self,
        id: TaskId,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        mut each: impl FnMut(LineKey, LedgerRow) -> StoreResult<bool>,
    ) -> StoreResult<()> {
        let Some(task) = self.task(id)? else { return Ok(()) };
        if is_empty_range(lower, upper) {
            return Ok(());
        }
        let within = |key: &[u8]| {
            let above = match lower {
                Bound::Included(lower) => key >= lower,
                Bound::Excluded(lower) => key > lower,
                Bound::Unbounded => true,
            };
            let below = match upper {
                Bound::Included(upper) => key <= upper,
                Bound::Excluded(upper) => key < upper,
                Bound::Unbounded => true,
            };
            above && below
        };
        let mut own = task.one_shot_run.map(|(scheduled_at, run)| {
            (LineKey { task: id, scheduled_at, origin: Origin::Schedule }, LedgerRow::Fired { run })
        });
        own = own.filter(|(line, _)| within(&keys::ledger(*line)));
        for row in self.read().scan(keys::LEDGER, lower, upper, reverse) {
            let (line, row) = tables::read_ledger_row(row?)?;
            if let Some((own_line, own_row)) = own.take_if(|(own, _)| (*own < line) != reverse)
                && !each(own_line, own_row)?
            {
                return Ok(());
            }
            if !each(line, row)? {
                return Ok(());
            }
        }
        if let Some((line, row)) = own {
            each(line, row)?;
        }
        Ok(())
    }

    fn known_run(&self, id: RunId) -> StoreResult<Run> {
        self.run(id)?.ok_or_else(|| crate::StoreError::Corrupt(format!("run {id} is in the ledger and has no row")))
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::*;
    use crate::apply::testing::*;

    /// All pages of `max` items, one after the other.
    fn pages<T>(max: usize, page: impl Fn(Option<Vec<u8>>, usize) -> Page<T>) -> Vec<T> {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let page = page(after, max);
            assert!(page.items.len() <= max);
            items.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return items,
            }
        }
    }

    fn names(m: &Machine, max: usize, query: TaskQuery) -> Vec<String> {
        let list = |after, max| m.view().list_tasks(&TaskQuery { after, max, ..query.clone() }).unwrap();
        pages(max, list).iter().map(TaskState::display_name).collect()
    }

    #[test]
    fn tasks_are_listed_by_name_then_by_id_in_pages_of_any_size() {
        let mut m = Machine::new();
        for name in ["pear", "apple/2", "apple/1", "fig"] {
            m.create(name, recurring(), next(60));
        }
        let (x, y) = (m.create("", by_hand(), None), m.create("", one_shot(90), next(90)));
        m.delete("fig", false);
        let all = ["apple/1", "apple/2", "pear", &x.to_string(), &y.to_string()];
        for max in 1..7 {
            assert_eq!(names(&m, max, TaskQuery::default()), all, "in pages of {max}");
        }
        let query = |prefix: &str| TaskQuery { name_prefix: prefix.into(), ..TaskQuery::default() };
        assert_eq!(names(&m, 1, query("apple/")), ["apple/1", "apple/2"]);
        assert_eq!(names(&m, 9, query(&x.to_string())), [x.to_string()]);
        let elsewhere = TaskQuery { namespace: "other".into(), ..TaskQuery::default() };
        assert!(names(&m, 9, elsewhere).is_empty());
    }

    #[test]
    fn tasks_are_filtered() {
        let mut m = Machine::new();
        let labels = |value: &str| [("team".to_string(), value.to_string())].into();
        m.create("a", TaskSpec { labels: labels("x"), ..recurring() }, next(60));
        m.create("b", TaskSpec { labels: labels("y"), ..recurring() }, next(70));
        m.create("c", by_hand(), None);
        m.pause("b");
        let all = TaskQuery::default;
        let status = Some(TaskStatus::Paused);
        assert_eq!(names(&m, 1, TaskQuery { status, ..all() }), ["b"]);
        assert_eq!(names(&m, 1, TaskQuery { due_from: Some(at(61)), ..all() }), ["b"]);
        assert_eq!(names(&m, 1, TaskQuery { due_until: Some(at(70)), ..all() }), ["a"]);
        let label = Some(("team".to_string(), "x".to_string()));
        assert_eq!(names(&m, 1, TaskQuery { label, ..all() }), ["a"]);
    }

    #[test]
    fn a_filter_that_matches_little_gives_up_and_can_go_on() {
        let mut m = Machine::new();
        for n in 0..12 {
            let puts = (0..1000)
                .map(|i| m.prepared_put(&format!("{:05}", n * 1000 + i), by_hand(), PutMode::Create, None))
                .map(|put| Command::PutTask(Box::new(put)));
            m.run_all(puts.collect());
        }
        let query = TaskQuery { status: Some(TaskStatus::Paused), ..TaskQuery::default() };
        let page = m.view().list_tasks(&query).unwrap();
        assert!(page.items.is_empty());
        let after = page.next.expect("more to look at");
        let page = m.view().list_tasks(&TaskQuery { after: Some(after), ..query }).unwrap();
        assert_eq!(page, Page { items: vec![], next: None });
    }

    #[test]
    fn a_continuation_that_was_made_up_does_no_harm() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let other = m.create("b", recurring(), next(60));
        m.fire(other, next(120));
        for after in [vec![], vec![0], vec![1], vec![1, 255], vec![2], vec![2, 255], vec![9, 9], vec![255; 30]] {
            let after = Some(after);
            m.view().list_tasks(&TaskQuery { after: after.clone(), ..TaskQuery::default() }).unwrap();
            let runs = m.view().runs_of(id, &RunQuery { after: after.clone(), ..RunQuery::default() }).unwrap();
            assert!(runs.items.is_empty(), "runs of another task");
            let lines = m.view().ledger(id, &LedgerQuery { after, ..LedgerQuery::default() }).unwrap();
            assert!(lines.items.is_empty(), "lines of another task");
        }
    }

    #[test]
    fn runs_and_lines_come_in_pages_of_any_size() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let mut runs = Vec::new();
        for n in 1..4 {
            runs.push(m.fire(id, next(60 * (2 * n))).unwrap());
            runs.push(m.trigger("a"));
            let lapse = Decision::Lapse { last: at(120 * n), count: 1, reason: Reason::PolicySkip };
            m.decide(id, lapse, next(60 * (2 * n + 1)));
        }
        m.outcome(runs[2], Outcome::Succeeded);
        m.put("a", one_shot(600), next(600));
        runs.push(m.fire(id, None).unwrap());
        runs.push(m.trigger("a"));
        let newest_first: Vec<_> = runs.iter().rev().copied().collect();
        for max in 1..10 {
            let view = m.view();
            let list = |after, max| view.runs_of(id, &RunQuery { after, max, state: None }).unwrap();
            let ids: Vec<_> = pages(max, list).iter().map(|run| run.id).collect();
            assert_eq!(ids, newest_first, "in pages of {max}");
            let state = Some(RunState::Succeeded);
            let list = |after, max| view.runs_of(id, &RunQuery { after, max, state }).unwrap();
            let ids: Vec<_> = pages(max, list).iter().map(|run| run.id).collect();
            assert_eq!(ids, [runs[2]], "in pages of {max}");
            let list = |after, max| view.ledger(id, &LedgerQuery { after, max, ..LedgerQuery::default() }).unwrap();
            let lines = pages(max, list);
            assert_eq!(lines.len(), 11, "in pages of {max}");
            assert!(lines.is_sorted_by_key(|line| (line.scheduled_at, line.origin)));
        }
        assert_eq!(m.view().oldest_ledger_rows(id, 99).unwrap().len(), 10, "a one-shot's line is no row");
    }

    #[test]
    fn a_time_range_takes_in_the_line_that_reaches_into_it() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        m.decide(id, Decision::Lapse { last: at(300), count: 5, reason: Reason::PolicySkip }, next(360));
        m.fire(id, next(420));
        m.fire(id, next(480));
        let firsts = |from, until| {
            let query = LedgerQuery { from: Some(at(from)), until: Some(at(until)), ..LedgerQuery::default() };
            let lines = m.view().ledger(id, &query).unwrap().items;
            lines.iter().map(|line| line.scheduled_at).collect::<Vec<_>>()
        };
        assert_eq!(firsts(0, 60), []);
        assert_eq!(firsts(200, 300), [at(60)]);
        assert_eq!(firsts(300, 361), [at(60), at(360)]);
        assert_eq!(firsts(301, 420), [at(360)]);
        assert_eq!(firsts(400, 300), []);
    }
}
