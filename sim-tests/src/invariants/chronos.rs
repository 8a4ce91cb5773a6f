//! The label-blind oracle, in the manner of Jepsen's checker for Chronos: it does not believe what the product writes on
//! a run, and asks only whether the runs that arrived can be those that the definitions asked for.
//!
//! Every occurrence is a *window*, from when it is due to when its run must have arrived at the latest. Every run is a
//! *point*, the time of its first delivery; repeats of it by higher attempts are none. A fire that was lost leaves a
//! window without a point, one too many a point without a window.
//!
//! Some windows are *owed* a run and some only *allow* one (jitter held it back, its run was cancelled, it may come
//! after the end). What the ledger says has lapsed is no window. So two things are to be shown: each point has a window
//! of its own, and each owed window a point of its own. They can be shown apart: if there is a matching of points into
//! all windows that leaves no point over, and one of the owed windows into points that leaves none of those over, then
//! there is one that does both (Mendelsohn and Dulmage, 1958).
//!
//! Each is a matching of points to intervals, and the greedy one is a largest: go through the points in time, and give
//! each the open window that closes first. Proof: take a largest matching M that agrees with the greedy one on as many
//! first points as any. At the first point p where they differ greedy takes w, the earliest to close of those open and
//! free. If M leaves both p and w alone it is not largest. If M gives p nothing, and w to a later q, let p have w in
//! place of q: as large. If M gives p another window v, and w to nobody, let p have w: as large. If M gives p v and w to
//! a later q: v was open at p, before q, and closes no sooner than w, so q may have v, and p w. (If greedy gives p
//! nothing, no window is open and free, so M gives it nothing either.) In each case M agrees on one point more: there is
//! a largest that is the greedy one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use campanile_model::sim::Bound;
use campanile_model::{Millis, Overlap, RunId, RunState, TaskId, TaskSpec, Timestamp};

use super::coverage;
use super::no_lost_fire::healed_at;
use super::operations::operations;
use super::story::{Story, What, tell};
use super::{finding, violation};
use crate::history::{Action, Event, History, Outcome};
use crate::verdict::{Finding, Violation};

pub const NAME: &str = "chronos";

/// When a run may arrive, in microseconds of the history, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    opens: i64,
    closes: i64,
    owed: bool,
}

/// A run may arrive whenever it likes.
const NEVER_CLOSES: i64 = i64::MAX;

pub fn check(history: &History) -> Finding {
    let stories = tell(history);
    if stories.is_empty() {
        return Finding::NotApplicable { needs: "rows of tasks, or final tasks with their ledgers" };
    }
    let arrivals = Arrivals::gather(history);
    let turn = turn(history, &stories);
    let mut violations = arrivals.again.clone();
    let mut checked = 0;
    for story in &stories {
        let points = arrivals.points.get(&story.id).map_or(&[][..], Vec::as_slice);
        checked += points.len() as u64;
        // Of definitions that may have been written, one must fit.
        let Some(windows) = windows(history, story, &arrivals, turn) else { continue };
        checked += windows.len() as u64;
        judge(history, story, &windows, points, &mut violations);
    }
    finding(checked, violations)
}

fn judge(history: &History, story: &Story, windows: &[Window], points: &[i64], violations: &mut Vec<Violation>) {
    let told = |what: String| format!("task {} ({}): {what}", story.id, story.name);
    for point in unmatched(windows, points).1 {
        let at = instant(history, points[point]);
        let what = told(format!("a run arrived at {at} that no occurrence asked for"));
        violations.push(violation(NAME, points[point].unsigned_abs(), what));
    }
    let owed: Vec<Window> = windows.iter().copied().filter(|window| window.owed).collect();
    for window in unmatched(&owed, points).0 {
        let Window { opens, closes, .. } = owed[window];
        let (opens, by) = (instant(history, opens), instant(history, closes));
        let what = told(format!("no run arrived for what was due at {opens}, until {by}"));
        violations.push(violation(NAME, closes.unsigned_abs(), what));
    }
}

fn instant(history: &History, t: i64) -> Timestamp {
    Timestamp::from_millis(history.header.epoch_ms + t / 1000)
}

