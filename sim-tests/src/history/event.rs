//! The lines of a history.

use std::collections::BTreeMap;

use campanile_model::api::{LedgerView, NextView, RunView, TaskView, TaskWritten, Triggered};
use campanile_model::sim::Bound;
use campanile_model::{
    AttemptRecord, Millis, Next, NodeId, OccurrenceId, Origin, Reason, RunId, RunState, Tally, TaskId, TaskSpec,
    TaskStatus, Timestamp, Token,
};
use serde::{Deserialize, Serialize};

use super::operator::{Members, Told, Wanted};
use super::paging::{LedgerFilter, Paging, TaskFilter};
use crate::plan::{Bounds, PlannedFault};

/// Format of the lines; a reader refuses any other by name.
pub const FORMAT: u32 = 1;

/// Deliveries that a simulated node has in flight, and those of them to one host, unless they are drawn small.
pub const CONNECTIONS: u64 = 512;
pub const CONNECTIONS_PER_HOST: u64 = 64;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    /// Version of Campanile that was run.
    pub version: String,
    pub source: Source,
    /// Name of the scenario.
    pub scenario: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Sabotage that was switched on, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
    /// True wall clock at `t = 0`, in milliseconds since 1970.
    pub epoch_ms: i64,
    /// Nodes at the start.
    pub nodes: Vec<NodeId>,
    /// How far a leader's clock may be off in this history; 0 without clock faults.
    pub clock_error_ms: i64,
    /// After the faults have ended, what is due fires within this time.
    pub lateness_bound_ms: i64,
    /// Bounds of the product that were other than usual: whoever judges by a bound asks [`Header::bound`].
    #[serde(default, skip_serializing_if = "Bounds::is_empty")]
    pub bounds: Bounds,
    /// What nodes sign with for tasks that have no secret of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
    /// Faults that were asked for and could not be done, or not as asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

impl Header {
    /// A bound as it was in this history, where it is usually `usual`.
    pub fn bound(&self, bound: Bound, usual: u64) -> u64 {
        self.bounds.get(bound.name()).copied().unwrap_or(usual)
    }

    /// A time that is a bound.
    pub fn time(&self, bound: Bound, usual: Millis) -> Millis {
        Millis(self.bound(bound, usual.0))
    }
}

/// A kind of fault that a history lacks although it was asked for, or has in another form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub fault: String,
    /// Planned faults it concerns; 0 where the kind was not drawn at all.
    pub count: u64,
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Simulated,
    RealProcesses,
}

/// An event and its true time, in microseconds since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    pub t: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// A call between nodes before it is an event: they are many, and few become one.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Microseconds since the start.
    pub t: u64,
    pub from: NodeId,
    pub to: NodeId,
    pub what: &'static str,
    pub dropped: bool,
}

