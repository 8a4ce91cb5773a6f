//! Ledgers as they are read: lines of runs, and of ranges that did not fire.
//!
//! Which neighbours are one line is the product's affair; what a line covers must be what was decided, all of one kind.

use campanile_model::api::{LedgerLineView, LedgerView, OriginView};
use campanile_model::sim::Bound;
use campanile_model::{Kind, OccurrenceId, Origin, Reason, Tally, Timestamp, limits};

use super::page::{Belongs, List, Page, Pages, Witness};
use super::runs::{Place, listed, place, row_at};
use super::{Asked, Judged, same};
use crate::history::{LedgerFilter, Paging};
use crate::invariants::tables::{Lapse, Tables};

pub fn page(
    asked: &Asked,
    pages: &mut Pages<Place>,
    (name, filter): (&str, &LedgerFilter),
    paging: &Paging,
    ledger: &LedgerView,
) -> Judged {
    let (tables, window) = (asked.tables, asked.window);
    let header = &tables.facts.history.header;
    let usual = header.bound(Bound::PageItems, limits::PAGE_ITEMS_DEFAULT as u64);
    let shown: Vec<Place> = ledger.items.iter().map(place_of).collect::<Result<_, _>>()?;
    let more = ledger.next_page_token.is_some();
    let limit = paging.limit.map_or(usual, u64::from);
    let page = Page { op: asked.operation.id, follows: paging.follows, shown, limit, more, window };
    let scan = header.bound(Bound::ScanRows, limits::SCAN_ROWS as u64);
    let reading = Reading {
        tables,
        name,
        filter,
        ledger,
        is_first: paging.follows.is_none(),
        // Where a range that reaches into the time asked for begins is looked for among so many rows only.
        finds_what_reaches: scan >= limits::SCAN_ROWS as u64,
    };
    if !more && paging.follows.is_none() && *filter == LedgerFilter::default() {
        reading.adds_up()?;
    }
    let witness = Witness {
        moments: |window| tables.moments_of_name(name, window),
        fits: |index| reading.fits(index),
        list: |index| reading.list(index),
        scan,
    };
    pages.judge(page, witness)
}

/// Where a line stands.
fn place_of(line: &LedgerLineView) -> Result<Place, String> {
    match (line.origin, line.occurrence_id) {
        (OriginView::Schedule, _) => Ok((line.scheduled_at, 0)),
        (OriginView::Manual, Some(occurrence)) => Ok(place(occurrence)),
        (OriginView::Manual, None) => Err(format!("the trigger's line at {} names no occurrence", line.scheduled_at)),
    }
}

struct Reading<'a, 'f, 'h> {
    tables: &'a Tables<'f, 'h>,
    name: &'a str,
    filter: &'a LedgerFilter,
    ledger: &'a LedgerView,
    is_first: bool,
    finds_what_reaches: bool,
}

