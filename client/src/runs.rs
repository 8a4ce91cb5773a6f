//! Calls on runs and ledgers.

use campanile_model::api::{LedgerView, Page, RunView};
use campanile_model::{RunId, RunState, Timestamp};
use http::Method;

use crate::call::{Call, Effect};
use crate::client::Client;
use crate::error::Result;

/// Which runs of a task to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    pub state: Option<RunState>,
    pub limit: Option<usize>,
    /// Of the page before.
    pub page_token: Option<String>,
}

/// Which part of a task's ledger to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerQuery {
    /// Inclusive.
    pub after: Option<Timestamp>,
    /// Exclusive.
    pub before: Option<Timestamp>,
    pub limit: Option<usize>,
    /// Of the page before.
    pub page_token: Option<String>,
}

impl Client {
    /// A task's runs, newest first.
    pub async fn list_runs(&self, task: &str, query: &RunQuery) -> Result<Page<RunView>> {
        let target = self.target().then("/tasks").segment(task).then("/runs");
        let target = target
            .query("state", query.state.map(RunState::as_str))
            .query("limit", query.limit)
            .query("page_token", query.page_token.as_ref());
        self.send(Call::get(target.finish())).await?.json()
    }

    /// A task's ledger, oldest line first.
    pub async fn ledger(&self, task: &str, query: &LedgerQuery) -> Result<LedgerView> {
        let target = self.target().then("/tasks").segment(task).then("/ledger");
        let target = target
            .query("after", query.after)
            .query("before", query.before)
            .query("limit", query.limit)
            .query("page_token", query.page_token.as_ref());
        self.send(Call::get(target.finish())).await?.json()
    }

    pub async fn get_run(&self, id: RunId) -> Result<RunView> {
        let target = self.target().then("/runs").segment(&id.to_string());
        self.send(Call::get(target.finish())).await?.json()
    }

    /// Ends a live run. An attempt that was already sent cannot be recalled. Not repeated when its answer is lost: a
    /// second cancel would be refused as if the run had ended by itself.
    pub async fn cancel_run(&self, id: RunId) -> Result<RunView> {
        let target = self.target().then("/runs").segment(&id.to_string()).then("/cancel");
        self.send(Call::new(Method::POST, target.finish(), Effect::Once)).await?.json()
    }
}
