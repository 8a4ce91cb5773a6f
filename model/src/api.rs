//! The JSON that travels between clients and nodes, other than a task's definition ([`TaskSpec`]). One type for both
//! ends, so that server, SDK and command line cannot disagree.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    AttemptRecord, Kind, NodeId, OccurrenceId, Reason, RunId, RunState, Tally, TaskId, TaskSpec, TaskStatus, Timestamp,
    Token,
};

/// Fields of a [`TaskView`] that the cluster gives; ignored when a client sends them back with a definition.
pub const READ_ONLY_FIELDS: [&str; 11] = [
    "id",
    "namespace",
    "name",
    "version",
    "state",
    "created_at",
    "updated_at",
    "next",
    "decided_until",
    "remaining_fires",
    "tally",
];

/// A task as it is read: its definition beside what the cluster knows of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskView {
    pub id: TaskId,
    pub namespace: String,
    pub name: String,
    pub version: u32,
    pub state: TaskStatus,
    pub created_at: Timestamp,
    /// When the current version was written.
    pub updated_at: Timestamp,
    /// The next occurrence; null when there is none.
    pub next: Option<NextView>,
    /// Every occurrence at or before this instant stands in the ledger.
    pub decided_until: Option<Timestamp>,
    /// Fires left, if the definition limits them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_fires: Option<u32>,
    /// Occurrences so far, by what became of them.
    pub tally: Tally,
    #[serde(flatten)]
    pub spec: TaskSpec,
}

impl<'de> Deserialize<'de> for TaskView {
    /// A definition refuses fields it does not know, which serde cannot combine with flattening; so the two halves are
    /// taken apart first.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            id: TaskId,
            namespace: String,
            name: String,
            version: u32,
            state: TaskStatus,
            created_at: Timestamp,
            updated_at: Timestamp,
            next: Option<NextView>,
            decided_until: Option<Timestamp>,
            remaining_fires: Option<u32>,
            tally: Tally,
        }
        let mut definition = serde_json::Map::deserialize(deserializer)?;
        let head: serde_json::Map<_, _> =
            READ_ONLY_FIELDS.iter().filter_map(|field| definition.remove_entry(*field)).collect();
        let head: Head = serde_json::from_value(head.into()).map_err(serde::de::Error::custom)?;
        let spec = serde_json::from_value(definition.into()).map_err(serde::de::Error::custom)?;
        Ok(Self {
            id: head.id,
            namespace: head.namespace,
            name: head.name,
            version: head.version,
            state: head.state,
            created_at: head.created_at,
            updated_at: head.updated_at,
            next: head.next,
            decided_until: head.decided_until,
            remaining_fires: head.remaining_fires,
            tally: head.tally,
            spec,
        })
    }
}

/// An occurrence to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NextView {
    /// Nominal instant.
    pub scheduled_at: Timestamp,
    /// The nominal instant plus jitter.
    pub due_at: Timestamp,
}

impl From<crate::Next> for NextView {
    fn from(next: crate::Next) -> Self {
        Self { scheduled_at: next.scheduled_at, due_at: next.due_at }
    }
}

/// The answer to a write of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskWritten {
    pub id: TaskId,
    pub namespace: String,
    pub name: String,
    pub version: u32,
    pub state: TaskStatus,
    pub change: Change,
    pub next: Option<NextView>,
    /// What is accepted but perhaps not meant, such as an `at` in the past.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created,
    Updated,
    /// The definition equals the current one; nothing was written.
    Unchanged,
    Paused,
    Resumed,
    Deleted,
}

