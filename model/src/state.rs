//! Replicated state other than definitions and runs: a task's hot row, its ledger, the nodes and the shards.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::codec::Versioned;
use crate::{Millis, NodeId, OnFinish, Overlap, Retention, RunId, TaskId, Timestamp, Token};

/// The part of a task that changes when it fires. Its definition is a [`crate::TaskSpec`] row of its own; what `apply`
/// needs of it is copied here so that a fire reads one row.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskState {
    pub id: TaskId,
    pub namespace: String,
    /// Empty when the client gave none; the id's text is then its name.
    pub name: String,
    pub status: TaskStatus,
    /// The current version, from 1.
    pub version: u32,
    pub created_at: Timestamp,
    /// When the current version was written: the anchor of `delay`.
    pub version_at: Timestamp,
    /// The current version has occurrences after this instant: that of its writing, or an earlier one, if it left the
    /// schedules as they were and jitter still held back what had been due by them.
    pub since: Timestamp,
    /// The next occurrence, if there is one. Kept while paused.
    pub next: Option<Next>,
    /// Every occurrence of a schedule at or before this instant stands in the ledger; none will ever be added there.
    pub decided_until: Timestamp,
    /// Stable hash that spreads `jitter` and cron's `~`.
    pub spread: u64,
    /// Fires left, if limited.
    pub remaining: Option<u32>,
    /// Manual triggers so far.
    pub triggers: u32,
    /// Runs in a row that failed.
    pub failures: u32,
    /// See [`crate::TaskSpec::is_one_shot`].
    pub one_shot: bool,
    /// See [`crate::PreparedPut::period`].
    pub period: Option<Millis>,
    pub overlap: Overlap,
    pub pause_on_failure: Option<u32>,
    pub retention: Retention,
    pub on_finish: OnFinish,
    /// See [`crate::CatchUp::grace`].
    pub grace: Millis,
    /// Unfinished runs, in log order; kept only if [`TaskState::tracks_runs`]. Under `allow` and `skip`, at most
    /// [`crate::limits::TRACKED_RUNS`] of them.
    pub live: Vec<RunId>,
    /// When the last of its runs ended; when it was made, before that. Kept only if [`TaskState::tracks_runs`].
    pub last_ended: Timestamp,
    /// The run of a one-shot's scheduled occurrence: its ledger line.
    pub one_shot_run: Option<(Timestamp, RunId)>,
    /// Where a following occurrence of the same kind is added, instead of a line of its own.
    pub open_line: Option<OpenLine>,
    /// Ledger lines that are rows, not counting a one-shot's.
    pub lines: u32,
    /// Ledger lines of the current version, counting a one-shot's.
    pub version_lines: u32,
    /// Occurrences enumerated so far, by what became of them, lines and folded ones together.
    pub tally: Tally,
    /// The part of `tally` whose lines retention has folded away.
    pub folded: Tally,
}

impl Versioned for TaskState {
    const NAME: &'static str = "task";
    /// Builds before the first release wrote 1, without `grace`, 2, without `period`, 3, without `since`, and 4, without
    /// `last_ended`.
    const VERSION: u8 = 5;
}

impl TaskState {
    /// Whether the end of a run concerns this row. Where it does not, finishing a run leaves the row alone.
    pub fn tracks_runs(&self) -> bool {
        tracks_runs(self.overlap, self.pause_on_failure, self.on_finish)
    }

    /// The name clients use.
    pub fn display_name(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }
}

/// Whether a task with these policies has to know which of its runs are live.
pub(crate) fn tracks_runs(overlap: Overlap, pause_on_failure: Option<u32>, on_finish: OnFinish) -> bool {
    overlap != Overlap::Allow || pause_on_failure.is_some() || on_finish == OnFinish::Delete
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    Active,
    Paused,
    /// No occurrence is left.
    Finished,
    /// Kept only until its runs have finished. Clients see it in the answer to their delete, and never again.
    Deleted,
}

/// An occurrence that is still to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Next {
    pub scheduled_at: Timestamp,
    /// `scheduled_at` plus jitter, and never before the version that schedules it was written.
    pub due_at: Timestamp,
}

