//! What becomes of a task's due occurrences: they fire, or lapse with a reason its policies allow. The conductor asks
//! this when a timer rings, and preparation asks it before a definition changes, so that both decide alike.
//!
//! Pure: the instant is an argument, and nothing is written.

use campanile_model::{
    CatchUp, CatchUpPolicy, Decision, FireLine, Next, Reason, TaskSpec, TaskState, TaskStatus, Timestamp, bound,
    limits, planted, sometimes,
};
use campanile_timer::Plan;

/// Decisions about the occurrences of one task, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decided {
    pub lines: Vec<FireLine>,
    /// More occurrences are due than one entry decides.
    pub more: bool,
}

/// Decides every occurrence of `task` that is due at `now`, at most [`limits::CATCH_UP_PER_ENTRY`] of them.
pub fn decide(task: &TaskState, spec: &TaskSpec, plan: &Plan, now: Timestamp) -> Decided {
    let mut occurrences = Vec::new();
    let mut next = task.next;
    while let Some(occurrence) = next.filter(|next| next.due_at <= now) {
        if occurrences.len() == bound!(CatchUpPerEntry, limits::CATCH_UP_PER_ENTRY) {
            break;
        }
        occurrences.push(occurrence);
        next = plan.next(occurrence.scheduled_at);
    }
    let paused = task.status == TaskStatus::Paused;
    let mut decided = Decided { lines: Vec::new(), more: next.is_some_and(|next| next.due_at <= now) };
    sometimes!(CatchUpInParts, decided.more);
    for (position, occurrence) in occurrences.iter().enumerate() {
        let after = occurrences.get(position + 1).copied().or(next);
        let reason = if paused { Some(Reason::Paused) } else { lapse(&spec.catch_up, occurrence, after, now) };
        push(&mut decided.lines, task, *occurrence, reason, after);
    }
    decided
}

/// Until where `lines` decide a task's occurrences. It ends with the last of its remaining fires, and what the lines
/// after that one say does nothing: unless `apply` lets one of the fires lapse, which no line can foresee.
pub fn decided_until(task: &TaskState, lines: &[FireLine]) -> Timestamp {
    let mut fires = 0;
    let mut until = Timestamp::MIN;
    for line in lines.iter().filter(|line| line.task == task.id) {
        until = match line.decision {
            Decision::Fire => line.scheduled_at,
            Decision::Lapse { last, .. } => last,
        };
        fires += u32::from(line.decision == Decision::Fire);
        if task.remaining.is_some_and(|remaining| fires >= remaining) && !planted!(SettlesBeyondRemaining) {
            break;
        }
    }
    until
}

/// Whether `lines` use up a task's remaining fires.
pub fn is_spent(task: &TaskState, lines: &[FireLine]) -> bool {
    let fires = lines.iter().filter(|line| line.task == task.id && line.decision == Decision::Fire).count();
    task.remaining.is_some_and(|remaining| fires >= remaining as usize)
}

/// Why `occurrence` does not fire at `now`, if it does not. `after` is the occurrence that follows it.
fn lapse(catch_up: &CatchUp, occurrence: &Next, after: Option<Next>, now: Timestamp) -> Option<Reason> {
    let overdue = now.since(occurrence.due_at);
    if planted!(SkipsWhatIsDue) && occurrence.scheduled_at.as_millis() % 7 == 0 {
        return Some(Reason::PolicySkip);
    }
    if overdue <= catch_up.grace {
        return None;
    }
    if overdue > catch_up.window && !planted!(WindowIgnored) {
        return Some(Reason::BeyondWindow);
    }
    match catch_up.policy {
        CatchUpPolicy::FireAll => None,
        CatchUpPolicy::Skip => Some(Reason::PolicySkip),
        CatchUpPolicy::FireOnce => {
            // The latest of those the policy is about fires; one that still has grace is not among them.
            let later_too = after.is_some_and(|after| after.due_at <= now && now.since(after.due_at) > catch_up.grace);
            later_too.then_some(Reason::Coalesced)
        }
    }
}

