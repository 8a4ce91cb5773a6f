//! Whether what was decided of a task's occurrences is what its definitions have: nothing left out, nothing invented,
//! nothing twice.

use campanile_model::{Millis, TaskSpec, Timestamp};

use super::story::{Decision, Story, Version};
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
            Self::Unknown { version, why, .. } => format!("{task}, version {version}: {why}"),
        }
    }
}

/// An occurrence that a version has, and whether it must have been decided.
pub struct Expected {
    pub at: Timestamp,
    pub required: bool,
}

/// The most that jitter can add.
pub fn most_jitter(spec: &TaskSpec) -> Millis {
    Millis(spec.jitter.0.saturating_sub(1))
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
    let found = expect::occurrences(spec, story.anchors(version), after, until)?;
    let due_by = |at: Timestamp| at.max(version.at).saturating_add(most_jitter(spec));
    // What is due is decided before a definition changes; what jitter still held back goes with the definition.
    let required = |at: Timestamp| at <= version.decided_until || version.ended_at.is_some_and(|end| due_by(at) <= end);
    Ok(found.into_iter().map(|at| Expected { at, required: required(at) }).collect())
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
    for Decision { first, last, count, t, .. } in story.decisions_of(number).iter().copied() {
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
        }
    }
    missing(rest, &mut gaps, story.last.t);
    gaps
}
