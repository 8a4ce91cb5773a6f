//! Reads of what is long: lists with filters, in pages between which time passes, and previews.

use campanile_model::{Millis, RunState, TaskSpec, TaskStatus, Timestamp};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::spec::Scene;
use crate::history::{Action, LedgerFilter, Paging, TaskFilter};

/// Sizes of a page, and numbers of occurrences, that have to be refused.
const BEYOND: [u32; 2] = [0, 1001];
/// Pages that a client asks for at most.
const PAGES: u32 = 4;
/// Names that clients' tasks and the scenario's begin with, and what those without one do.
const PREFIXES: [&str; 4] = ["c", "later-", "t", "e"];

pub fn tasks(rng: &mut SmallRng, client: u32, scene: Scene) -> Action {
    let mut now_and_then = |share: f64| rng.random_bool(share);
    let [prefix, state, due_after, due_before, label, stale] = [0.3, 0.3, 0.15, 0.15, 0.3, 0.1].map(&mut now_and_then);
    let filter = TaskFilter {
        prefix: prefix.then(|| match rng.random_range(0..6) {
            0..2 => format!("c{client}-"),
            other => PREFIXES[other - 2].to_owned(),
        }),
        state: state.then(|| one_of(rng, &[TaskStatus::Active, TaskStatus::Paused, TaskStatus::Finished])),
        due_after: due_after.then(|| instant(rng, scene)),
        due_before: due_before.then(|| instant(rng, scene)),
        label: label.then(|| ("team".to_owned(), one_of(rng, &["night", "night", "day"]).to_owned())),
        stale,
    };
    Action::ListTasks { filter, page: paging(rng) }
}

pub fn runs(rng: &mut SmallRng, name: String) -> Action {
    const STATES: [RunState; 7] = [
        RunState::Pending,
        RunState::Running,
        RunState::Retrying,
        RunState::Succeeded,
        RunState::Failed,
        RunState::Cancelled,
        RunState::TimedOut,
    ];
    let state = rng.random_bool(0.5).then(|| one_of(rng, &STATES));
    Action::ListRuns { name: or_busy(rng, name), state, page: paging(rng) }
}

pub fn ledger(rng: &mut SmallRng, name: String, scene: Scene) -> Action {
    let after = rng.random_bool(0.3).then(|| instant(rng, scene));
    let before = rng.random_bool(0.3).then(|| instant(rng, scene));
    Action::Ledger { name: or_busy(rng, name), filter: LedgerFilter { after, before }, page: paging(rng) }
}

pub fn preview(rng: &mut SmallRng, name: String, scene: Scene) -> Action {
    let (count, after) = (count(rng), after(rng, scene));
    Action::Preview { name: or_busy(rng, name), count, after }
}

pub fn preview_spec(rng: &mut SmallRng, spec: TaskSpec, scene: Scene) -> Action {
    let (count, after) = (count(rng), after(rng, scene));
    Action::PreviewSpec { spec: Box::new(spec), count, after }
}

/// Now and then one of the scenario's own tasks, which nobody deletes and which has more to show with every second.
fn or_busy(rng: &mut SmallRng, name: String) -> String {
    match rng.random_range(0..5) {
        0 => "every-second".into(),
        1 => "five-in-a-row".into(),
        _ => name,
    }
}

fn paging(rng: &mut SmallRng) -> Paging {
    let limit = match rng.random_range(0..40) {
        0 => Some(one_of(rng, &BEYOND)),
        1..8 => None,
        _ => Some(rng.random_range(1..9)),
    };
    Paging { limit, pages: rng.random_range(1..=PAGES), rest: Millis(rng.random_range(0..1500)), follows: None }
}

fn count(rng: &mut SmallRng) -> u32 {
    if rng.random_bool(0.03) { one_of(rng, &BEYOND) } else { rng.random_range(1..20) }
}

fn after(rng: &mut SmallRng, scene: Scene) -> Option<Timestamp> {
    rng.random_bool(0.5).then(|| instant(rng, scene))
}

/// In the span of the default scenario, or a little beside it.
fn instant(rng: &mut SmallRng, scene: Scene) -> Timestamp {
    scene.start.saturating_add(Millis(rng.random_range(0..75_000)))
}

fn one_of<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}
