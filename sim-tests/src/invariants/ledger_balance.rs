//! Ledger balance (RELIABILITY 16): the occurrences that a task's definitions have, counted by the second
//! implementation, are the lines of its ledger and its folded counters, one for one.
//!
//! By instant where the log or unfolded lines tell it, by number where retention has folded them. Without a log only
//! the last version's definition is known, so only what came after it was written is judged.

use campanile_model::api::LedgerView;
use campanile_model::{Kind, Tally, Timestamp};

use super::coverage::gaps;
use super::story::{Decision, Story, What, tell};
use super::{finding, violation};
use crate::expect;
use crate::history::History;
use crate::verdict::{Finding, Violation};

pub const NAME: &str = "ledger_balance";

pub fn check(history: &History) -> Finding {
    let stories = tell(history);
    if stories.is_empty() {
        return Finding::NotApplicable { needs: "rows of tasks, or final tasks with their ledgers" };
    }
    let mut violations = Vec::new();
    let mut checked = 0;
    for story in &stories {
        let (gaps, compared) = gaps(story);
        checked += compared + 1;
        violations.extend(gaps.iter().map(|gap| violation(NAME, gap.t(), gap.told(story))));
        if story.from_log {
            let counted = counted(&story.decisions, story.triggered);
            compare(story, "its rows", &counted, &story.last.tally, &mut violations);
        } else {
            folded_balance(story, &mut violations);
        }
        if let Some(ledger) = story.ledger {
            let counted = lines_and_folded(ledger);
            compare(story, "its ledger's lines and folded counters", &counted, &ledger.tally, &mut violations);
        }
    }
    finding(checked, violations)
}

fn compare(story: &Story, what: &str, counted: &Tally, tally: &Tally, violations: &mut Vec<Violation>) {
    if counted != tally {
        let told = format!("task {} ({}): {what} make {counted:?}, its tally says {tally:?}", story.id, story.name);
        violations.push(violation(NAME, story.last.t, told));
    }
}

fn counted(decisions: &[Decision], triggered: u64) -> Tally {
    let mut tally = Tally { fired: triggered, triggered, ..Tally::default() };
    for decision in decisions {
        match decision.what {
            What::Fired(_) => tally.fired += 1,
            What::Lapsed(reason) => tally.add(reason, decision.count),
        }
    }
    tally
}

fn lines_and_folded(ledger: &LedgerView) -> Tally {
    let mut tally = ledger.folded;
    for line in &ledger.items {
        match (line.kind, line.reason) {
            (Kind::Fired, _) => {
                tally.fired += line.count;
                tally.triggered += u64::from(line.origin == campanile_model::api::OriginView::Manual) * line.count;
            }
            (_, Some(reason)) => tally.add(reason, line.count),
            (_, None) => {}
        }
    }
    tally
}

/// Where lines were folded, the number of occurrences since the creation must still be right. Only the first version's
/// task has but one definition to count.
fn folded_balance(story: &Story, violations: &mut Vec<Violation>) {
    let [version] = &story.versions[..] else { return };
    if version.number != 1 || story.judged_after == Timestamp::MIN {
        return;
    }
    let all = version
        .specs
        .first()
        .map(|spec| expect::occurrences(spec, story.anchors(version, spec), Timestamp::MIN, version.decided_until));
    let Some(Ok(all)) = all else { return };
    let entered = story.last.tally.total() - story.last.tally.triggered;
    if all.len() as u64 != entered {
        let told = format!(
            "task {} ({}) has {} occurrences up to {}, and {entered} are in its ledger or folded",
            story.id,
            story.name,
            all.len(),
            version.decided_until
        );
        violations.push(violation(NAME, story.last.t, told));
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::Reason;

    use super::super::minutes::*;
    use super::*;

    #[test]
    fn a_balanced_ledger_is_accepted() {
        let finding = check(&minutely(|_| {}));
        assert!(matches!(finding, Finding::Held { checked } if checked > 5), "{finding:?}");
    }

    #[test]
    fn a_missing_line_is_seen() {
        let history = minutely(|script| script.skip = Some(3));
        assert!(told(&check(&history)).contains("in no ledger line"), "{:?}", check(&history));
    }

    #[test]
    fn an_invented_line_is_seen() {
        let history = minutely(|script| script.shift = Some((3, 1000)));
        assert!(told(&check(&history)).contains("has no occurrence"));
    }

    #[test]
    fn a_second_fire_of_an_occurrence_is_seen() {
        let history = minutely(|script| script.twice = Some(3));
        assert!(told(&check(&history)).contains("twice"));
    }

    #[test]
    fn a_range_that_counts_wrong_is_seen() {
        let good = minutely(|script| script.lapse = Some((3, 2, 2, Reason::BeyondWindow)));
        assert!(matches!(check(&good), Finding::Held { .. }), "{:?}", check(&good));
        let bad = minutely(|script| script.lapse = Some((3, 2, 3, Reason::BeyondWindow)));
        assert!(told(&check(&bad)).contains("counts 3"));
    }

    #[test]
    fn a_tally_that_lies_is_seen() {
        let history = minutely(|script| script.tally_off = 1);
        assert!(told(&check(&history)).contains("tally says"));
    }

    #[test]
    fn final_state_alone_is_enough() {
        let good = final_only(5, 0);
        assert!(matches!(check(&good), Finding::Held { .. }), "{:?}", check(&good));
        assert!(told(&check(&final_only(4, 0))).contains("in no ledger line"));
        // Three lines folded into counters, and one lost among them.
        assert!(matches!(check(&final_only(5, 3)), Finding::Held { .. }));
        assert!(told(&check(&final_only_folded(5, 3, 2))).contains("are in its ledger or folded"));
    }

    #[test]
    fn a_history_without_tasks_is_not_judged() {
        assert!(matches!(check(&empty()), Finding::NotApplicable { .. }));
    }

    #[test]
    fn what_jitter_holds_back_is_the_next_versions() {
        let finding = check(&jittered_update(true));
        assert!(matches!(finding, Finding::Held { .. }), "{finding:?}");
        assert!(told(&check(&jittered_update(false))).contains("under version 2 that is in no ledger line"));
    }
}
