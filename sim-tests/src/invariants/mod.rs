//! The invariants: a stand-in that finds nothing, replaced at the merge.

use crate::history::History;
use crate::verdict::Verdict;

/// Judges a history.
pub fn check(_history: &History) -> Verdict {
    Verdict { findings: Vec::new() }
}
