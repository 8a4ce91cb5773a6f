//! No lost fire (RELIABILITY 2): what is due while a task is acknowledged and enabled fires, or stands in the ledger
//! with a reason that its own policies allow; and when the faults are over, nothing due stays undecided.
//!
//! A reason is judged by the entry that gave it. The leader decided a little before that entry was stamped, so only what
//! is false at the stamp and was false before is refused.

use std::collections::{BTreeMap, BTreeSet};

use campanile_model::api::Change;
use campanile_model::sim::Bound;
use campanile_model::{CatchUpPolicy, Millis, Overlap, Reason, RunId, TaskId, TaskSpec, TaskStatus, Timestamp, limits};

use super::coverage::{self, Gap, gaps};
use super::operations::operations;
use super::story::{Story, What, tell};
use super::{finding, violation};
use crate::history::{Action, Event, History, Outcome};
use crate::verdict::{Finding, Violation};

pub const NAME: &str = "no_lost_fire";

pub fn check(history: &History) -> Finding {
    let stories = tell(history);
    if stories.is_empty() {
        return Finding::NotApplicable { needs: "rows of tasks, or final tasks with their ledgers" };
    }
    let mut violations = Vec::new();
    let mut checked = 0;
    let settled_until = settled_until(history);
    for story in &stories {
        let (gaps, compared) = gaps(story);
        checked += compared;
        let lost = gaps.iter().filter(|gap| matches!(gap, Gap::Missing { .. }));
        violations.extend(lost.map(|gap| violation(NAME, gap.t(), gap.told(story))));
        violations.extend(settled_until.and_then(|until| undecided(history, story, until)));
        if !story.from_log {
            final_reasons(story, &mut violations);
        }
    }
    if stories.iter().any(|story| story.from_log) {
        checked += acknowledged(history, &stories, &mut violations);
        checked += Reasons::new(history, &stories).judge(&mut violations);
    }
    finding(checked, violations)
}

/// What was due by then, as true time has it, must be decided at the end. `None` while faults last.
pub(super) fn settled_until(history: &History) -> Option<Timestamp> {
    let healed = healed_at(history)?;
    let converged = history.events.iter().rev().find(|timed| matches!(timed.event, Event::Converged));
    let end = history.wall_ms(converged.map_or(history.end(), |timed| timed.t));
    let until = end - history.header.lateness_bound_ms - history.header.clock_error_ms;
    // What was due earlier had the whole bound too, but only from the healing on.
    (until >= history.wall_ms(healed)).then(|| Timestamp::from_millis(until))
}

/// When the last fault had ended; `None` if one has not.
pub(super) fn healed_at(history: &History) -> Option<u64> {
    let mut open = BTreeSet::new();
    let mut healed = 0;
    for timed in &history.events {
        match &timed.event {
            Event::FaultBegins { id, .. } => {
                open.insert(*id);
            }
            Event::FaultEnds { id } => {
                open.remove(id);
                healed = timed.t;
            }
            Event::Healed { .. } => {
                open.clear();
                healed = timed.t;
            }
            _ => {}
        }
    }
    open.is_empty().then_some(healed)
}

/// What is still to be decided at the end although it was due long before.
fn undecided(history: &History, story: &Story, until: Timestamp) -> Option<Violation> {
    let place = story.versions.len().checked_sub(1)?;
    let version = &story.versions[place];
    if story.last.status == TaskStatus::Deleted || version.spent {
        return None;
    }
    // The final state was read at some moment, and says nothing of what came after.
    let seen = Timestamp::from_millis(history.wall_ms(story.last.t) - history.header.lateness_bound_ms);
    let until = if story.from_log { until } else { until.min(seen) };
    let mut late: Option<(Timestamp, usize)> = None;
    for spec in &version.specs {
        let expected = coverage::expected(story, place, spec, until).ok()?;
        let mut open = expected
            .iter()
            .filter(|expected| expected.at > story.last.decided_until && expected.due.1 <= until)
            .map(|expected| expected.at);
        // Of definitions that may have been written, one must be served.
        let first = open.next()?;
        late = Some((first, open.count() + 1));
    }
    let (first, count) = late?;
    let told = format!(
        "task {} ({}) is {:?} and decided until {}, but {count} occurrences from {first} on were due by {until}",
        story.id, story.name, story.last.status, story.last.decided_until
    );
    Some(violation(NAME, history.end(), told))
}

