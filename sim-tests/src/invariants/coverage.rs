//! Whether what was decided of a task's occurrences is what its definitions have: nothing left out, nothing invented,
//! nothing twice.

use campanile_model::{Millis, TaskSpec, Timestamp};

use super::story::{Decision, Since, Story, Version};
use crate::expect;

/// Where the ledger and the definition differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Occurrences of the definition that are in no line.
    Missing { version: u32, first: Timestamp, last: Timestamp, count: u64, t: u64 },
    /// A line that begins or ends where the definition has no occurrence.
    Invented { version: u32, at: Timestamp, t: u64 },
    /// A line that counts others than the definition has.
    Miscounted { version: u32, first: Timestamp, last: Timestamp, count: u64, expected: u64, t: u64 },
    /// An occurrence in two lines.
    Twice { at: Timestamp, t: u64 },
    /// A run that was due at another time than its occurrence.
    Due { at: Timestamp, due_at: Timestamp, expected: Timestamp, t: u64 },
    /// The definition is not known, or not understood.
    Unknown { version: u32, why: String, t: u64 },
}

impl Gap {
    pub fn t(&self) -> u64 {
        match self {
            Self::Missing { t, .. }
            | Self::Invented { t, .. }
            | Self::Miscounted { t, .. }
            | Self::Twice { t, .. }
            | Self::Due { t, .. }
            | Self::Unknown { t, .. } => *t,
        }
    }

    /// One sentence.
    pub fn told(&self, story: &Story) -> String {
        let task = format!("task {} ({})", story.id, story.name);
        match self {
            Self::Missing { version, first, count: 1, .. } => {
                format!("{task} has an occurrence at {first} under version {version} that is in no ledger line")
            }
            Self::Missing { version, first, last, count, .. } => format!(
                "{task} has {count} occurrences from {first} to {last} under version {version} that are in no ledger line"
            ),
            Self::Invented { version, at, .. } => {
                format!("{task} has a ledger line at {at} where version {version} has no occurrence")
            }
            Self::Miscounted { version, first, last, count, expected, .. } => format!(
                "{task} counts {count} occurrences from {first} to {last}, and version {version} has {expected}"
            ),
            Self::Twice { at, .. } => format!("{task} decided its occurrence at {at} twice"),
            Self::Due { at, due_at, expected, .. } => {
                format!("{task} made its occurrence at {at} due at {due_at} in place of {expected}")
            }
            Self::Unknown { version, why, .. } => format!("{task}, version {version}: {why}"),
        }
    }
}

/// An occurrence that a version has, and whether it must have been decided.
pub struct Expected {
    pub at: Timestamp,
    /// When it is due, jitter included: at the earliest and at the latest, which differ where the task's hash is not known.
    pub due: (Timestamp, Timestamp),
    pub required: bool,
}

/// When an occurrence is due.
fn due(story: &Story, version: &Version, spec: &TaskSpec, at: Timestamp) -> (Timestamp, Timestamp) {
    let anchors = story.anchors(version, spec);
    if story.is_named() {
        let due_at = expect::due_at(spec, anchors, at);
        return (due_at, due_at);
    }
    let from = at.max(anchors.since);
    let most = Millis(spec.jitter.0.saturating_sub(1));
    (from.max(version.at), from.saturating_add(most).max(version.at))
}

/// From when on a version has occurrences: its writing, or before, where it left the schedules as they were and jitter
/// still held some back.
pub fn since(story: &Story, place: usize, spec: &TaskSpec) -> Since {
    let version = &story.versions[place];
    let written = Since { at: version.at, certain: true };
    let Some(place_before) = place.checked_sub(1) else { return written };
    let before = &story.versions[place_before];
    let same = |old: &&TaskSpec| old.schedules == spec.schedules && old.start_at == spec.start_at;
    if before.spent || !before.specs.iter().any(same) {
        return written;
    }
    let Some(old) = before.specs.iter().copied().find(same) else { return written };
    let decided = decided_before(story, place);
    let Ok(all) = expected(story, place_before, old, version.at) else { return written };
    match all.iter().find(|expected| expected.at > decided) {
        Some(held) => {
            let certain = before.specs.len() == 1 && before.since.iter().all(|since| since.certain);
            Since { at: Timestamp::from_millis(held.at.as_millis() - 1), certain }
        }
        None => written,
    }
}

