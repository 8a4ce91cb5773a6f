//! What the HTML page draws: a history as lanes, bands and marks. Times are in microseconds since the start.

use std::collections::BTreeMap;

use campanile_model::{Kind, NodeId, RunId, RunState, TaskId};
use serde::Serialize;

use super::Summary;
use crate::expectations::{fires, lateness_ms};
use crate::history::{Action, Event, History, NodeEvent, Outcome, Told};
use crate::verdict::Violation;

/// Messages are drawn this long before the first violation and after it, in microseconds.
const AROUND: u64 = 3_000_000;
/// More than this many messages are a black bar.
const MESSAGES: usize = 5000;

#[derive(Serialize)]
pub struct Timeline<'h> {
    held: bool,
    scenario: &'h str,
    seed: Option<u64>,
    planted: Option<&'h str>,
    replay: Option<&'h str>,
    end: u64,
    epoch_ms: i64,
    bound_ms: i64,
    violations: Vec<&'h Violation>,
    nodes: Vec<Lane>,
    faults: Vec<Band>,
    /// The tasks' names; marks name them by their place here.
    tasks: Vec<String>,
    fires: Vec<Fire>,
    lapses: Vec<Lapse>,
    deliveries: Vec<Delivered>,
    operations: Vec<Operation>,
    messages: Vec<Message<'h>>,
    healed: Vec<u64>,
    converged: Vec<u64>,
}

/// A node over time.
#[derive(Serialize)]
struct Lane {
    node: NodeId,
    states: Vec<Span>,
    leads: Vec<Span>,
}

#[derive(Clone, Serialize)]
struct Span {
    from: u64,
    to: u64,
    what: String,
    /// `up`, `down`, `paused`, or `leads`.
    kind: &'static str,
}

#[derive(Serialize)]
struct Band {
    name: &'static str,
    from: u64,
    to: u64,
    nodes: Vec<NodeId>,
    /// The fault as it was planned.
    detail: String,
}

#[derive(Serialize)]
struct Fire {
    t: u64,
    task: usize,
    late_ms: i64,
    run: RunId,
    occurrence: String,
    node: NodeId,
    /// How its run ended, as far as the history goes.
    state: &'static str,
    attempts: u32,
}

#[derive(Serialize)]
struct Lapse {
    t: u64,
    task: usize,
    count: u64,
    reason: String,
    missed: bool,
}

#[derive(Serialize)]
struct Delivered {
    t: u64,
    node: NodeId,
    run: RunId,
    attempt: u32,
    status: Option<u16>,
}

#[derive(Serialize)]
struct Operation {
    t: u64,
    to: u64,
    node: NodeId,
    what: String,
    /// `done`, `refused` or `unknown`.
    outcome: &'static str,
}

#[derive(Serialize)]
struct Message<'h> {
    t: u64,
    from: NodeId,
    to: NodeId,
    what: &'h str,
    dropped: bool,
}

impl<'h> Timeline<'h> {
    pub fn of(history: &'h History, summary: &'h Summary) -> Self {
        let end = history.end().max(1);
        let mut violations: Vec<&Violation> = summary.violations().collect();
        violations.sort_by_key(|violation| violation.t);
        let names = task_names(history);
        let place: BTreeMap<TaskId, usize> = names.keys().copied().zip(0..).collect();
        let mut timeline = Self {
            held: summary.held,
            scenario: &summary.scenario,
            seed: summary.seed,
            planted: summary.planted.as_deref(),
            replay: summary.facts.replay.as_deref(),
            end,
            epoch_ms: history.header.epoch_ms,
            bound_ms: history.header.lateness_bound_ms,
            nodes: lanes(history, end),
            faults: bands(history, end),
            tasks: names.into_values().collect(),
            fires: fire_marks(history, &place),
            lapses: Vec::new(),
            deliveries: Vec::new(),
            operations: operations(history, end),
            messages: messages(history, violations.first().map(|first| first.t)),
            healed: Vec::new(),
            converged: Vec::new(),
            violations,
        };
        let mut answered = BTreeMap::new();
        for timed in &history.events {
            let t = timed.t;
            match &timed.event {
                Event::Lapse { task, count, reason, .. } => timeline.lapses.push(Lapse {
                    t,
                    task: place.get(task).copied().unwrap_or_default(),
                    count: *count,
                    reason: format!("{reason:?}"),
                    missed: reason.kind() == Kind::Missed,
                }),
                Event::Deliver(delivery) => {
                    answered.insert(delivery.delivery, timeline.deliveries.len());
                    timeline.deliveries.push(Delivered {
                        t,
                        node: delivery.node,
                        run: delivery.run,
                        attempt: delivery.attempt,
                        status: None,
                    });
                }
                Event::Answer { delivery, status, .. } => {
                    if let Some(delivered) = answered.get(delivery) {
                        timeline.deliveries[*delivered].status = Some(*status);
                    }
                }
                Event::Healed { .. } => timeline.healed.push(t),
                Event::Converged => timeline.converged.push(t),
                _ => {}
            }
        }
        timeline
    }
}

