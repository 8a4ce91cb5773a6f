//! Reads the final state of a cluster that has converged, through the API, as any client could.

use campanile_client::{Client, Error, LedgerQuery, RunQuery, TaskQuery};

use super::recorder::Recorder;
use crate::history::Event;

/// Reads tasks, ledgers and runs from one node and records them.
pub async fn read(client: &Client, recorder: &Recorder) -> Result<(), Error> {
    let mut query = TaskQuery::default();
    loop {
        let page = client.list_tasks(&query).await?;
        for task in page.items {
            let id = task.id.to_string();
            recorder.record(Event::FinalTask { task: Box::new(task) });
            read_runs(client, &id, recorder).await?;
            read_ledger(client, &id, recorder).await?;
        }
        let Some(token) = page.next_page_token else { return Ok(()) };
        query.page_token = Some(token);
    }
}

async fn read_runs(client: &Client, task: &str, recorder: &Recorder) -> Result<(), Error> {
    let mut query = RunQuery::default();
    loop {
        let page = client.list_runs(task, &query).await?;
        for run in page.items {
            recorder.record(Event::FinalRun { run: Box::new(run) });
        }
        let Some(token) = page.next_page_token else { return Ok(()) };
        query.page_token = Some(token);
    }
}

async fn read_ledger(client: &Client, task: &str, recorder: &Recorder) -> Result<(), Error> {
    let mut query = LedgerQuery::default();
    let mut whole = client.ledger(task, &query).await?;
    while let Some(token) = whole.next_page_token.take() {
        query.page_token = Some(token);
        let page = client.ledger(task, &query).await?;
        whole.items.extend(page.items);
        (whole.tally, whole.folded, whole.decided_until) = (page.tally, page.folded, page.decided_until);
        whole.next_page_token = page.next_page_token;
    }
    recorder.record(Event::FinalLedger { ledger: whole });
    Ok(())
}
