//! Reads the final state of a cluster that has converged, through the API, as any client could.
//!
//! A reading that fails is told like one that succeeds: without it nobody could say that the checkers of final states
//! had nothing to look at.

use campanile_client::{Client, Error, LedgerQuery, RunQuery, TaskQuery};
use campanile_model::NodeId;
use campanile_model::api::LedgerView;

use super::recorder::Recorder;
use crate::history::{Event, FinalRead};

/// Tasks, ledgers and runs as one node tells them, so many to a page.
pub async fn read(client: &Client, limit: Option<usize>) -> Result<Vec<Event>, Error> {
    let mut found = Vec::new();
    let mut query = TaskQuery { limit, ..TaskQuery::default() };
    loop {
        let page = client.list_tasks(&query).await?;
        for task in page.items {
            let id = task.id.to_string();
            found.push(Event::FinalTask { task: Box::new(task) });
            read_runs(client, &id, limit, &mut found).await?;
            found.push(Event::FinalLedger { ledger: read_ledger(client, &id, limit).await? });
        }
        let Some(token) = page.next_page_token else { return Ok(found) };
        query.page_token = Some(token);
    }
}

/// Records that the reading begins.
pub fn begin(node: NodeId, recorder: &Recorder) {
    recorder.record(Event::FinalState { node, read: FinalRead::Begun });
}

/// Records what was read, or why it could not be.
pub fn record(read: Result<Vec<Event>, String>, node: NodeId, recorder: &Recorder) {
    let told = match read {
        Ok(events) => {
            events.into_iter().for_each(|event| recorder.record(event));
            FinalRead::Whole
        }
        Err(error) => FinalRead::Failed { error },
    };
    recorder.record(Event::FinalState { node, read: told });
}

async fn read_runs(client: &Client, task: &str, limit: Option<usize>, found: &mut Vec<Event>) -> Result<(), Error> {
    let mut query = RunQuery { limit, ..RunQuery::default() };
    loop {
        let page = client.list_runs(task, &query).await?;
        found.extend(page.items.into_iter().map(|run| Event::FinalRun { run: Box::new(run) }));
        let Some(token) = page.next_page_token else { return Ok(()) };
        query.page_token = Some(token);
    }
}

/// The largest page of a ledger.
const LEDGER_PAGE: usize = campanile_model::limits::PAGE_ITEMS;

async fn read_ledger(client: &Client, task: &str, limit: Option<usize>) -> Result<LedgerView, Error> {
    // A ledger that grows while its pages are read does not add up: it is read again, in larger pages, within reason.
    let mut tries = 20;
    let mut limit = limit;
    loop {
        tries -= 1;
        let mut query = LedgerQuery { limit, ..LedgerQuery::default() };
        limit = limit.map(|limit| (limit * 4).min(LEDGER_PAGE));
        let mut whole = client.ledger(task, &query).await?;
        let mut grew = false;
        while let Some(token) = whole.next_page_token.take() {
            query.page_token = Some(token);
            let page = client.ledger(task, &query).await?;
            whole.items.extend(page.items);
            grew |= (whole.tally, whole.folded) != (page.tally, page.folded);
            whole.next_page_token = page.next_page_token;
        }
        if !grew || tries == 0 {
            return Ok(whole);
        }
    }
}
