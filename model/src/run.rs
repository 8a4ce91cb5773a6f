//! A run: one execution owed to an occurrence, and its attempts.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::codec::Versioned;
use crate::{NodeId, OccurrenceId, Origin, RunId, TaskId, Timestamp, Token};

/// A run's row, in `live` while it can still change and in `runs` once it is finished.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    pub id: RunId,
    pub task: TaskId,
    /// The version of the task that fired it and under which it finishes.
    pub version: u32,
    pub scheduled_at: Timestamp,
    pub origin: Origin,
    /// `scheduled_at` plus jitter.
    pub due_at: Timestamp,
    /// When its fire was stamped by the leader.
    pub fired_at: Timestamp,
    pub state: RunState,
    /// The current attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Fencing token of the current attempt.
    pub token: Token,
    /// The node that delivers the current attempt, and the epoch of the shard when it was handed out.
    pub owner: NodeId,
    pub epoch: u64,
    /// When the next attempt is due, while `Retrying`.
    pub retry_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The latest finished attempts, oldest first, at most [`crate::limits::ATTEMPT_HISTORY`].
    pub attempts: Vec<AttemptRecord>,
}

impl Versioned for Run {
    const NAME: &'static str = "run";
}

impl Run {
    pub fn occurrence(&self) -> OccurrenceId {
        OccurrenceId { task: self.task, scheduled_at: self.scheduled_at, origin: self.origin }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Fired, waiting for an earlier run of its task (`overlap: buffer_*`).
    Pending,
    /// An attempt has been handed to its owner.
    Running,
    /// An attempt failed; the next one is due at `retry_at`.
    Retrying,
    Succeeded,
    Failed,
    Cancelled,
    TimedOut,
}

impl RunState {
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::TimedOut)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptRecord {
    pub number: u32,
    pub token: Token,
    pub node: NodeId,
    pub ended_at: Timestamp,
    pub result: AttemptResult,
    /// HTTP status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, at most [`crate::limits::ERROR_BYTES`]; empty on success.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    Succeeded,
    /// Answered, but not with success; or the connection failed.
    Failed,
    TimedOut,
    Cancelled,
    /// Its owner was lost before it reported: the receiver may or may not have seen it.
    OutcomeUnknown,
}
