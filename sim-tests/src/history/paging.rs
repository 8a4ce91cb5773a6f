//! How clients read what is long: which part of a list, in pages of what size, and which page of it.

use campanile_model::{Millis, TaskStatus, Timestamp};
use serde::{Deserialize, Serialize};

/// Which tasks are listed. Every condition given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskStatus>,
    /// Inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_after: Option<Timestamp>,
    /// Exclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_before: Option<Timestamp>,
    /// Key and value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<(String, String)>,
    /// Whatever the node that is asked has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// Which lines of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerFilter {
    /// Lines that reach to this instant or beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
    /// Lines that begin before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
}

/// A page, and in a plan how one leads to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    /// Items on a page; absent: what the cluster thinks right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// A client asks for as many pages, if there are so many.
    pub pages: u32,
    /// It rests for so long between two.
    pub rest: Millis,
    /// In a history: the operation whose answer told where this page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
}
