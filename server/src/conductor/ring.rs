//! Timers that ring become decisions.
//!
//! What is on time, or overdue by no more than its task's grace, takes the short way: a one-shot, and a task that recurs
//! after always the same time, fire without reading a row; others need only their compiled plan. What is later is
//! decided from its row by the task's policies; what is later still goes to the backlog, so that it never comes ahead of
//! what is on time (P8).

use std::collections::VecDeque;

use campanile_model::{
    AttemptAction, AttemptLine, Decision, FireLine, Millis, Reason, RunId, RunState, TaskId, TaskState, TaskStatus,
    Timestamp, Token, bound, planted,
};
use campanile_store::{StoreError, TaskTimer, View};
use campanile_timer::following;

use super::Context;
use super::proposals::{Of, Proposals, Undecided};
use super::window::{Armed, Window};
use crate::decide::{Decided, decide};
use crate::plans::PlanError;

/// Overdue by more than this: the backlog's.
pub(crate) fn late_after() -> Millis {
    bound!(LateAfter, Millis::from_secs(10))
}

/// Plans read together. Far fewer than are kept.
const PLAN_AT_ONCE: usize = 512;

/// Decides what has rung, as far as there is room for decisions. Returns what is too late to be decided here.
pub(crate) fn ring(
    context: &Context,
    rung: &mut VecDeque<(Timestamp, Armed)>,
    now: Timestamp,
    proposals: &mut Proposals,
) -> Result<Vec<(Timestamp, Armed)>, StoreError> {
    let mut late = Vec::new();
    let mut view = None;
    let decided_at = context.clock.instant();
    for place in 0.. {
        if !proposals.has_room() {
            break;
        }
        if place % bound!(PlansTogether, PLAN_AT_ONCE) == 0 {
            plan_together(context, &mut view, rung, now)?;
        }
        let Some((wake_at, armed)) = rung.pop_front() else { break };
        match armed {
            Armed::Task(_, timer) if now.since(timer.next.due_at) > late_after() => late.push((wake_at, armed)),
            Armed::Task(task, timer) if now.since(timer.next.due_at) <= timer.grace => {
                let line = match on_time(context, task, &timer) {
                    Some(line) => Some(line),
                    None => {
                        let view = view.get_or_insert_with(|| context.replica.store().view());
                        plan_first(context, view, task, &timer)?
                    }
                };
                proposals.fire(line, wake_at, decided_at);
            }
            Armed::Task(task, timer) => {
                let view = view.get_or_insert_with(|| context.replica.store().view());
                if let Some(state) = view.task(task)? {
                    let decided = decide_task(context, view, &state, Some(&timer), now)?;
                    proposals.fire(decided.lines, wake_at, decided_at);
                }
            }
            Armed::Retry(run, token) => {
                let view = view.get_or_insert_with(|| context.replica.store().view());
                proposals.attempt(retry(context, view, run, token, now)?, wake_at, decided_at);
            }
            Armed::Expire(task) => proposals.expire(task, wake_at),
        }
    }
    Ok(late)
}