impl Reading<'_, '_, '_> {
    /// All of a ledger: its lines and what was folded are what was counted.
    fn adds_up(&self) -> Judged {
        let mut sum = self.ledger.folded;
        for line in &self.ledger.items {
            match line.reason {
                Some(reason) => sum.add(reason, line.count),
                None => {
                    sum.fired += line.count;
                    sum.triggered += if line.origin == OriginView::Manual { line.count } else { 0 };
                }
            }
        }
        same("the sum of all lines", &sum, &self.ledger.tally)
    }

    /// Whether the page, but for what is left out, is as an entry left the ledger.
    fn fits(&self, index: u64) -> Judged {
        let Some(task) = self.tables.find(self.name, index).task() else {
            return Err(format!("there is no task {:?}", self.name));
        };
        same("the task", &self.ledger.task_id, &task.task)?;
        same("the tally", &self.ledger.tally, &task.tally)?;
        let decided = Some(task.decided_until).filter(|until| *until > Timestamp::MIN);
        same("decided_until", &self.ledger.decided_until, &decided)?;
        self.ledger.items.iter().try_for_each(|line| {
            let judged = if line.run.is_some() { self.is_run(line, index) } else { self.is_range(line, index) };
            judged.map_err(|why| format!("of the line at {}, {why}", line.scheduled_at))?;
            let reaches = self.filter.after.is_none_or(|after| line.last >= after);
            let begins = self.filter.before.is_none_or(|before| line.scheduled_at < before);
            if reaches && begins { Ok(()) } else { Err(format!("the line at {} was not asked for", line.scheduled_at)) }
        })
    }

    fn is_run(&self, line: &LedgerLineView, index: u64) -> Judged {
        let run = line.run.and_then(|id| self.tables.facts.runs.get(&id));
        let Some(row) = run.and_then(|run| row_at(run, index)) else { return Err("there is no such run".into()) };
        let occurrence = row.occurrence;
        same("the task", &occurrence.task, &self.ledger.task_id)?;
        same("the occurrence", &line.occurrence_id, &Some(occurrence))?;
        same("the origin", &line.origin, &occurrence.origin.into())?;
        same("its instants", &(line.scheduled_at, line.last), &(occurrence.scheduled_at, occurrence.scheduled_at))?;
        same("the kind", &(line.kind, line.reason, line.count, line.version), &(Kind::Fired, None, 1, None))?;
        same("the run's state", &line.run_state, &Some(row.state))
    }

    fn is_range(&self, line: &LedgerLineView, index: u64) -> Judged {
        let id = self.ledger.task_id;
        let covers = |lapse: &Lapse| lapse.last >= line.scheduled_at && lapse.first <= line.last;
        let lapses: Vec<Lapse> = self.tables.lapses(id, index).filter(covers).collect();
        let (Some(first), Some(last)) = (lapses.first(), lapses.last()) else { return Err("nothing lapsed".into()) };
        same("its instants", &(line.scheduled_at, line.last), &(first.first, last.last))?;
        let (reason, version) = (first.reason, first.version);
        let whole = (reason.kind(), Some(reason), Some(version));
        same("the kind", &(line.kind, line.reason, line.version), &whole)?;
        if let Some(other) = lapses.iter().find(|lapse| (lapse.reason, lapse.version) != (reason, version)) {
            return Err(format!("it covers {} of another kind", other.first));
        }
        same("the count", &line.count, &lapses.iter().map(|lapse| lapse.count).sum())?;
        let alone = OccurrenceId { task: id, scheduled_at: line.scheduled_at, origin: Origin::Schedule };
        same("the occurrence", &line.occurrence_id, &Some(alone).filter(|_| line.count == 1))?;
        same("the run's state", &line.run_state, &None)?;
        let fired = self.tables.runs_of(id).filter_map(|(_, run)| row_at(run, index)).find(|row| {
            let at = row.occurrence.scheduled_at;
            row.is_scheduled() && at >= line.scheduled_at && at <= line.last
        });
        match fired {
            Some(row) => Err(format!("it covers {}, which fired", row.occurrence.scheduled_at)),
            None => Ok(()),
        }
    }

    /// The lines that belong to the ledger after an entry, ranges as they are shown. One that is not shown is owed where no
    /// line on a page before can have covered it.
    fn list(&self, index: u64) -> (List<Place>, u64) {
        let named = self.tables.find(self.name, index);
        let Some(task) = named.task() else { return (Vec::new(), 0) };
        let nothing_folded = self.ledger.folded == Tally::default();
        let mut decided: Vec<Decided> = Vec::new();
        for run in listed(self.tables, named, index) {
            let belongs = if nothing_folded { Belongs::Surely } else { run.belongs };
            decided.push(Decided { place: run.place, last: run.place.0, lapsed: None, belongs });
        }
        for lapse in self.tables.lapses(task.task, index) {
            let lapsed = Some((lapse.reason, lapse.version));
            decided.push(Decided { place: (lapse.first, 0), last: lapse.last, lapsed, belongs: Belongs::Perhaps });
        }
        decided.sort_unstable_by_key(|decided| decided.place);
        let rows = decided.len() as u64;
        let mut list: List<Place> = Vec::new();
        // Of the schedules' occurrences, the one before.
        let mut before = None;
        for Decided { place, last, lapsed, mut belongs } in decided {
            let begins = lapsed.is_none() || before != Some(lapsed);
            if place.1 == 0 {
                before = Some(lapsed);
            }
            if lapsed.is_some()
                && let Some(line) = self.ledger.items.iter().find(|line| covers(line, place))
            {
                let shown = (line.scheduled_at, 0);
                if list.last().is_none_or(|(key, _)| *key != shown) {
                    list.push((shown, Belongs::Perhaps));
                }
                continue;
            }
            let LedgerFilter { after, before } = *self.filter;
            if after.is_some_and(|after| last < after) || before.is_some_and(|before| place.0 >= before) {
                continue;
            }
            let reaches_in = after.is_some_and(|after| place.0 < after);
            if lapsed.is_some() && nothing_folded && (self.is_first || begins) {
                belongs = Belongs::Surely;
            }
            if lapsed.is_some() && !self.finds_what_reaches && (reaches_in || after.is_some()) {
                belongs = Belongs::Perhaps;
            }
            list.push((place, belongs));
        }
        list.sort_unstable_by_key(|(key, _)| *key);
        (list, rows)
    }
}

fn covers(line: &LedgerLineView, place: Place) -> bool {
    line.run.is_none() && line.scheduled_at <= place.0 && place.0 <= line.last
}

/// One decision: a run, or occurrences that lapsed together, and why.
struct Decided {
    place: Place,
    last: Timestamp,
    lapsed: Option<(Reason, u32)>,
    belongs: Belongs,
}
