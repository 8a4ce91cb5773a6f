//! What a checker writes its finding into.

use std::fmt::Display;

use crate::verdict::{Finding, Violation};

/// Violations kept of one invariant: a broken promise is broken a thousand times, and the first tell as much as all.
const KEPT: usize = 50;

pub(super) struct Report {
    invariant: &'static str,
    checked: u64,
    violations: Vec<Violation>,
    more: u64,
}

impl Report {
    pub fn new(invariant: &'static str) -> Self {
        Self { invariant, checked: 0, violations: Vec::new(), more: 0 }
    }

    /// Something was looked at.
    pub fn looked(&mut self) {
        self.checked += 1;
    }

    /// Something was looked at, and must hold; `what` is made only if it does not.
    pub fn hold<W: Display>(&mut self, held: bool, t: u64, what: impl FnOnce() -> W) {
        self.checked += 1;
        if !held {
            self.violated(t, what());
        }
    }

    pub fn violated(&mut self, t: u64, what: impl Display) {
        if self.violations.len() < KEPT {
            self.violations.push(Violation { invariant: self.invariant.into(), t, what: what.to_string() });
        } else {
            self.more += 1;
        }
    }

    /// In the order of time.
    pub fn finish(mut self) -> Finding {
        if self.violations.is_empty() {
            return Finding::Held { checked: self.checked };
        }
        self.violations.sort_by_key(|violation| violation.t);
        if self.more > 0
            && let Some(last) = self.violations.last_mut()
        {
            last.what.push_str(&format!(" (and {} more)", self.more));
        }
        Finding::Violated(self.violations)
    }

    /// As [`Self::finish`], but a history in which there was nothing to look at does not have the facts.
    pub fn finish_if_any(self, needs: &'static str) -> Finding {
        if self.checked == 0 && self.violations.is_empty() { Finding::NotApplicable { needs } } else { self.finish() }
    }
}
