//! Reads the cluster's own account of some tasks through its API: what fired, what did not and why, and whether each
//! ledger adds up. The verdict over it is [`crate::check`]'s business.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use campanile_client::{Client, LedgerQuery, RunQuery};
use campanile_model::api::{LedgerLineView, RunView};
use campanile_model::limits::PAGE_ITEMS;
use campanile_model::{Kind, RunId, Tally, TaskId};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::check::{Committed, Fire, Lapse};

/// Tasks asked for at the same time.
const PARALLEL: usize = 64;

/// Which runs are read as well, and not only the ledger lines that name them.
#[derive(Clone, Debug)]
pub enum Runs {
    All,
    /// Those that [`crate::check::runs_to_read_closely`] asks for.
    Only(BTreeSet<RunId>),
}

/// The account of these tasks. Lists that are longer than a page are read to their end.
pub async fn read(client: &Client, tasks: &[TaskId], runs: &Runs) -> Result<Committed> {
    let parts: Vec<Committed> = stream::iter(tasks.iter().map(|task| read_task(client, *task, runs)))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let mut committed = Committed::default();
    for part in parts {
        committed.fires.extend(part.fires);
        committed.lapses.extend(part.lapses);
        committed.unbalanced.extend(part.unbalanced);
    }
    Ok(committed)
}

async fn read_task(client: &Client, task: TaskId, runs: &Runs) -> Result<Committed> {
    let (lines, tally, folded) = read_ledger(client, task).await.with_context(|| format!("the ledger of {task}"))?;
    let mut committed = take_lines(task, &lines);
    let counted: u64 = lines.iter().map(|line| line.count).sum();
    if counted + folded.total() != tally.total() {
        let (total, folded) = (tally.total(), folded.total());
        committed.unbalanced.push(format!("{task}: {counted} on lines and {folded} folded are not {total}"));
    }
    let close = match runs {
        Runs::All => read_runs(client, task).await?,
        Runs::Only(ids) => {
            let ids = committed.fires.iter().map(|fire| fire.run).filter(|run| ids.contains(run));
            let views = futures::future::try_join_all(ids.map(|run| client.get_run(run))).await?;
            views.into_iter().map(|view| (view.id, view)).collect()
        }
    };
    for fire in &mut committed.fires {
        if let Some(run) = close.get(&fire.run) {
            fire.state = run.state;
            fire.fired_at = Some(run.fired_at);
            fire.attempts.clone_from(&run.attempts);
        }
    }
    Ok(committed)
}

async fn read_ledger(client: &Client, task: TaskId) -> Result<(Vec<LedgerLineView>, Tally, Tally)> {
    let mut query = LedgerQuery { limit: Some(PAGE_ITEMS), ..LedgerQuery::default() };
    let mut lines = Vec::new();
    loop {
        let page = client.ledger(&task.to_string(), &query).await?;
        lines.extend(page.items);
        if page.next_page_token.is_none() {
            return Ok((lines, page.tally, page.folded));
        }
        query.page_token = page.next_page_token;
    }
}

async fn read_runs(client: &Client, task: TaskId) -> Result<BTreeMap<RunId, RunView>> {
    let mut query = RunQuery { limit: Some(PAGE_ITEMS), ..RunQuery::default() };
    let mut runs = BTreeMap::new();
    loop {
        let page = client.list_runs(&task.to_string(), &query).await.with_context(|| format!("the runs of {task}"))?;
        runs.extend(page.items.into_iter().map(|run| (run.id, run)));
        if page.next_page_token.is_none() {
            return Ok(runs);
        }
        query.page_token = page.next_page_token;
    }
}

fn take_lines(task: TaskId, lines: &[LedgerLineView]) -> Committed {
    let mut committed = Committed::default();
    for line in lines {
        match (line.kind, line.occurrence_id, line.run, line.run_state) {
            (Kind::Fired, Some(occurrence), Some(run), Some(state)) => {
                committed.fires.push(Fire { occurrence, run, state, fired_at: None, attempts: Vec::new() });
            }
            (Kind::Fired, ..) => {
                committed
                    .unbalanced
                    .push(format!("{task}: the line of {} says fired and names no run", line.scheduled_at));
            }
            _ => committed.lapses.push(Lapse { task, first: line.scheduled_at, last: line.last, count: line.count }),
        }
    }
    committed
}
