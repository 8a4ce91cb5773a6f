//! Attempts whose owner was lost. Once a node is fenced its attempts are void; each is repeated with a higher token, or
//! given up where the task's policy allows no further attempt. The fence stands in the log, so a report that the lost
//! node sends later is refused, and a repeat proposed twice is a no-op the second time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use campanile_model::{
    AttemptAction, AttemptLine, Command, Delivery, NodeId, Run, RunId, RunState, Timestamp, Token, bound, planted,
    sometimes,
};
use campanile_raft::{Lane, rt};
use campanile_store::{StoreResult, View};

use super::Context;

/// Live runs looked at in one step.
const PAGE: usize = 2048;
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub(crate) struct Orphans {
    wanted: bool,
    searching: Arc<AtomicBool>,
}

impl Default for Orphans {
    /// A new leader does not know what the one before it had finished, so it looks once.
    fn default() -> Self {
        Self { wanted: true, searching: Arc::default() }
    }
}

impl Orphans {
    pub fn look_again(&mut self) {
        self.wanted = true;
    }

    pub fn tick(&mut self, context: &Arc<Context>) {
        if !self.wanted || self.searching.swap(true, Ordering::AcqRel) {
            return;
        }
        self.wanted = false;
        let (context, searching) = (context.clone(), self.searching.clone());
        rt::spawn(async move {
            if let Err(error) = search(&context).await {
                tracing::error!(%error, "looking for orphaned attempts failed");
            }
            searching.store(false, Ordering::Release);
        });
    }
}

/// Goes through the live runs once and proposes what becomes of the orphaned ones, for as long as this node leads.
async fn search(context: &Context) -> StoreResult<()> {
    let mut after: Option<RunId> = None;
    loop {
        let view = context.replica.store().view();
        let now = context.clock.now();
        let fences: BTreeMap<NodeId, Token> = view.nodes()?.iter().map(|node| (node.id, node.fence)).collect();
        let page = view.live_runs(after, bound!(OrphansPage, PAGE))?;
        let mut lines = Vec::new();
        for run in &page {
            // An attempt handed out while its shard had no owner was never made.
            let unowned = run.owner == NodeId(0);
            let fenced = unowned || fences.get(&run.owner).is_some_and(|fence| run.token < *fence);
            if run.state == RunState::Running && fenced {
                lines.push(AttemptLine { run: run.id, expected: run.token, action: action(&view, run, now)? });
            }
        }
        if !lines.is_empty() {
            sometimes!(AttemptRepeated);
            tracing::info!(attempts = lines.len(), "repeating attempts of a lost node");
            context.metrics.attempts_repeated.inc_by(lines.len() as u64);
            if let Err(error) = context.replica.propose_as_leader(Lane::Fire, vec![Command::Attempts { lines }]).await {
                if !context.replica.leadership().borrow().is_leader {
                    // The next leader looks for itself.
                    return Ok(());
                }
                tracing::warn!(%error, "repeating attempts was not committed; looking at them again");
                context.clock.sleep(RETRY_AFTER).await;
                continue;
            }
        }
        match page.last() {
            Some(last) if page.len() == bound!(OrphansPage, PAGE) => after = Some(last.id),
            _ => return Ok(()),
        }
    }
}

fn action(view: &View, run: &Run, now: Timestamp) -> StoreResult<AttemptAction> {
    let repeatable = view.spec(run.task, run.version)?.is_some_and(|spec| {
        let may_repeat = spec.delivery == Delivery::AtLeastOnce || planted!(AtMostOnceRepeated);
        let one_left = run.attempt < spec.retry.max_attempts || planted!(AttemptsUnbounded);
        may_repeat && one_left && spec.deadline.is_none_or(|deadline| now.since(run.fired_at) <= deadline)
    });
    Ok(if repeatable { AttemptAction::Repeat } else { AttemptAction::GiveUp })
}