/// Adds a decision, as part of the range before it where it is of the same kind.
fn push(lines: &mut Vec<FireLine>, task: &TaskState, occurrence: Next, reason: Option<Reason>, after: Option<Next>) {
    let decision = match reason {
        None => Decision::Fire,
        Some(reason) => {
            if let Some(FireLine { decision: Decision::Lapse { last, count, reason: before }, next, .. }) =
                lines.last_mut()
                && *before == reason
            {
                *last = occurrence.scheduled_at;
                *count += 1;
                *next = after;
                return;
            }
            Decision::Lapse { last: occurrence.scheduled_at, count: 1, reason }
        }
    };
    lines.push(FireLine {
        task: task.id,
        version: task.version,
        scheduled_at: occurrence.scheduled_at,
        decision,
        next: after,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use campanile_model::{
        HttpTarget, LogPlace, Millis, OnFinish, Overlap, Retention, Schedule, Tally, Target, TaskId,
    };
    use campanile_timer::Anchors;
    use proptest::prelude::*;

    const CREATED: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(CREATED.as_millis() + seconds * 1000)
    }

    fn every(period: &str, catch_up: CatchUp) -> (TaskState, TaskSpec, Plan) {
        let target = Target::Http(HttpTarget {
            url: "http://127.0.0.1:9000/".into(),
            method: Default::default(),
            headers: Default::default(),
            signing_secret: None,
        });
        let mut spec = TaskSpec::new(vec![Schedule::Every(period.parse().unwrap())], target);
        spec.catch_up = catch_up;
        let plan = Plan::compile(&spec, Anchors::new(CREATED, 0)).unwrap();
        let task = TaskState {
            id: TaskId::at(LogPlace::new(7, 0)),
            namespace: "default".into(),
            name: "t".into(),
            status: TaskStatus::Active,
            version: 3,
            created_at: CREATED,
            version_at: CREATED,
            since: CREATED,
            next: plan.first(Timestamp::MIN),
            decided_until: CREATED,
            spread: 0,
            remaining: None,
            triggers: 0,
            failures: 0,
            one_shot: false,
            period: plan.period(),
            overlap: Overlap::Allow,
            pause_on_failure: None,
            retention: Retention::default(),
            grace: spec.catch_up.grace,
            on_finish: OnFinish::Keep,
            live: Vec::new(),
            last_ended: CREATED,
            one_shot_run: None,
            open_line: None,
            lines: 0,
            version_lines: 0,
            tally: Tally::default(),
            folded: Tally::default(),
        };
        (task, spec, plan)
    }

    fn policy(policy: CatchUpPolicy) -> CatchUp {
        CatchUp { grace: Millis::from_secs(10), window: Millis::from_secs(60), policy }
    }

    /// Decisions as text: `F@10` fires, `beyond_window@10..40x4` lapses.
    fn told(decided: &Decided) -> Vec<String> {
        let seconds = |instant: Timestamp| instant.millis_from(CREATED) / 1000;
        decided
            .lines
            .iter()
            .map(|line| match line.decision {
                Decision::Fire => format!("F@{}", seconds(line.scheduled_at)),
                Decision::Lapse { last, count, reason } => {
                    format!("{reason:?}@{}..{}x{count}", seconds(line.scheduled_at), seconds(last))
                }
            })
            .collect()
    }

    #[test]
    fn what_is_not_due_is_not_decided() {
        let (task, spec, plan) = every("10s", policy(CatchUpPolicy::FireAll));
        assert_eq!(decide(&task, &spec, &plan, at(9)), Decided::default());
        assert_eq!(told(&decide(&task, &spec, &plan, at(10))), ["F@10"]);
    }

    #[test]
    fn a_minute_of_outage_by_every_policy() {
        // Due at 10, 20, ... 100; now is 100: grace covers 90 and 100, the window begins at 40.
        let decided = |chosen| {
            let (task, spec, plan) = every("10s", policy(chosen));
            told(&decide(&task, &spec, &plan, at(100)))
        };
        assert_eq!(
            decided(CatchUpPolicy::FireAll),
            ["BeyondWindow@10..30x3", "F@40", "F@50", "F@60", "F@70", "F@80", "F@90", "F@100"]
        );
        assert_eq!(
            decided(CatchUpPolicy::FireOnce),
            ["BeyondWindow@10..30x3", "Coalesced@40..70x4", "F@80", "F@90", "F@100"]
        );
        assert_eq!(decided(CatchUpPolicy::Skip), ["BeyondWindow@10..30x3", "PolicySkip@40..80x5", "F@90", "F@100"]);
    }

    #[test]
    fn every_occurrence_of_a_paused_task_lapses() {
        let (mut task, spec, plan) = every("10s", policy(CatchUpPolicy::FireAll));
        task.status = TaskStatus::Paused;
        assert_eq!(told(&decide(&task, &spec, &plan, at(35))), ["Paused@10..30x3"]);
    }

    #[test]
    fn one_entry_decides_a_bounded_number_and_says_that_there_are_more() {
        let (task, spec, plan) = every("1s", policy(CatchUpPolicy::FireOnce));
        let decided = decide(&task, &spec, &plan, at(20_000));
        assert!(decided.more);
        // All of them are beyond the window, so they are one line.
        assert_eq!(told(&decided), ["BeyondWindow@1..10000x10000"]);
        assert_eq!(decided.lines[0].next.map(|next| next.scheduled_at), Some(at(10_001)));
    }

    proptest! {
        /// Every occurrence due is decided exactly once, in order, each line naming the one after it.
        #[test]
        fn lines_chain_over_all_that_is_due(
            period in 1u64..100, now in 0i64..2000, chosen in 0usize..3, paused: bool, grace in 1u64..100, window in 0u64..500,
        ) {
            let policy = [CatchUpPolicy::FireAll, CatchUpPolicy::FireOnce, CatchUpPolicy::Skip][chosen];
            let catch_up = CatchUp { grace: Millis::from_secs(grace), window: Millis::from_secs(window), policy };
            let (mut task, spec, plan) = every(&format!("{period}s"), catch_up);
            if paused {
                task.status = TaskStatus::Paused;
            }
            let decided = decide(&task, &spec, &plan, at(now));
            let mut expected = task.next;
            for line in &decided.lines {
                let first = expected.unwrap();
                prop_assert_eq!(line.scheduled_at, first.scheduled_at);
                let (last, count) = match line.decision {
                    Decision::Fire => (line.scheduled_at, 1),
                    Decision::Lapse { last, count, .. } => (last, count),
                };
                let mut walked = first.scheduled_at;
                for _ in 1..count {
                    walked = plan.next_after(walked).unwrap();
                }
                prop_assert_eq!(walked, last);
                prop_assert_eq!(line.next, plan.next(last));
                expected = line.next;
            }
            prop_assert!(!decided.more);
            prop_assert!(expected.is_some_and(|next| next.due_at > at(now)));
        }
    }

    #[test]
    fn a_task_is_decided_until_the_last_of_its_remaining_fires() {
        let all = CatchUp { policy: CatchUpPolicy::FireAll, ..CatchUp::default() };
        let (mut task, spec, plan) = every("10s", all);
        let lines = decide(&task, &spec, &plan, at(45)).lines;
        assert_eq!(decided_until(&task, &lines), at(40));
        // What a definition that comes after has to say about 30 and 40 is not taken from it.
        task.remaining = Some(2);
        assert_eq!(decided_until(&task, &lines), at(20));
        assert_eq!(decided_until(&task, &[]), Timestamp::MIN);
    }
}