/// Windows and points that a largest matching leaves over. Points ascend.
fn unmatched(windows: &[Window], points: &[i64]) -> (Vec<usize>, Vec<usize>) {
    let mut by_opening: Vec<usize> = (0..windows.len()).collect();
    by_opening.sort_by_key(|place| windows[*place].opens);
    let mut to_open = by_opening.into_iter().peekable();
    let mut open = BinaryHeap::new();
    let (mut windows_left, mut points_left) = (Vec::new(), Vec::new());
    for (place, point) in points.iter().enumerate() {
        while let Some(window) = to_open.next_if(|window| windows[*window].opens <= *point) {
            open.push(Reverse((windows[window].closes, window)));
        }
        loop {
            match open.pop() {
                Some(Reverse((closes, window))) if closes < *point => windows_left.push(window),
                Some(_) => break,
                None => {
                    points_left.push(place);
                    break;
                }
            }
        }
    }
    windows_left.extend(open.into_iter().map(|Reverse((_, window))| window));
    windows_left.extend(to_open);
    windows_left.sort_unstable();
    (windows_left, points_left)
}

/// What arrived, and what became of runs.
#[derive(Default)]
struct Arrivals {
    /// First deliveries of runs, by task, ascending.
    points: BTreeMap<TaskId, Vec<i64>>,
    /// An attempt that arrived twice.
    again: Vec<Violation>,
    /// When a request to trigger a task was sent, by name.
    triggers: BTreeMap<String, Vec<i64>>,
    /// Runs that did not succeed, or have not yet: nothing needs to have arrived.
    excused: BTreeSet<RunId>,
}

impl Arrivals {
    fn gather(history: &History) -> Self {
        let mut found = Self::default();
        let mut seen: BTreeSet<(RunId, u32)> = BTreeSet::new();
        let mut runs: BTreeSet<RunId> = BTreeSet::new();
        let mut excuse = |run: RunId, state: RunState| {
            if state == RunState::Succeeded {
                found.excused.remove(&run)
            } else {
                found.excused.insert(run)
            };
        };
        for timed in &history.events {
            match &timed.event {
                Event::Deliver(delivery) => {
                    if runs.insert(delivery.run) {
                        found.points.entry(delivery.task).or_default().push(timed.t.cast_signed());
                    }
                    if !seen.insert((delivery.run, delivery.attempt)) {
                        let told = format!("attempt {} of run {} arrived twice", delivery.attempt, delivery.run);
                        found.again.push(violation(NAME, timed.t, told));
                    }
                }
                Event::Run(row) => excuse(row.run, row.state),
                Event::FinalRun { run } => excuse(run.id, run.state),
                Event::FinalLedger { ledger } => {
                    for line in &ledger.items {
                        if let (Some(run), Some(state)) = (line.run, line.run_state) {
                            excuse(run, state);
                        }
                    }
                }
                _ => {}
            }
        }
        for operation in operations(history) {
            if let Action::Trigger { name, .. } = operation.action
                && matches!(operation.outcome, None | Some(Outcome::Triggered { .. }))
            {
                found.triggers.entry(name.clone()).or_default().push(operation.invoked.cast_signed());
            }
        }
        found
    }
}

/// How long an attempt may wait for its turn when receivers are well again, in milliseconds: where a node has few
/// connections, until those that they hold open have timed out.
fn turn(history: &History, stories: &[Story]) -> i64 {
    let narrow = [Bound::Connections, Bound::ConnectionsPerHost].map(Bound::name);
    if !narrow.iter().any(|name| history.header.bounds.contains_key(*name)) {
        return 0;
    }
    let specs = stories.iter().flat_map(|story| &story.versions).flat_map(|version| &version.specs);
    specs.map(|spec| spec.timeout.0.cast_signed()).max().unwrap_or_default()
}

/// The windows of a task. `None` if its definitions are not known for sure.
fn windows(history: &History, story: &Story, arrivals: &Arrivals, turn: i64) -> Option<Vec<Window>> {
    if story.judged_after > Timestamp::MIN {
        // Runs of before arrived too, and nothing says what they were for.
        return None;
    }
    let header = &history.header;
    let healed = healed_at(history);
    let faults = history.events.iter().any(|timed| matches!(timed.event, Event::FaultBegins { .. }));
    let end = Timestamp::from_millis(history.wall_ms(history.end()));
    let to_t = |at: Timestamp| at.as_millis().saturating_sub(header.epoch_ms).saturating_mul(1000);
    let mut windows = Vec::new();
    for (place, version) in story.versions.iter().enumerate() {
        let [spec] = version.specs[..] else { return None };
        let decisions = story.decisions_of(version.number);
        let slack = header.lateness_bound_ms + if faults { retries(spec) } else { 0 } + turn;
        for expected in coverage::expected(story, place, spec, end).ok()? {
            // What is written about this instant, if it can be anything but a fire in time.
            let upto = decisions.partition_point(|decision| decision.first <= expected.at);
            let line = decisions[..upto].last().filter(|decision| expected.at <= decision.last);
            let excused = match line.map(|line| line.what) {
                Some(What::Lapsed(_)) => continue,
                Some(What::Fired(run)) => arrivals.excused.contains(&run),
                None => false,
            };
            let (due, latest) = (to_t(expected.due.0), to_t(expected.due.1));
            let healed = healed.map(|t| t.cast_signed());
            let closes =
                healed.map_or(NEVER_CLOSES, |healed| latest.max(healed) + (slack + header.clock_error_ms) * 1000);
            let open_ended = spec.overlap != Overlap::Allow || closes > history.end().cast_signed();
            let is_open = version.ended_at.is_none() && !version.spent;
            let certain = expected.required || is_open;
            let may_fail = excused || open_ended || faults && at_most_once(spec);
            let owed = certain && !may_fail;
            let opens = due - header.clock_error_ms * 1000;
            windows.push(Window { opens, closes: if owed { closes } else { NEVER_CLOSES }, owed });
        }
    }
    for sent in arrivals.triggers.get(&story.name).into_iter().flatten() {
        windows.push(Window { opens: *sent, closes: NEVER_CLOSES, owed: false });
    }
    Some(windows)
}

