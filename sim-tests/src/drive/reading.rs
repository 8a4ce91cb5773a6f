//! Asks for pages: of the tasks, of a task's runs, of its ledger.

use campanile_client::{Client, Error, LedgerQuery, RunQuery, TaskQuery};
use campanile_model::RunState;

use crate::history::{LedgerFilter, Outcome, Paging, TaskFilter};

fn limit(page: &Paging) -> Option<usize> {
    page.limit.map(|limit| limit as usize)
}

pub async fn tasks(to: &Client, filter: TaskFilter, page: &Paging, token: Option<String>) -> Result<Outcome, Error> {
    let TaskFilter { prefix, state, due_after, due_before, label, stale } = filter;
    let limit = limit(page);
    let query = TaskQuery { prefix, state, due_after, due_before, label, limit, page_token: token, stale };
    let page = to.list_tasks(&query).await?;
    Ok(Outcome::Tasks { items: page.items, next_page_token: page.next_page_token })
}

pub async fn runs(
    to: &Client,
    task: &str,
    state: Option<RunState>,
    page: &Paging,
    token: Option<String>,
) -> Result<Outcome, Error> {
    let page = to.list_runs(task, &RunQuery { state, limit: limit(page), page_token: token }).await?;
    Ok(Outcome::Runs { items: page.items, next_page_token: page.next_page_token })
}

pub async fn ledger(
    to: &Client,
    task: &str,
    filter: &LedgerFilter,
    page: &Paging,
    token: Option<String>,
) -> Result<Outcome, Error> {
    let LedgerFilter { after, before } = *filter;
    let query = LedgerQuery { after, before, limit: limit(page), page_token: token };
    Ok(Outcome::Ledger { ledger: Box::new(to.ledger(task, &query).await?) })
}
