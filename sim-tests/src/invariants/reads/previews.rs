//! Previews: what the second opinion expects, one occurrence after the other, each due when its jitter says.
//!
//! A node reckons from its own clock, which is known to within how long it took to answer and how wrong clocks may be. So
//! the question is whether the preview is right for one of those readings.

use campanile_model::api::NextView;
use campanile_model::{Millis, Schedule, TaskSpec, Timestamp};

use super::{Asked, Judged, explained};
use crate::expect::{self, Anchors};
use crate::invariants::story::{Story, Version};

/// How many were asked for, and after what.
type Wanted = (u32, Option<Timestamp>);

/// The second opinion looks no further than this for what a preview may have cut short.
const HORIZON: Millis = Millis::from_days(400);
/// A clock whose error is more periods than this is not followed through all of them.
const MOST_PERIODS: u64 = 100;

/// A definition that nobody has put. Its task would be created by the node's clock, and have no name.
pub fn of_spec(asked: &Asked, spec: &TaskSpec, (count, after): Wanted, items: &[NextView]) -> Judged {
    let (from, to) = clock(asked);
    let after = after.unwrap_or(Timestamp::MIN);
    let mut against = String::new();
    for now in readings(spec, items, from, to) {
        let anchors = Anchors { created_at: now, version_at: now, since: now, spread: expect::spread_of("") };
        match is_preview(spec, anchors, (after, after), count, items, true) {
            Ok(()) => return Ok(()),
            Err(why) => against = format!("were it {now} for the node, {why}"),
        }
    }
    Err(against)
}

/// What the clock of the node that was asked may have shown meanwhile.
fn clock(asked: &Asked) -> (Timestamp, Timestamp) {
    let facts = asked.tables.facts;
    let error = Millis(facts.wrong_by(asked.operation.node, asked.operation.invoked, asked.t));
    let at = |t: u64| Timestamp::from_millis(facts.history.wall_ms(t));
    (at(asked.operation.invoked).saturating_sub(error), at(asked.t).saturating_add(error))
}

/// The readings of a clock between two from which the definition's occurrences differ, as far as what is shown depends on
/// them: the ends, those right before and at what is shown, and those from which a delay, a period or jitter leads to it.
fn readings(spec: &TaskSpec, items: &[NextView], from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let spread = expect::spread_of("");
    let mut found = vec![from, to];
    for NextView { scheduled_at: at, due_at } in items.iter().copied() {
        found.extend([at, at.saturating_sub(Millis(1))]);
        // What lies in the past is due from now on.
        found.extend([due_at, due_at.saturating_sub(expect::jitter(spec, spread))]);
        for schedule in &spec.schedules {
            match schedule {
                Schedule::Delay(delay) => found.push(at.saturating_sub(Millis(delay.0.max(1)))),
                Schedule::Every(period) if spec.start_at.is_none() => {
                    let fewest = at.since(to).0 / period.0.max(1);
                    let most = (at.since(from).0 / period.0.max(1)).min(fewest + MOST_PERIODS);
                    let back = |periods: u64| at.saturating_sub(Millis(period.0.saturating_mul(periods)));
                    found.extend((fewest..=most).map(back));
                }
                _ => {}
            }
        }
    }
    // An occurrence that was just missed is the other kind of edge.
    let passed = items.first().map_or(to, |first| first.scheduled_at.min(to));
    let anchors = Anchors { created_at: from, version_at: from, since: from, spread };
    found.extend(expect::occurrences(spec, anchors, from, passed).unwrap_or_default());
    found.retain(|at| *at >= from && *at <= to);
    found.sort_unstable();
    found.dedup();
    found
}

/// A task's. Nothing, where its definition or its hash is not known.
pub fn of_task(
    asked: &Asked,
    stories: &[Story],
    name: &str,
    (count, after): Wanted,
    items: &[NextView],
) -> Option<Judged> {
    let (tables, window) = (asked.tables, asked.window);
    let (from, to) = clock(asked);
    let asked_after = (after.unwrap_or(from), after.unwrap_or(to));
    let mut unknown = false;
    let judged = explained(tables.moments_of_name(name, window), |index| {
        let Some(row) = tables.find(name, index).task() else { return Err(format!("there is no task {name:?}")) };
        let story = stories.iter().find(|story| story.id == row.task);
        let version = story.and_then(|story| story.versions.iter().find(|version| version.number == row.version));
        let (Some(story), Some(version)) = (story, version.filter(|version| !version.specs.is_empty())) else {
            unknown = true;
            return Err("nobody knows its definition".into());
        };
        let between = (asked_after.0.max(row.decided_until), asked_after.1.max(row.decided_until));
        let mut against = String::new();
        for (spec, anchors) in version.specs.iter().flat_map(|spec| anchors(story, version, spec)) {
            match is_preview(spec, anchors, between, count, items, story.is_named()) {
                Ok(()) => return Ok(()),
                Err(why) => against = why,
            }
        }
        Err(format!("version {}: {against}", version.number))
    });
    if judged.is_err() && unknown { None } else { Some(judged) }
}

/// What a version's times are counted from; two answers, where it is not known what was there before it.
fn anchors<'h>(story: &Story<'h>, version: &Version<'h>, spec: &'h TaskSpec) -> Vec<(&'h TaskSpec, Anchors)> {
    let known = story.anchors(version, spec);
    let mut found = vec![(spec, known)];
    let place = version.specs.iter().position(|other| std::ptr::eq(*other, spec));
    if place.and_then(|place| version.since.get(place)).is_none_or(|since| !since.certain) {
        found.push((spec, Anchors { since: version.at, ..known }));
    }
    found
}

/// Whether these are the first `count` occurrences after an instant that lies between two.
fn is_preview(
    spec: &TaskSpec,
    anchors: Anchors,
    (from, to): (Timestamp, Timestamp),
    count: u32,
    items: &[NextView],
    knows_hash: bool,
) -> Judged {
    if items.len() > count as usize {
        return Err(format!("{count} were asked for, and {} are shown", items.len()));
    }
    let is_full = items.len() == count as usize;
    let last = items.last().map(|item| item.scheduled_at);
    let until = match (last, spec.end_at) {
        (Some(last), _) if is_full => last,
        (_, Some(end)) => end,
        (_, None) if goes_on(spec) => return Err(format!("it is cut short after {last:?}")),
        (last, None) => last.unwrap_or(to).max(to).max(anchors.version_at).saturating_add(HORIZON),
    };
    let expected = match expect::occurrences(spec, anchors, from, until) {
        Ok(expected) => expected,
        Err(unreadable) => return Err(unreadable.to_string()),
    };
    // What lies between may have been over or not.
    let skipped = expected.len().saturating_sub(items.len());
    let (over, shown) = expected.split_at(skipped);
    if let Some(at) = over.iter().find(|at| **at > to) {
        return Err(format!("the occurrence at {at} is left out"));
    }
    if shown.len() < items.len() {
        return Err(format!("{} occurrences are shown, and there are {}", items.len(), shown.len()));
    }
    for (item, at) in items.iter().zip(shown) {
        super::same("an occurrence", &item.scheduled_at, at)?;
        if knows_hash {
            super::same("when it is due", &item.due_at, &expect::due_at(spec, anchors, *at))?;
        }
    }
    Ok(())
}

/// Whether a definition that nothing ends has occurrences for ever.
fn goes_on(spec: &TaskSpec) -> bool {
    !spec.schedules.is_empty() && spec.end_at.is_none() && spec.schedules.iter().any(expect::goes_on)
}
