//! Linearizable (RELIABILITY 7): the requests about each task name can be put in an order that fits when they were sent
//! and answered, and in which each answer is what a task by itself would have given.
//!
//! The search is Wing and Gong's, with Lowe's memo of what was tried. A name is a key of its own, so histories are
//! short. A request without an answer may take effect at any time after it was sent, or never. A task also changes by
//! itself where its definition permits (see [`model`]). The work on one name is bounded: where that is not enough the
//! finding says so and not that the name held.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::sim::Bound;
use campanile_model::{FINISHED_KEPT, TaskSpec, limits};

use super::operations::{Operation, operations};
use super::{finding, violation};
use crate::history::{Action, Event, History, Outcome};
use crate::verdict::Finding;
pub(super) use model::same_spec;
use model::{Model, State};

pub const NAME: &str = "linearizable";

/// States looked at for one name.
const BOUND: usize = 200_000;

pub fn check(history: &History) -> Finding {
    let mut by_name: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in operations(history) {
        if let Some(name) = operation.name() {
            by_name.entry(name).or_default().push(operation);
        }
    }
    if by_name.is_empty() {
        return Finding::NotApplicable { needs: "requests about tasks" };
    }
    let model = Model {
        gone: history.events.iter().any(|timed| matches!(timed.event, Event::Answer { status: 410, .. })),
        expires: history.end() / 1000 >= history.header.time(Bound::FinishedKept, FINISHED_KEPT).0,
    };
    let mut violations = Vec::new();
    let mut checked = 0;
    let mut given_up = false;
    for (name, operations) in &by_name {
        checked += operations.len() as u64;
        match search(&model, &calls(operations, remembered(history)), BOUND) {
            Found::Order => {}
            Found::GaveUp => given_up = true,
            Found::None { furthest, stuck } => {
                let told = format!(
                    "no order explains the answers about task {name:?}: {furthest} fit, but then not {}",
                    stuck.join(", nor ")
                );
                violations.push(violation(NAME, last_answer(operations), told));
            }
        }
    }
    if violations.is_empty() && given_up {
        return Finding::NotApplicable { needs: "fewer requests without an answer: the search was given up" };
    }
    finding(checked, violations)
}

fn last_answer(operations: &[Operation]) -> u64 {
    operations.iter().filter_map(|operation| operation.returned).max().unwrap_or(0)
}

/// An effect that a request, or several with one idempotency key, may have.
struct Call<'h> {
    id: u64,
    invoked: u64,
    /// Never, if it need not have happened.
    returned: Option<u64>,
    action: &'h Action,
    outcome: Option<&'h Outcome>,
}

/// How long an idempotency key is remembered for sure, in microseconds: two leaders' clocks may be off to different sides.
fn remembered(history: &History) -> u64 {
    let ttl = history.header.time(Bound::IdempotencyTtl, limits::IDEMPOTENCY_TTL).0;
    ttl.saturating_sub(2 * history.header.clock_error_ms.unsigned_abs()) * 1000
}

/// What the requests about one name ask of the task. Requests that say nothing of its state are left out (whether there
/// was a cause to refuse them is for [`super::refusals`] to say), and those that repeat one under its idempotency key are one with it.
fn calls<'h>(operations: &[Operation<'h>], remembered: u64) -> Vec<Call<'h>> {
    let mut calls: Vec<Call> = Vec::new();
    // Calls made under a key, by the place of the first.
    let mut keyed: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for operation in operations {
        let Operation { id, action, mut invoked, returned, outcome } = *operation;
        match outcome {
            Some(Outcome::Refused { code, .. }) if !model::TELLING.contains(&code.as_str()) => continue,
            None if action.is_read() || matches!(action, Action::PutBad { .. }) => continue,
            _ => {}
        }
        let refused = operation.refused().is_some();
        if let Some(key) = operation.key().filter(|_| !refused) {
            let places = keyed.entry(key).or_default();
            let same = places.iter().copied().find(|place| {
                let first = &calls[*place];
                let answers_fit = match (first.outcome, outcome) {
                    (Some(a), Some(b)) => a == b,
                    _ => invoked < first.invoked + remembered,
                };
                answers_fit && first.action == action
            });
            if let Some(place) = same {
                // It took effect before the first of them that was answered.
                let first = &mut calls[place];
                first.outcome = first.outcome.or(outcome);
                first.returned = match (first.returned, returned) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                continue;
            }
            // One that got no answer may have been taken late and be remembered still: then this is its answer.
            let lost = places.iter().map(|place| &calls[*place]);
            let lost = lost.filter(|first| first.outcome.is_none() && first.action == action);
            invoked = lost.map(|first| first.invoked).fold(invoked, u64::min);
            places.push(calls.len());
        }
        calls.push(Call { id, invoked, returned, action, outcome });
    }
    calls
}

