//! What is written to the log, and what `apply` answers.
//!
//! A command is made in two steps. Whoever takes the request fills in what the client asked for. The leader then
//! *prepares* it at the entry's time: it adds everything that needs a clock, a schedule or a random draw (the fields
//! called `prepared`), because `apply` may use none of these. Each prepared field is guarded: `apply` compares what it
//! was computed from with the state it finds and answers [`Code::Conflict`] when they differ, upon which the leader
//! prepares again.
//!
//! [`Code::Conflict`]: crate::Code::Conflict

use bincode::{Decode, Encode};

use crate::codec::Versioned;
use crate::{Millis, Next, NodeId, Reason, Rejection, RunId, ShardId, TaskId, TaskSpec, TaskStatus, Timestamp, Token};

/// A log entry: commands that share one place in the log, one time and one fsync.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The leader's clock, never before the time of the entry before it.
    pub time: Timestamp,
    pub commands: Vec<Command>,
}

impl Versioned for Entry {
    const NAME: &'static str = "log entry";
    /// Builds before the first release wrote 1, without `period`, and 2, without `since`.
    const VERSION: u8 = 3;
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Create or update a task.
    PutTask(Box<PutTask>),
    PauseTask(PauseTask),
    ResumeTask(ResumeTask),
    DeleteTask(DeleteTask),
    TriggerTask(TriggerTask),
    CancelRun {
        run: RunId,
    },
    /// Occurrences decided: fired, or entered in the ledger as not fired.
    Fire {
        lines: Vec<FireLine>,
    },
    /// Attempts that ended.
    Outcomes {
        lines: Vec<OutcomeLine>,
    },
    /// Attempts to be made: retries that are due, and repeats of attempts whose owner was lost.
    Attempts {
        lines: Vec<AttemptLine>,
    },
    /// A node is there and ready to deliver; `shards` are moved as listed. Here and below, what would be left with a node
    /// that is not up moves on to one that is.
    NodeUp {
        node: NodeId,
        incarnation: u64,
        shards: Vec<(ShardId, NodeId)>,
    },
    /// A node's lease has ended: its attempts are void; `shards` are moved as listed.
    NodeLost {
        node: NodeId,
        shards: Vec<(ShardId, NodeId)>,
    },
    /// Every timer before `before` has been decided; its rows in the time index go.
    TrimTimers {
        before: Timestamp,
    },
    /// Folds the task's ledger lines scheduled before `before` into its counters and drops their runs,
    /// at most `max_lines` of them, and none from the first that belongs to a live run.
    TrimLedger {
        task: TaskId,
        before: Timestamp,
        max_lines: u32,
    },
    /// Removes what is left of a finished or deleted task that has no live run, at most `max_lines` ledger lines at a
    /// time, the task itself last.
    ExpireTask {
        task: TaskId,
        max_lines: u32,
    },
    /// A member is about to be removed for good: its id is remembered, so that it is never used again.
    NodeRemoved {
        node: NodeId,
    },
    /// Forgets idempotency keys that expired before `before`, at most `max_keys` of them.
    ExpireKeys {
        before: Timestamp,
        max_keys: u32,
    },
    /// Shards are moved as listed, and nobody is fenced: a node that drains gives its own up. What it has been given
    /// to deliver stays its own.
    MoveShards {
        shards: Vec<(ShardId, NodeId)>,
    },
}

/// A task, as clients name it. A name that reads as a [`TaskId`] is one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskName {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    pub key: String,
    /// Hash of everything the request asks for.
    pub fingerprint: u128,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PutTask {
    /// An empty name makes a new task whose name is its id.
    pub task: TaskName,
    pub spec: TaskSpec,
    pub mode: PutMode,
    pub idempotency: Option<Idempotency>,
    pub prepared: Option<PreparedPut>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PutMode {
    /// Refused if the name is taken (`POST`, or `PUT` with `If-None-Match: *`).
    Create,
    /// Creates or updates (`PUT`).
    Upsert,
    /// Refused unless the task is there, at this version (`PUT` with `If-Match`).
    UpdateVersion(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PreparedPut {
    /// The task and version that bore the name, if any; the put is a conflict if that has changed.
    pub expected: Option<(TaskId, u32)>,
    /// The definition equals the current one: nothing is written.
    pub unchanged: bool,
    /// See [`crate::TaskState::since`].
    pub since: Timestamp,
    /// The first occurrence of the new version.
    pub next: Option<Next>,
    /// Set if each occurrence of the new version follows the one before by just so much, without end: then nothing has
    /// to be read to tell the next one.
    pub period: Option<Millis>,
    /// See [`crate::TaskState::spread`]; an update keeps the task's.
    pub spread: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PauseTask {
    pub task: TaskName,
    pub if_version: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ResumeTask {
    pub task: TaskName,
    pub if_version: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteTask {
    pub task: TaskName,
    pub if_version: Option<u32>,
    /// Cancels the task's unfinished runs; otherwise they finish.
    pub cancel_runs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TriggerTask {
    pub task: TaskName,
    pub idempotency: Option<Idempotency>,
}

/// One decision about a task's next occurrence. The line is a no-op unless the task is live, of this version, and its
/// next occurrence is the one named.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FireLine {
    pub task: TaskId,
    pub version: u32,
    pub scheduled_at: Timestamp,
    pub decision: Decision,
    /// The occurrence after it (after `last`, for a range); `None` ends the task.
    pub next: Option<Next>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Decision {
    Fire,
    /// The `count` occurrences from `scheduled_at` to `last` do not fire.
    /// With [`Reason::Paused`] the task must be paused, with any other it must be active.
    Lapse {
        last: Timestamp,
        count: u64,
        reason: Reason,
    },
}

/// How an attempt ended. Refused unless it is the run's current attempt, still running, under this token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutcomeLine {
    pub run: RunId,
    pub token: Token,
    pub result: Outcome,
    pub status: Option<u16>,
    /// At most [`crate::limits::ERROR_BYTES`].
    pub error: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    Succeeded,
    /// Another attempt is due this long after the entry's time.
    RetryAfter(crate::Millis),
    Failed,
    TimedOut,
    /// The receiver asks for no more (HTTP 410): the run fails and the task is paused.
    Gone,
}

/// Start of an attempt after the first. A no-op unless the run's token is still `expected`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AttemptLine {
    pub run: RunId,
    pub expected: Token,
    pub action: AttemptAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AttemptAction {
    /// The run was retrying and its time has come.
    Retry,
    /// The owner of its attempt was lost: the attempt counts, with outcome unknown, and the next one starts now.
    Repeat,
    /// The owner was lost and policy allows no further attempt: the run fails, outcome unknown.
    GiveUp,
    /// The run's deadline has passed while it waited for its retry.
    Expire,
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    Task(TaskReply),
    Run(RunReply),
    /// Lines that took effect; the others were no-ops.
    Lines {
        done: u32,
    },
    /// Outcomes line by line: whether each was accepted.
    Outcomes {
        accepted: Vec<bool>,
    },
    Done,
    Rejected(Rejection),
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskReply {
    pub id: TaskId,
    pub version: u32,
    pub change: TaskChange,
    pub status: TaskStatus,
    pub next: Option<Next>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TaskChange {
    Created,
    Updated,
    Unchanged,
    Paused,
    Resumed,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RunReply {
    pub run: RunId,
    pub occurrence: crate::OccurrenceId,
}
