//! What a history tells of each task: its versions with their definitions, and what became of its occurrences.
//!
//! From the log where the history has it; else from the final state as the API told it, and then only as far back as
//! that reaches.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::api::{Change, LedgerView, OriginView, TaskView};
use campanile_model::{Kind, Reason, RunId, Tally, TaskId, TaskSpec, TaskStatus, Timestamp};

use super::coverage;
use super::operations::operations;
use crate::expect::{self, Anchors};
use crate::history::{Action, Event, History, Outcome};

pub struct Story<'h> {
    pub id: TaskId,
    pub name: String,
    pub created_at: Timestamp,
    /// Ascending. Without a log, the last one only.
    pub versions: Vec<Version<'h>>,
    /// What was decided of scheduled occurrences, by version and instant.
    pub decisions: Vec<Decision>,
    /// Runs of manual triggers, as far as they are seen.
    pub triggered: u64,
    pub last: Standing,
    pub ledger: Option<&'h LedgerView>,
    /// Whether the log told it.
    pub from_log: bool,
    /// Only occurrences after this instant can be judged.
    pub judged_after: Timestamp,
}

pub struct Version<'h> {
    pub number: u32,
    pub at: Timestamp,
    /// The definition. Several, where it is not known which of the requests that got no answer wrote it.
    pub specs: Vec<&'h TaskSpec>,
    /// From when on each of them has occurrences.
    pub since: Vec<Since>,
    /// The furthest that was decided under it.
    pub decided_until: Timestamp,
    /// Its `remaining` fires are used up.
    pub spent: bool,
    /// When the next version, or the deletion of the task, ended it.
    pub ended_at: Option<Timestamp>,
}

/// See [`Anchors::since`].
#[derive(Clone, Copy, Debug)]
pub struct Since {
    pub at: Timestamp,
    /// It is known which definition was there before.
    pub certain: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Decision {
    pub version: u32,
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u64,
    pub what: What,
    /// When it was due by its run's row.
    pub due_at: Option<Timestamp>,
    /// Of the history.
    pub t: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Fired(RunId),
    Lapsed(Reason),
}

/// A task as it was seen last.
#[derive(Clone, Copy)]
pub struct Standing {
    pub status: TaskStatus,
    pub decided_until: Timestamp,
    pub tally: Tally,
    pub t: u64,
}

impl Story<'_> {
    pub fn anchors(&self, version: &Version, spec: &TaskSpec) -> Anchors {
        let place = version.specs.iter().position(|known| std::ptr::eq(*known, spec));
        let since = place.and_then(|place| version.since.get(place)).map_or(version.at, |since| since.at);
        Anchors { created_at: self.created_at, version_at: version.at, since, spread: expect::spread_of(&self.name) }
    }

    /// Whether it was named by whoever put it. What the cluster named itself, it also drew a hash for.
    pub fn is_named(&self) -> bool {
        !self.name.is_empty() && self.name.parse::<TaskId>().is_err()
    }

    /// The decisions made under a version.
    pub fn decisions_of(&self, version: u32) -> &[Decision] {
        let from = self.decisions.partition_point(|decision| decision.version < version);
        let to = self.decisions.partition_point(|decision| decision.version <= version);
        &self.decisions[from..to]
    }
}

/// The tasks of a history, by id.
pub fn tell(history: &History) -> Vec<Story<'_>> {
    let specs = Specs::gather(history);
    let mut stories: BTreeMap<TaskId, Story> = BTreeMap::new();
    let mut early: Vec<(TaskId, Decision)> = Vec::new();
    let mut fired: BTreeSet<RunId> = BTreeSet::new();
    let mut triggered: BTreeMap<TaskId, u64> = BTreeMap::new();
    let mut finals: BTreeMap<TaskId, (&TaskView, u64)> = BTreeMap::new();
    let mut ledgers: BTreeMap<TaskId, &LedgerView> = BTreeMap::new();
    let mut stamps: BTreeMap<u64, Timestamp> = BTreeMap::new();
    for timed in &history.events {
        let t = timed.t;
        match &timed.event {
            Event::Entry { index, time, .. } => {
                stamps.insert(*index, *time);
            }
            Event::Task(row) => {
                let time = stamps.get(&row.index).copied();
                let time = time.unwrap_or_else(|| Timestamp::from_millis(history.wall_ms(t)));
                let story = stories.entry(row.task).or_insert_with(|| Story {
                    id: row.task,
                    name: row.name.clone(),
                    created_at: time,
                    versions: Vec::new(),
                    decisions: Vec::new(),
                    triggered: 0,
                    last: Standing { status: row.status, decided_until: row.decided_until, tally: row.tally, t },
                    ledger: None,
                    from_log: true,
                    judged_after: Timestamp::MIN,
                });
                let newest = story.versions.last().map_or(0, |version| version.number);
                if row.version > newest {
                    if let Some(before) = story.versions.last_mut() {
                        before.ended_at.get_or_insert(time);
                    }
                    story.versions.push(Version {
                        number: row.version,
                        at: time,
                        specs: specs.of(row.task, row.version, &row.name, t),
                        since: Vec::new(),
                        decided_until: row.decided_until,
                        spent: false,
                        ended_at: None,
                    });
                }
                if let Some(version) = story.versions.iter_mut().rev().find(|version| version.number == row.version) {
                    version.decided_until = version.decided_until.max(row.decided_until);
                    version.spent |= row.remaining == Some(0);
                    if row.status == TaskStatus::Deleted {
                        version.ended_at.get_or_insert(time);
                    }
                }
                story.last = Standing { status: row.status, decided_until: row.decided_until, tally: row.tally, t };
            }
            // The first row of a run is its fire.
            Event::Run(row) if row.index == row.run.place().index() => {
                let task = row.occurrence.task;
                // The entry may write it again: a later command of it cancels the run.
                if !fired.insert(row.run) {
                    continue;
                }
                if row.is_scheduled() {
                    let at = row.occurrence.scheduled_at;
                    let what = What::Fired(row.run);
                    let due_at = Some(row.due_at);
                    let version = row.version;
                    early.push((task, Decision { version, first: at, last: at, count: 1, what, due_at, t }));
                } else {
                    *triggered.entry(task).or_default() += 1;
                }
            }
            Event::Lapse { task, version, first, last, count, reason, .. } => {
                let (version, first, last, count) = (*version, *first, *last, *count);
                early.push((
                    *task,
                    Decision { version, first, last, count, what: What::Lapsed(*reason), due_at: None, t },
                ));
            }
            Event::FinalTask { task } => {
                finals.insert(task.id, (task, t));
            }
            Event::FinalLedger { ledger } => {
                ledgers.insert(ledger.task_id, ledger);
            }
            _ => {}
        }
    }
    for (task, decision) in early {
        if let Some(story) = stories.get_mut(&task) {
            story.decisions.push(decision);
        }
    }
    for (id, story) in &mut stories {
        story.triggered = triggered.get(id).copied().unwrap_or(0);
        story.ledger = ledgers.get(id).copied();
        story.decisions.sort_by_key(|decision| (decision.version, decision.first));
        for place in 0..story.versions.len() {
            let since = story.versions[place].specs.iter().map(|spec| coverage::since(story, place, spec)).collect();
            story.versions[place].since = since;
        }
    }
    if stories.is_empty() {
        for (id, (view, t)) in finals {
            if let Some(ledger) = ledgers.get(&id) {
                stories.insert(id, from_final(view, ledger, t));
            }
        }
    }
    stories.into_values().collect()
}

