//! A history sorted by what it is about, built once, so that each checker is short and none is slow.

use std::collections::BTreeMap;
use std::ops::Range;

use campanile_model::api::{LedgerView, RunView, TaskView};
use campanile_model::sim::Bound;
use campanile_model::{LogPlace, NodeId, OccurrenceId, RunId, TaskId, TaskSpec, Timestamp, Token};

use super::operations;
use super::spans::{Span, Spans};
use crate::history::{
    Action, Delivery, Event, FinalRead, History, NodeEvent, Outcome, RaftState, RunRow, Source, TaskRow,
};
use crate::plan::Fault;

/// A fact and when it was seen.
#[derive(Clone, Copy, Debug)]
pub struct At<T> {
    pub t: u64,
    pub it: T,
}

/// Everything known of one run.
#[derive(Debug, Default)]
pub struct RunFacts<'h> {
    /// In log order.
    pub rows: Vec<At<&'h RunRow>>,
    /// In the order of arrival.
    pub deliveries: Vec<Delivered<'h>>,
    /// As it was read in the end: since the reading began, at the earliest.
    pub in_the_end: Option<At<&'h RunView>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Delivered<'h> {
    pub t: u64,
    pub it: &'h Delivery,
    /// When the receiver answered, and what.
    pub answer: Option<(u64, u16)>,
    /// What that answer's `Retry-After` said.
    pub retry_after: Option<&'h str>,
    /// When the receiver gave no answer but an end of the connection, or a head without one.
    pub reset: Option<u64>,
}

impl Delivered<'_> {
    pub fn answered_success(&self) -> bool {
        self.answer.is_some_and(|(_, status)| (200..300).contains(&status))
    }
}

impl<'h> RunFacts<'h> {
    /// The row that says who holds an attempt from when on.
    pub fn handed_out(&self, token: Token) -> Option<At<&'h RunRow>> {
        self.rows.iter().find(|row| row.it.token == token).copied()
    }

    pub fn delivery(&self, token: Token) -> Option<&Delivered<'h>> {
        self.deliveries.iter().find(|delivered| delivered.it.token == token)
    }
}

/// Everything known of one task.
#[derive(Debug, Default)]
pub struct TaskFacts<'h> {
    /// In log order.
    pub rows: Vec<At<&'h TaskRow>>,
    pub in_the_end: Option<&'h TaskView>,
    /// Its ledger in the end.
    pub ledger: Option<At<&'h LedgerView>>,
}

impl<'h> TaskFacts<'h> {
    /// The row as the entries before `index` left it.
    pub fn before(&self, index: u64) -> Option<&'h TaskRow> {
        let later = self.rows.partition_point(|row| row.it.index < index);
        Some(self.rows.get(later.checked_sub(1)?)?.it)
    }

    /// Whether some of its runs are gone: retention has folded their ledger lines into counters.
    pub fn has_folded(&self) -> bool {
        self.ledger.is_some_and(|ledger| ledger.it.folded.fired > 0)
    }

    /// The row as the entries up to `index` left it.
    pub fn after(&self, index: u64) -> Option<&'h TaskRow> {
        self.before(index + 1)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Operation<'h> {
    /// Its number; that of its batch, for a line of one.
    pub id: u64,
    /// Whom it was asked of.
    pub node: NodeId,
    pub action: &'h Action,
    pub invoked: u64,
    pub returned: Option<(u64, &'h Outcome)>,
}

impl<'h> Operation<'h> {
    /// What it was answered, if the answer says what happened, and when.
    pub fn acknowledged(&self) -> Option<(u64, &'h Outcome)> {
        self.returned.filter(|(_, outcome)| !matches!(outcome, Outcome::Refused { .. } | Outcome::Unknown { .. }))
    }

    /// Whether it may have had an effect.
    pub fn may_have_happened(&self) -> bool {
        !matches!(self.returned, Some((_, Outcome::Refused { .. })))
    }