/// A range line that the next occurrence may extend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenLine {
    pub first: Timestamp,
    pub reason: Reason,
    pub version: u32,
}

/// What became of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Fired,
    Skipped,
    Missed,
    Paused,
}

/// Why an occurrence did not fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A run of the task was still live (`overlap: skip`).
    Overlap,
    /// The buffer of waiting runs was full (`overlap: buffer_all`).
    BufferFull,
    /// Overdue beyond `catch_up.window`.
    BeyondWindow,
    /// Overdue under `catch_up.policy: skip`.
    PolicySkip,
    /// Overdue under `catch_up.policy: fire_once`, and not the latest.
    Coalesced,
    /// The task was paused.
    Paused,
}

impl Reason {
    pub fn kind(self) -> Kind {
        match self {
            Self::Overlap | Self::BufferFull => Kind::Skipped,
            Self::BeyondWindow | Self::PolicySkip | Self::Coalesced => Kind::Missed,
            Self::Paused => Kind::Paused,
        }
    }
}

/// Occurrences counted by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tally {
    pub fired: u64,
    /// Of `fired`, those of a manual trigger.
    pub triggered: u64,
    pub overlap: u64,
    pub buffer_full: u64,
    pub beyond_window: u64,
    pub policy_skip: u64,
    pub coalesced: u64,
    pub paused: u64,
}

impl Tally {
    pub fn add(&mut self, reason: Reason, count: u64) {
        *self.slot(reason) += count;
    }

    fn slot(&mut self, reason: Reason) -> &mut u64 {
        match reason {
            Reason::Overlap => &mut self.overlap,
            Reason::BufferFull => &mut self.buffer_full,
            Reason::BeyondWindow => &mut self.beyond_window,
            Reason::PolicySkip => &mut self.policy_skip,
            Reason::Coalesced => &mut self.coalesced,
            Reason::Paused => &mut self.paused,
        }
    }

    /// Occurrences in all.
    pub fn total(&self) -> u64 {
        self.fired
            + self.overlap
            + self.buffer_full
            + self.beyond_window
            + self.policy_skip
            + self.coalesced
            + self.paused
    }
}

/// A row of the ledger, keyed by `(task, first scheduled_at, origin)`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LedgerRow {
    /// The occurrence fired: its run row says the rest.
    Fired { run: RunId },
    /// `count` neighbouring occurrences, from the key's instant to `last`, did not.
    Range { last: Timestamp, count: u64, reason: Reason, version: u32 },
}

impl Versioned for LedgerRow {
    const NAME: &'static str = "ledger line";
}

/// What the time index holds at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The task's next occurrence is due.
    Task(TaskId),
    /// The run's next attempt is due.
    Retry(RunId),
    /// A finished or deleted task may be removed.
    Expire(TaskId),
}

/// A member's row: what the conductor has committed about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeState {
    pub id: NodeId,
    /// Drawn anew each time the process starts: a change means that its attempts in flight are gone.
    pub incarnation: u64,
    /// Outcomes of attempts of this node with a smaller token are refused.
    pub fence: Token,
    /// Gets shards.
    pub up: bool,
}

impl Versioned for NodeState {
    const NAME: &'static str = "node";
}

/// Owner and epoch of every shard, indexed by shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardTable {
    pub shards: Vec<ShardOwner>,
}

impl Versioned for ShardTable {
    const NAME: &'static str = "shard table";
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ShardOwner {
    /// 0 until the first node is up.
    pub owner: NodeId,
    pub epoch: u64,
}

/// A remembered `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct IdempotencyRow {
    /// Hash of the request that used it first.
    pub fingerprint: u128,
    pub expires_at: Timestamp,
    pub reply: crate::Reply,
}

impl Versioned for IdempotencyRow {
    const NAME: &'static str = "idempotency key";
}

/// How long a finished task is kept that goes by itself: a one-shot, or one with `on_finish: delete`.
pub const FINISHED_KEPT: Millis = Millis::from_days(1);
/// How long what is left of a deleted task is kept, so that its runs can finish and be looked up. It is a definition, its
/// state and up to all the runs of its retention, so where tasks come and go this decides how large the state is.
pub const DELETED_KEPT: Millis = Millis::from_mins(10);