/// Every task that the history names, with the name clients gave it where it says so.
fn task_names(history: &History) -> BTreeMap<TaskId, String> {
    let mut names: BTreeMap<TaskId, String> = BTreeMap::new();
    for timed in &history.events {
        let (task, name) = match &timed.event {
            Event::Task(row) => (row.task, Some(&row.name)),
            Event::FinalTask { task } => (task.id, Some(&task.name)),
            Event::Run(row) => (row.occurrence.task, None),
            Event::FinalRun { run } => (run.task_id, run.task.as_ref()),
            Event::Lapse { task, .. } => (*task, None),
            _ => continue,
        };
        let known = names.entry(task).or_default();
        if let Some(name) = name.filter(|_| known.is_empty()) {
            known.clone_from(name);
        }
    }
    for (task, name) in names.iter_mut().filter(|(_, name)| name.is_empty()) {
        *name = task.to_string();
    }
    names
}

fn fire_marks(history: &History, place: &BTreeMap<TaskId, usize>) -> Vec<Fire> {
    let mut last: BTreeMap<RunId, (RunState, u32)> = BTreeMap::new();
    for timed in &history.events {
        match &timed.event {
            Event::Run(row) => _ = last.insert(row.run, (row.state, row.attempt)),
            Event::FinalRun { run } => _ = last.insert(run.id, (run.state, run.attempt)),
            _ => {}
        }
    }
    let mark = |(t, row): (u64, crate::history::RunRow)| {
        let (state, attempts) = last.get(&row.run).copied().unwrap_or((row.state, row.attempt));
        Fire {
            t,
            task: place.get(&row.occurrence.task).copied().unwrap_or_default(),
            late_ms: lateness_ms(history, t, &row),
            run: row.run,
            occurrence: row.occurrence.to_string(),
            node: row.owner,
            state: state.as_str(),
            attempts,
        }
    };
    fires(history).into_iter().map(mark).collect()
}