/// A definition that was acknowledged is in the log.
fn acknowledged(history: &History, stories: &[Story], violations: &mut Vec<Violation>) -> u64 {
    let written: BTreeSet<(TaskId, u32)> =
        stories.iter().flat_map(|story| story.versions.iter().map(|version| (story.id, version.number))).collect();
    let mut checked = 0;
    for operation in operations(history) {
        let (Action::Put { name, .. }, Some(Outcome::Written { task })) = (operation.action, operation.outcome) else {
            continue;
        };
        checked += 1;
        if matches!(task.change, Change::Created | Change::Updated) && !written.contains(&(task.id, task.version)) {
            let told = format!(
                "operation {} was told that task {} ({name}) has version {}, and no entry wrote it",
                operation.id, task.id, task.version
            );
            violations.push(violation(NAME, operation.returned.unwrap_or(operation.invoked), told));
        }
    }
    checked
}

/// Without a log, all that can be said of a reason is whether the definition knows it at all.
fn final_reasons(story: &Story, violations: &mut Vec<Violation>) {
    let Some(spec) = story.versions.first().and_then(|version| version.specs.first()) else { return };
    for decision in &story.decisions {
        if let What::Lapsed(reason) = decision.what
            && let Some(why) = foreign(spec, reason)
        {
            let told =
                format!("task {} ({}) has lapsed {} as {reason:?}, but {why}", story.id, story.name, decision.first);
            violations.push(violation(NAME, decision.t, told));
        }
    }
}

/// Why a definition never gives this reason.
fn foreign(spec: &TaskSpec, reason: Reason) -> Option<String> {
    let known = match reason {
        Reason::Overlap => spec.overlap == Overlap::Skip,
        Reason::BufferFull => spec.overlap == Overlap::BufferAll,
        Reason::PolicySkip => spec.catch_up.policy == CatchUpPolicy::Skip,
        Reason::Coalesced => spec.catch_up.policy == CatchUpPolicy::FireOnce,
        Reason::BeyondWindow | Reason::Paused => true,
    };
    (!known).then(|| format!("its policies are overlap {:?} and catch-up {:?}", spec.overlap, spec.catch_up.policy))
}

/// A walk along the log that knows what was live and paused at each entry.
struct Reasons<'h> {
    history: &'h History,
    stories: BTreeMap<TaskId, &'h Story<'h>>,
    paused: BTreeSet<TaskId>,
    live: BTreeMap<TaskId, BTreeSet<RunId>>,
    entry: Entry,
}

/// What one entry does. The order of its rows of different kinds is not known, so what it ends counts to its end.
#[derive(Default)]
struct Entry {
    index: u64,
    time: Option<Timestamp>,
    ended: Vec<(TaskId, RunId)>,
    /// Whether tasks are paused now, in the order of its rows.
    standing: Vec<(TaskId, bool)>,
    lapses: Vec<Lapse>,
}

struct Lapse {
    task: TaskId,
    version: u32,
    last: Timestamp,
    reason: Reason,
    t: u64,
}

