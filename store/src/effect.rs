//! What `apply` would have somebody do: timers to arm, attempts to deliver. Effects are hints, tables are truth: whoever
//! misses some (a new leader, a restarted node, a full channel) reads the tables instead.

use bincode::{Decode, Encode};
use campanile_model::{Millis, Next, NodeId, Run, RunId, TaskId, TaskState, TaskStatus, Timestamp, Token};

/// The effects of the entries up to `index`, in log order. Every committed batch yields one, even if empty.
#[derive(Clone, Debug)]
pub struct Effects {
    /// Index of the last entry in the batch.
    pub index: u64,
    /// Time of the last entry in the batch.
    pub time: Timestamp,
    pub list: Vec<Effect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The task's next occurrence has been set; `wake_at` is its place in the time index.
    TaskArmed { task: TaskId, wake_at: Timestamp, timer: TaskTimer },
    /// The task has no next occurrence any more (finished or deleted).
    TaskDisarmed { task: TaskId },
    /// The run waits for its next attempt.
    RetryArmed { run: RunId, token: Token, wake_at: Timestamp },
    /// A finished or deleted task is to be removed at `wake_at`.
    ExpiryArmed { task: TaskId, wake_at: Timestamp },
    /// An attempt is to be delivered by `run.owner`.
    AttemptReady { run: Box<Run> },
    /// The run has finished or been cancelled; whoever is delivering it stops.
    RunEnded { run: RunId, token: Token, owner: NodeId },
    /// The task has more ledger lines than its retention wants.
    TrimDue { task: TaskId },
    /// Attempts of `node` with a token below `fence` are void; those still running must be repeated.
    NodeFenced { node: NodeId, fence: Token },
    /// Shards changed owners.
    ShardsMoved,
}

/// What the time index holds of a task's next occurrence, so that firing most tasks reads no other row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskTimer {
    pub version: u32,
    pub next: Next,
    /// One occurrence only: after it the task is finished.
    pub one_shot: bool,
    /// See [`campanile_model::PreparedPut::period`].
    pub period: Option<Millis>,
    /// Occurrences lapse instead of firing.
    pub paused: bool,
    /// Overdue by at most this it fires, whatever the task's policies say.
    pub grace: Millis,
}

impl TaskTimer {
    pub fn of(task: &TaskState, next: Next) -> Self {
        let paused = task.status == TaskStatus::Paused;
        let (one_shot, period) = (task.one_shot, task.period);
        Self { version: task.version, next, one_shot, period, paused, grace: task.grace }
    }
}