/// Up, down or paused, and who believes to lead. Two may believe it at once: that is what a partition looks like.
fn lanes(history: &History, end: u64) -> Vec<Lane> {
    #[derive(Default)]
    struct Open {
        state: Option<(u64, &'static str, String)>,
        leads: Option<(u64, u64)>,
        states: Vec<Span>,
        spans: Vec<Span>,
    }
    impl Open {
        fn state(&mut self, t: u64, state: Option<(&'static str, String)>) {
            if let Some((from, kind, what)) = self.state.take() {
                self.states.push(Span { from, to: t, what, kind });
            }
            self.state = state.map(|(kind, what)| (t, kind, what));
        }
        fn leads(&mut self, t: u64, term: Option<u64>) {
            if self.leads.map(|(_, term)| term) == term {
                return;
            }
            if let Some((from, term)) = self.leads.take() {
                self.spans.push(Span { from, to: t, what: format!("leads term {term}"), kind: "leads" });
            }
            self.leads = term.map(|term| (t, term));
        }
    }
    let has_raft = history.events.iter().any(|timed| matches!(timed.event, Event::Raft(_)));
    let mut open: BTreeMap<NodeId, Open> = BTreeMap::new();
    for node in &history.header.nodes {
        open.entry(*node).or_default().state(0, Some(("up", "up".into())));
    }
    for timed in &history.events {
        let t = timed.t;
        match &timed.event {
            Event::Raft(raft) => open.entry(raft.node).or_default().leads(t, raft.leads.then_some(raft.term)),
            Event::Node { node, what: NodeEvent::Leads { term } } => {
                if !has_raft {
                    open.values_mut().for_each(|other| other.leads(t, None));
                }
                open.entry(*node).or_default().leads(t, Some(*term));
            }
            Event::Node { node, what } => {
                let (kind, label) = match what {
                    // Of a process that has died of it, its end follows.
                    NodeEvent::Broke { how } => ("up", format!("broke: {how}")),
                    NodeEvent::Started | NodeEvent::Resumed | NodeEvent::Leads { .. } => ("up", "up".to_string()),
                    NodeEvent::Paused => ("paused", "paused".into()),
                    NodeEvent::Killed => ("down", "killed".into()),
                    NodeEvent::PowerCut => ("down", "power cut".into()),
                    NodeEvent::Stopped { reason } => ("down", format!("stopped: {reason}")),
                };
                let lane = open.entry(*node).or_default();
                if kind == "down" {
                    lane.leads(t, None);
                }
                lane.state(t, Some((kind, label)));
            }
            _ => {}
        }
    }
    let close = |(node, mut open): (NodeId, Open)| {
        open.state(end, None);
        open.leads(end, None);
        Lane { node, states: open.states, leads: open.spans }
    };
    open.into_iter().map(close).collect()
}

fn bands(history: &History, end: u64) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    for timed in &history.events {
        match &timed.event {
            Event::FaultBegins { id, planned, nodes } => {
                open.insert(*id, bands.len());
                bands.push(Band {
                    name: planned.fault.name(),
                    from: timed.t,
                    to: end,
                    nodes: nodes.clone(),
                    detail: serde_json::to_string(planned).unwrap_or_default(),
                });
            }
            Event::FaultEnds { id } => {
                if let Some(band) = open.remove(id) {
                    bands[band].to = timed.t;
                }
            }
            _ => {}
        }
    }
    bands
}

fn operations(history: &History, end: u64) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    let (mut open, mut asked): (BTreeMap<u64, usize>, BTreeMap<u64, usize>) = Default::default();
    for timed in &history.events {
        match &timed.event {
            Event::Invoke { op, client, node, action } => {
                open.insert(*op, operations.len());
                let what = format!("client {client}: {}", told(action));
                operations.push(Operation { t: timed.t, to: end, node: *node, what, outcome: "unknown" });
            }
            Event::Return { op, outcome } => {
                if let Some(operation) = open.remove(op).map(|place| &mut operations[place]) {
                    operation.to = timed.t;
                    match outcome {
                        Outcome::Refused { status, code } => {
                            operation.outcome = "refused";
                            operation.what += &format!(" → {status} {code}");
                        }
                        Outcome::Unknown { reason } => operation.what += &format!(" → unknown: {reason}"),
                        _ => operation.outcome = "done",
                    }
                }
            }
            Event::NotSent { client, node, action, reason } => {
                let what = format!("client {client}: {} → not sent: {reason}", told(action));
                operations.push(Operation { t: timed.t, to: timed.t, node: *node, what, outcome: "unknown" });
            }
            Event::Ask { call, node, wanted, .. } => {
                asked.insert(*call, operations.len());
                let what = format!("operator: {wanted}");
                operations.push(Operation { t: timed.t, to: end, node: *node, what, outcome: "unknown" });
            }
            Event::Told { call, answer } => {
                if let Some(operation) = asked.remove(call).map(|place| &mut operations[place]) {
                    operation.to = timed.t;
                    operation.what += &format!(" → {answer}");
                    operation.outcome = match answer {
                        Told::Done => "done",
                        Told::Refused { .. } => "refused",
                        Told::Unknown { .. } => "unknown",
                    };
                }
            }
            _ => {}
        }
    }
    operations
}

/// What a request asks for, and of what.
fn told(action: &Action) -> String {
    // An action is plain data: it always becomes JSON.
    let action = serde_json::to_value(action).unwrap_or_default();
    let subject = action["name"].as_str().or(action["run"].as_str()).unwrap_or_default();
    format!("{} {subject}", action["do"].as_str().unwrap_or_default())
}

/// Those around the failure; where nothing failed, the first ones.
fn messages(history: &History, failure: Option<u64>) -> Vec<Message<'_>> {
    let window = failure.map_or(0..=u64::MAX, |t| t.saturating_sub(AROUND)..=t + AROUND);
    let messages = history.events.iter().filter(|timed| window.contains(&timed.t)).filter_map(|timed| {
        let Event::Message { from, to, what, dropped } = &timed.event else { return None };
        Some(Message { t: timed.t, from: *from, to: *to, what, dropped: *dropped })
    });
    messages.take(MESSAGES).collect()
}