impl From<Message> for Timed {
    fn from(message: Message) -> Self {
        let Message { t, from, to, what, dropped } = message;
        Self { t, event: Event::Message { from, to, what: what.to_owned(), dropped } }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A client sends a request to a node.
    Invoke {
        op: u64,
        client: u32,
        node: NodeId,
        action: Action,
    },
    /// It knows, or gives up. An operation without a return is as one with `unknown`.
    Return {
        op: u64,
        outcome: Outcome,
    },
    /// A planned request that was not sent, because nobody could say what it would have been about.
    NotSent {
        client: u32,
        node: NodeId,
        action: Action,
        reason: String,
    },

    /// An operator asks a node for a change. All tries of one change have its number.
    Ask {
        call: u64,
        change: u64,
        node: NodeId,
        wanted: Wanted,
    },
    /// What came of it. A call without it is as one with `unknown`.
    Told {
        call: u64,
        answer: Told,
    },
    /// The operator does not try this change again: it is not made, as far as he knows.
    GaveUp {
        change: u64,
    },
    /// The members as a node knows them, whenever that changes.
    Members(Members),

    /// A log entry, when the first node applied it. `time` is the stamp of the leader that proposed it.
    Entry {
        index: u64,
        term: u64,
        time: Timestamp,
    },
    /// Rows as the entry `index` left them; several rows of one kind may come from one entry, in log order.
    Task(TaskRow),
    Run(RunRow),
    /// Occurrences that the entry decided not to fire.
    Lapse {
        index: u64,
        task: TaskId,
        version: u32,
        first: Timestamp,
        last: Timestamp,
        count: u64,
        reason: Reason,
    },
    /// A node's row: outcomes of its attempts with a token below `fence` are refused.
    NodeRow {
        index: u64,
        node: NodeId,
        incarnation: u64,
        fence: Token,
        up: bool,
    },
    /// A leader gives a node a lease to deliver under, or counts one for itself, or gives that up (0); how long by its
    /// own monotonic clock.
    Lease {
        node: NodeId,
        incarnation: u64,
        by: NodeId,
        term: u64,
        lasts_us: u64,
    },
    /// A node has applied an entry; `hash` is over everything it wrote for it.
    Apply {
        node: NodeId,
        index: u64,
        hash: u64,
    },
    /// The digest of a node's whole state at an index.
    Digest {
        node: NodeId,
        index: u64,
        digest: String,
    },
    /// The rows a leader has at an index, now and then: for whoever wants to see that nothing grows.
    Rows(Rows),
    /// A node's Raft state, whenever it changes (terms, votes, leadership, log and snapshot positions).
    Raft(RaftState),

    /// A webhook arrives at the receiver.
    Deliver(Delivery),
    /// A webhook arrives that does not say what it is about.
    Stray {
        node: NodeId,
        request: Box<Request>,
    },
    /// The receiver answers it.
    Answer {
        delivery: u64,
        status: u16,
        /// As it stood in the header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<String>,
    },
    /// The receiver ends the connection in place of a whole answer's head, or sends a head `without_end`. One that stays
    /// silent has no event.
    Reset {
        delivery: u64,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        without_end: bool,
    },

    /// A fault begins; `id` is its place in the plan. `nodes` are those it strikes.
    FaultBegins {
        id: usize,
        planned: PlannedFault,
        nodes: Vec<NodeId>,
    },
    FaultEnds {
        id: usize,
    },
    /// The links between nodes, from and to, on which nothing arrives from now on that the sender begins.
    Links {
        silent: Vec<(NodeId, NodeId)>,
    },
    Node {
        node: NodeId,
        what: NodeEvent,
    },
    /// The faults are over for these nodes, for good.
    Healed {
        nodes: Vec<NodeId>,
    },
    /// The healed nodes have one leader and equal states, and nothing is due.
    Converged,
    /// Nothing is wrong any more, and the closing round begins.
    Closing,
    /// The load has ended and what was due has been decided: the final state follows.
    FinalTask {
        task: Box<TaskView>,
    },
    FinalRun {
        run: Box<RunView>,
    },
    /// All pages of a task's ledger as one.
    FinalLedger {
        ledger: LedgerView,
    },
    /// How the reading of the final state goes: recorded when it begins, and when it has ended, after what it found.
    FinalState {
        node: NodeId,
        read: FinalRead,
    },
    /// A node did not tell an observer what it was asked for.
    Untold {
        node: NodeId,
        what: String,
        error: String,
    },
    /// The highest that a bounded thing has been.
    Bound {
        node: NodeId,
        name: String,
        most: u64,
        limit: u64,
    },
    /// How often a rare thing has happened.
    Sometimes {
        mark: String,
        count: u64,
    },
    /// A message between nodes, as it is sent. For pictures, not for checkers: a history may have those around a
    /// failure only, or none.
    Message {
        from: NodeId,
        to: NodeId,
        what: String,
        dropped: bool,
    },
}

/// How the reading of the final state went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum FinalRead {
    /// What it finds is at least as new as this.
    Begun,
    Whole,
    Failed {
        error: String,
    },
}

/// How many rows there are of what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    pub node: NodeId,
    pub index: u64,
    /// Every task that has a row, those that were deleted too.
    pub tasks: Vec<TaskRows>,
    /// Runs that have finished.
    pub runs: u64,
    /// When the first idempotency key runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_key: Option<Timestamp>,
    /// The first row of the time index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_timer: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRows {
    pub task: TaskId,
    /// Ledger lines of runs, and other ones.
    pub fired: u64,
    pub ranges: u64,
    /// Definitions.
    pub versions: u64,
}