    /// As what it was refused, and when: status and code.
    pub fn refused(&self) -> Option<(u64, u16, &'h str)> {
        match self.returned {
            Some((t, Outcome::Refused { status, code })) => Some((t, *status, code)),
            _ => None,
        }
    }

    /// Whether it was content with whatever the node that it asked had.
    pub fn is_stale(&self) -> bool {
        matches!(self.action, Action::ListTasks { filter, .. } if filter.stale)
    }

    /// After this it has no effect any more; an unknown outcome is open for ever.
    pub fn over_at(&self) -> u64 {
        match self.returned {
            Some((_, Outcome::Unknown { .. })) | None => u64::MAX,
            Some((t, _)) => t,
        }
    }

    /// The task's name, for what is about a task.
    pub fn name(&self) -> Option<&'h str> {
        operations::named(self.action, self.returned.map(|(_, outcome)| outcome))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct EntryFact {
    pub t: u64,
    pub index: u64,
    pub term: u64,
    pub time: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub struct FenceFact {
    pub t: u64,
    pub index: u64,
    pub incarnation: u64,
    pub fence: Token,
    pub up: bool,
}

/// What a node showed of itself.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'h> {
    /// Its process began or ended: what it knew beside its disk is gone.
    Life,
    Apply {
        index: u64,
        hash: u64,
    },
    Digest {
        index: u64,
        digest: &'h str,
    },
    Raft(&'h RaftState),
}

/// A fault of some nodes' clocks.
#[derive(Clone, Copy, Debug)]
struct WrongClocks<'h> {
    nodes: &'h [NodeId],
    fault: &'h Fault,
    begun: u64,
    /// Never, if it has no end in the history.
    ended: u64,
}

impl WrongClocks<'_> {
    /// How far off it makes a wall clock in some time, at most.
    fn error_ms(&self, from: u64, to: u64) -> u64 {
        if to < self.begun || from > self.ended {
            return 0;
        }
        let lasted_ms = to.min(self.ended).saturating_sub(self.begun).div_ceil(1000);
        match self.fault {
            Fault::ClockJump { by_ms, .. } => by_ms.unsigned_abs(),
            Fault::ClockDrift { ppm, .. } => lasted_ms * u64::from(ppm.unsigned_abs()) / 1_000_000 + 1,
            _ => lasted_ms,
        }
    }
}

/// The index over a history.
pub struct Facts<'h> {
    pub history: &'h History,
    /// In the order of events.
    pub entries: Vec<EntryFact>,
    entry_of: BTreeMap<u64, EntryFact>,
    pub runs: BTreeMap<RunId, RunFacts<'h>>,
    pub tasks: BTreeMap<TaskId, TaskFacts<'h>>,
    /// In the order of invocation, each line of a batch as one.
    pub operations: Vec<Operation<'h>>,
    /// Rows of each node, in log order.
    pub fences: BTreeMap<NodeId, Vec<FenceFact>>,
    /// What each node showed, in order.
    pub replicas: BTreeMap<NodeId, Vec<At<Shown<'h>>>>,
    /// Definitions as far as clients knew them.
    specs: BTreeMap<(TaskId, u32), &'h TaskSpec>,
    /// What may delay a fire.
    pub troubles: Spans,
    /// The same without the changes that operators ask for.
    pub mishaps: Spans,
    /// What may delay or hide a delivery: receivers that are not there or do not answer, and slow networks.
    pub receiver_troubles: Spans,
    /// What may delay or lose what nodes and receivers send each other, or make a node's clock measure wrongly.
    pub link_troubles: Spans,
    wrong_clocks: Vec<WrongClocks<'h>>,
    pub healed: Option<u64>,
    pub converged: Option<u64>,
    /// When the closing round began: from then on nothing is wrong.
    pub closing: Option<u64>,
    /// The final state was read.
    pub has_final: bool,
    /// When the last reading of it began: what it tells is at least as new.
    pub final_begun: Option<u64>,
    /// How the last reading of it went, and when it ended.
    pub final_read: Option<(u64, &'h FinalRead)>,
}

