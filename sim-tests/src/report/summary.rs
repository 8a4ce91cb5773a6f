//! A judged history in a screenful, as data: what `--json` prints, and what a sweep reads of its child processes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::expectations;
use crate::history::{Event, History, LeftOut, NodeEvent, Outcome, Source, Told};
use crate::order::Work;
use crate::plan::Bounds;
use crate::scenario::Pace;
use crate::verdict::{Finding, Verdict, Violation};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether every invariant and every expectation held.
    pub held: bool,
    pub version: String,
    pub source: Source,
    pub scenario: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planted: Option<String>,
    #[serde(flatten)]
    pub facts: Facts,
    pub nodes: usize,
    pub observed_ms: u64,
    /// Occurrences that a schedule made due and that fired.
    pub fired: u64,
    /// Occurrences that did not fire, by reason.
    pub lapsed: BTreeMap<String, u64>,
    pub deliveries: u64,
    pub operations: Outcomes,
    /// Requests that were planned and not sent: nobody knew what they would have been about.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_sent: u64,
    /// Calls of operators that ask for a change of members or of leadership.
    #[serde(default, skip_serializing_if = "Outcomes::is_none")]
    pub changes: Outcomes,
    pub elections: u64,
    /// Of scheduled fires, by the true clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_lateness_ms: Option<i64>,
    /// How often each fault struck.
    pub faults: BTreeMap<String, u64>,
    /// Bounds of the product that were other than usual.
    #[serde(default, skip_serializing_if = "Bounds::is_empty")]
    pub bounds: Bounds,
    /// Faults that were asked for and not done, or not as asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Rare things, and how often they happened.
    pub marks: BTreeMap<String, u64>,
    pub findings: Vec<FindingLine>,
}

/// What the history does not say of its own making.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Sixteen hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated_ms: Option<u64>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_ms: Option<u64>,
    /// What it cost of a processor: less than `real_ms` on a machine that does other things too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// What it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The command line that runs it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    pub done: u64,
    pub refused: u64,
    pub unknown: u64,
}

impl Outcomes {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Of so many calls: one that never returned is as one whose outcome is unknown.
    fn complete(&mut self, calls: u64) {
        self.unknown = calls.saturating_sub(self.done + self.refused);
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingLine {
    pub name: String,
    #[serde(flatten)]
    pub judgement: Judgement,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "judgement", rename_all = "snake_case")]
pub enum Judgement {
    Held { checked: u64 },
    Violated { violations: Vec<Violation> },
    NotApplicable { needs: String },
}

impl Summary {
    pub fn of(history: &History, verdict: &Verdict, facts: Facts) -> Self {
        let header = &history.header;
        let mut summary = Self {
            held: verdict.holds(),
            version: header.version.clone(),
            source: header.source,
            scenario: header.scenario.clone(),
            seed: header.seed,
            planted: header.planted.clone(),
            facts,
            nodes: header.nodes.len(),
            observed_ms: history.end() / 1000,
            fired: 0,
            lapsed: BTreeMap::new(),
            deliveries: 0,
            operations: Outcomes::default(),
            not_sent: 0,
            changes: Outcomes::default(),
            elections: 0,
            worst_lateness_ms: None,
            faults: BTreeMap::new(),
            bounds: header.bounds.clone(),
            left_out: header.left_out.clone(),
            marks: BTreeMap::new(),
            findings: verdict.findings.iter().map(|(name, finding)| FindingLine::of(name, finding)).collect(),
        };
        summary.count(history);
        summary
    }

    fn count(&mut self, history: &History) {
        let (mut invoked, mut asked) = (0, 0);
        for timed in &history.events {
            match &timed.event {
                Event::Invoke { .. } => invoked += 1,
                Event::Return { outcome: Outcome::Refused { .. }, .. } => self.operations.refused += 1,
                Event::Return { outcome: Outcome::Unknown { .. }, .. } => {}
                Event::Return { .. } => self.operations.done += 1,
                Event::NotSent { .. } => self.not_sent += 1,
                Event::Ask { .. } => asked += 1,
                Event::Told { answer: Told::Done, .. } => self.changes.done += 1,
                Event::Told { answer: Told::Refused { .. }, .. } => self.changes.refused += 1,
                Event::Lapse { count, reason, .. } => *self.lapsed.entry(word(reason)).or_default() += count,
                Event::Deliver(_) => self.deliveries += 1,
                Event::FaultBegins { planned, .. } => {
                    *self.faults.entry(planned.fault.name().into()).or_default() += 1;
                }
                Event::Node { what: NodeEvent::Leads { .. }, .. } => self.elections += 1,
                Event::Sometimes { mark, count } => *self.marks.entry(mark.clone()).or_default() += count,
                _ => {}
            }
        }
        self.operations.complete(invoked);
        self.changes.complete(asked);
        let fires = expectations::fires(history);
        self.fired = fires.len() as u64;
        self.worst_lateness_ms = fires.iter().map(|(t, row)| expectations::lateness_ms(history, *t, row)).max();
    }

    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.findings.iter().flat_map(|line| match &line.judgement {
            Judgement::Violated { violations } => violations.as_slice(),
            _ => &[],
        })
    }

    /// The names of what was violated, each once, in the order of the findings.
    pub fn broken(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for violation in self.violations() {
            if !names.contains(&violation.invariant) {
                names.push(violation.invariant.clone());
            }
        }
        names
    }

    /// Simulated seconds per real second.
    pub fn speed(&self) -> Option<f64> {
        let real = self.facts.real_ms.filter(|ms| *ms > 0)?;
        Some(self.facts.simulated_ms? as f64 / real as f64)
    }
}

impl FindingLine {
    fn of(name: &str, finding: &Finding) -> Self {
        let judgement = match finding {
            Finding::Held { checked } => Judgement::Held { checked: *checked },
            Finding::Violated(violations) => Judgement::Violated { violations: violations.clone() },
            Finding::NotApplicable { needs } => Judgement::NotApplicable { needs: (*needs).into() },
        };
        Self { name: name.into(), judgement }
    }
}

/// The JSON word of a value.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}