/// In a plan: the latest task without a name that the client has heard of. In a history stands the task's id, by which
/// it is addressed.
pub const UNNAMED: &str = "?";

/// What a client asks for. Tasks are of the namespace `default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    Put {
        /// Empty: the cluster gives the task its id for a name.
        name: String,
        spec: Box<TaskSpec>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_version: Option<u32>,
        #[serde(default)]
        create_only: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// A put that has to be refused for what it says.
    PutBad {
        name: String,
        spec: Box<TaskSpec>,
    },
    /// `POST tasks:batch`: each line a [`Action::Put`] that only creates, or an [`Action::PutBad`].
    Batch {
        lines: Vec<Action>,
    },
    Pause {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_version: Option<u32>,
    },
    Resume {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_version: Option<u32>,
    },
    Delete {
        name: String,
        cancel_runs: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_version: Option<u32>,
    },
    Trigger {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// A linearizable read.
    Get {
        name: String,
    },
    CancelRun {
        run: RunId,
    },
    GetRun {
        run: RunId,
    },
    /// A page of the tasks; in a plan, some pages of them.
    ListTasks {
        filter: TaskFilter,
        page: Paging,
    },
    /// A page of a task's runs, of one state if that is given; in a plan, some pages of them.
    ListRuns {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<RunState>,
        page: Paging,
    },
    /// A page of a task's ledger; in a plan, some pages of it.
    Ledger {
        name: String,
        filter: LedgerFilter,
        page: Paging,
    },
    /// The occurrences to come of a task.
    Preview {
        name: String,
        count: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Timestamp>,
    },
    /// The occurrences that a definition would have.
    PreviewSpec {
        spec: Box<TaskSpec>,
        count: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Timestamp>,
    },
    /// In a plan: a [`Action::CancelRun`] of a run of this task that the client has heard of by then.
    CancelRunOf {
        name: String,
    },
    /// In a plan, likewise.
    GetRunOf {
        name: String,
    },
}

impl Action {
    /// The task's name, for what is about a task.
    pub fn task_name(&self) -> Option<&str> {
        match self {
            Self::Put { name, .. }
            | Self::PutBad { name, .. }
            | Self::CancelRunOf { name }
            | Self::GetRunOf { name }
            | Self::Pause { name, .. }
            | Self::Resume { name, .. }
            | Self::Delete { name, .. }
            | Self::Trigger { name, .. }
            | Self::ListRuns { name, .. }
            | Self::Ledger { name, .. }
            | Self::Preview { name, .. }
            | Self::Get { name } => Some(name),
            Self::Batch { .. }
            | Self::CancelRun { .. }
            | Self::GetRun { .. }
            | Self::ListTasks { .. }
            | Self::PreviewSpec { .. } => None,
        }
    }

    /// The same about another task.
    pub fn of_task(mut self, other: String) -> Self {
        match &mut self {
            Self::Put { name, .. }
            | Self::PutBad { name, .. }
            | Self::CancelRunOf { name }
            | Self::GetRunOf { name }
            | Self::Pause { name, .. }
            | Self::Resume { name, .. }
            | Self::Delete { name, .. }
            | Self::Trigger { name, .. }
            | Self::ListRuns { name, .. }
            | Self::Ledger { name, .. }
            | Self::Preview { name, .. }
            | Self::Get { name } => *name = other,
            Self::Batch { .. }
            | Self::CancelRun { .. }
            | Self::GetRun { .. }
            | Self::ListTasks { .. }
            | Self::PreviewSpec { .. } => {}
        }
        self
    }