impl From<crate::TaskChange> for Change {
    fn from(change: crate::TaskChange) -> Self {
        match change {
            crate::TaskChange::Created => Self::Created,
            crate::TaskChange::Updated => Self::Updated,
            crate::TaskChange::Unchanged => Self::Unchanged,
            crate::TaskChange::Paused => Self::Paused,
            crate::TaskChange::Resumed => Self::Resumed,
            crate::TaskChange::Deleted => Self::Deleted,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// `past_at`: fires at once.
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// One line of the answer to a batch, in the order of the request's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum BatchLine {
    Written { line: usize, status: u16, task: TaskWritten },
    Refused { line: usize, status: u16, error: Problem },
}

/// A page of a list. An absent `next_page_token` means that this is the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    pub items: Vec<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A run as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunView {
    pub id: RunId,
    pub occurrence_id: OccurrenceId,
    pub task_id: TaskId,
    /// The task's name; absent once the task is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Version of the task that fired it.
    pub version: u32,
    pub origin: OriginView,
    pub scheduled_at: Timestamp,
    pub due_at: Timestamp,
    /// When its fire was stamped by the leader.
    pub fired_at: Timestamp,
    pub state: RunState,
    /// Number of the current or last attempt, from 1; 0 before the first.
    pub attempt: u32,
    pub fencing_token: Token,
    /// Node that delivers, or delivered, the attempt.
    pub node: NodeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The latest finished attempts, oldest first.
    pub attempts: Vec<AttemptRecord>,
}

impl RunView {
    pub fn new(run: crate::Run, task: Option<String>) -> Self {
        Self {
            id: run.id,
            occurrence_id: run.occurrence(),
            task_id: run.task,
            task,
            version: run.version,
            origin: run.origin.into(),
            scheduled_at: run.scheduled_at,
            due_at: run.due_at,
            fired_at: run.fired_at,
            state: run.state,
            attempt: run.attempt,
            fencing_token: run.token,
            node: run.owner,
            retry_at: run.retry_at,
            finished_at: run.finished_at,
            attempts: run.attempts,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OriginView {
    Schedule,
    Manual,
}

impl From<crate::Origin> for OriginView {
    fn from(origin: crate::Origin) -> Self {
        match origin {
            crate::Origin::Schedule => Self::Schedule,
            crate::Origin::Manual(_) => Self::Manual,
        }
    }
}

/// The answer to a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Triggered {
    pub run: RunId,
    pub occurrence_id: OccurrenceId,
}

/// A page of a task's ledger, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerView {
    pub task_id: TaskId,
    /// Every occurrence at or before this instant is counted here; absent when there can be none.
    pub decided_until: Option<Timestamp>,
    /// Occurrences enumerated so far: lines and folded ones together, of all pages.
    pub tally: Tally,
    /// The part of `tally` whose lines retention has folded away.
    pub folded: Tally,
    pub items: Vec<LedgerLineView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerLineView {
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub origin: OriginView,
    /// The first occurrence of the line.
    pub scheduled_at: Timestamp,
    /// The last occurrence of the line; the first again when it is only one.
    pub last: Timestamp,
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrence_id: Option<OccurrenceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_state: Option<RunState>,
}

/// The cluster as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterView {
    pub cluster_id: String,
    /// The node that answers.
    pub node: NodeId,
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Last log index this node has applied.
    pub applied: u64,
    /// Version of the time zone database in use.
    pub tzdb: String,
    pub version: String,
    pub nodes: Vec<NodeView>,
    pub tasks: u64,
    pub live_runs: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
    pub id: NodeId,
    pub role: Role,
    pub api: String,
    pub peer: String,
    /// Log entries this node is behind the leader; known to the leader, and to a node of itself.
    pub lag: Option<u64>,
    /// This node's clock minus the leader's, as measured on heartbeats.
    pub clock_skew_ms: Option<f64>,
    /// Delivers runs.
    pub up: bool,
    /// Shards it owns.
    pub shards: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Leader,
    Follower,
    /// Receives the log, does not vote.
    Learner,
}

/// `POST /v1/cluster/nodes`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddNode {
    pub id: NodeId,
    /// `host:port` of its peer listener.
    pub peer: String,
}

/// `POST /v1/cluster/leader`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TransferLeader {
    pub to: NodeId,
}

/// Occurrences a task would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preview {
    pub items: Vec<NextView>,
}

/// An error, as RFC 9457 problem details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Page that explains the code, served by every node.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Stable code; see `docs/errors/`.
    pub code: String,
    pub detail: String,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Path of the field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Any other member a code's page documents.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}