impl<'h> Reasons<'h> {
    fn new(history: &'h History, stories: &'h [Story<'h>]) -> Self {
        let stories = stories.iter().map(|story| (story.id, story)).collect();
        Self { history, stories, paused: BTreeSet::new(), live: BTreeMap::new(), entry: Entry::default() }
    }

    fn judge(mut self, violations: &mut Vec<Violation>) -> u64 {
        let mut checked = 0;
        let mut times = BTreeMap::new();
        for timed in &self.history.events {
            let index = match &timed.event {
                Event::Entry { index, time, .. } => {
                    times.insert(*index, *time);
                    continue;
                }
                Event::Task(row) => row.index,
                Event::Run(row) => row.index,
                Event::Lapse { index, .. } => *index,
                _ => continue,
            };
            if index != self.entry.index {
                self.close(violations);
                self.entry = Entry { index, time: times.get(&index).copied(), ..Entry::default() };
            }
            match &timed.event {
                Event::Task(row) => {
                    let is_paused = row.status == TaskStatus::Paused;
                    self.entry.standing.push((row.task, is_paused));
                    if is_paused {
                        self.paused.insert(row.task);
                    }
                }
                Event::Run(row) => {
                    self.live.entry(row.occurrence.task).or_default().insert(row.run);
                    if row.state.is_finished() {
                        self.entry.ended.push((row.occurrence.task, row.run));
                    }
                }
                Event::Lapse { task, version, last, reason, .. } => {
                    checked += 1;
                    let (task, version, last, reason) = (*task, *version, *last, *reason);
                    self.entry.lapses.push(Lapse { task, version, last, reason, t: timed.t });
                }
                _ => {}
            }
        }
        self.close(violations);
        checked
    }

    fn close(&mut self, violations: &mut Vec<Violation>) {
        let entry = std::mem::take(&mut self.entry);
        for lapse in &entry.lapses {
            if let Some(why) = self.refuse(lapse, entry.time) {
                let Lapse { task, last, reason, t, .. } = lapse;
                let told = format!("entry {} lapsed task {task} up to {last} as {reason:?}, but {why}", entry.index);
                violations.push(violation(NAME, *t, told));
            }
        }
        for (task, run) in entry.ended {
            if let Some(live) = self.live.get_mut(&task) {
                live.remove(&run);
            }
        }
        for (task, is_paused) in entry.standing {
            if is_paused {
                self.paused.insert(task);
            } else {
                self.paused.remove(&task);
            }
        }
    }

    /// Why the reason does not hold, if it does not.
    fn refuse(&self, lapse: &Lapse, time: Option<Timestamp>) -> Option<String> {
        let story = self.stories.get(&lapse.task)?;
        let place = story.versions.iter().position(|version| version.number == lapse.version)?;
        let version = &story.versions[place];
        let live = self.live.get(&lapse.task).map_or(0, BTreeSet::len);
        let buffered = self.history.header.bound(Bound::BufferedRuns, limits::BUFFERED_RUNS as u64) as usize;
        let mut why = None;
        for spec in &version.specs {
            why = foreign(spec, lapse.reason).or_else(|| {
                let overdue = time.map(|time| {
                    let due = lapse.last.max(version.at);
                    Millis(time.since(due).0 + self.history.header.clock_error_ms.unsigned_abs())
                });
                match lapse.reason {
                    Reason::Overlap => (live == 0).then(|| "no run of it was live".into()),
                    Reason::BufferFull => (live < buffered).then(|| format!("only {live} runs were live")),
                    Reason::Paused => (!self.paused.contains(&lapse.task)).then(|| "it was not paused".into()),
                    Reason::BeyondWindow => not_over(overdue, spec.catch_up.window, "window"),
                    Reason::PolicySkip => not_over(overdue, spec.catch_up.grace, "grace"),
                    Reason::Coalesced => not_over(overdue, spec.catch_up.grace, "grace")
                        .or_else(|| self.is_latest(lapse, story, place, spec, time?)),
                }
            });
            // Of definitions that may have been written, one must allow it.
            why.as_ref()?;
        }
        why
    }

    /// Under `fire_once` the latest occurrence that is overdue beyond grace fires.
    fn is_latest(
        &self,
        lapse: &Lapse,
        story: &Story,
        place: usize,
        spec: &TaskSpec,
        time: Timestamp,
    ) -> Option<String> {
        let error = Millis(self.history.header.clock_error_ms.unsigned_abs());
        let until = time.saturating_add(error).saturating_sub(spec.catch_up.grace);
        let expected = coverage::expected(story, place, spec, until).ok()?;
        let later = expected.iter().any(|expected| expected.at > lapse.last && expected.at <= until);
        (!later).then(|| "no later one was overdue by more than the grace".into())
    }
}

fn not_over(overdue: Option<Millis>, limit: Millis, name: &str) -> Option<String> {
    let overdue = overdue.filter(|overdue| *overdue <= limit)?;
    Some(format!("it was overdue by {overdue} at most, which is within the {name} of {limit}"))
}

#[cfg(test)]
mod tests {
    use super::super::minutes::*;
    use super::*;