    /// Whether it can have no effect.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Get { .. }
                | Self::GetRun { .. }
                | Self::GetRunOf { .. }
                | Self::ListTasks { .. }
                | Self::ListRuns { .. }
                | Self::Ledger { .. }
                | Self::Preview { .. }
                | Self::PreviewSpec { .. }
        )
    }

    /// Which page it asks for, of what has pages.
    pub fn page(&self) -> Option<&Paging> {
        match self {
            Self::ListTasks { page, .. } | Self::ListRuns { page, .. } | Self::Ledger { page, .. } => Some(page),
            _ => None,
        }
    }

    /// The same, for the page after that of an operation.
    pub fn of_page_after(mut self, op: u64) -> Self {
        match &mut self {
            Self::ListTasks { page, .. } | Self::ListRuns { page, .. } | Self::Ledger { page, .. } => {
                page.follows = Some(op);
            }
            _ => {}
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    Written {
        task: TaskWritten,
    },
    /// The answer to a batch, line by line: each [`Outcome::Written`] or [`Outcome::Refused`].
    Batch {
        lines: Vec<Outcome>,
    },
    Triggered {
        triggered: Triggered,
    },
    Read {
        task: Box<TaskView>,
    },
    Run {
        run: Box<RunView>,
    },
    Tasks {
        items: Vec<TaskView>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_page_token: Option<String>,
    },
    Runs {
        items: Vec<RunView>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_page_token: Option<String>,
    },
    Ledger {
        ledger: Box<LedgerView>,
    },
    Preview {
        items: Vec<NextView>,
    },
    /// Refused, with no effect: the HTTP status and the problem's code.
    Refused {
        status: u16,
        code: String,
    },
    /// It may have happened, may happen yet, or never.
    Unknown {
        reason: String,
    },
}

impl Outcome {
    /// What asks for the next page, if there is one.
    pub fn next_page_token(&self) -> Option<&str> {
        match self {
            Self::Tasks { next_page_token, .. } | Self::Runs { next_page_token, .. } => next_page_token.as_deref(),
            Self::Ledger { ledger } => ledger.next_page_token.as_deref(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    pub index: u64,
    pub task: TaskId,
    pub name: String,
    pub version: u32,
    pub status: TaskStatus,
    pub next: Option<NextAt>,
    pub decided_until: Timestamp,
    pub remaining: Option<u32>,
    pub tally: Tally,
}

/// [`Next`], as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextAt {
    pub scheduled_at: Timestamp,
    pub due_at: Timestamp,
}

impl From<Next> for NextAt {
    fn from(next: Next) -> Self {
        Self { scheduled_at: next.scheduled_at, due_at: next.due_at }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    pub index: u64,
    pub run: RunId,
    pub occurrence: OccurrenceId,
    pub version: u32,
    pub due_at: Timestamp,
    pub fired_at: Timestamp,
    pub state: RunState,
    pub attempt: u32,
    pub token: Token,
    pub owner: NodeId,
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The record of the attempt that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<AttemptRecord>,
}

impl RunRow {
    /// Whether a schedule made it due, and not a client.
    pub fn is_scheduled(&self) -> bool {
        self.occurrence.origin == Origin::Schedule
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaftState {
    pub node: NodeId,
    pub term: u64,
    /// Whom it has voted for in the term, if anybody, or follows.
    pub voted_for: Option<NodeId>,
    /// Whether it knows that that node was elected.
    #[serde(default)]
    pub elected: bool,
    /// Whether it believes to lead the term.
    pub leads: bool,
    pub last: u64,
    pub committed: u64,
    pub applied: u64,
    pub snapshot: u64,
    pub purged: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Counted from 1, over all receivers.
    pub delivery: u64,
    /// The node it came from.
    pub node: NodeId,
    pub task: TaskId,
    pub run: RunId,
    pub occurrence: OccurrenceId,
    pub scheduled_at: Timestamp,
    pub attempt: u32,
    pub token: Token,
    /// Whether the signature was right; `None` if the task has no secret.
    pub signed: Option<bool>,
    /// The request as it came. Histories of earlier builds do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<Request>>,
}

/// A webhook as the receiver got it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// By lower-case name; those of the protocol itself (`host`, `content-length`) are left out.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum NodeEvent {
    Started,
    Killed,
    PowerCut,
    Paused,
    Resumed,
    /// It ended itself, and why.
    Stopped {
        reason: String,
    },
    /// A part of it panicked, or its process died of what nobody did to it.
    Broke {
        how: String,
    },
    /// A new leader is ready to conduct.
    Leads {
        term: u64,
    },
}