fn at_most_once(spec: &TaskSpec) -> bool {
    spec.delivery == campanile_model::Delivery::AtMostOnce
}

/// How long the first attempts may fail unseen, in milliseconds: all the back-offs and time-outs together.
fn retries(spec: &TaskSpec) -> i64 {
    let retry = &spec.retry;
    let mut total = 0u64;
    let mut delay = retry.initial.0;
    for _ in 1..retry.max_attempts {
        let jittered = Millis(delay.min(retry.max.0).saturating_mul(1000 + u64::from(retry.jitter.0)) / 1000);
        total = total.saturating_add(jittered.0).saturating_add(spec.timeout.0);
        delay = delay.saturating_mul(u64::from(retry.factor.0)) / 1000;
    }
    i64::try_from(total).unwrap_or(i64::MAX / 2000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::minutes::*;
    use super::*;

    #[test]
    fn runs_that_fit_are_accepted() {
        let finding = check(&minutely(|_| {}));
        assert!(matches!(finding, Finding::Held { checked } if checked >= 10), "{finding:?}");
    }

    #[test]
    fn a_run_that_never_arrived_is_seen() {
        let finding = check(&minutely(|script| script.undelivered = Some(3)));
        assert!(told(&finding).contains("no run arrived"), "{finding:?}");
    }

    #[test]
    fn a_run_too_many_is_seen_whatever_it_says_of_itself() {
        let finding = check(&minutely(|script| script.twice = Some(3)));
        assert!(told(&finding).contains("no occurrence asked for"), "{finding:?}");
    }

    #[test]
    fn a_run_that_comes_too_late_is_seen() {
        let finding = check(&minutely(|script| script.delivery_late_ms = 50_000));
        assert!(told(&finding).contains("no run arrived"), "{finding:?}");
    }

    #[test]
    fn an_early_run_is_seen() {
        let finding = check(&minutely(|script| script.delivery_late_ms = -5_000));
        assert!(told(&finding).contains("no occurrence asked for"), "{finding:?}");
    }

    #[test]
    fn a_repeat_by_a_higher_attempt_is_no_second_run_and_the_same_attempt_is() {
        assert!(matches!(check(&minutely(|script| script.repeat = Some((3, 2)))), Finding::Held { .. }));
        assert!(told(&check(&minutely(|script| script.repeat = Some((3, 1))))).contains("arrived twice"));
    }

    /// The size of a largest matching, by trying all.
    fn largest(windows: &[Window], points: &[i64]) -> usize {
        let Some((point, rest)) = points.split_first() else { return 0 };
        let mut best = largest(windows, rest);
        for place in 0..windows.len() {
            if (windows[place].opens..=windows[place].closes).contains(point) {
                let mut others = windows.to_vec();
                others.remove(place);
                best = best.max(1 + largest(&others, rest));
            }
        }
        best
    }

    proptest! {
        #[test]
        fn greedy_is_a_largest_matching(
            windows in prop::collection::vec((0i64..20, 0i64..10), 0..5),
            mut points in prop::collection::vec(0i64..30, 0..5),
        ) {
            points.sort_unstable();
            let windows: Vec<Window> =
                windows.iter().map(|(opens, long)| Window { opens: *opens, closes: opens + long, owed: true }).collect();
            let (windows_left, points_left) = unmatched(&windows, &points);
            let matched = largest(&windows, &points);
            prop_assert_eq!(windows.len() - windows_left.len(), matched);
            prop_assert_eq!(points.len() - points_left.len(), matched);
        }
    }
}
