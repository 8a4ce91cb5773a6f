//! What happened, as data: JSON lines, a header first, then events in the order of true time.
//!
//! A history is complete in itself: a newer checker can judge an old one. It holds three kinds of facts. What clients
//! and receivers and operators saw (`invoke`, `return`, `deliver`, `answer`, `ask`, `told`) every source has. What the log
//! did (`entry`, `task`, `run`, `lapse`, `node_row`, `apply`, `raft`, `members`) the simulator has. The state in the end (`final_*`) both have, read
//! through the API of a converged cluster. A checker that needs facts a source does not have says so instead of passing.

pub mod event;
mod file;
mod operator;
mod paging;

pub use event::*;
pub use file::{FileError, read, write};
pub use operator::{Members, Told, Wanted};
pub use paging::{LedgerFilter, Paging, TaskFilter};

use crate::verdict::Verdict;

/// Messages this near to a violation are kept.
const AROUND_US: u64 = 1_000_000;
/// Not more of them than this.
const MOST_MESSAGES: usize = 20_000;

/// A header and its events.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    pub header: Header,
    pub events: Vec<Timed>,
}

impl History {
    /// The end of the observed time, in microseconds.
    pub fn end(&self) -> u64 {
        self.events.last().map_or(0, |last| last.t)
    }

    /// Adds the messages around what was violated, for pictures: all of them would be most of a history.
    pub fn add_messages(&mut self, messages: Vec<Message>, verdict: &Verdict) {
        let around: Vec<u64> = verdict.violations().map(|violation| violation.t).collect();
        let is_near = |t: u64| around.iter().any(|violated| violated.abs_diff(t) <= AROUND_US);
        let near = messages.into_iter().filter(|message| is_near(message.t)).take(MOST_MESSAGES);
        self.events.extend(near.map(Timed::from));
        // Stable: what happened at one instant keeps its order.
        self.events.sort_by_key(|event| event.t);
    }

    /// The true wall clock at an event, in milliseconds since 1970.
    pub fn wall_ms(&self, t: u64) -> i64 {
        self.header.epoch_ms + (t / 1000) as i64
    }
}