/// Decides anew what was decided and not committed in time: all that is due of its tasks by now. Returns what is too
/// late to be decided here.
pub(crate) fn decide_again(
    context: &Context,
    mut undecided: Vec<Undecided>,
    proposals: &mut Proposals,
    window: &mut Window,
) -> Result<Vec<Undecided>, StoreError> {
    let (now, decided_at) = (context.clock.now(), context.clock.instant());
    let view = context.replica.store().view();
    let (mut late, mut fires, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
    // The decisions about one task are neighbours, and are made anew together.
    undecided.dedup_by_key(|undecided| undecided.of);
    undecided.retain(|undecided| {
        let is_late = now.since(undecided.wake_at) > late_after();
        if is_late {
            late.push(*undecided);
        }
        !is_late
    });
    let first_due = undecided.iter().map(|undecided| undecided.wake_at).fold(now, Timestamp::min);
    let tasks: Vec<TaskId> = undecided.iter().filter_map(|undecided| undecided.of.task()).collect();
    for state in view.tasks(&tasks)?.into_iter().flatten() {
        let lines = decide_task(context, &view, &state, None, now)?.lines;
        if lines.is_empty() {
            arm_again(&state, now, window);
        }
        fires.extend(lines);
    }
    for undecided in undecided {
        if let Of::Retry(run, token) = undecided.of {
            attempts.extend(retry(context, &view, run, token, now)?);
        }
    }
    proposals.put_first(fires, attempts, first_due, decided_at);
    Ok(late)
}

/// The decision about an occurrence that is on time, if it can be made without reading.
fn on_time(context: &Context, task: TaskId, timer: &TaskTimer) -> Option<FireLine> {
    let next = match timer.period {
        _ if timer.one_shot => None,
        Some(period) => following(timer.next, period),
        None => context.plans.cached(task, timer.version)?.plan.next(timer.next.scheduled_at),
    };
    let scheduled_at = timer.next.scheduled_at;
    let decision = if timer.paused {
        Decision::Lapse { last: scheduled_at, count: 1, reason: Reason::Paused }
    } else {
        Decision::Fire
    };
    Some(FireLine { task, version: timer.version, scheduled_at, decision, next })
}

/// Puts the plans at hand that the next timers need.
fn plan_together(
    context: &Context,
    view: &mut Option<View>,
    rung: &VecDeque<(Timestamp, Armed)>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let missing = rung.iter().take(bound!(PlansTogether, PLAN_AT_ONCE)).filter_map(|(_, armed)| match armed {
        Armed::Task(task, timer) => {
            let wanted = !timer.one_shot && timer.period.is_none() && now.since(timer.next.due_at) <= late_after();
            (wanted && context.plans.cached(*task, timer.version).is_none()).then_some(*task)
        }
        Armed::Retry(..) | Armed::Expire(_) => None,
    });
    let missing: Vec<TaskId> = missing.collect();
    if missing.len() > 1 {
        let view = view.get_or_insert_with(|| context.replica.store().view());
        context.plans.load(view, &missing)?;
    }
    Ok(())
}

/// Compiles the task's plan, then decides.
fn plan_first(context: &Context, view: &View, task: TaskId, timer: &TaskTimer) -> Result<Option<FireLine>, StoreError> {
    let Some(state) = view.task(task)?.filter(|state| state.version == timer.version) else { return Ok(None) };
    match context.plans.of(view, &state) {
        Ok(_) => Ok(on_time(context, task, timer)),
        Err(error) => unusable(error),
    }
}

/// Decides all that is due of a task, from its row in this view. Nothing, if there is a timer and it is stale.
pub(crate) fn decide_task(
    context: &Context,
    view: &View,
    state: &TaskState,
    timer: Option<&TaskTimer>,
    now: Timestamp,
) -> Result<Decided, StoreError> {
    let current = timer.is_none_or(|timer| state.version == timer.version && state.next == Some(timer.next));
    if !current || !matches!(state.status, TaskStatus::Active | TaskStatus::Paused) {
        return Ok(Decided::default());
    }
    match context.plans.of(view, state) {
        Ok(planned) => Ok(decide(state, &planned.spec, &planned.plan, now)),
        Err(error) => unusable(error),
    }
}

/// A timer that rang and is not due any more, because the clock has gone back, is to ring again. Others are stale.
pub(crate) fn arm_again(state: &TaskState, now: Timestamp, window: &mut Window) {
    if let Some(next) = state.next.filter(|next| next.due_at > now && !planted!(TimerForgottenByClock)) {
        window.arm_task(state.id, next.due_at, TaskTimer::of(state, next));
    }
}

/// The attempt a retry timer asks for. None, if the timer is stale.
pub(crate) fn retry(
    context: &Context,
    view: &View,
    run: RunId,
    token: Token,
    now: Timestamp,
) -> Result<Option<AttemptLine>, StoreError> {
    let Some(row) = view.run(run)?.filter(|row| row.state == RunState::Retrying && row.token == token) else {
        return Ok(None);
    };
    let Some(spec) = view.spec(row.task, row.version)? else {
        tracing::error!(%run, task = %row.task, "a run's version is gone; its retry expires");
        return Ok(Some(AttemptLine { run, expected: token, action: AttemptAction::Expire }));
    };
    let expired =
        spec.deadline.is_some_and(|deadline| now.since(row.fired_at) > deadline) && !planted!(DeadlineIgnored);
    let action = if expired { AttemptAction::Expire } else { AttemptAction::Retry };
    context.metrics.retries.inc();
    Ok(Some(AttemptLine { run, expected: token, action }))
}

/// A definition this build cannot use leaves its task undecided, loudly; only a failing disk stops the node.
fn unusable<T: Default>(error: PlanError) -> Result<T, StoreError> {
    match error {
        PlanError::Store(error) => Err(error),
        error => {
            tracing::error!(%error, "a task cannot be decided");
            Ok(T::default())
        }
    }
}
