//! What retention wants removed: ledger lines beyond a task's keep, rows of the time index that have been decided,
//! idempotency keys that have run out. All of it is removed by the log, in ranges, in the backlog's lane, by one job at
//! a time that reads beside the conductor's loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use campanile_model::{
    Command, Millis, Reply, RunState, TaskId, TaskState, Timer, Timestamp, bound, filled, limits, planted, sometimes,
};
use campanile_raft::{Lane, rt};
use campanile_store::{StoreResult, TimerRow, View};

use super::Context;
use super::window::before;

/// How often the time index and the idempotency keys are looked at.
const EVERY: Millis = Millis::from_secs(10);
/// Rows of the time index checked in one step.
const STEP: usize = 4096;
/// Tasks read together.
const READ_AT_ONCE: usize = 512;
/// Lines, or keys, one entry removes.
const REMOVED_PER_ENTRY: u32 = 1000;
/// Tasks remembered to be trimmed; a task that is forgotten says so again as its ledger grows.
const TRIM_QUEUE: usize = 10_000;
/// Tasks trimmed by one job.
const TRIM_AT_ONCE: usize = 256;

#[derive(Default)]
pub(crate) struct Housekeeping {
    tasks: BTreeSet<TaskId>,
    looked_at: Option<Timestamp>,
    busy: Arc<AtomicBool>,
}

impl Housekeeping {
    /// Remembers that a task has more ledger lines than it keeps.
    pub fn trim(&mut self, task: TaskId) {
        filled!("tasks to trim", self.tasks.len(), bound!(TrimQueue, TRIM_QUEUE));
        sometimes!(TrimForgotten, self.tasks.len() >= bound!(TrimQueue, TRIM_QUEUE));
        if self.tasks.len() < bound!(TrimQueue, TRIM_QUEUE) {
            self.tasks.insert(task);
        }
    }

    /// Starts a job if one is due. `undecided_since` is the earliest instant at which a timer may still wait.
    pub fn tick(&mut self, context: &Arc<Context>, undecided_since: Timestamp) {
        let now = context.clock.now();
        let due = self.looked_at.is_none_or(|then| now.since(then) >= bound!(HousekeepingEvery, EVERY) || now < then);
        if (!due && self.tasks.is_empty()) || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        if let Some(&first_left) = tasks.iter().nth(bound!(TrimTogether, TRIM_AT_ONCE)) {
            self.tasks = tasks.split_off(&first_left);
        }
        if due {
            self.looked_at = Some(now);
        }
        let (context, busy) = (context.clone(), self.busy.clone());
        rt::spawn(async move {
            if let Err(error) = job(&context, tasks, due.then_some(undecided_since)).await {
                tracing::error!(%error, "housekeeping failed");
            }
            busy.store(false, Ordering::Release);
        });
    }
}

/// One job. What cannot be committed is left for the next one.
async fn job(context: &Arc<Context>, tasks: BTreeSet<TaskId>, undecided_since: Option<Timestamp>) -> StoreResult<()> {
    let removed = bound!(RemovedPerEntry, REMOVED_PER_ENTRY);
    for task in tasks {
        while let Some((before, lines)) = trim(&context.replica.store().view(), task, context.clock.now())? {
            let max_lines = if planted!(RangeTakesRuns) { removed } else { lines.min(removed) };
            let done = propose(context, Command::TrimLedger { task, before, max_lines }).await;
            if done < removed {
                break;
            }
        }
    }
    let Some(undecided_since) = undecided_since else { return Ok(()) };
    let view = context.replica.store().view();
    if view.counts()?.idempotency_keys > 0 {
        let command = Command::ExpireKeys { before: context.clock.now(), max_keys: removed };
        repeat(context, command).await;
    }
    let from = view.timers_trimmed_until();
    let decided = rt::run_blocking(move || decided_until(&view, from, undecided_since)).await??;
    if decided > from {
        repeat(context, Command::TrimTimers { before: decided }).await;
    }
    Ok(())
}

/// Proposes a command until it finds less to do than it may, or fails.
async fn repeat(context: &Context, command: Command) {
    while propose(context, command.clone()).await >= bound!(RemovedPerEntry, REMOVED_PER_ENTRY) {}
}