impl<'h> Facts<'h> {
    pub fn new(history: &'h History) -> Self {
        let mut facts = Self {
            history,
            entries: Vec::new(),
            entry_of: BTreeMap::new(),
            runs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            operations: Vec::new(),
            fences: BTreeMap::new(),
            replicas: BTreeMap::new(),
            specs: BTreeMap::new(),
            troubles: Spans::default(),
            mishaps: Spans::default(),
            receiver_troubles: Spans::default(),
            link_troubles: Spans::default(),
            wrong_clocks: Vec::new(),
            healed: None,
            converged: None,
            closing: None,
            has_final: false,
            final_begun: None,
            final_read: None,
        };
        let mut building = Building::default();
        for timed in &history.events {
            facts.take(timed.t, &timed.event, &mut building);
        }
        facts.finish(building);
        facts
    }

    /// Whether the history has what the log did.
    pub fn has_log(&self) -> bool {
        !self.entries.is_empty()
    }

    pub fn entry(&self, index: u64) -> Option<&EntryFact> {
        self.entry_of.get(&index)
    }

    pub fn spec(&self, task: TaskId, version: u32) -> Option<&'h TaskSpec> {
        self.specs.get(&(task, version)).copied()
    }

    /// An instant as microseconds since the start; 0 for what lies before it.
    pub fn since_start(&self, instant: Timestamp) -> u64 {
        let millis = instant.as_millis().saturating_sub(self.history.header.epoch_ms);
        u64::try_from(millis).unwrap_or(0).saturating_mul(1000)
    }

    /// The latest that a node's clock may show at an event.
    pub fn latest_clock(&self, t: u64) -> Timestamp {
        Timestamp::from_millis(self.history.wall_ms(t) + self.history.header.clock_error_ms + self.rounding_ms())
    }

    /// The earliest that a node's clock may have shown an instant.
    pub fn earliest(&self, instant: Timestamp) -> u64 {
        self.since_start(instant).saturating_sub(self.clock_error() + self.rounding_ms() as u64 * 1000)
    }

    /// Real clocks are read a rounding apart from ours.
    fn rounding_ms(&self) -> i64 {
        match self.history.header.source {
            Source::Simulated => 0,
            Source::RealProcesses => 1,
        }
    }

    /// How far a node's wall clock may have been off in some time, in milliseconds, by what was done to it.
    pub fn wrong_by(&self, node: NodeId, from: u64, to: u64) -> u64 {
        let of_node = self.wrong_clocks.iter().filter(|wrong| wrong.nodes.contains(&node));
        of_node.map(|wrong| wrong.error_ms(from, to)).sum()
    }

    /// By when something is done that is due at `due`: within the bound, once a whole bound has passed undisturbed.
    pub fn deadline(&self, due: u64) -> u64 {
        let bound = self.bound();
        self.troubles.first_quiet(due, bound).saturating_add(bound).saturating_add(self.clock_error())
    }

    /// Whether nothing was wrong in that time, nor for a whole bound before it; receivers may do as they like.
    pub fn is_calm(&self, from: u64, to: u64) -> bool {
        let from = from.saturating_sub(self.bound());
        !self.troubles.touch(from, to) && !self.link_troubles.touch(from, to)
    }

    /// Whether in that time, and for a whole bound before it, nothing was wrong but what operators asked for.
    pub fn is_healthy(&self, from: u64, to: u64) -> bool {
        let from = from.saturating_sub(self.bound());
        !self.mishaps.touch(from, to) && !self.link_troubles.touch(from, to)
    }

    /// Whether what a node and a receiver sent each other in that time arrived soon, and was timed by a right clock.
    pub fn is_link_sound(&self, from: u64, to: u64) -> bool {
        !self.link_troubles.touch(from.saturating_sub(self.bound()), to)
    }

    /// How long an attempt may wait for its turn when nothing is wrong any more: where a node has few connections, until
    /// those that receivers hold open without an answer have timed out, and not at all otherwise.
    pub fn turn(&self) -> u64 {
        let narrow = [Bound::Connections, Bound::ConnectionsPerHost].map(Bound::name);
        if !narrow.iter().any(|name| self.history.header.bounds.contains_key(*name)) {
            return 0;
        }
        self.specs.values().map(|spec| spec.timeout.0).max().unwrap_or_default().saturating_mul(1000)
    }

    /// The entry's own time.
    pub fn stamp(&self, index: u64) -> Option<Timestamp> {
        self.entry(index).map(|entry| entry.time)
    }

    /// [`History`]'s bound on lateness, in microseconds.
    pub fn bound(&self) -> u64 {
        u64::try_from(self.history.header.lateness_bound_ms).unwrap_or(0).saturating_mul(1000)
    }

    pub fn clock_error(&self) -> u64 {
        u64::try_from(self.history.header.clock_error_ms).unwrap_or(0).saturating_mul(1000)
    }

    /// The fence that the entries before `index` had set for a node.
    pub fn fence_before(&self, node: NodeId, index: u64) -> Token {
        let Some(rows) = self.fences.get(&node) else { return Token::default() };
        let later = rows.partition_point(|row| row.index < index);
        later.checked_sub(1).map_or(Token::default(), |last| rows[last].fence)
    }

    /// Whether an attempt was void for the entry at `index`: nobody had it, or its node was fenced in an entry up to it.
    pub fn void_at(&self, node: NodeId, token: Token, index: u64) -> bool {
        node == NodeId::default() || token < self.fence_before(node, index + 1)
    }

    fn take(&mut self, t: u64, event: &'h Event, building: &mut Building) {
        match event {
            Event::Invoke { op, node, action, .. } => {
                let (parts, from) = (operations::parts(action), self.operations.len());
                building.operations.insert(*op, from..from + parts.len());
                let (id, node) = (*op, *node);
                let asked = parts.iter().map(|action| Operation { id, node, action, invoked: t, returned: None });
                self.operations.extend(asked);
            }
            Event::Return { op, outcome } => {
                for (line, place) in building.operations.get(op).cloned().into_iter().flatten().enumerate() {
                    self.operations[place].returned = operations::part(outcome, line).map(|outcome| (t, outcome));
                }
            }
            Event::Entry { index, term, time } => {
                let fact = EntryFact { t, index: *index, term: *term, time: *time };
                self.entries.push(fact);
                self.entry_of.entry(*index).or_insert(fact);
            }
            Event::Task(row) => self.tasks.entry(row.task).or_default().rows.push(At { t, it: row }),
            Event::Run(row) => self.runs.entry(row.run).or_default().rows.push(At { t, it: row }),
            Event::NodeRow { index, node, incarnation, fence, up } => {
                let fact = FenceFact { t, index: *index, incarnation: *incarnation, fence: *fence, up: *up };
                self.fences.entry(*node).or_default().push(fact);
            }
            Event::Apply { node, index, hash } => {
                self.show(t, *node, Shown::Apply { index: *index, hash: *hash });
            }
            Event::Digest { node, index, digest } => self.show(t, *node, Shown::Digest { index: *index, digest }),
            Event::Raft(state) => self.show(t, state.node, Shown::Raft(state)),
            Event::Deliver(delivery) => {
                let run = self.runs.entry(delivery.run).or_default();
                building.deliveries.insert(delivery.delivery, (delivery.run, run.deliveries.len()));
                run.deliveries.push(Delivered { t, it: delivery, answer: None, retry_after: None, reset: None });
            }
            Event::Answer { delivery, status, retry_after } => {
                if let Some((run, place)) = building.deliveries.get(delivery)
                    && let Some(run) = self.runs.get_mut(run)
                {
                    run.deliveries[*place].answer = Some((t, *status));
                    run.deliveries[*place].retry_after = retry_after.as_deref();
                }
            }
            Event::FaultBegins { id, planned, nodes } => {
                building.faults.insert(*id, (t, planned.fault.name()));
                let fault = &planned.fault;
                if matches!(fault, Fault::ClockJump { .. } | Fault::ClockDrift { .. } | Fault::ClockFreeze { .. }) {
                    building.clocks.insert(*id, self.wrong_clocks.len());
                    self.wrong_clocks.push(WrongClocks { nodes, fault, begun: t, ended: u64::MAX });
                }
            }
            Event::FaultEnds { id } => {
                if let Some(place) = building.clocks.get(id) {
                    self.wrong_clocks[*place].ended = t;
                }
                if let Some((from, name)) = building.faults.remove(id) {
                    self.trouble(name, Span { from, to: t });
                }
            }
            Event::Node { node, what } => self.take_node(t, *node, what, building),
            Event::Healed { .. } => self.healed = Some(t),
            Event::Converged => self.converged = Some(t),
            Event::Closing => self.closing = Some(t),
            Event::FinalTask { task } => {
                self.has_final = true;
                self.tasks.entry(task.id).or_default().in_the_end = Some(task);
                self.specs.insert((task.id, task.version), &task.spec);
            }
            Event::FinalRun { run } => {
                self.has_final = true;
                let t = self.final_begun.unwrap_or(t);
                self.runs.entry(run.id).or_default().in_the_end = Some(At { t, it: run });
            }
            Event::FinalLedger { ledger } => {
                self.has_final = true;
                let t = self.final_begun.unwrap_or(t);
                self.tasks.entry(ledger.task_id).or_default().ledger = Some(At { t, it: ledger });
            }
            Event::FinalState { read: FinalRead::Begun, .. } => self.final_begun = Some(t),
            Event::FinalState { read, .. } => self.final_read = Some((t, read)),
            Event::Reset { delivery, .. } => {
                if let Some((run, place)) = building.deliveries.get(delivery)
                    && let Some(run) = self.runs.get_mut(run)
                {
                    run.deliveries[*place].reset = Some(t);
                }
            }
            Event::NotSent { .. }
            | Event::Ask { .. }
            | Event::Told { .. }
            | Event::GaveUp { .. }
            | Event::Members(_)
            | Event::Stray { .. }
            | Event::Untold { .. }
            | Event::Links { .. }
            | Event::Rows(_)
            | Event::Lapse { .. }
            | Event::Lease { .. }
            | Event::Bound { .. }
            | Event::Sometimes { .. }
            | Event::Message { .. } => {}
        }
    }

    fn take_node(&mut self, t: u64, node: NodeId, what: &NodeEvent, building: &mut Building) {
        match what {
            NodeEvent::Started | NodeEvent::Resumed => {
                if let Some(from) = building.down.remove(&node) {
                    self.nodes_trouble(Span { from, to: t });
                }
            }
            NodeEvent::Killed | NodeEvent::PowerCut | NodeEvent::Stopped { .. } | NodeEvent::Paused => {
                building.down.entry(node).or_insert(t);
            }
            NodeEvent::Broke { .. } | NodeEvent::Leads { .. } => {}
        }
        // A paused process goes on with all it knew.
        let lives =
            matches!(what, NodeEvent::Paused | NodeEvent::Resumed | NodeEvent::Broke { .. } | NodeEvent::Leads { .. });
        if !lives {
            self.show(t, node, Shown::Life);
        }
    }

    fn show(&mut self, t: u64, node: NodeId, it: Shown<'h>) {
        self.replicas.entry(node).or_default().push(At { t, it });
    }

    fn nodes_trouble(&mut self, span: Span) {
        self.troubles.add(span);
        self.mishaps.add(span);
    }

    fn trouble(&mut self, fault: &str, span: Span) {
        // An answer now and then that is wrong or late holds up its own run only, and no longer than its timeout.
        if fault == "receiver_moody" {
            return;
        }
        let receiver = fault.starts_with("receiver_");
        if matches!(fault, "add_node" | "remove_node" | "transfer_leader") {
            self.troubles.add(span);
        } else if !receiver {
            self.nodes_trouble(span);
        }
        // Cuts between nodes leave the way to receivers open.
        let link = matches!(fault, "loss" | "delay" | "clog" | "pause" | "clock_drift");
        if receiver || link {
            self.receiver_troubles.add(span);
        }
        if link {
            self.link_troubles.add(span);
        }
    }

    fn finish(&mut self, building: Building) {
        // What has not ended lasts; but once a quorum is healed, what still is broken is no excuse.
        let end = self.healed.unwrap_or(u64::MAX);
        for (from, name) in building.faults.values() {
            self.trouble(name, Span { from: *from, to: end });
        }
        for from in building.down.values() {
            self.nodes_trouble(Span { from: *from, to: end });
        }
        for troubles in [&mut self.troubles, &mut self.mishaps] {
            if let Some(healed) = self.healed {
                troubles.end_by(healed);
            }
            troubles.settle();
        }
        self.receiver_troubles.settle();
        self.link_troubles.settle();
        // The log's order is the truth, whatever the order in which it was seen.
        for run in self.runs.values_mut() {
            run.rows.sort_by_key(|row| row.it.index);
        }
        for task in self.tasks.values_mut() {
            task.rows.sort_by_key(|row| row.it.index);
        }
        for rows in self.fences.values_mut() {
            rows.sort_by_key(|row| row.index);
        }
        for operation in &self.operations {
            match (operation.action, operation.acknowledged()) {
                (Action::Put { spec, .. }, Some((_, Outcome::Written { task }))) => {
                    // The definition in its writer's words: what is read has its secret hidden.
                    self.specs.insert((task.id, task.version), spec);
                }
                (_, Some((_, Outcome::Read { task }))) => {
                    self.specs.entry((task.id, task.version)).or_insert(&task.spec);
                }
                (_, Some((_, Outcome::Tasks { items, .. }))) => {
                    for task in items {
                        self.specs.entry((task.id, task.version)).or_insert(&task.spec);
                    }
                }
                _ => {}
            }
        }
    }
}

