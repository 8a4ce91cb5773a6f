//! Requests and what became of them, paired.

use std::collections::BTreeMap;

use crate::history::{Action, Event, History, Outcome};

/// A request of a client.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'h> {
    pub id: u64,
    pub action: &'h Action,
    pub invoked: u64,
    /// When its outcome was known; never, for one that is unknown.
    pub returned: Option<u64>,
    /// Absent: unknown.
    pub outcome: Option<&'h Outcome>,
}

/// Codes that do not say that nothing was written, whatever the recorder made of them.
const UNSURE: [&str; 3] = ["outcome_unknown", "internal", "request_timeout"];

impl<'h> Operation<'h> {
    /// The task's name that it is about. One that was left to the cluster is known by the answer only.
    pub fn name(&self) -> Option<&'h str> {
        named(self.action, self.outcome)
    }

    pub fn key(&self) -> Option<&'h str> {
        match self.action {
            Action::Put { idempotency_key, .. } | Action::Trigger { idempotency_key, .. } => idempotency_key.as_deref(),
            _ => None,
        }
    }

    /// The code of its refusal, if it was refused.
    pub fn refused(&self) -> Option<&'h str> {
        match self.outcome {
            Some(Outcome::Refused { code, .. }) => Some(code),
            _ => None,
        }
    }
}

/// The task's name that a request is about.
pub fn named<'h>(action: &'h Action, outcome: Option<&'h Outcome>) -> Option<&'h str> {
    match (action.task_name(), outcome) {
        (Some(""), Some(Outcome::Written { task })) => Some(&task.name),
        (Some(""), _) => None,
        (name, _) => name,
    }
}

/// What a request asks for, one by one: a batch asks for as much as it has lines.
pub fn parts(action: &Action) -> &[Action] {
    match action {
        Action::Batch { lines } => lines,
        single => std::slice::from_ref(single),
    }
}

/// The part of an answer that is about one line. A batch that is refused or unknown as a whole is so in each.
pub fn part(outcome: &Outcome, line: usize) -> Option<&Outcome> {
    match outcome {
        Outcome::Batch { lines } => lines.get(line),
        single => Some(single),
    }
}

/// All requests in the order in which they were sent, each line of a batch as one.
pub fn operations(history: &History) -> Vec<Operation<'_>> {
    let mut found: Vec<Operation> = Vec::new();
    let mut places = BTreeMap::new();
    for timed in &history.events {
        match &timed.event {
            Event::Invoke { op, action, .. } => {
                let parts = parts(action);
                places.insert(*op, found.len()..found.len() + parts.len());
                let (id, invoked) = (*op, timed.t);
                let asked = parts.iter().map(|action| Operation { id, action, invoked, returned: None, outcome: None });
                found.extend(asked);
            }
            Event::Return { op, outcome } => {
                for (line, place) in places.get(op).cloned().into_iter().flatten().enumerate() {
                    if let Some(outcome) = part(outcome, line).filter(|outcome| is_known(outcome)) {
                        found[place].returned = Some(timed.t);
                        found[place].outcome = Some(outcome);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn is_known(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Unknown { .. } => false,
        Outcome::Refused { code, .. } => !UNSURE.contains(&code.as_str()),
        _ => true,
    }
}