enum Found {
    Order,
    /// How many calls fit at most, and which could not follow.
    None {
        furthest: usize,
        stuck: Vec<String>,
    },
    GaveUp,
}

/// Which calls have happened: a bit for each.
type Happened = Vec<u64>;

fn search(model: &Model, calls: &[Call], bound: usize) -> Found {
    let specs = specs(calls);
    let answered = calls.iter().filter(|call| call.returned.is_some()).count();
    let mut tried: BTreeSet<(Happened, State)> = BTreeSet::new();
    let start = (vec![0u64; calls.len().div_ceil(64)], State::absent());
    let mut open = vec![(start, 0)];
    let (mut furthest, mut stuck) = (0, Vec::new());
    while let Some(((happened, state), done)) = open.pop() {
        if done == answered {
            return Found::Order;
        }
        if tried.len() >= bound {
            return Found::GaveUp;
        }
        let has = |place: usize| happened[place / 64] >> (place % 64) & 1 == 1;
        // What is next must have been sent before any that is left was answered.
        let left = calls.iter().enumerate().filter(|(place, _)| !has(*place));
        let horizon = left.clone().filter_map(|(_, call)| call.returned).min().unwrap_or(u64::MAX);
        let mut follows = false;
        let mut next = Vec::new();
        for (place, call) in left.filter(|(_, call)| call.invoked <= horizon) {
            for after in model.step(&state, call.action, call.outcome, &specs) {
                // Without an effect a guess may as well never have happened.
                if call.returned.is_none() && after == state {
                    continue;
                }
                follows |= call.returned.is_some();
                let mut happened = happened.clone();
                happened[place / 64] |= 1 << (place % 64);
                let step = (happened, after);
                if tried.insert(step.clone()) {
                    next.push((step, done + usize::from(call.returned.is_some())));
                }
            }
        }
        if !follows && done >= furthest {
            furthest = done;
            stuck = calls
                .iter()
                .enumerate()
                .filter(|(place, call)| !has(*place) && call.returned.is_some() && call.invoked <= horizon)
                .map(|(_, call)| {
                    format!("operation {} ({:?} answered {:?})", call.id, brief(call.action), call.outcome)
                })
                .collect();
        }
        // The last pushed is tried first: answered ones in the order they were sent, before any guess.
        let (sure, guesses): (Vec<_>, Vec<_>) = next.into_iter().partition(|(_, reached)| *reached > done);
        open.extend(guesses.into_iter().rev().chain(sure.into_iter().rev()));
    }
    Found::None { furthest, stuck }
}

fn brief(action: &Action) -> &'static str {
    match action {
        Action::Put { .. } => "put",
        Action::PutBad { .. } => "put of what is to be refused",
        Action::Batch { .. } => "batch",
        Action::Pause { .. } => "pause",
        Action::Resume { .. } => "resume",
        Action::Delete { .. } => "delete",
        Action::Trigger { .. } => "trigger",
        Action::Get { .. } => "get",
        Action::CancelRun { .. } => "cancel run",
        Action::GetRun { .. } => "get run",
        Action::ListTasks { .. } => "list tasks",
        Action::ListRuns { .. } => "list runs",
        Action::Ledger { .. } => "ledger",
        Action::Preview { .. } | Action::PreviewSpec { .. } => "preview",
        Action::CancelRunOf { .. } | Action::GetRunOf { .. } => "of a plan",
    }
}

/// The definitions that are put, each once.
fn specs<'h>(calls: &[Call<'h>]) -> Vec<&'h TaskSpec> {
    let mut found: Vec<&TaskSpec> = Vec::new();
    for call in calls {
        if let Action::Put { spec, .. } = call.action
            && !found.iter().any(|known| **known == **spec)
        {
            found.push(spec);
        }
    }
    found
}

#[cfg(test)]
mod tests;