/// What is open while a history is read.
#[derive(Default)]
struct Building {
    /// Places of a request's parts.
    operations: BTreeMap<u64, Range<usize>>,
    deliveries: BTreeMap<u64, (RunId, usize)>,
    faults: BTreeMap<usize, (u64, &'static str)>,
    /// Places of clocks' faults.
    clocks: BTreeMap<usize, usize>,
    down: BTreeMap<NodeId, u64>,
}

/// The log index that gave a token out.
pub fn index_of(token: Token) -> u64 {
    LogPlace(token.0).index()
}

/// Every place in a history that says which run an occurrence became.
pub fn fired_as<'f>(facts: &'f Facts) -> impl Iterator<Item = (u64, RunId, OccurrenceId)> + 'f {
    let of_runs = facts.runs.iter().flat_map(|(id, run)| {
        let rows = run.rows.iter().map(|row| (row.t, *id, row.it.occurrence));
        let deliveries = run.deliveries.iter().map(|delivered| (delivered.t, *id, delivered.it.occurrence));
        let in_the_end = run.in_the_end.iter().map(|view| (view.t, *id, view.it.occurrence_id));
        rows.chain(deliveries).chain(in_the_end)
    });
    let told = facts.operations.iter().filter_map(|operation| match operation.acknowledged()? {
        (t, Outcome::Triggered { triggered }) => Some((t, triggered.run, triggered.occurrence_id)),
        (t, Outcome::Run { run }) => Some((t, run.id, run.occurrence_id)),
        _ => None,
    });
    let listed = facts.operations.iter().flat_map(|operation| match operation.acknowledged() {
        Some((t, Outcome::Runs { items, .. })) => items.iter().map(|run| (t, run.id, run.occurrence_id)).collect(),
        _ => Vec::new(),
    });
    let of_ledgers = facts.tasks.values().filter_map(|task| task.ledger).flat_map(|ledger| {
        ledger.it.items.iter().filter_map(move |line| Some((ledger.t, line.run?, line.occurrence_id?)))
    });
    of_runs.chain(told).chain(listed).chain(of_ledgers)
}
