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
    /// The task's name that it is about.
    pub fn name(&self) -> Option<&'h str> {
        self.action.task_name()
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

/// All requests in the order in which they were sent.
pub fn operations(history: &History) -> Vec<Operation<'_>> {
    let mut found: Vec<Operation> = Vec::new();
    let mut places = BTreeMap::new();
    for timed in &history.events {
        match &timed.event {
            Event::Invoke { op, action, .. } => {
                places.insert(*op, found.len());
                found.push(Operation { id: *op, action, invoked: timed.t, returned: None, outcome: None });
            }
            Event::Return { op, outcome } => {
                let unknown = match outcome {
                    Outcome::Unknown { .. } => true,
                    Outcome::Refused { code, .. } => UNSURE.contains(&code.as_str()),
                    _ => false,
                };
                if let Some(place) = places.get(op).filter(|_| !unknown) {
                    found[*place].returned = Some(timed.t);
                    found[*place].outcome = Some(outcome);
                }
            }
            _ => {}
        }
    }
    found
}