/// The occurrences of one version of a task. `open_until`: how far to look in a version that nothing has ended.
pub fn expected(
    story: &Story,
    place: usize,
    spec: &TaskSpec,
    open_until: Timestamp,
) -> Result<Vec<Expected>, expect::Unreadable> {
    let version = &story.versions[place];
    let after = decided_before(story, place).max(story.judged_after);
    let until = match version.ended_at {
        _ if version.spent => version.decided_until,
        Some(ended_at) => ended_at,
        None => open_until,
    };
    let found = expect::occurrences(spec, story.anchors(version, spec), after, until)?;
    let certain = version.since.iter().all(|since| since.certain);
    let expected = |at: Timestamp| {
        let due = due(story, version, spec, at);
        // What is due is decided before a definition changes; what jitter still holds back is the next one's, if that has
        // the same schedules, and gone with the definition otherwise.
        let over = at <= version.decided_until || version.ended_at.is_some_and(|end| due.1 <= end);
        Expected { at, due, required: over && (certain || at > version.at) }
    };
    Ok(found.into_iter().map(expected).collect())
}

/// Where the version before stopped: nothing at or before it belongs to this one.
fn decided_before(story: &Story, place: usize) -> Timestamp {
    let Some(before) = place.checked_sub(1).map(|place| &story.versions[place]) else { return Timestamp::MIN };
    let lines = story.decisions_of(before.number).iter().map(|decision| decision.last).max();
    before.decided_until.max(lines.unwrap_or(Timestamp::MIN))
}

/// All gaps of a task, and how many occurrences were compared.
pub fn gaps(story: &Story) -> (Vec<Gap>, u64) {
    let mut gaps = Vec::new();
    let mut compared = 0;
    for (place, version) in story.versions.iter().enumerate() {
        let t = story.last.t;
        let unknown = |why: String| Gap::Unknown { version: version.number, why, t };
        let tried = version.specs.iter().map(|spec| expected(story, place, spec, version.decided_until));
        let tried = tried.map(|expected| match expected {
            Ok(expected) => (compare(story, version, &expected), expected.len() as u64),
            Err(error) => (vec![unknown(error.to_string())], 0),
        });
        // Of definitions that may have been written, one must fit.
        let best = tried.min_by_key(|(gaps, _)| gaps.len());
        let (found, count) = best.unwrap_or_else(|| (vec![unknown("no request wrote this definition".into())], 0));
        gaps.extend(found);
        compared += count;
    }
    (gaps, compared)
}

fn compare(story: &Story, version: &Version, expected: &[Expected]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let number = version.number;
    let mut rest = expected;
    let mut decided: Option<Timestamp> = None;
    let missing = |skipped: &[Expected], gaps: &mut Vec<Gap>, t: u64| {
        let mut lost = skipped.iter().filter(|expected| expected.required).map(|expected| expected.at);
        if let Some(first) = lost.next() {
            let (last, more) = lost.fold((first, 0), |(_, more), at| (at, more + 1));
            gaps.push(Gap::Missing { version: number, first, last, count: more + 1, t });
        }
    };
    for Decision { first, last, count, due_at, t, .. } in story.decisions_of(number).iter().copied() {
        if decided.is_some_and(|decided| first <= decided) {
            gaps.push(Gap::Twice { at: first, t });
            continue;
        }
        decided = Some(last);
        let (skipped, from) = rest.split_at(rest.partition_point(|expected| expected.at < first));
        missing(skipped, &mut gaps, t);
        let (inside, after) = from.split_at(from.partition_point(|expected| expected.at <= last));
        rest = after;
        if inside.first().is_none_or(|expected| expected.at != first) {
            gaps.push(Gap::Invented { version: number, at: first, t });
        } else if inside.last().is_none_or(|expected| expected.at != last) {
            gaps.push(Gap::Invented { version: number, at: last, t });
        } else if inside.len() as u64 != count {
            let expected = inside.len() as u64;
            gaps.push(Gap::Miscounted { version: number, first, last, count, expected, t });
        } else if let (Some(due_at), Some(Expected { at, due: (earliest, latest), .. })) = (due_at, inside.first())
            && (due_at < *earliest || due_at > *latest)
        {
            gaps.push(Gap::Due { at: *at, due_at, expected: *latest, t });
        }
    }
    missing(rest, &mut gaps, story.last.t);
    gaps
}
