//! The end of a simulation: waits until the nodes agree and nothing is owed, and reads the final state through the API.

use std::time::Duration;

use campanile_client::{Client, Error, LedgerQuery, RunQuery, TaskQuery};
use campanile_model::NodeId;

use super::clients::connect;
use super::nemesis::Nemesis;
use super::recorder::Recorder;
use crate::history::Event;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the nodes have one leader, are equally far, and owe nothing. Whether they came to it within the bound.
pub async fn converge(nemesis: &mut Nemesis, nodes: &[NodeId], bound: Duration, recorder: &Recorder) -> bool {
    let end = recorder.now() + u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    while recorder.now() < end {
        if converged(nemesis, nodes) {
            recorder.record(Event::Converged);
            return true;
        }
        nemesis.tend(LOOK).await;
    }
    false
}

fn converged(nemesis: &Nemesis, nodes: &[NodeId]) -> bool {
    let Some(leader) = nemesis.cluster.leader() else { return false };
    let seen = nemesis.cluster.seen_all();
    let Some(members) = seen.get(&leader).filter(|seen| seen.ready).map(|seen| seen.members.clone()) else {
        return false;
    };
    let applied = seen.get(&leader).map_or(0, |seen| seen.applied);
    nodes.iter().filter(|node| members.contains(node)).all(|node| {
        // A busy log moves between two looks at two nodes.
        seen.get(node)
            .is_some_and(|seen| seen.leader == Some(leader) && seen.applied + 20 >= applied && seen.live_runs == 0)
    })
}

/// Reads tasks, ledgers and runs from one node and records them.
pub async fn read_final(node: NodeId, recorder: &Recorder) -> Result<(), Error> {
    let client = connect(node)?;
    let mut query = TaskQuery::default();
    loop {
        let page = client.list_tasks(&query).await?;
        for task in page.items {
            let id = task.id.to_string();
            recorder.record(Event::FinalTask { task: Box::new(task) });
            read_runs(&client, &id, recorder).await?;
            read_ledger(&client, &id, recorder).await?;
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