fn from_final<'h>(view: &'h TaskView, ledger: &'h LedgerView, t: u64) -> Story<'h> {
    let scheduled = ledger.items.iter().filter(|line| line.origin == OriginView::Schedule);
    let decisions: Vec<Decision> = scheduled
        .filter_map(|line| {
            let what = match (line.kind, line.reason, line.run) {
                (Kind::Fired, _, Some(run)) => What::Fired(run),
                (_, Some(reason), _) => What::Lapsed(reason),
                _ => return None,
            };
            let (first, last, count) = (line.scheduled_at, line.last, line.count);
            Some(Decision { version: view.version, first, last, count, what, due_at: None, t })
        })
        .collect();
    let decided_until = ledger.decided_until.unwrap_or(Timestamp::MIN);
    let folded = ledger.folded.total() > ledger.folded.triggered;
    let mut judged_after = if view.version == 1 { Timestamp::MIN } else { view.updated_at };
    if folded {
        let oldest = decisions.first().map_or(decided_until, |oldest| before(oldest.first));
        judged_after = judged_after.max(oldest);
    }
    Story {
        id: view.id,
        name: view.name.clone(),
        created_at: view.created_at,
        versions: vec![Version {
            number: view.version,
            at: view.updated_at,
            specs: vec![&view.spec],
            since: Vec::new(),
            decided_until,
            spent: view.remaining_fires == Some(0),
            ended_at: None,
        }],
        decisions: decisions.into_iter().filter(|decision| decision.last > judged_after).collect(),
        triggered: ledger.tally.triggered,
        last: Standing { status: view.state, decided_until, tally: ledger.tally, t },
        ledger: Some(ledger),
        from_log: false,
        judged_after,
    }
}

fn before(instant: Timestamp) -> Timestamp {
    Timestamp::from_millis(instant.as_millis() - 1)
}

/// Which definition which version has.
pub struct Specs<'h> {
    known: BTreeMap<(TaskId, u32), &'h TaskSpec>,
    /// By name: sent at, and never answered.
    unanswered: BTreeMap<&'h str, Vec<(u64, &'h TaskSpec)>>,
}

impl<'h> Specs<'h> {
    pub fn gather(history: &'h History) -> Self {
        let mut known = BTreeMap::new();
        let mut unanswered: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for operation in operations(history) {
            match (operation.action, operation.outcome) {
                (Action::Put { spec, .. }, Some(Outcome::Written { task })) => {
                    if matches!(task.change, Change::Created | Change::Updated | Change::Unchanged) {
                        known.entry((task.id, task.version)).or_insert(&**spec);
                    }
                }
                (Action::Put { name, spec, .. }, None) => {
                    unanswered.entry(name).or_default().push((operation.invoked, &**spec));
                }
                (_, Some(Outcome::Read { task })) => {
                    known.entry((task.id, task.version)).or_insert(&task.spec);
                }
                (_, Some(Outcome::Tasks { items, .. })) => {
                    for task in items {
                        known.entry((task.id, task.version)).or_insert(&task.spec);
                    }
                }
                _ => {}
            }
        }
        for timed in &history.events {
            if let Event::FinalTask { task } = &timed.event {
                known.entry((task.id, task.version)).or_insert(&task.spec);
            }
        }
        Self { known, unanswered }
    }

    pub fn of(&self, task: TaskId, version: u32, name: &str, t: u64) -> Vec<&'h TaskSpec> {
        if let Some(spec) = self.known.get(&(task, version)) {
            return vec![spec];
        }
        let mut found: Vec<&TaskSpec> = Vec::new();
        // One that is called by its id may have been created without a name.
        let unnamed = self.unanswered.get("").filter(|_| name.parse::<TaskId>().is_ok());
        for (sent, spec) in self.unanswered.get(name).into_iter().chain(unnamed).flatten() {
            if *sent <= t && !found.contains(spec) {
                found.push(spec);
            }
        }
        found
    }
}