    fn lapsed(policy: CatchUpPolicy, late_s: i64, reason: Reason) -> Finding {
        check(&minutely(|script| {
            script.policy = policy;
            script.lapse = Some((3, 2, 2, reason));
            script.late_ms = late_s * 1000;
        }))
    }

    #[test]
    fn what_fired_in_time_is_accepted() {
        let finding = check(&minutely(|_| {}));
        assert!(matches!(finding, Finding::Held { checked } if checked >= 5), "{finding:?}");
    }

    #[test]
    fn a_lost_fire_is_seen() {
        assert!(told(&check(&minutely(|script| script.skip = Some(2)))).contains("in no ledger line"));
    }

    #[test]
    fn an_acknowledged_task_that_the_log_does_not_have_is_seen() {
        let mut history = minutely(|_| {});
        history.events.retain(|timed| !matches!(&timed.event, Event::Task(row) if row.version == 2));
        let history = with_second_version(history);
        assert!(told(&check(&history)).contains("no entry wrote it"));
    }

    #[test]
    fn what_stays_undecided_is_seen() {
        let finding = check(&minutely(|script| script.idle_s = 600));
        assert!(told(&finding).contains("were due by"), "{finding:?}");
        let unhealed = minutely(|script| {
            script.idle_s = 600;
            script.broken = true;
        });
        assert!(matches!(check(&unhealed), Finding::Held { .. }), "while faults last nothing is owed");
    }

    #[test]
    fn reasons_need_their_policy_and_their_time() {
        use CatchUpPolicy::{FireAll, FireOnce, Skip};
        // Two of them lapse, due a minute apart; `late` counts from the second.
        assert!(matches!(lapsed(FireAll, 3601, Reason::BeyondWindow), Finding::Held { .. }));
        assert!(told(&lapsed(FireAll, 3600, Reason::BeyondWindow)).contains("within the window"));
        assert!(matches!(lapsed(Skip, 11, Reason::PolicySkip), Finding::Held { .. }));
        assert!(told(&lapsed(Skip, 10, Reason::PolicySkip)).contains("within the grace"));
        assert!(told(&lapsed(FireOnce, 11, Reason::PolicySkip)).contains("its policies are"));
        assert!(matches!(lapsed(FireOnce, 71, Reason::Coalesced), Finding::Held { .. }));
        assert!(told(&lapsed(FireOnce, 69, Reason::Coalesced)).contains("no later one"));
        assert!(told(&lapsed(FireOnce, 11, Reason::Paused)).contains("not paused"));
        assert!(told(&lapsed(FireOnce, 11, Reason::Overlap)).contains("its policies are"));
    }

    #[test]
    fn an_overlap_needs_a_live_run() {
        let overlap = |live: bool| {
            check(&minutely(|script| {
                script.overlap = Overlap::Skip;
                script.keep_live = live;
                script.lapse = Some((3, 1, 1, Reason::Overlap));
            }))
        };
        assert!(matches!(overlap(true), Finding::Held { .. }), "{:?}", overlap(true));
        assert!(told(&overlap(false)).contains("no run of it was live"));
    }

    #[test]
    fn final_state_alone_is_enough() {
        assert!(matches!(check(&final_only(5, 0)), Finding::Held { .. }));
        assert!(told(&check(&final_only(4, 0))).contains("in no ledger line"));
    }
}