/// How much the command has removed; nothing if it was not committed.
async fn propose(context: &Context, command: Command) -> u32 {
    match context.replica.propose_as_leader(Lane::Backlog, vec![command]).await.as_deref() {
        Ok([Reply::Lines { done }]) => *done,
        Ok(_) => 0,
        Err(error) => {
            tracing::debug!(%error, "housekeeping was not committed; left for later");
            0
        }
    }
}

/// What of the task's ledger is beyond what it keeps: the oldest lines, so many, all of them before this instant. Both
/// are needed: a range of what did not fire may last beyond runs that were triggered meanwhile, which are kept.
fn trim(view: &View, task: TaskId, now: Timestamp) -> StoreResult<Option<(Timestamp, u32)>> {
    let Some(state) = view.task(task)? else { return Ok(None) };
    let retention = state.retention;
    let most = bound!(LedgerLines, limits::LEDGER_LINES);
    let beyond_last = state.lines.saturating_sub(retention.runs.min(most));
    let beyond_limit = state.lines.saturating_sub(most);
    if beyond_last == 0 {
        return Ok(None);
    }
    let too_old = if planted!(TrimsTheYoung) { now } else { now.saturating_sub(retention.age) };
    // A live run may hold back more lines than are ever kept; what lies beyond them is for a later look.
    let oldest = view.oldest_ledger_rows(task, beyond_last.min(limits::LEDGER_LINES) as usize)?;
    // So many of the last runs are kept, however many lines of what did not fire stand between them.
    let fired = state.tally.fired.saturating_sub(state.folded.fired + u64::from(state.one_shot_run.is_some()));
    let mut may_go = fired.saturating_sub(u64::from(retention.runs));
    let goes = oldest
        .iter()
        .enumerate()
        .take_while(|(position, line)| {
            let is_kept = line.run.is_some() && may_go == 0;
            may_go = may_go.saturating_sub(u64::from(line.run.is_some()));
            (*position as u32) < beyond_limit || (line.last < too_old && !is_kept)
        })
        .map(|(_, line)| line.last)
        .collect::<Vec<_>>();
    let last = goes.iter().max().copied();
    Ok(last.map(|last| (last.saturating_add(Millis(1)), goes.len() as u32)))
}

/// The instant before which the time index holds nothing that is still to be decided: `until`, or the first row whose
/// task or run still waits for it. The tables are asked row by row, because a row dropped too early is an occurrence
/// lost at the next change of leader.
fn decided_until(view: &View, from: Timestamp, until: Timestamp) -> StoreResult<Timestamp> {
    let (mut after, step) = (before(from), bound!(HousekeepingStep, STEP));
    loop {
        let rows = view.timers(Some(after), until, step)?;
        for rows in rows.chunks(READ_AT_ONCE) {
            let tasks: Vec<TaskId> = rows.iter().filter_map(of_task).collect();
            let mut states = view.tasks(&tasks)?.into_iter();
            for row in rows {
                let state = of_task(row).and_then(|_| states.next()).flatten();
                if is_pending(view, row, state)? {
                    return Ok(row.key.wake_at);
                }
            }
        }
        match rows.last() {
            Some(last) if rows.len() == step => after = last.key,
            _ => return Ok(until),
        }
    }
}

fn of_task(row: &TimerRow) -> Option<TaskId> {
    match row.key.timer {
        Timer::Task(task) => Some(task),
        Timer::Retry(_) | Timer::Expire(_) => None,
    }
}

/// Whether the row's task, if it is one's, or its run still waits for it.
fn is_pending(view: &View, row: &TimerRow, state: Option<TaskState>) -> StoreResult<bool> {
    Ok(match row.key.timer {
        Timer::Task(_) => state.is_some_and(|state| {
            row.task.is_some_and(|timer| state.version == timer.version && state.next == Some(timer.next))
        }),
        Timer::Retry(run) => {
            view.run(run)?.is_some_and(|run| run.state == RunState::Retrying && Some(run.token) == row.token)
        }
        // An expired task that is still there is waiting for its runs; it is armed again when it is looked at.
        Timer::Expire(_) => false,
    })
}
